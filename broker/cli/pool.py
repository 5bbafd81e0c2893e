# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker invite``, ``node``, ``recipe``, ``budget`` and ``witness``: who and what is in the pool."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core

from broker.cli.options import Reason, command, typer_group

if TYPE_CHECKING:
    import click

    from broker.answers import Result
    from broker.commands import Where

__all__ = ["budget", "invite", "node", "recipe", "witness"]


class _Invite(typer.core.TyperGroup):
    """The group; its own options alone mean ``create``, as they did before there was a group."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command that is meant before options that stand alone."""
        alone = bool(args) and args[0].startswith("--") and args[0] != "--help"
        return super().parse_args(ctx, ["create", *args] if alone else args)


invite = typer_group("Invitations: each for one organisation, single use, 72 hours.", cls=_Invite)
node = typer_group("Nodes of organisations: one each.")
recipe = typer_group("Recipes of contracts.")
budget = typer_group("Privacy budgets, by the broker's own count.")
witness = typer_group("Witnesses of the log, and the quorum.")

_Node = Annotated[str, typer.Argument(metavar="NODE", help="Id of a node, or of its organisation.")]


@command(invite, "create", effect="an invitation for {name} ({country}, group {group}) is made")
def invite_create(
    *,
    name: Annotated[str, typer.Option("--name", help="Legal name of the organisation.")],
    country: Annotated[str, typer.Option("--country", help="ISO 3166-1 alpha-2.")],
    group: Annotated[str, typer.Option("--group", help="Organisations under one owner have the same.")],
    where: Where,
) -> Result:
    """Prints an invitation for one organisation: single use, 72 hours."""
    from broker import commands

    return commands.invite(where, name=name, country=country, group=group)


@command(invite, "list")
def invite_list(where: Where) -> Result:
    """Lists invitations: for whom, until when, by whom, and what became of each."""
    from broker.commands import pool

    return pool.invite_list(where)


@command(invite, "revoke", effect="nobody can join by invitation {name} any more", asks=True)
def invite_revoke(name: str, where: Where) -> Result:
    """Takes back an invitation that nobody used."""
    from broker.commands import pool

    return pool.invite_revoke(where, name)


@command(node, "list")
def node_list(where: Where) -> Result:
    """Lists nodes: whose each is, its state, when it was heard."""
    from broker.commands import pool

    return pool.node_list(where)


@command(node, "show")
def node_show(name: _Node, where: Where) -> Result:
    """Shows a node: its key, its state, when it was heard."""
    from broker.commands import pool

    return pool.node_show(where, name)


@command(node, "revoke", effect="the end of node {name} and of its membership is proposed to a second person")
def node_revoke(name: _Node, where: Where, *, reason: Reason = "operator-decision") -> Result:
    """Proposes the end of a node, as `org remove`: each has one. To stop it now: `org suspend`."""
    from broker.commands import pool

    return pool.node_revoke(where, name, reason=reason)


@command(recipe, "check")
def recipe_check(file: Annotated[Path, typer.Argument(help="A recipe, in canonical bytes.")]) -> Result:
    """Reads a recipe as the broker would, and says what it does; nobody is asked."""
    from broker.commands import pool

    return pool.recipe_check(file)


@command(recipe, "list")
def recipe_list(where: Where) -> Result:
    """Lists the recipes of contracts: rounds, parties, digest."""
    from broker.commands import pool

    return pool.recipe_list(where)


@command(recipe, "show")
def recipe_show(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Its id, or its digest (12 digits do).")],
    where: Where,
) -> Result:
    """Shows one recipe: task, size, privacy plan, and the contracts that list it."""
    from broker.commands import pool

    return pool.recipe_show(where, name)


@command(budget, "show")
def budget_show(
    contract: Annotated[str, typer.Argument(help="Digest of a contract; its first 12 hex digits do.")],
    where: Where,
) -> Result:
    """Shows what each party spent, what open runs hold, its cap, and how much is left at this rate."""
    from broker.commands import pool

    return pool.budget_show(where, contract)


@command(witness, "list")
def witness_list(where: Where) -> Result:
    """Lists witnesses: whose each is, when it was heard, and the quorum."""
    from broker.commands import pool

    return pool.witness_list(where)


@command(witness, "add", effect="that the witness in {statement} may vote is proposed to a second person")
def witness_add(
    statement: Annotated[Path, typer.Argument(help="From `iriai-verify witness --statement`.")], where: Where
) -> Result:
    """Registers an enrolled auditor's witness, and proposes its vote; a node registers its own by itself."""
    from broker.commands import audit as commands_audit

    return commands_audit.auditor_witness(where, statement)


@command(witness, "remove", effect="that witness {name} votes no longer is proposed to a second person")
def witness_remove(name: str, where: Where, *, reason: Reason = "operator-decision") -> Result:
    """Proposes that a witness leaves the quorum; its name never comes back."""
    from broker.commands import pool

    return pool.witness_remove(where, name, reason=reason)
