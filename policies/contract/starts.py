# SPDX-License-Identifier: Apache-2.0
"""What a recipe starts from, as contract, recipe and annexes say it; all three must say the same.

- A contract alone cannot be checked for it: a recipe is bytes behind a digest. So it is checked wherever
  recipes are at hand: before a text is offered, before it is signed, and again for each round, as the facts
  ``seed_set`` and ``seed_consents``.
- `check_starts`, in this order, and the first that does not hold is refused by its clause:

1. a recipe starts from a seed set exactly where a seed clause says so, and from the one that it names; a
   base checkpoint has no episodes behind it, and no clause;
2. seed set, start model and every consent are there, byte for byte;
3. the seed set is sound, has what the recipe reads, and shows allowed fields only;
4. every donation's consent is signed by the key that the contract pins for the party, and names exactly the
   party's episodes of that data set, under the clause's licence;
5. nobody else's episode is in the set;
6. the start model or base checkpoint has the recipe's length and finite values.

    for wanted in named_annexes(contract, recipes): ...    # digests, each with its clause and what it is
    check_starts(contract, recipes, annexes)
    consents_on_record(contract, recipe_digest, annexes)   # the fact; never raises for a bad document
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.consents import ConsentInvalidError, SeedError, check_agreed, open_consent
from policies.contract.errors import ContractInvalidError
from policies.donations import check_given
from policies.encoding import digest
from policies.errors import IriaiError
from policies.identity import parse_key
from policies.seeds import (
    SeedSet,
    SeedSetInvalidError,
    check_fits,
    read_seed_set,
    start_weights,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import Contract, Donation, RecipeClause, SeedClause
    from policies.recipe import Recipe

__all__ = ["Named", "check_said", "check_starts", "consents_on_record", "named_annexes", "seed_clause_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Bytes that a contract or one of its recipes names by digest, beside the recipes themselves."""

    digest: str
    clause: str
    what: str


def seed_clause_of(contract: Contract, recipe_digest: str) -> SeedClause | None:
    """The clause about what a recipe starts from, or None."""
    recipe = contract.recipe(recipe_digest)
    return next((one for one in contract.seed_sets if recipe and one.recipe == recipe.id), None)


def named_annexes(contract: Contract, recipes: Mapping[str, Recipe]) -> dict[str, Named]:
    """What has to travel with a contract beside its recipes, by digest.

    Args:
        contract: The text.
        recipes: Its recipes, by digest.
    """
    found: dict[str, Named] = {}
    for clause in contract.seed_sets:
        name = clause.clause
        listed = [(clause.seed_set, "the seed set")]
        listed += [(one.consent, f"the consent of {one.party} for {one.dataset}") for one in clause.donations]
        found |= {one: Named(digest=one, clause=name, what=what) for one, what in listed}
    for one in contract.recipes:
        recipe = recipes.get(one.recipe_digest)
        if recipe is not None and recipe.start is not None:
            model, seeded = recipe.start.model, recipe.start.seed_set is not None
            what = f"the {'start model' if seeded else 'base checkpoint'} of recipe {one.id}"
            found[model] = Named(digest=model, clause=one.clause, what=what)
    return found


def check_said(contract: Contract, recipes: Mapping[str, Recipe]) -> None:
    """Step 1: a recipe starts from a seed set exactly where a clause says so, and from that one.

    Raises:
        ContractInvalidError: With the clause.
    """
    for clause in contract.recipes:
        recipe, seeded = recipes[clause.recipe_digest], seed_clause_of(contract, clause.recipe_digest)
        named = None if recipe.start is None else recipe.start.seed_set
        if seeded is None and named is not None:
            raise _differs(clause.clause, f"a seed clause for recipe {clause.id}", named)
        if seeded is not None and named != seeded.seed_set:
            found = "one that starts from none" if named is None else f"one that starts from {named}"
            raise _differs(seeded.clause, f"a recipe that starts from {seeded.seed_set}", found)


def check_starts(contract: Contract, recipes: Mapping[str, Recipe], annexes: Mapping[str, bytes]) -> None:
    """Refuses a contract whose recipes start from anything else than it says; see the module.

    Args:
        contract: The text.
        recipes: Its recipes, all of them, by digest.
        annexes: What travels with it, by digest.

    Raises:
        ContractInvalidError: Steps 1 and 2.
        SeedSetInvalidError: Steps 3 and 5.
        ConsentInvalidError: Step 4.
        StartModelUnfitError: Step 6.
    """
    # 1.
    check_said(contract, recipes)
    # 2.
    for wanted in named_annexes(contract, recipes).values():
        data = annexes.get(wanted.digest)
        if data is None or digest(data) != wanted.digest:
            found = "no such bytes" if data is None else digest(data)
            raise _differs(wanted.clause, f"{wanted.what}, {wanted.digest}", found)
    for clause in contract.recipes:
        recipe, seeded = recipes[clause.recipe_digest], seed_clause_of(contract, clause.recipe_digest)
        if seeded is not None:
            _check_seeds(contract, seeded, recipe, annexes)
        if recipe.start is not None:
            _check_model(clause, recipe, annexes[recipe.start.model])


def _check_seeds(
    contract: Contract, seeded: SeedClause, recipe: Recipe, annexes: Mapping[str, bytes]
) -> None:
    try:
        # 3.
        seeds = read_seed_set(annexes[seeded.seed_set])
        check_fits(seeds, recipe)
        strangers = {name for one in seeds.episodes for name in one.fields} - set(contract.fields.allow)
        if strangers:
            raise SeedSetInvalidError(
                need=f"fields that {contract.fields.clause} allows",
                found=" ".join(sorted(strangers)),
                remedy="donate under the recipe of this contract, which shows its fields only",
            )
        # 4.
        for one in seeded.donations:
            _check_donation(contract, one, seeds, annexes[one.consent])
        # 5.
        given = {(one.party, one.dataset) for one in seeded.donations}
        others = sorted({(one.party, one.dataset) for one in seeds.episodes} - given)
        if others:
            raise SeedSetInvalidError(
                need="episodes of the donations that the clause lists",
                found=", ".join(f"{party} {dataset}" for party, dataset in others)[:200],
                remedy="list every donation in the clause, or join the seed set without it",
            )
    except SeedError as error:
        raise _by(seeded.clause, error) from error


def _check_model(clause: RecipeClause, recipe: Recipe, data: bytes) -> None:
    try:
        # 6.
        start_weights(recipe, data)
    except SeedError as error:
        raise _by(clause.clause, error) from error


def _check_donation(contract: Contract, donation: Donation, seeds: SeedSet, data: bytes) -> None:
    party = contract.party(donation.party)
    consent = open_consent(data, parse_key(party.key if party else ""))
    check_agreed(consent, party=donation.party, dataset=donation.dataset, licence=donation.licence)
    given = seeds.of_donation(donation.party, donation.dataset)
    check_given(consent, given)
    if any(one.consent != donation.consent for one in given):
        raise ConsentInvalidError(
            need=f"episodes under the consent {donation.consent}",
            found="another consent",
            remedy="join the donations again",
        )


def consents_on_record(
    contract: Contract, recipe_digest: str, annexes: Mapping[str, bytes]
) -> tuple[str, ...]:
    """Digests of the consents that are there and hold, for what a recipe starts from: the fact of a round.

    A document that is missing or does not hold is left out, whatever is wrong with it.
    """
    clause = seed_clause_of(contract, recipe_digest)
    return () if clause is None else tuple(sorted(set(_held(contract, clause, annexes))))


def _held(contract: Contract, clause: SeedClause, annexes: Mapping[str, bytes]) -> Iterator[str]:
    data = annexes.get(clause.seed_set)
    try:
        seeds = None if data is None or digest(data) != clause.seed_set else read_seed_set(data)
    except SeedError:
        return
    for one in clause.donations:
        consent = annexes.get(one.consent)
        if seeds is None or consent is None or digest(consent) != one.consent:
            continue
        try:
            _check_donation(contract, one, seeds, consent)
        except IriaiError:
            continue
        yield one.consent


def _differs(clause: str, need: str, found: str) -> ContractInvalidError:
    return ContractInvalidError(
        clause=clause,
        need=need,
        found=found,
        remedy="let clause, recipe and annexes name the same seed set: iriai-node seed fit writes the recipe",
    )


def _by(clause: str, error: SeedError) -> SeedError:
    """The same refusal, in the name of a clause."""
    return type(error)(need=error.need, found=error.found, remedy=error.remedy, clause=clause)
