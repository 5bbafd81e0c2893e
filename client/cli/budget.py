# SPDX-License-Identifier: Apache-2.0
"""``iriai-node budget``: how much privacy is spent, held and left; what an owner may do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Open, Yes, ask, command, group, retype, tell

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["budget"]

_TIGHTEN = (
    "You are about to lower the cap of these data for the rest of their life; nothing loosens it again:"
)
_WAIVE = "You are about to give up the privacy of these data under this contract, for good:"

budget = group("How much privacy is spent.")


@command(budget, "show")
def budget_show(one: Open) -> Answer:
    """Spent, held and left, per block and contract; exit 7 if a ledger lacks what the log was told."""
    from client.budgets import showing as budgets

    return budgets.budget_show(one.home, one.member, one.shelf, one.outbox)


@command(budget, "tighten")
def budget_tighten(
    *,
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    epsilon: Annotated[str, typer.Option(help="The lower cap over the life of the data.")],
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Shows what is left before and after, asks, and lowers the cap of some data for good."""
    from client.budgets import tightening

    confirm = ask(_TIGHTEN, yes=yes, prompt="Lower it for good?")
    return tightening.tighten(
        one.home,
        one.member,
        one.outbox,
        lineage=lineage,
        epsilon=epsilon,
        confirm=confirm,
        tell=tell,
    )


@command(budget, "waive")
def budget_waive(
    *,
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    contract: Annotated[str, typer.Option("--contract", help="Digest of a contract without privacy.")],
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Lets data that have a budget be used under a contract without privacy; marked for good."""
    from client.budgets import waiving
    from client.contract.reading import resolve

    return waiving.waive(
        one.home,
        one.member,
        one.shelf,
        lineage=lineage,
        contract=resolve(one.member, one.shelf, contract),
        confirm=retype(_WAIVE, yes=yes),
        tell=tell,
    )


@command(budget, "reconcile")
def budget_reconcile(*, dry_run: DryRun = False, one: Open) -> Answer:
    """Appends to an old copy of a ledger the spends that the log was told of; the worker must not run."""
    from client.budgets import reckoning

    return reckoning.reconcile(one.home, one.member, one.shelf, one.outbox, dry_run=dry_run)
