# SPDX-License-Identifier: Apache-2.0
"""Checks of releases and deliveries: tiers, embargo, evidence, approvals and vetoes.

What a tier ``requires`` are clauses that every release is judged by (`policies.contract.coherence`), so a
delivery only asks whether the model was released in the tier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.case import Case, only_under
from policies.contract.checks.uses import membership_bound, property_bound
from policies.contract.coherence import owner_of
from policies.contract.findings import (
    DAY_MS,
    Finding,
    at_least,
    digest_of,
    flag,
    holds,
    inside,
    listed,
    unknown,
    waited,
)
from policies.contract.requests import PUBLIC, Deliver, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import RecipeClause, ReleaseClause, TierClause

__all__ = ["check_release", "check_tier"]


def check_tier(case: Case, clause: TierClause) -> Iterator[Finding]:
    """Whether this tier lets the model out, and to this recipient."""
    request = case.request
    if not isinstance(request, Release | Deliver) or request.tier != clause.tier:
        return
    recipe = case.contract.index.recipe_ids[clause.recipe]
    yield from only_under(
        _tier_terms(case, request, clause, recipe), applies=case.under(recipe.recipe_digest)
    )


def _tier_terms(
    case: Case, request: Release | Deliver, clause: TierClause, recipe: RecipeClause
) -> Iterator[Finding]:
    if clause.tier == "private":
        yield holds(
            clause.clause,
            "stays-home",
            ok=False,
            need="never leaves its owner",
            found=request.TYPE,
            remedy="keep-it-at-home",
        )
    if clause.embargo_days is not None:
        yield waited(
            clause.clause,
            "embargo",
            since=("made_at", request.made_at),
            now=case.state.now,
            wait_ms=clause.embargo_days * DAY_MS,
            words=f"{clause.embargo_days} d",
        )
    if isinstance(request, Deliver):
        yield from _delivery(case, request, clause, recipe)


def _delivery(case: Case, request: Deliver, clause: TierClause, recipe: RecipeClause) -> Iterator[Finding]:
    released = request.released if isinstance(request.model, str) else None
    missing = "released" if isinstance(request.model, str) else "model"
    yield flag(clause.clause, "released", missing, released, want=True, remedy="release-first")
    least, share = clause.min_contribution, request.contribution_share
    if least is not None:
        yield at_least(
            clause.clause, "contribution", "contribution_share", share, least, remedy="contribute-more"
        )
    if clause.tier == "open" and request.party is not None:
        return  # to everybody; that the asking party is known, `@parties` says
    entitled = {
        "open": [PUBLIC],
        "consortium": [one.party for one in case.contract.contributors],
        "participant": list(recipe.participants),
        "private": [],
    }[clause.tier]
    yield inside(clause.clause, "recipient", "party", request.party, entitled, remedy="ask-for-another-tier")


def check_release(case: Case, clause: ReleaseClause) -> Iterator[Finding]:
    """Evidence, approvals and vetoes of a candidate."""
    request, name = case.request, clause.clause
    if not isinstance(request, Release):
        return
    yield digest_of(name, "candidate", "model", request.model, remedy="name-the-model")
    yield _evidence(request, clause)
    yield _approvals(case, request, clause)
    yield _veto(case, request, clause)
    if clause.max_mia_auc is not None and not case.contract.forbids("membership-inference"):
        yield membership_bound(request, name, clause.max_mia_auc)
    if clause.max_property_skill is not None and not case.contract.forbids("property-leak"):
        yield property_bound(request, name, clause.max_property_skill)


def _evidence(request: Release, clause: ReleaseClause) -> Finding:
    need = "all of " + (listed(clause.evidence) or "nothing")
    if request.evidence is None:
        return unknown(clause.clause, "evidence", "evidence", need=need)
    missing = set(clause.evidence) - set(request.evidence)
    found = "missing " + listed(missing) if missing else listed(request.evidence) or "nothing"
    return holds(
        clause.clause, "evidence", ok=not missing, need=need, found=found, remedy="produce-the-evidence"
    )


def _approvals(case: Case, request: Release, clause: ReleaseClause) -> Finding:
    least = clause.approvals.min
    need = f">= {least} groups approve"
    if request.approvals is None:
        return unknown(clause.clause, "approvals", "approvals", need=need)
    count = len(case.contract.groups(set(request.approvals) - set(request.vetoes or ())))
    return holds(
        clause.clause,
        "approvals",
        ok=count >= least,
        need=need,
        found=f"{count} groups",
        remedy="ask-for-approval",
    )


def _veto(case: Case, request: Release, clause: ReleaseClause) -> Finding:
    owners = {owner_of(case.contract, one) for one in clause.approvals.veto}
    need = "no veto of an owner of " + (listed(clause.approvals.veto) or "nothing")
    if request.vetoes is None:
        return unknown(clause.clause, "veto", "vetoes", need=need)
    vetoed = {name for name in request.vetoes if name in owners}
    return holds(
        clause.clause,
        "veto",
        ok=not vetoed,
        need=need,
        found=("veto of " + listed(vetoed)) if vetoed else "none",
        remedy="new-candidate",
    )
