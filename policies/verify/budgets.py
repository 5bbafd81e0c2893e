# SPDX-License-Identifier: Apache-2.0
"""Step 9: spends of privacy budget: each once, at its full cost, under every cap, for the contract's plan."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.encoding import canonical, digest_of
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.privacy.accounting import (
    ORDERS,
    epsilon_filter,
    epsilon_rdp,
    epsilon_text,
    rho_max_nano,
    rho_step_nano,
)
from policies.privacy.blocks import TRAIN
from policies.privacy.caps import Cap, plan_facts
from policies.verify.judgements import votes_of
from policies.verify.spends import read_spends, spend_of

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report
    from policies.verify.spends import Spend

__all__ = ["check_budgets", "check_plans"]

Json = Any
_ROUNDING_NANO = 1  # per step: another platform's logarithm may differ in the last digit
_NUMBERS = (IriaiError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError)


@dataclass(slots=True, kw_only=True)
class Account:
    """What was opened for one lineage so far, by its owner's own declarations.

    Attributes:
        plans: Order, delta and cap of the first ``budget.opened`` for each plan.
        fixed: Orders and deltas of all.
        last: Cap of the last one.
        least: The smallest cap.
        loosened: Whether a later cap was larger than one before.
    """

    plans: dict[str, Budget] = field(default_factory=dict)
    fixed: set[tuple[int, float]] = field(default_factory=set)
    last: float = 0.0
    least: float = 0.0
    loosened: bool = False

    def open(self, plan: str, budget: Budget) -> None:
        """One more ``budget.opened``."""
        self.loosened = self.loosened or (bool(self.fixed) and budget.epsilon_max > self.last)
        self.least = min(self.least, budget.epsilon_max) if self.fixed else budget.epsilon_max
        self.last = budget.epsilon_max
        self.fixed.add((budget.order, budget.delta))
        self.plans.setdefault(plan, budget)


class Budget(NamedTuple):
    """A ``budget.opened``: the lineage's filter order, its delta and its cap."""

    order: int
    delta: float
    epsilon_max: float


def check_plans(history: History, report: Report) -> None:
    """AUD-060 and AUD-065, and the mechanisms' half of AUD-061, in one run."""
    _check_once(read_spends(history), report)
    _check_plans(history, _documents(history), report)


def check_budgets(history: History, report: Report) -> None:
    """AUD-062, AUD-063 and AUD-066: one pass over what was opened and spent, in all runs."""
    plans, costs = _plans(history), _Costs()
    accounts: dict[tuple[str, str], Account] = defaultdict(Account)
    lineages: dict[tuple[str, str, str], int] = defaultdict(int)
    caps = _Caps(history, plans, costs, report)
    for index, entry in history.of(EntryType.BUDGET_OPENED, EntryType.EPSILON_SPENT):
        told = history.stated(index)
        maker = history.senders.maker(index)
        if maker is None or not told:
            continue
        if entry.type is EntryType.BUDGET_OPENED:
            budget = Budget(entry.pub["alpha_star"], float(entry.pub["delta"]), float(told["epsilon_max"]))
            accounts[maker.org, told["lineage"]].open(entry.pub["plan"], budget)
            continue
        one = spend_of(index, entry, maker.org, told)
        opened = _account(accounts.get((one.org, one.lineage)), one, report)
        _check_cost(one, opened, plans.get(one.plan), lineages, costs, report=report)
        caps.take(one)
    report.facts["spent"] = dict(sorted(caps.shown.items()))


class _Costs:
    """Figures of plans, each computed once."""

    def __init__(self) -> None:
        self.facts = lru_cache(maxsize=256)(_facts)
        self.step = lru_cache(maxsize=256)(_step)
        self.most = lru_cache(maxsize=256)(_most)
        self.release = lru_cache(maxsize=256)(_release)


def _facts(canonical_plan: str) -> tuple[float, float, int, float]:
    return plan_facts(json.loads(canonical_plan))


def _step(q: float, sigma: float, order: int) -> int:
    return rho_step_nano(q=q, sigma=sigma, order=order)


def _most(epsilon: float, delta: float, order: int) -> int:
    return rho_max_nano(epsilon=epsilon, delta=delta, order=order)


def _release(q: float, sigma: float, steps: int, delta: float) -> str:
    return epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=delta))


def _plans(history: History) -> dict[str, str]:
    """Canonical text of every plan in a recipe of the bundle, training and evaluation, by digest."""
    return {name: canonical(plan).decode("utf-8") for name, plan in _documents(history).items()}


def _documents(history: History) -> dict[str, dict[str, Json]]:
    plans = {}
    for recipe in history.recipes.values():
        for name in ("plan", "evaluation"):
            plan = recipe.get(name)
            if isinstance(plan, dict):
                plans[digest_of(plan)] = plan
        for contract in history.contracts.values():
            votes = votes_of(contract, recipe)
            plans |= {} if votes is None else {digest_of(votes): votes}
    return plans


def _check_once(spends: list[Spend], report: Report) -> None:
    seen: dict[tuple[str, str], int] = {}
    for one in spends:
        first = seen.setdefault((one.org, one.mechanism), one.index)
        if first != one.index:
            report.add("AUD-060", f"mechanism run {one.mechanism} was spent at {first}", index=one.index)


def _check_plans(history: History, plans: dict[str, dict[str, Json]], report: Report) -> None:
    """AUD-065: rounds, submissions and spends name the plan of their run's recipe."""
    kinds = (EntryType.ROUND_OPENED, EntryType.SUBMISSION_RECEIVED, EntryType.EPSILON_SPENT)
    for index, entry in history.of(*kinds):
        recipe = history.recipe_of(entry.run)
        if recipe is None or recipe not in history.recipes:
            continue
        plan = history.plan_of(recipe)
        allowed = {None if plan is None else digest_of(plan)}
        if entry.type is EntryType.EPSILON_SPENT:
            if "/eval/" in entry.pub["mechanism"]:
                votes = votes_of(history.contracts.get(entry.scope or ""), history.recipes[recipe])
                allowed = {history.evaluation_of(recipe)} | (set() if votes is None else {digest_of(votes)})
            _check_mechanism(index, entry, report)
        if entry.pub["plan"] not in allowed:
            report.add("AUD-065", "another plan than the recipe's", index=index)
    for index, entry in history.of(EntryType.BUDGET_OPENED):
        plan = plans.get(entry.pub["plan"])
        if plan is None:
            report.add("AUD-065", "a budget for a plan of no recipe in the bundle", index=index)
        elif (plan.get("unit"), plan.get("adjacency")) != (entry.pub["unit"], entry.pub["adjacency"]):
            report.add("AUD-065", "unit or adjacency are not the plan's", index=index)


def _check_mechanism(index: int, entry: Entry, report: Report) -> None:
    run, *rest = entry.pub["mechanism"].split("/")
    fits = run == entry.run and (rest[0] == "eval" or rest[0] == str(entry.round))
    if not fits:
        report.add("AUD-061", f"mechanism {entry.pub['mechanism']} of another run or round", index=index)


def _account(account: Account | None, one: Spend, report: Report) -> Budget | None:
    """AUD-066: the budget that was opened for this lineage and plan before."""
    if account is None or one.plan not in account.plans:
        report.add("AUD-066", "no budget was opened for its lineage and plan before", index=one.index)
        return None
    if len(account.fixed) > 1 or account.loosened:
        report.add("AUD-066", "cap or order of the lineage changed, or its cap was loosened", index=one.index)
    return account.plans[one.plan]._replace(epsilon_max=account.least)


def _check_cost(
    one: Spend,
    budget: Budget | None,
    plan: str | None,
    lineages: dict[tuple[str, str, str], int],
    costs: _Costs,
    *,
    report: Report,
) -> None:
    """AUD-062 and the lineage's half of AUD-063."""
    if budget is None or plan is None:
        return
    if budget.order not in ORDERS:
        report.add("AUD-062", f"order {budget.order} is none that is accounted at", index=one.index)
        return
    try:
        q, sigma, _, _ = costs.facts(plan)
        step = costs.step(q, sigma, budget.order)
    except _NUMBERS as error:
        report.add("AUD-062", f"the plan's numbers: {type(error).__name__}", index=one.index)
        return
    if one.rho_nano < one.steps * (step - _ROUNDING_NANO):
        report.add("AUD-062", f"logged {one.rho_nano}, recomputed {one.steps * step}", index=one.index)
    for block in one.blocks:
        lineages[(one.org, one.lineage, block)] += max(one.rho_nano, one.steps * step)
    try:
        most = costs.most(budget.epsilon_max, budget.delta, budget.order)
    except _NUMBERS as error:
        report.add("AUD-063", f"the cap's numbers: {type(error).__name__}", index=one.index)
        return
    for block in one.blocks:
        if (found := lineages[(one.org, one.lineage, block)]) > most:
            report.add("AUD-063", f"lineage at {found} of {most} nano-rho in {block}", index=one.index)


def _cap(contract: Contract, party: str) -> Cap | None:
    caps = contract.caps(party)
    if caps is None:
        return None
    return Cap(
        scope=contract.digest,
        epsilon_total=caps.epsilon_total,
        epsilon_per_release=caps.epsilon_per_release,
        delta=caps.delta,
    )


class _Caps:
    """The contract's half of AUD-063, from the plans alone: no disclosure is needed for it.

    Under a successor everything counts that was spent under the versions before it, at the order of its caps.
    """

    def __init__(self, history: History, plans: dict[str, str], costs: _Costs, report: Report) -> None:
        self._history, self._plans, self._costs, self._report = history, plans, costs, report
        self._taken: dict[tuple[str, str, str], dict[tuple[float, float], int]] = defaultdict(dict)
        self._cap = lru_cache(maxsize=1024)(self._cap_of)
        self.shown: dict[str, Json] = {}

    def _cap_of(self, scope: str, party: str) -> tuple[Cap, int, float, int] | None:
        """A party's cap with its order, delta and what it holds at that order."""
        cap = _cap(self._history.contracts[scope], party)
        return None if cap is None else (cap, cap.order, float(cap.delta), cap.rho_max_nano)

    def take(self, one: Spend) -> None:
        """One more spend, in log order."""
        contract, plan = self._history.contracts.get(one.scope or ""), self._plans.get(one.plan)
        clause = self._history.party(one.scope, one.org)
        if contract is None or clause is None or plan is None:
            return
        try:
            self._count(one, contract, clause.party, plan)
        except _NUMBERS as error:
            self._report.add("AUD-063", f"the plan's numbers: {type(error).__name__}", index=one.index)

    def _count(self, one: Spend, contract: Contract, party: str, plan: str) -> None:
        found = self._cap(contract.digest, party)
        if found is None:
            self._report.add("AUD-063", "a spend under a contract without caps", index=one.index)
            return
        cap, order, delta, most = found
        q, sigma, steps, _ = self._costs.facts(plan)
        mine = self._taken[(contract.digest, one.org, one.split)]
        mine[(q, sigma)] = mine.get((q, sigma), 0) + one.steps
        total = sum(
            count * self._costs.step(each[0], each[1], order)
            for scope in self._history.versions(contract.digest)
            for each, count in self._taken[(scope, one.org, one.split)].items()
        )
        release = self._costs.release(q, sigma, steps, delta)
        after = epsilon_filter(rho_nano=total, delta=delta, order=order)
        if total > most:
            self._report.add("AUD-063", f"{party} at {total} of {most} nano-rho", index=one.index)
        if one.split == TRAIN and float(release) > float(cap.epsilon_per_release):
            self._report.add("AUD-063", f"one release costs {release}", index=one.index)
        if one.split == TRAIN:
            self.shown[party] = {"epsilon_after": epsilon_text(after), "rho_nano": total}
