# SPDX-License-Identifier: Apache-2.0
"""Checks of what may be trained on: purposes, recipes, seed sets, fields and trade secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.case import Case, only_under
from policies.contract.findings import Finding, equal, holds, inside, listed, none_of, only, unknown, within
from policies.contract.registry import CANARY_REPORT
from policies.contract.requests import Aggregate, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import FieldsClause, PurposeClause, RecipeClause, SecretClause, SeedClause

__all__ = ["NO_SEED", "check_fields", "check_purpose", "check_recipe", "check_secret", "check_seed"]

NO_SEED = "none"  # a recipe that starts from nothing


def check_purpose(case: Case, clause: PurposeClause) -> Iterator[Finding]:
    """The run is for the recipe's purpose."""
    request = case.request
    if not isinstance(request, TrainRound | Aggregate):
        return
    recipe = case.contract.recipe(request.recipe_digest)
    applies = None if request.recipe_digest is None else recipe is not None and recipe.purpose == clause.id
    found = equal(clause.clause, "purpose", "purpose", request.purpose, clause.id, remedy="use-the-purpose")
    yield from only_under([found], applies=applies)


def check_recipe(case: Case, clause: RecipeClause) -> Iterator[Finding]:
    """Data set, rounds, steps and participants are those of the recipe clause."""
    yield from only_under(_recipe_terms(case, clause), applies=case.under(clause.recipe_digest))


def _recipe_terms(case: Case, clause: RecipeClause) -> Iterator[Finding]:
    request, name = case.request, clause.clause
    if isinstance(request, TrainRound):
        if request.party is None:
            yield unknown(name, "dataset", "party", need="a data set of the party")
        else:
            own = clause.datasets_of(request.party)
            yield inside(name, "dataset", "dataset", request.dataset, own, remedy="use-a-listed-dataset")
        yield within(
            name,
            "local-steps",
            "local_steps",
            request.local_steps,
            clause.max_local_steps_per_round,
            remedy="stop-or-amend",
        )
        if clause.id not in case.contract.index.seeded:
            fact = request.seed_set
            yield equal(name, "seed-set", "seed_set", fact, NO_SEED, remedy="use-the-seed-set")
    if isinstance(request, TrainRound | Aggregate):
        yield within(name, "rounds", "round", request.round, clause.max_rounds, remedy="stop-or-amend")
        yield only(
            name,
            "participants",
            case.members_fact,
            case.members,
            clause.participants,
            remedy="ask-participants",
        )


def check_seed(case: Case, clause: SeedClause) -> Iterator[Finding]:
    """The recipe starts from the agreed episodes, and every donor's consent is on record."""
    recipe = case.contract.index.recipe_ids[clause.recipe]
    yield from only_under(_seed_terms(case, clause), applies=case.under(recipe.recipe_digest))


def _seed_terms(case: Case, clause: SeedClause) -> Iterator[Finding]:
    request, name = case.request, clause.clause
    if not isinstance(request, TrainRound):
        return
    fact = request.seed_set
    yield equal(name, "seed-set", "seed_set", fact, clause.seed_set, remedy="use-the-seed-set")
    need = "a consent for each donation"
    if request.seed_consents is None:
        yield unknown(name, "consents", "seed_consents", need=need)
        return
    missing = [one for one in clause.donations if one.consent not in request.seed_consents]
    found = "none of " + listed(f"{one.party}:{one.dataset}" for one in missing) if missing else "all"
    yield holds(name, "consents", ok=not missing, need=need, found=found, remedy="file-the-consent")


def check_fields(case: Case, clause: FieldsClause) -> Iterator[Finding]:
    """Only allowed fields enter a training tensor."""
    if not isinstance(case.request, TrainRound):
        return
    asked = case.request.fields
    need = "only " + listed(clause.allow)
    if asked is None:
        yield unknown(clause.clause, "allow", "fields", need=need)
        return
    secret = case.contract.index.secrets  # their own clauses refuse these
    over = set(asked).difference(clause.allow) - secret
    yield holds(
        clause.clause,
        "allow",
        ok=bool(asked) and not over,
        need=need,
        found=listed(over or asked) or "no field",
        remedy="drop-the-fields",
    )


def check_secret(case: Case, clause: SecretClause) -> Iterator[Finding]:
    """None of a party's trade secrets is read; none left its mark in a candidate that was tested for it."""
    request, name = case.request, clause.clause
    if isinstance(request, TrainRound):
        yield none_of(name, "secret", "fields", request.fields, clause.fields, remedy="drop-the-fields")
    if isinstance(request, Release) and CANARY_REPORT in case.contract.release.evidence:
        fired = request.canaries_fired
        yield none_of(name, "canary", "canaries_fired", fired, clause.fields, remedy="discard-the-candidate")
