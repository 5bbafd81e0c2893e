# SPDX-License-Identifier: Apache-2.0
"""``recipe base``: the same recipe, begun from a public checkpoint instead of weights drawn from a seed.

The checkpoint is flat little-endian float32, the shared tensors of the recipe in wire order; with variants
that is the trunk. It must be public already, or made of public data: it costs no budget, and nobody is
claimed to be protected in it. Every party gets the bytes, as an annex of the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.answers import Answer
from client.errors import NoSuchThingError
from client.recipes.sources import write_recipe
from client.seeds import read_file
from policies.encoding import digest
from policies.recipe import load
from policies.seeds import StartModelUnfitError, is_licence, start_weights, with_base

if TYPE_CHECKING:
    from pathlib import Path

    from policies.recipe import Recipe

__all__ = ["recipe_base"]

_FLOAT_BYTES = 4


def recipe_base(recipe: Path, *, weights: Path, licence: str, out: Path) -> Answer:
    """Writes the recipe that starts from a checkpoint.

    1. the recipe is sound, in canonical bytes; 2. the licence is one line; 3. the weights have its length and
    finite values; 4. the new recipe is written.

    Raises:
        RecipeError: Step 1.
        NoSuchThingError: Step 2, or a file that cannot be read.
        StartModelUnfitError: Step 3.
        FileTakenError: Step 4.
    """
    # 1.
    data = read_file(recipe)
    loaded = load(data)
    # 2.
    if not is_licence(licence):
        raise NoSuchThingError(
            need="a licence in one line",
            found=ascii(licence)[:80],
            remedy="--licence Apache-2.0, for example",
        )
    # 3.
    values = read_file(weights)
    _check_length(loaded, values)
    started = with_base(data, base=digest(values), licence=licence)
    start_weights(load(started), values)
    # 4.
    write_recipe(out, started)
    return Answer(
        data={
            "file": str(out),
            "recipe": digest(started),
            "base": digest(values),
            "licence": licence,
            "parameters": loaded.parameters,
            "annex": str(weights),
        },
        text=(
            f"base      {digest(values)}, {loaded.parameters} values, {licence}",
            f"recipe    {digest(started)}, {out}",
            "next: name the recipe's digest in its clause; the checkpoint travels as an annex:",
            f"      iriai-broker contract offer C.yaml --recipe {out} --annex {weights}",
        ),
    )


def _check_length(recipe: Recipe, values: bytes) -> None:
    """Before the digest is taken: the commonest mistake is another order or type."""
    if len(values) == recipe.parameters * _FLOAT_BYTES:
        return
    shown = [f"{one.name} {list(one.shape)}" for one in recipe.tensors if one.is_shared]
    rest = f", … {len(shown)} in all" if len(shown) > 6 else ""  # noqa: PLR2004  as many as one line holds
    raise StartModelUnfitError(
        need=f"{recipe.parameters} little-endian float32 values, no header: {', '.join(shown[:6])}{rest}",
        found=f"{len(values)} bytes, {len(values) / _FLOAT_BYTES:g} values",
        remedy="write the tensors one after the other, row by row; iriai-node recipe check --json lists all",
    )
