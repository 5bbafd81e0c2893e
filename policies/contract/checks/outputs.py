# SPDX-License-Identifier: Apache-2.0
"""Checks of what goes out: views that somebody asks for, how fresh they are, how alike, and to which country.

- An *own* view is about who asks; a view about the *pool* is a number that several groups stand behind.
- The delay is counted from the time at which what goes out was made. It binds releases, deliveries and
  queries, not the round model that a running cohort needs.
- Differencing: two outputs whose cohorts differ by parties of fewer than k groups tell about those few. For
  outputs with differential privacy the accountant already covers the difference: ``non-dp-outputs`` leaves
  them out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.contract.case import Case, only_if
from policies.contract.findings import (
    HOUR_MS,
    Finding,
    count_at_least,
    holds,
    inside,
    listed,
    unknown,
    waited,
)
from policies.contract.requests import Deliver, Query, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import AggregationClause, ExportClause, QueriesClause

__all__ = ["ALL", "check_export", "check_outputs", "check_queries", "own_business"]

ALL = "all"  # the subject of a number about the pool
_COUNTRY = re.compile(r"[A-Z]{2}")


def check_queries(case: Case, clause: QueriesClause) -> Iterator[Finding]:
    """The view is listed, is not about another party, and enough groups stand behind it."""
    request, name = case.request, clause.clause
    if not isinstance(request, Query):
        return
    yield inside(name, "view", "view", request.view, clause.allow, remedy="ask-for-a-listed-view")
    if not case.contract.forbids("query-allow-list"):
        yield own_business(case, name)
    behind = count_at_least(
        name, "min-groups", "cohort", case.groups, clause.min_groups, remedy="wait-for-parties"
    )
    yield from _about_the_pool(case, [behind])


def own_business(case: Case, clause: str) -> Finding:
    """An own view is asked for by its owner, any other view is about the pool: a finding of this clause."""
    request, need = case.request, "about itself, or about the pool"
    if not isinstance(request, Query) or None in (request.view, request.subject, request.party):
        missing = [name for name in ("party", "subject", "view") if getattr(request, name, None) is None]
        return unknown(clause, "subject", *missing, need=need)
    want = ALL if case.about_the_pool else request.party
    found = f"about {listed([request.subject or ''])}"
    return holds(
        clause, "subject", ok=request.subject == want, need=need, found=found, remedy="ask-about-itself"
    )


def check_outputs(case: Case, clause: AggregationClause) -> Iterator[Finding]:
    """The delay, and the guard against differencing, of whatever goes out."""
    request = case.request
    if not isinstance(request, Release | Deliver | Query):
        return
    delay = waited(
        clause.clause,
        "delay",
        since=("made_at", request.made_at),
        now=case.state.now,
        wait_ms=clause.delay_hours * HOUR_MS,
        words=f"{clause.delay_hours} h",
    )
    yield from _about_the_pool(case, [delay]) if isinstance(request, Query) else [delay]
    if isinstance(request, Release | Query):
        yield from _differencing(case, request, clause)


def _differencing(case: Case, request: Release | Query, clause: AggregationClause) -> Iterator[Finding]:
    guard = clause.differencing_guard
    without_noise = guard == "non-dp-outputs"
    if guard == "off" or (without_noise and isinstance(request, Release) and _is_private(case)):
        return
    found = _far_from_earlier(case, request, clause)
    if isinstance(request, Release):
        yield found
    elif without_noise:
        bare = None if request.dp_noised is None else not request.dp_noised
        yield from _about_the_pool(
            case, only_if([found], applies=bare, fact="dp_noised", otherwise="with noise")
        )
    else:
        yield from _about_the_pool(case, [found])


def _is_private(case: Case) -> bool:
    """Whether the privacy clause refuses every model without differential privacy."""
    return case.contract.privacy.mode == "dp"


def _far_from_earlier(case: Case, request: Release | Query, clause: AggregationClause) -> Finding:
    need = f"the same groups as before, or {clause.min_parties} others"
    if request.cohort is None or request.earlier_cohorts is None:
        missing = [name for name in ("cohort", "earlier_cohorts") if getattr(request, name) is None]
        return unknown(clause.clause, "differencing", *missing, need=need)
    now = set(request.cohort)
    apart = [len(case.contract.groups(now.symmetric_difference(one))) for one in request.earlier_cohorts]
    near = [count for count in apart if 0 < count < clause.min_parties]
    return holds(
        clause.clause,
        "differencing",
        ok=not near,
        need=need,
        found=f"{min(near)} others" if near else "none like it" if apart else "the first",
        remedy="wait-for-the-same-cohort",
    )


def _about_the_pool(case: Case, findings: list[Finding] | Iterator[Finding]) -> Iterator[Finding]:
    return only_if(findings, applies=case.about_the_pool, fact="view", otherwise="an own view")


def check_export(case: Case, clause: ExportClause) -> Iterator[Finding]:
    """The recipient is in no embargoed country."""
    request, need = case.request, "not in " + (listed(clause.embargoed) or "nothing")
    if not isinstance(request, Deliver):
        return
    country = request.country
    if country is None or _COUNTRY.fullmatch(country) is None:
        yield unknown(clause.clause, "country", "country", need=need)
        return
    allowed = country not in clause.embargoed
    yield holds(clause.clause, "country", ok=allowed, need=need, found=country, remedy="deliver-elsewhere")
