# SPDX-License-Identifier: Apache-2.0
"""What recipes start from, on this node: fetched with the contract, kept beside it, checked before signing.

::

    contracts/<64 hex>/annex-<64 hex>     seed set, consent, start model or base checkpoint, named by the
                                          digest of its bytes

- Bytes come from the broker and are kept only if they have the digest that contract or recipe names. A broker
  that lacks one says so; the contract can be read then, and not signed.
- The facts of a round (`Start`) follow from these files alone: consents that are here and hold, the weights
  that are the recipe's. They are worked out once per contract and recipe, because bytes behind a digest
  cannot change.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.contract.shelf import check_digest
from client.errors import NoSuchThingError, PeerUnreachableError, RemoteRefusalError
from policies.contract.checks.training import NO_SEED
from policies.contract.starts import consents_on_record, named_annexes, seed_clause_of
from policies.encoding import digest
from policies.recipe import load
from policies.seeds import SeedError, read_seed_set, start_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Start", "annexes_for", "fetch_missing", "first_weights", "start_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """What training begins with, by this node's own files.

    Attributes:
        seed_set: Digest of the recipe's seed set, or ``none``: a fact of the round.
        consents: Consents that are here and hold, by digest: a fact of the round.
        weights: The start model ``[P] float32``; None where the recipe has none, or it is not here.
        donated: Digests of the episodes of the seed set: they are public, and no unit of anybody.
    """

    seed_set: str = NO_SEED
    consents: tuple[str, ...] = ()
    weights: np.ndarray | None = None
    donated: frozenset[str] = frozenset()


_NOTHING: Final = Start()


def start_of(shelf: ContractShelf, held: Held, recipe: Recipe) -> Start:
    """What a recipe starts from under a contract; never raises for what is wrong with an annex.

    A fact that does not hold is not there, and the contract refuses the round by its clause.
    """
    if recipe.start is None and seed_clause_of(held.contract, recipe.digest) is None:
        return _NOTHING
    place = (held.contract.digest, recipe.digest)
    found: Start | None = shelf.starts.get(place)
    if found is None:
        found = _read(held.contract, recipe, shelf.annexes(held.contract.digest))
        if found.weights is not None:  # else somebody may bring the missing bytes
            shelf.starts[place] = found
    return found


def _read(contract: Contract, recipe: Recipe, annexes: Mapping[str, bytes]) -> Start:
    start, weights, donated = recipe.start, None, frozenset[str]()
    if start is None:
        return Start(consents=consents_on_record(contract, recipe.digest, annexes))
    with contextlib.suppress(SeedError, KeyError):
        weights = start_weights(recipe, annexes[start.model])
    if start.seed_set is not None:
        with contextlib.suppress(SeedError, KeyError):
            donated = read_seed_set(annexes[start.seed_set]).digests
    return Start(
        seed_set=start.seed_set or NO_SEED,
        consents=consents_on_record(contract, recipe.digest, annexes),
        weights=weights,
        donated=donated,
    )


def first_weights(recipe: Recipe, start: Start, initial: np.ndarray | None) -> np.ndarray:
    """The weights that a run begins with: the start model, else those that follow from the recipe's seed.

    Raises:
        NoSuchThingError: The recipe starts from a model that is not here.
    """
    found = initial if recipe.start is None else start.weights
    if found is None:
        wanted = "" if recipe.start is None else recipe.start.model
        raise NoSuchThingError(
            need=f"the start model {wanted} of the recipe",
            found="no such bytes here",
            remedy="iriai-node contract show fetches what is missing; else ask the operator",
        )
    return found


def fetch_missing(member: Member, shelf: ContractShelf, contract: Contract) -> None:
    """Fetches what contract and recipes name and is not here; what nobody gives stays missing.

    Raises:
        DigestMismatchError: Other bytes; they are not stored.
    """
    recipes = {
        one.recipe_digest: shelf.recipe(contract.digest, one.recipe_digest) for one in contract.recipes
    }
    named = named_annexes(contract, recipes)
    for name in set(named) - set(shelf.annexes(contract.digest) if named else ()):
        with contextlib.suppress(RemoteRefusalError, PeerUnreachableError):
            data = member.client.get_bytes(f"/contracts/{contract.digest}/annexes/{name}")
            shelf.put_annex(contract.digest, check_digest(data, name))


def annexes_for(
    shelf: ContractShelf,
    base: Held,
    contract: Contract,
    recipes: Mapping[str, bytes],
    given: Iterable[bytes],
) -> dict[str, bytes]:
    """The bytes of what another text names beside its recipes: those that were given, and those of the base.

    Raises:
        NoSuchThingError: One is missing, or one was given that nothing names.
    """
    loaded = {name: load(data) for name, data in recipes.items()}
    brought, named = {digest(one): one for one in given}, named_annexes(contract, loaded)
    strangers = sorted(set(brought) - set(named))
    if strangers:
        raise NoSuchThingError(
            need="annexes that the text or a recipe names",
            found=", ".join(strangers)[:200],
            remedy="name the digest in a seed clause or a recipe's start, or leave the file out",
        )
    found = {**shelf.annexes(base.contract.digest), **brought}
    for name, wanted in named.items():
        if name not in found:
            raise NoSuchThingError(
                need=f"{wanted.what}, {name}",
                found="no such bytes",
                remedy="give the file with --annex",
                clause=wanted.clause,
            )
    return {name: found[name] for name in named}
