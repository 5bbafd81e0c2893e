# SPDX-License-Identifier: Apache-2.0
"""``iriai-node privacy``: what a recipe's plan costs and carries here, and whether training keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import command, group

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["privacy"]

privacy = group("Privacy: what a plan costs and carries, and whether training here keeps it.")

Recipe = Annotated[
    str, typer.Option("--recipe", help="A file; with --contract also the recipe's digest (12 hex digits do).")
]
OfContract = Annotated[
    str | None, typer.Option("--contract", help="Digest of a contract here; 12 hex digits do.")
]


@command(privacy, "plan")
def privacy_plan(
    *,
    recipe: Recipe,
    epsilon: Annotated[
        float | None, typer.Option(help="Calibrate the noise to this epsilon, instead of the recipe's.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, help="Training units of this site; counted here if left out.")
    ] = None,
    silos: Annotated[
        int | None, typer.Option(min=1, help="Silos in the mean; the least number that may be if left out.")
    ] = None,
    strata: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks that they are of, in equal parts; those of the data here if left out, else one.",
        ),
    ] = None,
    contract: OfContract = None,
    home: Home,
) -> Answer:
    """Noise against signal, epsilon, delta, runs left; exit 4 if units, caps or contract do not carry it."""
    from client import planning

    return planning.plan(
        home,
        recipe=recipe,
        epsilon=epsilon,
        units=units,
        silos=silos,
        contract=contract,
        strata=strata,
    ).answer


@command(privacy, "audit")
def privacy_audit(
    *,
    recipe: Recipe,
    contract: OfContract = None,
    mix: Annotated[
        bool, typer.Option("--mix", help="Instead: how well updates give a site's product mix away.")
    ] = False,
    home: Home,
) -> Answer:
    """Tests engine, sampler and noise against the plan, on made-up units; exit 3 if the audit failed."""
    from client import audits

    if mix:
        return audits.audit_mix(home, recipe, contract=contract)
    return audits.audit(home, recipe, contract=contract)
