# SPDX-License-Identifier: Apache-2.0
"""The checks of each kind of clause. `CHECKS` says which of them run for which request.

Which checks run follows from the request's type, party and tier and from the contract alone, never from a
fact that may be missing: leaving a fact out makes a check unknown, it cannot remove it. A clause about one
recipe is an implication ("if it is this recipe, then ..."): it is evaluated for every request and satisfied
by a request under another recipe; that *some* recipe is meant, `@recipes` says.

Findings about the document itself use ids that no clause can have:
    @executed  signed by every contributor and the broker          @recipes  the recipe is listed
    @halted    no halt is in force                                 @tiers    the tier is listed for the recipe
    @parties   the asking party is one of the contract
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.contract.checks_pooling import check_aggregation
from policies.contract.checks_privacy import check_privacy, check_privacy_cap
from policies.contract.checks_release import check_release, check_tier
from policies.contract.checks_training import check_fields, check_purpose, check_recipe, check_secret
from policies.contract.findings import Finding, equal, flag, holds, inside, unknown
from policies.contract.requests import PUBLIC, Deliver, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.case import Case, Check
    from policies.contract.clauses import PartyClause, TermClause

__all__ = ["CHECKS", "about_the_document"]

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MAY_ASK = {
    "TrainRound": ("contributor",),
    "Aggregate": ("broker",),
    "Release": ("broker",),
    "Deliver": ("broker", "contributor"),  # the tier decides
}


def about_the_document(case: Case) -> Iterator[Finding]:
    """Findings that belong to no clause."""
    yield flag("@executed", "signed", "executed", case.state.executed, want=True, remedy="sign")
    yield flag("@halted", "not-halted", "halted", case.state.halted, want=False, remedy="resume")
    names = [one.party for one in case.contract.parties]
    if isinstance(case.request, Deliver):
        names.append(PUBLIC)
    yield inside("@parties", "known", "party", case.request.party, names, remedy="ask-as-a-party")
    yield inside(
        "@recipes",
        "listed",
        "recipe_digest",
        case.request.recipe_digest,
        [one.recipe_digest for one in case.contract.recipes],
        remedy="use-a-listed-recipe",
    )
    if isinstance(case.request, Release | Deliver):
        yield _tier_listed(case, case.request)


def _tier_listed(case: Case, request: Release | Deliver) -> Finding:
    recipe = case.contract.recipe(request.recipe_digest)
    tiers = [one.tier for one in case.contract.tiers if recipe is not None and one.recipe == recipe.id]
    if request.recipe_digest is None:
        return unknown("@tiers", "listed", "recipe_digest", need="a tier of the recipe")
    return inside("@tiers", "listed", "tier", request.tier, tiers, remedy="use-a-listed-tier")


def check_party(case: Case, clause: PartyClause) -> Iterator[Finding]:
    if clause.party != case.request.party:
        return
    yield equal(clause.clause, "key", "key", case.request.key, clause.key, remedy="ask-by-pinned-key")
    may = _MAY_ASK[case.request.TYPE]
    yield inside(clause.clause, "role", "party", clause.role, may, remedy="let-the-right-party-ask")
    exited = case.state.exited_parties
    if exited is None:
        yield unknown(clause.clause, "not-exited", "exited_parties", need="not exited")
    else:
        gone = clause.party in exited
        yield holds(
            clause.clause,
            "not-exited",
            ok=not gone,
            need="not exited",
            found="exited" if gone else "a party",
            remedy="stop-or-new-contract",
        )


def check_term(case: Case, clause: TermClause) -> Iterator[Finding]:
    now = case.state.now
    if not isinstance(now, str) or _TIME.fullmatch(now) is None:
        yield unknown(clause.clause, "not-before", "now", need=f">= {clause.effective}")
        yield unknown(clause.clause, "not-after", "now", need=f"< {clause.expires}")
        return
    yield holds(
        clause.clause,
        "not-before",
        ok=now >= clause.effective,
        need=f">= {clause.effective}",
        found=now,
        remedy="wait-for-the-term",
    )
    yield holds(
        clause.clause,
        "not-after",
        ok=now < clause.expires,
        need=f"< {clause.expires}",
        found=now,
        remedy="stop-or-new-contract",
    )


CHECKS: dict[str, Check] = {
    "party": check_party,
    "term": check_term,
    "purpose": check_purpose,
    "recipe": check_recipe,
    "fields": check_fields,
    "secret": check_secret,
    "privacy": check_privacy,
    "privacy-cap": check_privacy_cap,
    "aggregation": check_aggregation,
    "tier": check_tier,
    "release": check_release,
}
