# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker release``: candidates at the gate, releases, and whose word each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["release"]

release = typer_group("Candidates and released models.")

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Its digest; the first 12 hex digits do.")]


@command(release, "list")
def release_list(where: Where) -> Result:
    """Lists released models and candidates at the gate."""
    from broker import commands

    return commands.release_list(where)


@command(release, "show")
def release_show(model: _Model, where: Where) -> Result:
    """Shows a candidate or a released model: votes, clauses, tiers."""
    from broker.commands import release as commands_release

    return commands_release.release_show(where, model)


@command(release, "gate")
def release_gate(model: _Model, where: Where) -> Result:
    """Shows each test of the gate with its evidence, and what a candidate waits for."""
    from broker.commands import release as commands_release

    return commands_release.release_gate(where, model)


@command(release, "approve", effect="nothing: a vote is a party's")
def release_approve(model: _Model) -> Result:  # noqa: ARG001  it is refused whatever it names
    """Says whose vote it is: a party's, at its own node; the broker has none."""
    from broker.commands import release as commands_release

    return commands_release.refuse("approve")


@command(release, "veto", effect="nothing: a veto is a party's")
def release_veto(model: _Model) -> Result:  # noqa: ARG001
    """Says whose veto it is: a party's, at its own node; the broker has none."""
    from broker.commands import release as commands_release

    return commands_release.refuse("veto")


@command(release, "publish", effect="nothing: the gate releases by itself")
def release_publish(model: _Model) -> Result:  # noqa: ARG001
    """Says what releases a model: the gate, by itself, once votes and clauses allow it."""
    from broker.commands import release as commands_release

    return commands_release.refuse("publish")


@command(release, "withdraw", effect="nothing: what was fetched cannot be taken back")
def release_withdraw(model: _Model) -> Result:  # noqa: ARG001
    """Says why a release stays, and how further deliveries are stopped."""
    from broker.commands import release as commands_release

    return commands_release.refuse("withdraw")
