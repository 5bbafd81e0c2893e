# SPDX-License-Identifier: Apache-2.0
"""Digests as people give them: whole, or their first 12 or more hex digits.

- A name that does not fit one known digest is refused; none is ever guessed.
- Contracts and recipes that are asked for here are those on this node: no broker is asked (`named_here`). A
  recipe is a file, or a digest under a contract.

    whole("fafe01a2b3c4", known, what="contract", remedy="iriai-node contract list")   # sha256:fafe01a2b3c4…
    found = named_here(home, "recipe.json", contract=None)
    found = named_here(home, "0123456789ab", contract="fafe01a2b3c4")
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.answers import short
from client.errors import NoSuchThingError
from policies.encoding import is_digest
from policies.limits import RECIPE_BYTES
from policies.recipe import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.contract.shelf import ContractShelf, Held
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["Named", "is_abbreviation", "named_here", "whole"]

_PREFIX: Final = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


def is_abbreviation(name: str) -> bool:
    """Whether a name is a digest, or the beginning of one."""
    return _PREFIX.fullmatch(name) is not None


def whole(name: str, known: Iterable[str], *, what: str, remedy: str) -> str:
    """The whole digest behind its first 12 or more hex digits; a whole one is given back as it is.

    Args:
        name: As a person gave it.
        known: Digests among which it must be.
        what: Of what they are, for the error.
        remedy: Likewise.

    Raises:
        NoSuchThingError: It is no beginning of a digest, or of none of these, or of several.
    """
    if is_digest(name):
        return name
    if not is_abbreviation(name):
        raise NoSuchThingError(
            need="a digest, or its first 12 hex digits", found=ascii(name)[:80], remedy=remedy
        )
    digits = name.removeprefix("sha256:")
    found = [one for one in sorted(set(known)) if one.removeprefix("sha256:").startswith(digits)]
    if len(found) != 1 or not is_digest(found[0]):
        raise NoSuchThingError(
            need=f"one {what} whose digest begins so", found=f"{len(found)} for {name}", remedy=remedy
        )
    return found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A recipe, and the contract under which it is asked about; ``shelf`` is where that lies."""

    recipe: Recipe
    held: Held | None = None
    shelf: ContractShelf | None = None


def named_here(home: Home, recipe: str, *, contract: str | None) -> Named:
    """The recipe that a person means, and the contract; from files on this node.

    Args:
        home: The node's folder.
        recipe: A file with its canonical bytes; with a contract also its digest, or the beginning of that.
        contract: Digest of a contract that is here, or its first 12 hex digits.

    Raises:
        NoSuchThingError: No such file, no such contract here, or no such recipe of the contract.
        RecipeError: The file holds no recipe.
    """
    if contract is None:
        return Named(recipe=load(_file(Path(recipe))))
    from client.contract.shelf import ContractShelf
    from client.identity import load_identity

    shelf = ContractShelf(home, own_key=load_identity(home).key.public)
    remedy = "iriai-node contract list; iriai-node contract show DIGEST fetches one that is not here"
    held = shelf.get(whole(contract, shelf.digests(), what="contract here", remedy=remedy))
    found = _of_contract(shelf, held, recipe) if is_abbreviation(recipe) else load(_file(Path(recipe)))
    return Named(recipe=found, held=held, shelf=shelf)


def _of_contract(shelf: ContractShelf, held: Held, name: str) -> Recipe:
    known = {one.recipe_digest: one.id for one in held.contract.recipes}
    listed = ", ".join(f"{short(one)} ({label})" for one, label in known.items())
    remedy = f"one of the recipes of contract {short(held.contract.digest)}: {listed}"
    digest = whole(name, known, what="recipe of the contract", remedy=remedy)
    if digest not in known:
        raise NoSuchThingError(need="a recipe of the contract", found=short(digest), remedy=remedy)
    return shelf.recipe(held.contract.digest, digest)


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(RECIPE_BYTES + 1)
    except OSError as error:
        digits = is_abbreviation(str(path))
        raise NoSuchThingError(
            need=f"the file {path}",
            found=type(error).__name__,
            remedy="a digest of a recipe needs --contract beside it" if digits else "check its name",
        ) from error
