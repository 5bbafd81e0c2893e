# SPDX-License-Identifier: Apache-2.0
"""``iriai-node privacy``: what a recipe's plan costs and carries here, and whether training keeps it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_options import FOLDER, Dir, Json, end, group, tell
from client.settings import Home

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["privacy"]

privacy = group("Privacy: what a plan costs and carries, and whether training here keeps it.")


@privacy.command("plan")
def privacy_plan(  # noqa: PLR0917  a command line
    recipe: Annotated[Path, typer.Option("--recipe", help="The recipe, as a file.")],
    epsilon: Annotated[
        float | None, typer.Option(help="Calibrate the noise to this epsilon, instead of the recipe's.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, help="Training units of this site; counted here if left out.")
    ] = None,
    silos: Annotated[
        int | None, typer.Option(min=1, help="Silos in the mean; the recipe's least number if left out.")
    ] = None,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Noise against signal, epsilon, delta and runs left; exit 4 if so few units cannot carry it."""

    def work() -> Answer:
        from client import planning

        found = planning.plan(Home(folder), recipe=recipe, epsilon=epsilon, units=units, silos=silos)
        if found.is_refused:
            tell(found.answer.text)
        found.check()
        return found.answer

    end(work, json)


@privacy.command("audit")
def privacy_audit(
    recipe: Annotated[str, typer.Option("--recipe", help="A file; with --contract, the recipe's digest.")],
    contract: Annotated[str | None, typer.Option("--contract", help="Digest of a contract here.")] = None,
    mix: Annotated[  # noqa: FBT002
        bool, typer.Option("--mix", help="Instead: how well updates give a site's product mix away.")
    ] = False,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Tests engine, sampler and noise against the plan, on made-up units; exit 3 if the audit failed."""

    def work() -> Answer:
        from client import audits

        home = Home(folder).need()
        if mix:
            return audits.audit_mix(home, recipe, contract=contract)
        report, answer = audits.audit(home, recipe, contract=contract)
        if not report.passed:
            tell(answer.text)
        report.need_passed()
        return answer

    end(work, json)
