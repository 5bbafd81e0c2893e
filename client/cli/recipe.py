# SPDX-License-Identifier: Apache-2.0
"""``iriai-node recipe``: write a recipe, format it, see what it will do, start it from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import command, group
from client.clock import SystemClock
from client.recipes.kinds import Kind  # noqa: TC001  typer reads the annotations

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["recipe"]

recipe = group("Recipes: what is trained, on which fields, how, under which privacy plan.")

Source = Annotated[Path, typer.Argument(metavar="FILE", help="A recipe, as JSON or YAML.")]


@command(recipe, "new")
def recipe_new(
    kind: Annotated[Kind, typer.Argument(help="What is learned.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New file; one that ends with .yaml has comments.")],
    plain: Annotated[bool, typer.Option("--plain", help="Without a privacy plan: NOT PRIVATE.")] = False,
) -> Answer:
    """Writes a complete recipe of a kind and says what to change in it."""
    from client.recipes import templates

    return templates.recipe_new(kind, out=out, plain=plain)


@command(recipe, "format")
def recipe_format(
    file: Source,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where it goes; beside FILE, as .json, if left out.")
    ] = None,
) -> Answer:
    """Fills in tensors and what a normaliser's rule gives, and writes the canonical bytes."""
    from client.recipes import completing

    return completing.recipe_format(file, out=out)


@command(recipe, "check")
def recipe_check(
    file: Source,
    *,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="A data set of this site that is to fit.")
    ] = None,
    home: Home,
) -> Answer:
    """Says what a recipe will do, and whether data here fit it; exit 3 where it cannot run."""
    from client.recipes import checking

    return checking.recipe_check(home, file, dataset=dataset, clock=SystemClock())


@command(recipe, "base")
def recipe_base(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, in canonical bytes.")],
    *,
    weights: Annotated[
        Path, typer.Option("--weights", help="Little-endian float32 of the shared tensors, in wire order.")
    ],
    licence: Annotated[str, typer.Option(help="Under which everybody may use them, like Apache-2.0.")],
    out: Annotated[Path, typer.Option("--out", help="File for the recipe that starts from them.")],
) -> Answer:
    """Writes the same recipe, started from a public checkpoint; its file becomes an annex of the contract."""
    from client.recipes import basing

    return basing.recipe_base(file, weights=weights, licence=licence, out=out)
