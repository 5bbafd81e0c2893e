# SPDX-License-Identifier: Apache-2.0
"""A node's place in a run: what the files of this site say about a contract, a recipe and the data for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.budgets import cap_of, opening_cap, own_cap_of
from client.contract.starts import Start, start_of
from policies.contract.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.contract.shelf import ContractShelf, Held
    from client.settings import LocalRules
    from policies.contract.clauses import RecipeClause
    from policies.privacy.ledger import Cap
    from policies.recipe import Recipe

__all__ = ["Seat", "seat_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """This node's place in a run: contract, recipe, data set, the contract's cap, the owner's tighter one.

    ``before`` are the versions that the contract superseded: their rounds, budget and imports count.
    ``start`` is what training begins with, ``lifetime`` the owner's cap over the life of new data.
    ``recipe`` is the recipe as the data set reads it, ``run`` the run that is asked about, if there is one.
    """

    held: Held
    clause: RecipeClause
    recipe: Recipe
    dataset: str
    lineage: str
    cap: Cap | None
    own: Cap | None = None
    lifetime: str | None = None
    before: tuple[str, ...] = ()
    start: Start = field(default_factory=Start)
    run: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        """The contract and the versions that it superseded."""
        return (self.held.contract.digest, *self.before)

    @property
    def opening(self) -> Cap | None:
        """The cap that the ledger of new data is opened with."""
        return None if self.cap is None else opening_cap(self.cap, self.own, self.lifetime)

    @property
    def party(self) -> str:
        """This node's short name in the contract."""
        return self.held.party.party


def seat_of(
    shelf: ContractShelf,
    contract: str,
    recipe: str,
    *,
    rules: LocalRules,
    lineage: Callable[[str], str] = lambda _dataset: "",
    site: Callable[[Recipe, str], Recipe] = lambda recipe, _dataset: recipe,
    run: str = "",
) -> Seat:
    """This node's place under a contract and recipe, from local files alone.

    Raises:
        NoSuchThingError: Contract, recipe or data set is not here.
        RecipeVariantError: The data set fits no variant of the recipe.
        RefusedError: The contract names no data set of this party for the recipe.
    """
    held = shelf.get(contract)
    found = shelf.recipe(contract, recipe)
    clause = held.contract.recipe(recipe)
    names = clause.datasets_of(held.party.party) if clause is not None else ()
    if clause is None or not names:
        raise RefusedError(
            need="a recipe that lists a data set of this party",
            found=recipe,
            remedy="ask the participants of the recipe only",
            clause=clause.clause if clause is not None else None,
        )
    before = shelf.earlier(contract)
    return Seat(
        held=held,
        clause=clause,
        recipe=site(found, names[0]),
        dataset=names[0],
        lineage=lineage(names[0]),
        cap=cap_of(held.contract, held.party.party, before),
        own=own_cap_of(held.contract, held.party.party, rules, before),
        lifetime=rules.epsilon_lifetime,
        before=before,
        start=start_of(shelf, held, found),
        run=run,
    )
