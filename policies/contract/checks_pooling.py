# SPDX-License-Identifier: Apache-2.0
"""Checks of an average: who is in it, how many groups, which weights, which bounds."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from policies.contract.findings import (
    Finding,
    at_most,
    decimal_of,
    equal,
    flag,
    holds,
    listed,
    unknown,
)
from policies.contract.requests import Aggregate, Deliver, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.case import Case
    from policies.contract.clauses import AggregationClause

__all__ = ["check_aggregation"]


def check_aggregation(case: Case, clause: AggregationClause) -> Iterator[Finding]:
    """Groups, shares, weights, bounds: all that must hold before updates are averaged or released."""
    request, name = case.request, clause.clause
    if isinstance(request, Deliver):
        return
    yield _members(case, name)
    yield _groups(case, clause)
    yield _share(case, clause)
    if isinstance(request, Aggregate | Release):
        yield _weights(case, request, clause)
    if isinstance(request, TrainRound | Aggregate):
        fact = request.secure_aggregation
        yield equal(
            name,
            "secure-aggregation",
            "secure_aggregation",
            fact,
            clause.secure_aggregation,
            remedy="use-the-protocol",
        )
    if isinstance(request, Aggregate):
        yield flag(name, "finite", "finite", request.finite, want=True, remedy="drop-the-sender")
        within_bound = request.norms_within
        yield flag(name, "norms-within", "norms_within", within_bound, want=True, remedy="drop-the-sender")
        bound = request.norm_bound
        yield at_most(
            name, "norm-bound", "norm_bound", bound, clause.update_norm_max, remedy="check-by-the-bound"
        )


def _members(case: Case, clause: str) -> Finding:
    need, exited, members = "contributors that have not exited", case.state.exited_parties, case.members
    if exited is None or members is None:
        missing = [case.members_fact] if members is None else []
        missing += ["exited_parties"] if exited is None else []
        return unknown(clause, "members", *missing, need=need)
    allowed = {one.party for one in case.contract.contributors} - set(exited)
    over = set(members) - allowed
    return holds(
        clause,
        "members",
        ok=not over,
        need=need,
        found=listed(over or members) or "nobody",
        remedy="ask-participants",
    )


def _groups(case: Case, clause: AggregationClause) -> Finding:
    need = f">= {clause.min_parties} groups"
    if case.members is None:
        return unknown(clause.clause, "min-parties", case.members_fact, need=need)
    count = len(case.contract.groups(case.members))
    return holds(
        clause.clause,
        "min-parties",
        ok=count >= clause.min_parties,
        need=need,
        found=f"{count} groups",
        remedy="wait-for-parties",
    )


def _share(case: Case, clause: AggregationClause) -> Finding:
    need, request = f"<= {clause.max_share}", case.request
    if isinstance(request, TrainRound):  # the weights that the contract will give this cohort
        if request.cohort is None:
            return unknown(clause.clause, "max-share", "cohort", need=need)
        known = {one.party for one in case.contract.contributors} & set(request.cohort)
        given: Mapping[str, str] | None = case.contract.weights(known)
    else:
        given = request.weights if isinstance(request, Aggregate | Release) else None
    weights = _fractions(given)
    share = None if weights is None else case.contract.share(weights)
    if share is None:
        if isinstance(request, TrainRound):
            return holds(
                clause.clause, "max-share", ok=False, need=need, found="nobody", remedy="wait-for-parties"
            )
        return unknown(clause.clause, "max-share", "weights", need=need)
    return holds(
        clause.clause,
        "max-share",
        ok=share <= Fraction(clause.max_share),
        need=need,
        found=str(share),
        remedy="wait-for-parties",
    )


def _fractions(weights: Mapping[str, str] | None) -> dict[str, Fraction] | None:
    if weights is None:
        return None
    numbers = {name: decimal_of(value) for name, value in weights.items()}
    return (
        None
        if None in numbers.values()
        else {name: Fraction(value) for name, value in numbers.items() if value is not None}
    )


def _weights(case: Case, request: Aggregate | Release, clause: AggregationClause) -> Finding:
    need = f"{clause.weights} weights, one for each of {case.members_fact}"
    given, members = _fractions(request.weights), case.members
    if given is None or members is None:
        missing = (["weights"] if given is None else []) + ([case.members_fact] if members is None else [])
        return unknown(clause.clause, "weights", *missing, need=need)
    contributors = {one.party for one in case.contract.contributors}
    ok = set(given) == set(members) and set(members) <= contributors
    if ok:
        want = {name: Fraction(value) for name, value in case.contract.weights(members).items()}
        ratios = {given[name] / want[name] for name in want}
        ok = len(ratios) == 1 and min(ratios) > 0
    found = " ".join(f"{name}:{value}" for name, value in sorted((request.weights or {}).items()))
    return holds(
        clause.clause, "weights", ok=ok, need=need, found=found[:240] or "none", remedy="use-the-weights"
    )
