# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.pooling`: who is in an average, how many groups, which weights."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import z3

from policies.contract.amendment.formulas_outputs import outputs_terms
from policies.contract.amendment.terms import Term, View, at_most, equal, flag, groups_at_least, holds
from policies.contract.amendment.variables import NumberMap, decimal_value
from policies.contract.registry import HIDING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import AggregationClause

__all__ = ["aggregation_terms"]


def aggregation_terms(view: View, clause: AggregationClause) -> Iterator[Term]:
    """Groups, shares, weights, bounds: all that must hold before updates are averaged or go out."""
    name = clause.clause
    if view.type in ("TrainRound", "Aggregate", "Release"):
        yield _members(view, name)
        yield groups_at_least(view, name, "min-parties", clause.min_parties)
        yield groups_at_least(view, name, "colluders", clause.max_colluders + HIDING)
        yield _share(view, clause)
    if view.type in ("Aggregate", "Release"):
        yield _weights(view, clause)
    if view.type in ("TrainRound", "Aggregate"):
        yield equal(name, "secure-aggregation", view.text("secure_aggregation"), clause.secure_aggregation)
    if view.type == "TrainRound":
        yield equal(name, "group-mac", view.text("group_mac"), clause.group_mac)
    if view.type == "Aggregate":
        yield flag(name, "finite", view.flag("finite"), want=True)
        yield flag(name, "norms-within", view.flag("norms_within"), want=True)
        yield at_most(name, "norm-bound", view.number("norm_bound"), clause.update_norm_max)
    yield from outputs_terms(view, clause)


def _members(view: View, clause: str) -> Term:
    members, exited = view.members, view.set("exited_parties")
    contributors = {one.party for one in view.contract.contributors}
    gone = z3.Or([z3.And(members.has[one], exited.has[one]) for one in sorted(contributors)])
    ok = z3.And(members.only(contributors), z3.Not(gone))
    return holds(clause, "members", ok, members.known, exited.known)


def _share(view: View, clause: AggregationClause) -> Term:
    most = decimal_value(clause.max_share)
    if view.type == "TrainRound":  # the weights that the contract will give this cohort
        cohort = view.set("cohort")
        table = _table(view)
        weights = {one: z3.If(cohort.has[one], _real(table[one]), z3.RealVal(0)) for one in table}
        return holds(clause.clause, "max-share", _share_within(view, weights, most), cohort.known)
    given = view.facts.fact("weights", NumberMap)
    weights = {one: z3.If(given.has[one], given.of[one], z3.RealVal(0)) for one in given.names}
    total = z3.Sum(list(weights.values()))
    return holds(
        clause.clause, "max-share", _share_within(view, weights, most), given.known, total > z3.RealVal(0)
    )


def _share_within(view: View, weights: Mapping[str, z3.ArithRef], most: z3.ArithRef) -> z3.BoolRef:
    """No group has more than its share of weights that sum to something."""
    total = z3.Sum(list(weights.values()))
    by_group: dict[str, list[z3.ArithRef]] = {}
    for name, weight in weights.items():
        owner = view.contract.party(name)
        by_group.setdefault(owner.group if owner else name, []).append(weight)
    return z3.And([total > 0, *(z3.Sum(group) <= most * total for group in by_group.values())])


def _table(view: View) -> dict[str, Fraction]:
    names = [one.party for one in view.contract.contributors]
    return {name: Fraction(Decimal(value)) for name, value in view.contract.weights(names).items()}


def _real(value: Fraction) -> z3.ArithRef:
    return z3.RealVal(str(value))


def _weights(view: View, clause: AggregationClause) -> Term:
    """One weight for each member, all of them the contract's up to one common factor."""
    given, members = view.facts.fact("weights", NumberMap), view.members
    table = _table(view)
    names = sorted(table)
    each = [given.has[one] == members.has[one] for one in members.names]
    positive = [z3.Implies(members.has[one], given.of[one] > 0) for one in names]
    alike = [
        z3.Implies(
            z3.And(members.has[one], members.has[two]),
            given.of[one] * _real(table[two]) == given.of[two] * _real(table[one]),
        )
        for one, two in itertools.combinations(names, 2)
    ]
    ok = z3.And([members.only(names), members.any_of(names), *each, *positive, *alike])
    return holds(clause.clause, "weights", ok, given.known, members.known)
