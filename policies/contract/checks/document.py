# SPDX-License-Identifier: Apache-2.0
"""Findings about the document itself. Their ids begin with ``@``, which no clause can have.

    @executed  signed by every contributor and the broker      @recipes  the recipe is listed
    @parties   the asking party is one of the contract         @tiers    the tier is listed for the recipe
    @standing  in force, for whatever is new work              @queries  the contract allows queries at all

A superseded or terminated contract lets nothing new begin; what was released under it is still delivered. A
round that was opened before a successor took effect is closed under the contract that it was opened with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract.findings import Finding, flag, holds, inside, unknown
from policies.contract.requests import PUBLIC, Aggregate, Deliver, Query, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.case import Case

__all__ = ["STANDINGS", "SUPERSEDED", "about_the_document", "standings_for"]

IN_FORCE: Final = "in-force"
SUPERSEDED: Final = "superseded"
STANDINGS: Final = (IN_FORCE, SUPERSEDED, "terminated")
_NEW_WORK: Final = frozenset({"TrainRound", "Release", "Join"})


def standings_for(request_type: str) -> tuple[str, ...]:
    """Where a contract may stand when it is asked this."""
    if request_type == Aggregate.TYPE:
        return (IN_FORCE, SUPERSEDED)
    return (IN_FORCE,) if request_type in _NEW_WORK else STANDINGS


def about_the_document(case: Case) -> Iterator[Finding]:
    """Findings that belong to no clause."""
    request, contract = case.request, case.contract
    yield flag("@executed", "signed", "executed", case.state.executed, want=True, remedy="sign")
    yield inside(
        "@standing",
        "standing",
        "standing",
        case.state.standing,
        standings_for(request.TYPE),
        remedy="use-the-successor",
    )
    names = contract.index.names
    if isinstance(request, Deliver):
        names = (*names, PUBLIC)
    yield inside("@parties", "known", "party", request.party, names, remedy="ask-as-a-party")
    if isinstance(request, Query):
        yield _queries_allowed(case)
    if isinstance(request, Aggregate | Release | Deliver) or (
        isinstance(request, TrainRound) and not contract.forbids("recipe-digest")
    ):
        yield recipe_listed(case, "@recipes")
    if isinstance(request, Release | Deliver):
        yield _tier_listed(case, request)


def recipe_listed(case: Case, clause: str) -> Finding:
    """Whether the recipe is one of the contract's, as a finding of this clause."""
    digests = case.contract.index.digests
    return inside(
        clause, "listed", "recipe_digest", case.recipe_digest, digests, remedy="use-a-listed-recipe"
    )


def _tier_listed(case: Case, request: Release | Deliver) -> Finding:
    recipe = case.contract.recipe(request.recipe_digest)
    tiers = [one.tier for one in case.contract.tiers if recipe is not None and one.recipe == recipe.id]
    if request.recipe_digest is None:
        return unknown("@tiers", "listed", "recipe_digest", need="a tier of the recipe")
    return inside("@tiers", "listed", "tier", request.tier, tiers, remedy="use-a-listed-tier")


def _queries_allowed(case: Case) -> Finding:
    has = case.contract.queries is not None
    found = "one" if has else "none"
    return holds(
        "@queries", "listed", ok=has, need="a clause of queries", found=found, remedy="amend-the-contract"
    )
