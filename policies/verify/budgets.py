# SPDX-License-Identifier: Apache-2.0
"""Step 9: spends of privacy budget: each once, at its full cost, under every cap, for the contract's plan."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from policies.encoding import digest_of
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
from policies.verify.spends import read_spends

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report
    from policies.verify.spends import Spend

__all__ = ["check_budgets"]

Json = Any
_ROUNDING_NANO = 1  # per step: another platform's logarithm may differ in the last digit
_NUMBERS = (IriaiError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A ``budget.opened``: the lineage's cap and its filter order, by its owner's own declaration."""

    index: int
    plan: str
    delta: float
    order: int
    epsilon_max: float


def check_budgets(history: History, report: Report) -> None:
    """AUD-060, AUD-062, AUD-063, AUD-065 and AUD-066."""
    plans = _plans(history)
    spends = read_spends(history)
    accounts = _accounts(history)
    _check_once(spends, report)
    _check_plans(history, plans, report)
    lineages: dict[tuple[str, str, str], int] = defaultdict(int)
    for one in spends:
        account = _account(accounts, one, report)
        _check_cost(one, account, plans.get(one.plan), lineages, report)
    _check_contract_caps(history, plans, spends, report)


def _plans(history: History) -> dict[str, dict[str, Json]]:
    """Every plan in a recipe of the bundle, training and evaluation, by digest."""
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


def _accounts(history: History) -> dict[tuple[str, str], list[Account]]:
    """Opened budgets by organisation and lineage, as their owners signed them."""
    accounts: dict[tuple[str, str], list[Account]] = defaultdict(list)
    for index, entry in history.of(EntryType.BUDGET_OPENED):
        sender, told = history.senders.get(index), history.stated(index)
        if sender is None or not told:
            continue
        accounts[(sender.org, told["lineage"])].append(
            Account(
                index=index,
                plan=entry.pub["plan"],
                delta=float(entry.pub["delta"]),
                order=entry.pub["alpha_star"],
                epsilon_max=float(told["epsilon_max"]),
            )
        )
    return accounts


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


def _account(accounts: dict[tuple[str, str], list[Account]], one: Spend, report: Report) -> Account | None:
    """AUD-066: the budget that was opened for this lineage and plan before."""
    known = [
        account
        for (org, lineage), opened in accounts.items()
        for account in opened
        if (org, lineage) == (one.org, one.lineage) and account.index < one.index
    ]
    fitting = [account for account in known if account.plan == one.plan]
    if not fitting:
        report.add("AUD-066", "no budget was opened for its lineage and plan before", index=one.index)
        return None
    fixed = {(account.order, account.delta) for account in known}
    if len(fixed) > 1 or any(late.epsilon_max > early.epsilon_max for early, late in pairwise(known)):
        report.add("AUD-066", "cap or order of the lineage changed, or its cap was loosened", index=one.index)
    return replace(fitting[0], epsilon_max=min(account.epsilon_max for account in known))


def _check_cost(
    one: Spend,
    account: Account | None,
    plan: dict[str, Json] | None,
    lineages: dict[tuple[str, str, str], int],
    report: Report,
) -> None:
    """AUD-062 and the lineage's half of AUD-063."""
    if account is None or plan is None:
        return
    if account.order not in ORDERS:
        report.add("AUD-062", f"order {account.order} is none that is accounted at", index=one.index)
        return
    try:
        q, sigma, _, _ = plan_facts(plan)
        step = rho_step_nano(q=q, sigma=sigma, order=account.order)
    except _NUMBERS as error:
        report.add("AUD-062", f"the plan's numbers: {type(error).__name__}", index=one.index)
        return
    if one.rho_nano < one.steps * (step - _ROUNDING_NANO):
        report.add("AUD-062", f"logged {one.rho_nano}, recomputed {one.steps * step}", index=one.index)
    for block in one.blocks:
        lineages[(one.org, one.lineage, block)] += max(one.rho_nano, one.steps * step)
    try:
        most = rho_max_nano(epsilon=account.epsilon_max, delta=account.delta, order=account.order)
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


def _check_contract_caps(
    history: History, plans: dict[str, dict[str, Json]], spends: list[Spend], report: Report
) -> None:
    """The contract's half of AUD-063, from the plans alone: no disclosure is needed for it.

    Under a successor everything counts that was spent under the versions before it, at the order of its caps.
    """
    taken: dict[tuple[str, str, str], dict[tuple[float, float], int]] = defaultdict(dict)
    shown: dict[str, Json] = {}
    for one in spends:
        contract, clause = history.contracts.get(one.scope or ""), history.party(one.scope, one.org)
        plan = plans.get(one.plan)
        if contract is None or clause is None or plan is None:
            continue
        try:
            cap = _cap(contract, clause.party)
            if cap is None:
                report.add("AUD-063", "a spend under a contract without caps", index=one.index)
                continue
            q, sigma, steps, _ = plan_facts(plan)
            mine = taken[(contract.digest, one.org, one.split)]
            mine[(q, sigma)] = mine.get((q, sigma), 0) + one.steps
            total = sum(
                count * rho_step_nano(q=each[0], sigma=each[1], order=cap.order)
                for scope in history.versions(contract.digest)
                for each, count in taken[(scope, one.org, one.split)].items()
            )
            delta = float(cap.delta)
            release = epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=delta)
            after = epsilon_filter(rho_nano=total, delta=delta, order=cap.order)
            most = cap.rho_max_nano
        except _NUMBERS as error:
            report.add("AUD-063", f"the plan's numbers: {type(error).__name__}", index=one.index)
            continue
        if total > most:
            report.add("AUD-063", f"{clause.party} at {total} of {most} nano-rho", index=one.index)
        if one.split == TRAIN and float(epsilon_text(release)) > float(cap.epsilon_per_release):
            report.add("AUD-063", f"one release costs {epsilon_text(release)}", index=one.index)
        if one.split == TRAIN:
            shown[clause.party] = {"epsilon_after": epsilon_text(after), "rho_nano": total}
    report.facts["spent"] = dict(sorted(shown.items()))
