# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.outputs`: views, delays, differencing and countries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import z3

from policies.contract.amendment.terms import (
    Term,
    View,
    counted,
    enough,
    holds,
    inside,
    only_if,
    waited,
)
from policies.contract.checks.outputs import ALL
from policies.contract.registry import OWN_VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import AggregationClause, ExportClause, QueriesClause

__all__ = ["export_terms", "outputs_terms", "own_business", "queries_terms"]

_HOUR_S: Final = 3_600


def queries_terms(view: View, clause: QueriesClause) -> Iterator[Term]:
    """The view is listed, is not about another party, and enough groups stand behind it."""
    name, cohort = clause.clause, view.set("cohort")
    yield inside(name, "view", view.text("view"), clause.allow)
    if not view.contract.forbids("query-allow-list"):
        yield own_business(view, name)
    behind = holds(name, "min-groups", enough(view.groups_in(cohort), clause.min_groups), cohort.known)
    yield from view.only_for_the_pool([behind])


def own_business(view: View, clause: str) -> Term:
    """An own view is asked for by its owner, any other view is about the pool."""
    asked, subject, party = view.text("view"), view.text("subject"), view.text("party")
    both = sorted(set(subject.names) & set(party.names))
    itself = z3.Or([z3.And(subject.equals(one), party.equals(one)) for one in both])
    ok = z3.If(asked.among(OWN_VIEWS), itself, subject.equals(ALL))
    return holds(clause, "subject", ok, asked.known, subject.known, party.known)


def outputs_terms(view: View, clause: AggregationClause) -> Iterator[Term]:
    """The delay, and the guard against differencing, of whatever goes out."""
    if view.type not in ("Release", "Deliver", "Query"):
        return
    delay = waited(
        clause.clause, "delay", view.time("made_at"), view.time("now"), clause.delay_hours * _HOUR_S
    )
    yield from view.only_for_the_pool([delay]) if view.type == "Query" else [delay]
    if view.type != "Deliver":
        yield from _differencing(view, clause)


def _differencing(view: View, clause: AggregationClause) -> Iterator[Term]:
    without_noise = clause.differencing_guard == "non-dp-outputs"
    covered = without_noise and view.type == "Release" and view.contract.privacy.mode == "dp"
    if clause.differencing_guard == "off" or covered:
        return
    found = _far_from_earlier(view, clause)
    if view.type == "Release":
        yield found
        return
    if without_noise:
        noised = view.flag("dp_noised")
        bare = list(only_if([found], known=noised.known, applies=z3.Not(noised.true)))
        yield from view.only_for_the_pool(bare)
        return
    yield from view.only_for_the_pool([found])


def _far_from_earlier(view: View, clause: AggregationClause) -> Term:
    cohort, earlier = view.set("cohort"), view.cohorts("earlier_cohorts")
    pairs = zip(view.groups_in(cohort), view.groups_in(earlier.one), strict=True)
    apart = counted(z3.Xor(now, before) for now, before in pairs)
    near = z3.And(earlier.any, apart > 0, apart < clause.min_parties)
    return holds(clause.clause, "differencing", z3.Not(near), cohort.known, earlier.known)


def export_terms(view: View, clause: ExportClause) -> Iterator[Term]:
    """The recipient is in no embargoed country."""
    country = view.text("country")
    yield holds(clause.clause, "country", z3.Not(country.among(clause.embargoed)), country.known)
