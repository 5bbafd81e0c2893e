# SPDX-License-Identifier: Apache-2.0
"""The private part of a model: stem and head of a variant, which are trained here and never leave.

::

    private/<run>-<64 hex of the recipe>.part     one line of JSON, then little-endian float32; mode 0600

- A file is bound to run, recipe and variant: what it says must be what is asked for, and its values must have
  the digest that it names. Another file is refused, never trained on.
- It is written so that a crash leaves the old one or the new one. After a restart training goes on from it.
- Where there is none, the private tensors are those that the recipe's seed gives.

    parts = PrivateParts(home)
    values = parts.read(run, recipe)              # None: nothing kept; PrivatePartError
    parts.keep(run, recipe, values)
    own = own_model(home, run, recipe, shared)    # [P of the model here] of a common model
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from client.learning.errors import PrivatePartError
from client.learning.weights import initial_weights
from client.settings import write_durably
from policies.encoding import canonical, digest, parse
from policies.errors import EncodingError
from policies.forward import joined, private_of

if TYPE_CHECKING:
    from pathlib import Path

    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["PrivateParts", "own_model", "site_recipe"]

Array32 = npt.NDArray[np.float32]
_SCHEMA: Final = "iriai-private-part/1"
_FLOAT: Final = np.dtype("<f4")
_RUN: Final = re.compile(r"[a-z0-9_]{1,40}")


class PrivateParts:
    """The private parts in a node's folder."""

    def __init__(self, home: Home) -> None:
        self._folder = home.private

    def path(self, run: str, recipe: Recipe) -> Path:
        """Where the part of a run and recipe lies, or will.

        Raises:
            PrivatePartError: The run has no name of a run.
        """
        if not _RUN.fullmatch(run):
            raise _foreign("the private part of a run", ascii(run)[:60])
        return self._folder / f"{run}-{recipe.digest.removeprefix('sha256:')}.part"

    def read(self, run: str, recipe: Recipe) -> Array32 | None:
        """The part that was kept, ``[P] float32``; None where nothing was.

        Raises:
            PrivatePartError: The file is another's, or damaged.
            RecipeVariantError: No variant was chosen.
        """
        path, size = self.path(run, recipe), recipe.own_parameters - recipe.parameters
        try:
            head, _, data = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        try:
            said = parse(head)
        except EncodingError as error:
            raise _foreign("a private part", "another file") from error
        if said != _head(run, recipe, data) or len(data) != size * _FLOAT.itemsize:
            raise _foreign(f"the private part of {run} and variant {recipe.variant}", "another, or damaged")
        return np.frombuffer(data, dtype=_FLOAT).astype(np.float32)

    def keep(self, run: str, recipe: Recipe, values: Array32) -> None:
        """Writes the part; durable when it returns."""
        data = np.ascontiguousarray(values, dtype=_FLOAT).tobytes()
        write_durably(self.path(run, recipe), canonical(_head(run, recipe, data)) + b"\n" + data)
        self._folder.chmod(0o700)


def own_model(home: Home, run: str, recipe: Recipe, shared: Array32) -> Array32:
    """The whole model here, ``[P] float32``, of a common one; itself where nothing is private.

    Raises:
        PrivatePartError: The kept part is another's, or damaged.
        RecipeVariantError: No variant was chosen.
    """
    if not recipe.has_private:
        return shared
    kept = PrivateParts(home).read(run, recipe)
    private = private_of(recipe, initial_weights(recipe)) if kept is None else kept
    return np.asarray(joined(recipe, np.asarray(shared, dtype=np.float32), private), dtype=np.float32)


def site_recipe(home: Home, recipe: Recipe, dataset: str) -> Recipe:
    """The recipe as a data set of this site reads it: with the variant that fits it.

    Raises:
        RecipeVariantError: No variant fits, or several do.
        DatasetUnknownError: There is no such data set.
    """
    if recipe.variants is None:
        return recipe
    from client.data import Store

    entry = Store(home.data).catalogue().dataset(dataset)
    columns = {name.partition(".")[2]: size for name, size in entry.columns.items()}
    return recipe.site(columns, str((entry.embodiment or {}).get("class", "unknown")))


def _head(run: str, recipe: Recipe, data: bytes) -> dict[str, str]:
    return {
        "schema": _SCHEMA,
        "run": run,
        "recipe": recipe.digest,
        "variant": recipe.variant or "",
        "values": digest(data),
    }


def _foreign(need: str, found: str) -> PrivatePartError:
    return PrivatePartError(
        need=need,
        found=found,
        remedy="put the file back from a copy, or remove it: training of stem and head begins anew",
    )
