# SPDX-License-Identifier: Apache-2.0
"""From which budgets a plan's run would be taken at this site, and how many runs each still holds.

- ``life``: the cap over the life of the data, under all contracts. That of their ledger where there is one;
  else the one that a ledger will be opened with: ``local.epsilon_lifetime``, or the tighter of the contract's
  cap and ``local.epsilon_total``, or 8 where neither is known.
- ``contract``: its cap for this party, less what was spent under it and the versions before.
- ``own``: ``local.epsilon_total``, where it is tighter than the contract's and no other line has it.

A budget is None where no order holds a single such run. Nothing is written.

Before all figures the ledgers are compared with what this node told the log, as `budget show` does it: a
folder that is empty is no unspent budget (`check_told`).

    check_told(home)
    found = purses(home, plan, lineage, named)
    found.runs_left                              # the least of them
    found.check(plan)                            # raises if one of them holds no run
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.budgets import Budgets, cap_of, opening_cap, own_cap_of
from client.budgets.reckoning import require_known
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.planning.words import budget_words
from client.settings import load_settings
from policies.privacy.accounting import epsilon_text
from policies.privacy.errors import BudgetExhaustedError, OrderUnfitError, PlanIncompleteError
from policies.privacy.ledger import Cap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.naming import Named
    from client.privacy.store import BudgetStore
    from client.settings import Home, LocalRules
    from policies.privacy.plan import DpPlan

__all__ = ["Binding", "Purses", "check_told", "opening_source", "purses"]

Json = dict[str, Any]
_LIFETIME_EPSILON: Final = "8"  # the cap that is reckoned with where nobody set one
_MORE: Final = {
    "ledger": "new data; the ledger of these is only tightened",
    "lifetime": "a larger epsilon_lifetime in [local] of node.toml",
    "settings": "a larger epsilon_total in [local] of node.toml",
    "contract": "a contract with larger caps: iriai-node contract counter",
    "default": "say how much these data may give: epsilon_lifetime in [local] of node.toml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One cap that a run has to fit under: whose it is, its epsilon, and its budget if it holds one run."""

    source: str
    epsilon: str
    budget: Json | None

    def check(self, asked: DpPlan) -> None:
        """Returns if a run of the plan fits.

        Raises:
            BudgetExhaustedError: One run costs more than the epsilon that was set, or than what is left.
            OrderUnfitError: No order holds a run.
        """
        one = epsilon_text(asked.epsilon_rdp)
        cap, remedy = budget_words(self.source, self.epsilon), f"less epsilon a run; or {_MORE[self.source]}"
        if self.source != "default" and float(one) > float(self.epsilon):
            raise BudgetExhaustedError(
                need=f"a run that {cap} holds", found=f"epsilon {one} for one run", remedy=remedy
            )
        if self.budget is None:
            raise OrderUnfitError(
                need=f"an order at which {cap} holds one run", found=f"none for epsilon {one}", remedy=remedy
            )
        if self.budget["runs_left"] < 1:
            raise BudgetExhaustedError(
                need=f"{cap} to hold one run of this plan",
                found=f"rho {self.budget['rho_left_nano'] / 1e9:.4f} left, and a run costs "
                f"{self.budget['rho_run_nano'] / 1e9:.4f}",
                remedy=f"{remedy}; a budget does not come back",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Purses:
    """The budgets in the form of the planner's ``budget``; ``life`` and ``contract`` may hold no run.

    Attributes:
        life: Over the life of the data.
        contract: Of the contract; None without one too.
        own: The owner's under the contract.
        opened: With which cap the ledger was or will be opened: ``from``, ``epsilon``, and whether it
            ``is_open``.
        binding: All that apply.
    """

    life: Json | None
    contract: Json | None
    own: Json | None
    opened: Json
    binding: tuple[Binding, ...]

    @property
    def runs_left(self) -> int:
        """The least of all that apply."""
        return min(0 if one.budget is None else int(one.budget["runs_left"]) for one in self.binding)

    def check(self, asked: DpPlan) -> None:
        """Returns if every budget holds a run.

        Raises:
            BudgetExhaustedError, OrderUnfitError: Of the first that does not (`Binding.check`).
        """
        for one in self.binding:
            one.check(asked)


def check_told(home: Home) -> None:
    """Returns if every spend that this node told the log is in a ledger; no node has told of none.

    Raises:
        BudgetUnknownError: A ledger is lost, or does not verify.
        BudgetDivergedError: A ledger is an older copy.
    """
    from client.identity import load_identity
    from client.membership import pinned_broker
    from client.outbox import Outbox

    if not home.outbox.exists():
        return
    identity, clock = load_identity(home), SystemClock()
    budgets, outbox = (
        Budgets(home, key=identity.key, clock=clock),
        Outbox.of(home, identity, origin=pinned_broker(home).origin, clock=clock, entropy=SystemEntropy()),
    )
    try:
        require_known(budgets, outbox)
    finally:
        budgets.close()
        outbox.close()


def purses(home: Home, asked: DpPlan, lineage: str | None, named: Named) -> Purses:
    """The budgets that a run of a plan would be taken from.

    Args:
        home: The node's folder.
        asked: The plan.
        lineage: Of the data that are here; None plans for new ones.
        named: The recipe, and the contract if one is meant.

    Raises:
        BudgetUnknownError: The ledger of the data does not verify.
    """
    rules, cap, own = load_settings(home).local, None, None
    if named.held is not None and named.shelf is not None:
        contract, party = named.held.contract, named.held.party.party
        before = named.shelf.earlier(contract.digest)
        cap, own = cap_of(contract, party, before), own_cap_of(contract, party, rules, before)
    source, opening = _opening(asked, cap, own, rules)
    with _ledger(home, lineage) as store:
        genesis = None if store is None else store.state.genesis
        life = _purse(source, opening, asked) if store is None else _open_purse(store, asked)
        epsilon = opening.epsilon_total if store is None else store.state.lineage.epsilon_total
        under = None if cap is None else _purse("contract", cap, asked, store)
        mine = None if own is None else _purse("settings", own, asked, store)
    first = "ledger" if store is not None else source
    binding = [Binding(source=first, epsilon=epsilon, budget=life)]
    if cap is not None:
        binding.append(Binding(source="contract", epsilon=cap.epsilon_total, budget=under))
    if own is not None:
        binding.append(Binding(source="settings", epsilon=own.epsilon_total, budget=mine))
    return Purses(
        life=life,
        contract=under,
        own=mine,
        opened={
            "is_open": genesis is not None,
            "from": "ledger" if genesis is not None else source,
            "epsilon": (genesis or opening).epsilon_total,
        },
        binding=tuple(binding),
    )


def opening_source(rules: LocalRules, own: Cap | None, *, by_contract: bool) -> str:
    """Who decides about the cap that the ledger of new data is opened with."""
    if rules.epsilon_lifetime is not None:
        return "lifetime"
    if by_contract:
        return "contract" if own is None else "settings"
    return "default" if rules.epsilon_total is None else "settings"


def _opening(asked: DpPlan, cap: Cap | None, own: Cap | None, rules: LocalRules) -> tuple[str, Cap]:
    source = opening_source(rules, own, by_contract=cap is not None)
    if cap is not None:
        return source, opening_cap(cap, own, rules.epsilon_lifetime)
    total = rules.epsilon_lifetime or rules.epsilon_total or _LIFETIME_EPSILON
    release = repr(asked.epsilon_rdp)
    return source, Cap(scope="new", epsilon_total=total, epsilon_per_release=release, delta=asked.delta)


def _purse(source: str, cap: Cap, asked: DpPlan, store: BudgetStore | None = None) -> Json | None:
    """A cap, less what a ledger holds under it; None where no order holds one of its releases."""
    try:
        order, whole = cap.order, cap.rho_max_nano
    except (OrderUnfitError, PlanIncompleteError):
        return None
    taken = 0
    if store is not None:
        figures = store.figures(cap)
        taken = figures.rho_spent_nano + figures.rho_held_nano
    return _facts(source, cap.epsilon_total, order, whole - taken, asked)


def _open_purse(store: BudgetStore, asked: DpPlan) -> Json:
    """What is left in the fullest block of a ledger."""
    figures = store.figures()
    left = figures.rho_max_nano - figures.rho_spent_nano - figures.rho_held_nano
    return _facts("ledger", figures.epsilon_max, figures.order, left, asked)


def _facts(source: str, epsilon: str, order: int, left: int, asked: DpPlan) -> Json:
    run = asked.steps * asked.rho_step_nano(order=order)
    return {
        "from": source,
        "epsilon_total": epsilon,
        "order": order,
        "rho_run_nano": run,
        "rho_left_nano": max(0, left),
        "runs_left": max(0, left) // run,
    }


@contextmanager
def _ledger(home: Home, lineage: str | None) -> Iterator[BudgetStore | None]:
    """The ledger of a lineage while it is looked at, or None."""
    from client.identity import load_identity

    if lineage is None or not home.budget.exists():
        yield None
        return
    budgets = Budgets(home, key=load_identity(home).key, clock=SystemClock())
    try:
        stores = [budgets.find(stem) for stem in budgets.lineages()]
        yield next((one for one in stores if one.state.lineage.scope == lineage), None)
    finally:
        budgets.close()
