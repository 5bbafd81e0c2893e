# SPDX-License-Identifier: Apache-2.0
"""Checks of what may be trained on: purposes, recipes, fields and trade secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.case import Case, only_under
from policies.contract.findings import Finding, equal, holds, inside, listed, unknown, within
from policies.contract.requests import Aggregate, TrainRound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from policies.contract.clauses import FieldsClause, PurposeClause, RecipeClause, SecretClause

__all__ = ["check_fields", "check_purpose", "check_recipe", "check_secret"]


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
    if isinstance(request, TrainRound | Aggregate):
        yield within(name, "rounds", "round", request.round, clause.max_rounds, remedy="stop-or-amend")
        yield _subset(
            name,
            "participants",
            case.members_fact,
            case.members,
            clause.participants,
            remedy="ask-participants",
        )


def _subset(
    clause: str, check: str, fact: str, value: Collection[str] | None, want: Collection[str], *, remedy: str
) -> Finding:
    need = "only " + (listed(want) or "nothing")
    if value is None:
        return unknown(clause, check, fact, need=need)
    over = set(value) - set(want)
    return holds(
        clause, check, ok=not over, need=need, found=listed(over or value) or "nothing", remedy=remedy
    )


def check_fields(case: Case, clause: FieldsClause) -> Iterator[Finding]:
    """Only allowed fields enter a training tensor."""
    if not isinstance(case.request, TrainRound):
        return
    asked = case.request.fields
    need = "only " + listed(clause.allow)
    if asked is None:
        yield unknown(clause.clause, "allow", "fields", need=need)
        return
    secret = {name for one in clause.trade_secret for name in one.fields}  # their own clauses refuse these
    over = set(asked) - set(clause.allow) - secret
    yield holds(
        clause.clause,
        "allow",
        ok=bool(asked) and not over,
        need=need,
        found=listed(over or asked) or "no field",
        remedy="drop-the-fields",
    )


def check_secret(case: Case, clause: SecretClause) -> Iterator[Finding]:
    """None of a party's trade secrets does."""
    if not isinstance(case.request, TrainRound):
        return
    need = "none of " + listed(clause.fields)
    if case.request.fields is None:
        yield unknown(clause.clause, "secret", "fields", need=need)
        return
    read = set(case.request.fields) & set(clause.fields)
    yield holds(
        clause.clause,
        "secret",
        ok=not read,
        need=need,
        found=listed(read) or "none",
        remedy="drop-the-fields",
    )
