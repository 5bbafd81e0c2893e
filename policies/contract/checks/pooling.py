# SPDX-License-Identifier: Apache-2.0
"""Checks of an average: who is in it, how many groups, which weights, which bounds."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from policies.contract.checks.outputs import check_outputs
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
from policies.contract.registry import HIDING
from policies.contract.requests import Aggregate, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.case import Case
    from policies.contract.clauses import AggregationClause

__all__ = ["check_aggregation", "groups_at_least"]


def check_aggregation(case: Case, clause: AggregationClause) -> Iterator[Finding]:
    """Groups, shares, weights, bounds: all that must hold before updates are averaged or go out."""
    request = case.request
    if isinstance(request, TrainRound | Aggregate | Release):
        yield _members(case, clause.clause)
        yield _groups(case, clause)
        yield _colluders(case, clause)
    if isinstance(request, TrainRound):
        yield _share_of_cohort(case, clause)
    if isinstance(request, Aggregate | Release):
        weights = _fractions(request.weights)
        yield _share(case, clause, weights)
        yield _weights(case, request, clause, weights)
    if isinstance(request, TrainRound | Aggregate):
        yield from _protocol(request, clause)
    if isinstance(request, Aggregate):
        yield from _norms(request, clause)
    yield from check_outputs(case, clause)


def _protocol(request: TrainRound | Aggregate, clause: AggregationClause) -> Iterator[Finding]:
    name, want, fact = clause.clause, clause.secure_aggregation, request.secure_aggregation
    yield equal(name, "secure-aggregation", "secure_aggregation", fact, want, remedy="use-the-protocol")
    if isinstance(request, TrainRound):
        fact = request.group_mac
        yield equal(name, "group-mac", "group_mac", fact, clause.group_mac, remedy="use-the-protocol")


def _norms(request: Aggregate, clause: AggregationClause) -> Iterator[Finding]:
    name, bound = clause.clause, request.norm_bound
    yield flag(name, "finite", "finite", request.finite, want=True, remedy="drop-the-sender")
    within = request.norms_within
    yield flag(name, "norms-within", "norms_within", within, want=True, remedy="drop-the-sender")
    yield at_most(
        name, "norm-bound", "norm_bound", bound, clause.update_norm_max, remedy="check-by-the-bound"
    )


def _members(case: Case, clause: str) -> Finding:
    need, exited, members = "contributors that have not exited", case.state.exited_parties, case.members
    if exited is None or members is None:
        missing = [case.members_fact] if members is None else []
        missing += ["exited_parties"] if exited is None else []
        return unknown(clause, "members", *missing, need=need)
    over = set(members) - case.contract.index.group_of.keys()
    over.update(set(members).intersection(exited))
    return holds(
        clause,
        "members",
        ok=not over,
        need=need,
        found=listed(over or members) or "nobody",
        remedy="ask-participants",
    )


def _groups(case: Case, clause: AggregationClause) -> Finding:
    return groups_at_least(case, clause.clause, "min-parties", clause.min_parties)


def _colluders(case: Case, clause: AggregationClause) -> Finding:
    """Also if some of them pool what they know with the broker, two honest groups hide each other."""
    return groups_at_least(case, clause.clause, "colluders", clause.max_colluders + HIDING)


def groups_at_least(case: Case, clause: str, check: str, least: int) -> Finding:
    """At least so many independent groups are in it, as a finding of this clause."""
    need, count = f">= {least} groups", case.groups
    if count is None:
        return unknown(clause, check, case.members_fact, need=need)
    return holds(
        clause,
        check,
        ok=count >= least,
        need=need,
        found=f"{count} groups",
        remedy="wait-for-parties",
    )


def _share(case: Case, clause: AggregationClause, weights: Mapping[str, Fraction] | None) -> Finding:
    need = f"<= {clause.max_share}"
    share = None if weights is None else case.contract.share(weights)
    if share is None:
        return unknown(clause.clause, "max-share", "weights", need=need)
    return _dominance(clause, share)


def _share_of_cohort(case: Case, clause: AggregationClause) -> Finding:
    """The share by the weights that the contract will give this cohort."""
    need, cohort, index = f"<= {clause.max_share}", case.members, case.contract.index
    if cohort is None:
        return unknown(clause.clause, "max-share", case.members_fact, need=need)
    by_group: dict[str, int] = {}
    for name in set(cohort) & index.weights.keys():
        group = index.group_of[name]
        by_group[group] = by_group.get(group, 0) + index.weights[name]
    if not by_group:
        remedy = "wait-for-parties"
        return holds(clause.clause, "max-share", ok=False, need=need, found="nobody", remedy=remedy)
    return _dominance(clause, Fraction(max(by_group.values()), sum(by_group.values())))


def _dominance(clause: AggregationClause, share: Fraction) -> Finding:
    return holds(
        clause.clause,
        "max-share",
        ok=share <= Fraction(clause.max_share),
        need=f"<= {clause.max_share}",
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


def _weights(
    case: Case,
    request: Aggregate | Release,
    clause: AggregationClause,
    given: Mapping[str, Fraction] | None,
) -> Finding:
    need = f"{clause.weights} weights, one for each of {case.members_fact}"
    members, table = case.members, case.contract.index.weights
    if given is None or members is None:
        missing = (["weights"] if given is None else []) + ([case.members_fact] if members is None else [])
        return unknown(clause.clause, "weights", *missing, need=need)
    ok = given.keys() == set(members) and given.keys() <= table.keys()
    if ok:
        ratios = {weight / table[name] for name, weight in given.items()}
        ok = len(ratios) == 1 and min(ratios) > 0
    found = " ".join(f"{name}:{value}" for name, value in sorted((request.weights or {}).items()))
    return holds(
        clause.clause, "weights", ok=ok, need=need, found=found[:240] or "none", remedy="use-the-weights"
    )
