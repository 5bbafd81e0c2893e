# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker org``: who is in, who is stopped, who is put out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Reason, Yes, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["org"]

org = typer_group("Organisations: who waits, who is in, who is stopped, who was put out.")

_Org = Annotated[str, typer.Argument(metavar="ORG")]
_Fingerprint = Annotated[str | None, typer.Option("--fingerprint", help="Refuse unless the node's is this.")]
_Left = Annotated[bool, typer.Option("--left", help="The organisation itself asked for it.")]


@command(org, "list")
def org_list(where: Where) -> Result:
    """Lists organisations: who waits, who is in, who was put out."""
    from broker import commands

    return commands.members(where)


@command(org, "show")
def org_show(name: _Org, where: Where) -> Result:
    """Shows one organisation: its keys, its state, who approved it, when its node was heard."""
    from broker.commands import organisations

    return organisations.org_show(where, name)


@command(org, "approve", effect="your approval of {name} is signed and recorded")
def org_approve(name: _Org, where: Where, *, fingerprint: _Fingerprint = None, yes: Yes = False) -> Result:
    """Signs your approval of an organisation; two operators have to. Without a terminal: --fingerprint."""
    from broker import commands

    def confirm(question: str) -> bool:
        if yes or fingerprint is not None:
            return True
        return sys.stdin.isatty() and typer.confirm(f"approve {question}?", err=True)

    return commands.approve(where, name, expected=fingerprint, confirm=confirm)


@command(
    org,
    "suspend",
    effect="the node of {name} is put out at once, open negotiations with it end; its keys stay",
    asks=True,
)
def org_suspend(name: _Org, where: Where, *, reason: Reason = "operator-decision") -> Result:
    """Stops an organisation at once, until two people let it in again."""
    from broker.commands import organisations

    return organisations.org_suspend(where, name, reason=reason)


@command(org, "restore", effect="that {name} takes part again is proposed to a second person")
def org_restore(name: _Org, where: Where, *, reason: Reason = "operator-decision") -> Result:
    """Proposes that a suspended organisation takes part again."""
    from broker.commands import organisations

    return organisations.org_restore(where, name, reason=reason)


@command(org, "remove", effect="the end of the membership of {name} is proposed to a second person")
def org_remove(
    name: _Org, where: Where, *, reason: Reason = "operator-decision", left: _Left = False
) -> Result:
    """Proposes the end of a membership, for good; to stop somebody now, suspend."""
    from broker.commands import organisations

    return organisations.org_remove(where, name, reason=reason, left=left)
