# SPDX-License-Identifier: Apache-2.0
"""Checks of the privacy plan and of the epsilon caps, common ones and those of one party."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from policies.contract.case import Case, only_if
from policies.contract.checks.pooling import groups_at_least
from policies.contract.findings import Finding, at_most, decimal_of, equal, flag, holds, unknown
from policies.contract.registry import METRICS, PROTECTED_GROUPS
from policies.contract.requests import Aggregate, EpsilonAfter, Query, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import PrivacyCapClause, PrivacyClause

__all__ = ["check_privacy", "check_privacy_cap"]


def check_privacy(case: Case, clause: PrivacyClause) -> Iterator[Finding]:
    """The recipe's plan is the contract's, and no epsilon is above the common caps."""
    request = case.request
    if isinstance(request, TrainRound | Aggregate | Release):
        yield from _plan(request, clause)
        yield from _honest(case, clause)
    if isinstance(request, TrainRound):
        yield from _own_epsilon(request, clause.clause, clause.epsilon_per_release, clause.epsilon_total)
        yield from _reply_slot(request, clause)
    if isinstance(request, Release):
        yield from _cohort_epsilon(request, clause.clause, clause.epsilon_per_release, clause.epsilon_total)
    if isinstance(request, Query) and clause.mode == "dp":
        found = flag(clause.clause, "noised", "dp_noised", request.dp_noised, want=True, remedy="add-noise")
        applies = None if request.view is None else request.view == METRICS
        yield from only_if([found], applies=applies, fact="view", otherwise="another view")


def _plan(request: TrainRound | Aggregate | Release, clause: PrivacyClause) -> Iterator[Finding]:
    plan, name = request.privacy, clause.clause
    yield equal(name, "mode", "privacy.mode", plan.mode if plan else None, clause.mode, remedy="use-the-plan")
    if clause.mode == "none":
        return
    for term in ("unit", "adjacency", "filter", "noise"):
        fact = getattr(plan, term) if plan else None
        yield equal(name, term, f"privacy.{term}", fact, getattr(clause, term), remedy="use-the-plan")
    if clause.honest_min is not None:
        yield _share(clause, clause.honest_min, plan.honest_min if plan else None)
    yield _delta(clause, plan.delta if plan else None)


def _honest(case: Case, clause: PrivacyClause) -> Iterator[Finding]:
    """Noise of enough honest groups is in the sum; enough groups for a protected property to hide among."""
    if clause.honest_min is not None:
        least = clause.honest_min + case.contract.aggregation.max_colluders
        yield groups_at_least(case, clause.clause, "honest-min", least)
    if clause.protected_properties:
        yield groups_at_least(case, clause.clause, "protected-properties", PROTECTED_GROUPS)


def _reply_slot(request: TrainRound, clause: PrivacyClause) -> Iterator[Finding]:
    if clause.reply_slot_ms is None:
        return
    need, fact = f"= {clause.reply_slot_ms}", request.reply_slot_ms
    if fact is None:
        yield unknown(clause.clause, "reply-slot", "reply_slot_ms", need=need)
        return
    ok, found = fact == clause.reply_slot_ms, str(fact)
    yield holds(clause.clause, "reply-slot", ok=ok, need=need, found=found, remedy="answer-in-slots")


def _share(clause: PrivacyClause, want: int, fact: int | None) -> Finding:
    """Each share is sized for exactly the honest silos that the contract counts on."""
    check, need = "share", f"= {want}"
    if fact is None:
        return unknown(clause.clause, check, "privacy.honest_min", need=need)
    ok = fact == want
    return holds(clause.clause, check, ok=ok, need=need, found=str(fact), remedy="use-the-plan")


def _delta(clause: PrivacyClause, value: str | None) -> Finding:
    need, number = f"= {clause.delta}", decimal_of(value)
    if number is None:
        return unknown(clause.clause, "delta", "privacy.delta", need=need)
    ok = number == Decimal(clause.delta or "0")
    return holds(clause.clause, "delta", ok=ok, need=need, found=str(value), remedy="use-the-plan")


def check_privacy_cap(case: Case, clause: PrivacyCapClause) -> Iterator[Finding]:
    """No epsilon of this party is above its own caps."""
    request = case.request
    caps = (clause.epsilon_per_release, clause.epsilon_total)
    if isinstance(request, TrainRound) and request.party == clause.party:
        yield from _own_epsilon(request, clause.clause, *caps)
    if isinstance(request, Release):
        yield from _cohort_epsilon(request, clause.clause, *caps, only=clause.party)


def _own_epsilon(
    request: TrainRound, clause: str, release: str | None, total: str | None
) -> Iterator[Finding]:
    if release is not None:
        fact = request.epsilon_after_release
        yield at_most(
            clause, "epsilon-release", "epsilon_after_release", fact, release, remedy="cheaper-plan-or-amend"
        )
    if total is not None:
        fact = request.epsilon_after_total
        yield at_most(clause, "epsilon-total", "epsilon_after_total", fact, total, remedy="stop-or-amend")


def _cohort_epsilon(
    request: Release, clause: str, release: str | None, total: str | None, *, only: str | None = None
) -> Iterator[Finding]:
    for part, cap in (("release", release), ("total", total)):
        if cap is not None:
            yield _largest_epsilon(request, clause, part, cap=cap, only=only)


def _largest_epsilon(request: Release, clause: str, part: str, *, cap: str, only: str | None) -> Finding:
    check, need = f"epsilon-{part}", f"<= {cap}"
    if request.cohort is None or request.epsilon_after is None:
        fact = "cohort" if request.cohort is None else "epsilon_after"
        return unknown(clause, check, fact, need=need)
    members = {name for name in request.cohort if only is None or name == only}
    spent = {name: decimal_of(_part(request.epsilon_after, name, part)) for name in members}
    known = [value for value in spent.values() if value is not None]
    ok = all(value <= Decimal(cap) for value in known)
    if ok and len(known) < len(spent):
        missing = [f"epsilon_after.{name}.{part}" for name, value in spent.items() if value is None]
        return unknown(clause, check, *missing, need=need)
    found = format(max(known), "f") if known else "not in the cohort"
    return holds(clause, check, ok=ok, need=need, found=found, remedy="discard-or-amend")


def _part(table: Mapping[str, EpsilonAfter], name: str, part: str) -> str | None:
    entry = table.get(name)
    value: str | None = getattr(entry, part) if entry is not None else None
    return value
