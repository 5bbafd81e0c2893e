# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker proposal``: what takes two people, and the second one's word."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Reason, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["proposal"]

proposal = typer_group("What takes two people: proposed by one, approved by another.")

_Id = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its id, prop_….")]


@command(proposal, "list")
def proposal_list(
    where: Where,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
) -> Result:
    """Lists what waits for a second person."""
    from broker.commands import proposals

    return proposals.proposal_list(where, everything=everything)


@command(proposal, "show")
def proposal_show(name: _Id, where: Where) -> Result:
    """Shows what exactly would happen, who wants it, and its digest."""
    from broker.commands import proposals

    return proposals.proposal_show(where, name)


@command(proposal, "approve", effect="your approval of {name} is signed, and what it says is done")
def proposal_approve(
    name: _Id,
    where: Where,
    *,
    digest: Annotated[
        str | None, typer.Option("--digest", help="Refuse unless it is this one that would be signed.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="I read it; do not ask.")] = False,
) -> Result:
    """Shows it, asks, signs your approval of exactly that. No terminal: --digest, or --yes (in short)."""
    from broker.commands import proposals

    def confirm(words: tuple[str, ...]) -> bool:
        for line in words:
            typer.echo(line, err=True)
        if yes or digest is not None:
            return True
        return sys.stdin.isatty() and typer.confirm("sign this?", err=True)

    return proposals.proposal_approve(where, name, expected=digest, confirm=confirm, brief=yes)


@command(proposal, "refuse", effect="{name} ends and nothing of it is done", asks=True)
def proposal_refuse(name: _Id, where: Where, *, reason: Reason = "operator-decision") -> Result:
    """Ends a proposal; who made it may as well."""
    from broker.commands import proposals

    return proposals.proposal_refuse(where, name, reason=reason)
