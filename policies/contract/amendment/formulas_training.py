# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.training`: purposes, recipes, seed sets, fields and trade secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import z3

from policies.contract.amendment.terms import Term, View, equal, holds, none_of, only, only_if, within
from policies.contract.checks.training import NO_SEED
from policies.contract.registry import CANARY_REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import FieldsClause, PurposeClause, RecipeClause, SecretClause, SeedClause

__all__ = ["fields_terms", "purpose_terms", "recipe_terms", "secret_terms", "seed_terms"]


def purpose_terms(view: View, clause: PurposeClause) -> Iterator[Term]:
    """The run is for the recipe's purpose."""
    asked = view.text("recipe_digest")
    own = [one.recipe_digest for one in view.contract.recipes if one.purpose == clause.id]
    found = equal(clause.clause, "purpose", view.text("purpose"), clause.id)
    yield from only_if([found], known=asked.known, applies=asked.among(own))


def recipe_terms(view: View, clause: RecipeClause) -> Iterator[Term]:
    """Data set, rounds, steps and participants are those of the recipe clause."""
    yield from view.only_under(_recipe_terms(view, clause), clause.recipe_digest)


def _recipe_terms(view: View, clause: RecipeClause) -> Iterator[Term]:
    name = clause.clause
    if view.type == "TrainRound":
        party, dataset = view.text("party"), view.text("dataset")
        own = [
            z3.And(party.equals(one), dataset.among(clause.datasets_of(one))) for one in clause.participants
        ]
        yield holds(name, "dataset", z3.Or(own), party.known, dataset.known)
        yield within(name, "local-steps", view.whole("local_steps"), clause.max_local_steps_per_round)
        if clause.id not in {one.recipe for one in view.contract.seed_sets}:
            yield equal(name, "seed-set", view.text("seed_set"), NO_SEED)
    yield within(name, "rounds", view.whole("round"), clause.max_rounds)
    yield only(name, "participants", view.members, clause.participants)


def seed_terms(view: View, clause: SeedClause) -> Iterator[Term]:
    """The recipe starts from the agreed episodes, and every donor's consent is on record."""
    recipe = next(one for one in view.contract.recipes if one.id == clause.recipe)
    consents = view.set("seed_consents")
    wanted = consents.all_of(one.consent for one in clause.donations)
    found = [
        equal(clause.clause, "seed-set", view.text("seed_set"), clause.seed_set),
        holds(clause.clause, "consents", wanted, consents.known),
    ]
    yield from view.only_under(found, recipe.recipe_digest)


def fields_terms(view: View, clause: FieldsClause) -> Iterator[Term]:
    """Only allowed fields enter a training tensor."""
    asked = view.set("fields")
    secret = {name for one in clause.trade_secret for name in one.fields}  # their own clauses refuse these
    listed = asked.only({*clause.allow, *secret})
    yield holds(clause.clause, "allow", z3.And(asked.any_of(asked.names), listed), asked.known)


def secret_terms(view: View, clause: SecretClause) -> Iterator[Term]:
    """None of a party's trade secrets is read; none left its mark in a candidate that was tested for it."""
    if view.type == "TrainRound":
        yield none_of(clause.clause, "secret", view.set("fields"), clause.fields)
    if view.type == "Release" and CANARY_REPORT in view.contract.release.evidence:
        yield none_of(clause.clause, "canary", view.set("canaries_fired"), clause.fields)
