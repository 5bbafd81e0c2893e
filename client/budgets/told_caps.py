# SPDX-License-Identifier: Apache-2.0
"""Tightenings of this node's ledgers, as its outbox keeps them: a ledger with a looser cap is an older copy.

A tightening is in no entry of the log, because nobody else's claim hangs on it. It is kept in the outbox,
durably and *before* the ledger has it: lineage, cap, and the entry after which it comes. So a crash between
the two leaves a ledger that is refused until `client.budgets.reckoning.reconcile` appends the tightening,
to which its owner said yes; never one that forgot it.

    tell_cap(outbox, store, "6")            # then store.tighten("6")
    loosened(budgets, outbox)               # what the outbox knows and the ledgers do not
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from client.budgets import Budgets
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore

__all__ = ["ToldCap", "loosened", "tell_cap"]

_KEPT: Final = "tightened"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCap:
    """A lineage's cap from the ledger's entry ``seq`` on, which follows the one with digest ``head``."""

    lineage: str
    epsilon_total: str
    seq: int
    head: str


def tell_cap(outbox: Outbox, store: BudgetStore, epsilon_total: str) -> None:
    """Keeps for good that the owner tightened a lineage; durable when it returns.

    Args:
        outbox: Of this node.
        store: The ledger, which does not have the tightening yet.
        epsilon_total: The new cap, as a canonical decimal.
    """
    state = store.read()
    told = ToldCap(lineage=state.lineage.scope, epsilon_total=epsilon_total, seq=state.seq, head=state.head)
    name = f"{_KEPT} {told.lineage} {epsilon_total}"
    if outbox.kept(name) is None:
        with outbox.writing() as letters:
            letters.keep(name, json.dumps(asdict(told), sort_keys=True))


def loosened(budgets: Budgets, outbox: Outbox) -> tuple[ToldCap, ...]:
    """The tightest cap that was told of each lineage whose ledger is missing, or has a looser one.

    Raises:
        BudgetUnknownError: A ledger that is there does not verify.
    """
    tightest: dict[str, ToldCap] = {}
    for text in outbox.listed(_KEPT):
        one = ToldCap(**json.loads(text))
        known = tightest.get(one.lineage)
        if known is None or Decimal(one.epsilon_total) < Decimal(known.epsilon_total):
            tightest[one.lineage] = one
    return tuple(one for _, one in sorted(tightest.items()) if not _has(budgets, one))


def _has(budgets: Budgets, told: ToldCap) -> bool:
    if not budgets.has(told.lineage):
        return False
    now = budgets.ledger_of(told.lineage).read().lineage
    return Decimal(now.epsilon_total) <= Decimal(told.epsilon_total)
