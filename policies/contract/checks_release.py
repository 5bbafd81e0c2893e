# SPDX-License-Identifier: Apache-2.0
"""Checks of releases and deliveries: tiers, evidence, approvals and vetoes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.case import Case, only_under
from policies.contract.coherence import owner_of
from policies.contract.findings import Finding, flag, holds, inside, listed, unknown
from policies.contract.requests import PUBLIC, Deliver, Release
from policies.encoding import is_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import RecipeClause, ReleaseClause, TierClause

__all__ = ["check_release", "check_tier"]


def check_tier(case: Case, clause: TierClause) -> Iterator[Finding]:
    """Whether this tier lets the model out, and to this recipient."""
    request = case.request
    if not isinstance(request, Release | Deliver) or request.tier != clause.tier:
        return
    recipe = next(one for one in case.contract.recipes if one.id == clause.recipe)
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
    if not isinstance(request, Deliver):
        return
    released = request.released if isinstance(request.model, str) else None
    missing = "released" if isinstance(request.model, str) else "model"
    yield flag(clause.clause, "released", missing, released, want=True, remedy="release-first")
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
    if request.model is None:
        yield unknown(name, "candidate", "model", need="a digest")
    else:
        known = is_digest(request.model)
        yield holds(
            name,
            "candidate",
            ok=known,
            need="a digest",
            found=listed([request.model]),
            remedy="name-the-model",
        )
    yield _evidence(request, clause)
    yield _approvals(case, request, clause)
    yield _veto(case, request, clause)


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
