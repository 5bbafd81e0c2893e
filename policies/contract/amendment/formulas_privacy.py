# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.privacy`: the privacy plan and the epsilon caps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import z3

from policies.contract.amendment.terms import (
    Term,
    View,
    at_most,
    equal,
    flag,
    groups_at_least,
    holds,
    only_if,
    when,
)
from policies.contract.amendment.variables import Epsilons, Number, Plan, Text, Whole, decimal_value
from policies.contract.registry import METRICS, PROTECTED_GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import PrivacyCapClause, PrivacyClause

__all__ = ["cap_terms", "privacy_terms"]


def privacy_terms(view: View, clause: PrivacyClause) -> Iterator[Term]:
    """The recipe's plan is the contract's, and no epsilon is above the common caps."""
    name = clause.clause
    if view.type in ("TrainRound", "Aggregate", "Release"):
        yield from _plan(view.facts.fact("privacy", Plan), clause)
        yield from _honest(view, clause)
    if view.type == "TrainRound":
        yield from _own_epsilon(view, name, clause.epsilon_per_release, clause.epsilon_total)
        if clause.reply_slot_ms is not None:
            slot = view.whole("reply_slot_ms")
            yield holds(name, "reply-slot", slot.number == clause.reply_slot_ms, slot.known)
    if view.type == "Release":
        yield from _cohort_epsilon(view, name, clause.epsilon_per_release, clause.epsilon_total)
    if view.type == "Query" and clause.mode == "dp":
        asked = view.text("view")
        found = flag(name, "noised", view.flag("dp_noised"), want=True)
        yield from only_if([found], known=asked.known, applies=asked.equals(METRICS))


def _plan(plan: Plan, clause: PrivacyClause) -> Iterator[Term]:
    name = clause.clause
    yield _of_plan(plan, name, "mode", clause.mode)
    if clause.mode == "none":
        return
    for term in ("unit", "adjacency", "filter", "noise"):
        yield _of_plan(plan, name, term, getattr(clause, term))
    share = plan.facts["honest_min"]
    if clause.honest_min is not None and isinstance(share, Whole):
        yield holds(name, "share", share.number == clause.honest_min, plan.known, share.known)
    delta = plan.facts["delta"]
    if isinstance(delta, Number):
        same = delta.number == decimal_value(clause.delta or "0")
        yield holds(name, "delta", same, plan.known, delta.known)


def _honest(view: View, clause: PrivacyClause) -> Iterator[Term]:
    """Noise of enough honest groups is in the sum; enough groups for a protected property to hide among."""
    if clause.honest_min is not None:
        least = clause.honest_min + view.contract.aggregation.max_colluders
        yield groups_at_least(view, clause.clause, "honest-min", least)
    if clause.protected_properties:
        yield groups_at_least(view, clause.clause, "protected-properties", PROTECTED_GROUPS)


def _of_plan(plan: Plan, clause: str, term: str, want: str) -> Term:
    fact = plan.facts[term]
    if not isinstance(fact, Text):
        raise TypeError(f"privacy.{term} is no text")
    found = equal(clause, term, fact, want)
    return Term(clause, term, z3.And(plan.known, found.ok), z3.Or(z3.Not(plan.known), found.open))


def cap_terms(view: View, clause: PrivacyCapClause) -> Iterator[Term]:
    """No epsilon of this party is above its own caps."""
    caps = (clause.epsilon_per_release, clause.epsilon_total)
    if view.type == "TrainRound":
        asking = view.text("party").equals(clause.party)
        yield from when(asking, _own_epsilon(view, clause.clause, *caps))
    if view.type == "Release":
        yield from _cohort_epsilon(view, clause.clause, *caps, only=clause.party)


def _own_epsilon(view: View, clause: str, release: str | None, total: str | None) -> Iterator[Term]:
    if release is not None:
        yield at_most(clause, "epsilon-release", view.number("epsilon_after_release"), release)
    if total is not None:
        yield at_most(clause, "epsilon-total", view.number("epsilon_after_total"), total)


def _cohort_epsilon(
    view: View, clause: str, release: str | None, total: str | None, *, only: str | None = None
) -> Iterator[Term]:
    for part, cap in (("release", release), ("total", total)):
        if cap is not None:
            yield _largest_epsilon(view, clause, part, cap=cap, only=only)


def _largest_epsilon(view: View, clause: str, part: str, *, cap: str, only: str | None) -> Term:
    cohort, table = view.set("cohort"), view.facts.fact("epsilon_after", Epsilons)
    numbers = table.release if part == "release" else table.total
    said = z3.And(cohort.known, table.known)
    over, missing = [], []
    for name in cohort.names if only is None else (only,):
        given = z3.And(table.has[name], numbers[name].known)
        over.append(z3.And(cohort.has[name], given, numbers[name].number > decimal_value(cap)))
        missing.append(z3.And(cohort.has[name], z3.Not(given)))
    high, gap = z3.Or(over), z3.Or(missing)
    ok = z3.And(said, z3.Not(high), z3.Not(gap))
    return Term(clause, f"epsilon-{part}", ok, z3.Or(z3.Not(said), z3.And(z3.Not(high), gap)))
