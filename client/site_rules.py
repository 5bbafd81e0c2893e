# SPDX-License-Identifier: Apache-2.0
"""Rules of this site, which only tighten: what they refuse is refused whatever the contract allows.

``local:paused``, ``local:stopped`` (the run), ``local:dataset``, ``local:fields``, ``local:epsilon`` (the
owner's cap) and ``local:budget``: data that have a ledger are not used under a contract without privacy,
unless their owner waived it. Budget is looked at here, and no ledger is opened; the worker reserves and
spends.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from policies.contract import Finding, Outcome
from policies.privacy.accounting import epsilon_text
from policies.privacy.blocks import TRAIN
from policies.privacy.ledger import OWNER, LedgerState, epsilon_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.budgets import Budgets
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.seat import Seat
    from client.settings import LocalRules
    from policies.privacy.ledger import Cap
    from policies.privacy.plan import DpPlan

__all__ = ["SiteRules"]


class SiteRules:
    """The owner's rules as they are now, and what a run would cost the data."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        outbox: Outbox,
        rules: Callable[[], LocalRules],
        is_stopped: Callable[[str], bool],
    ) -> None:
        self._budgets = budgets
        self._outbox = outbox
        self._rules = rules
        self._is_stopped = is_stopped

    def _ledger(self, seat: Seat) -> BudgetStore | None:
        """The ledger of the seat's data; None as long as nothing was reserved: to judge opens none."""
        return self._budgets.look(seat.lineage, charged_before=self._outbox.charged(seat.lineage))

    def total_after(self, seat: Seat, plan: DpPlan, cap: Cap, run: str) -> str:
        """Epsilon of this party's data in all, under a cap, if the run goes on to its end."""
        store = self._ledger(seat)
        if store is None:
            return epsilon_text(epsilon_after(LedgerState(), cap, split=TRAIN, plan=plan.document))
        shown = store.figures(cap) if store.is_reserved(run) else store.preview(plan, cap)
        return shown.epsilon_total

    def own_cap(self, seat: Seat, run: str) -> tuple[Finding, ...]:
        """Whether the owner's cap refuses the round; at its own order, beside the contract's."""
        plan, own = seat.recipe.plan, seat.own
        if plan is None or own is None:
            return ()
        release, total = epsilon_text(plan.epsilon_rdp), self.total_after(seat, plan, own, run)
        over = Decimal(release) > Decimal(own.epsilon_per_release)
        if not over and Decimal(total) <= Decimal(own.epsilon_total):
            return ()
        found = f"{release} in one release, {total} in all"
        need = f"<= {own.epsilon_total}"
        return (_against("epsilon", need, found, "local.epsilon_total in node.toml"),)

    def broken(self, seat: Seat) -> tuple[Finding, ...]:
        """What the rules of this site refuse; satisfied rules are not listed."""
        rules = self._rules()
        found: list[Finding] = []
        if rules.paused:
            found.append(_against("paused", "not paused", "paused", "iriai-node resume"))
        if seat.run and self._is_stopped(seat.run):
            found.append(
                _against("stopped", "a run that goes on", "stopped", f"iriai-node runs resume {seat.run}")
            )
        if rules.datasets is not None and seat.dataset not in rules.datasets:
            found.append(
                _against(
                    "dataset", "in " + " ".join(rules.datasets), seat.dataset, "local.datasets in node.toml"
                )
            )
        if rules.fields is not None:
            strangers = sorted(set(seat.recipe.fields) - set(rules.fields))
            if strangers:
                found.append(
                    _against("fields", "listed fields", " ".join(strangers), "local.fields in node.toml")
                )
        own = rules.epsilon_total
        if seat.cap is None:
            found += self._uncounted(seat)
        if own is not None and seat.recipe.plan is None:
            found.append(
                _against("epsilon", f"<= {own}", "no privacy plan", "local.epsilon_total in node.toml")
            )
        return tuple(found)

    def _uncounted(self, seat: Seat) -> list[Finding]:
        """What speaks against a use without privacy: a ledger that promises one, and no waiver in it."""
        store, contract = self._ledger(seat), seat.held.contract.digest
        if store is None or store.read().waived.get(contract) == OWNER:
            return []
        need = "data that no budget was promised for, or its owner's waiver"
        found = f"privacy mode none over {seat.lineage}, which has a budget"
        remedy = f"iriai-node budget waive --lineage {seat.lineage} --contract {contract}"
        return [_against("budget", need, found, remedy)]


def _against(rule: str, need: str, found: str, remedy: str) -> Finding:
    return Finding(
        clause=f"local:{rule}", check="local", outcome=Outcome.VIOLATED, need=need, found=found, remedy=remedy
    )
