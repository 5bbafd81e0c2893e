# SPDX-License-Identifier: Apache-2.0
"""``iriai-node catalogue``: what members may know of each other's data."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["catalogue"]

catalogue = group("What members may know of each other's data.")

_Class = Annotated[str | None, typer.Option("--class", help="Embodiment class, as 6r-arm.")]
_Task = Annotated[str | None, typer.Option("--task", help="One of its tasks.")]
_Episodes = Annotated[str | None, typer.Option("--episodes", help="A bucket, as 100-299, or a larger one.")]
_Recipe = Annotated[
    str | None, typer.Option("--recipe", help="Recipe that it is enough for: digest, 12 digits do.")
]
_Certified = Annotated[bool, typer.Option("--certified", help="Only with a certificate of quality.")]


@command(catalogue, "search")
def search(
    *,
    embodiment: _Class = None,
    task: _Task = None,
    episodes: _Episodes = None,
    recipe: _Recipe = None,
    certified: _Certified = False,
    one: Open,
) -> Answer:
    """Lists data sets that have all that is asked for; of others only what members may know."""
    from client import searching

    query = {"embodiment_class": embodiment, "task": task, "episodes": episodes, "recipe": recipe}
    return searching.search(one.member, query, certified=certified)


@command(catalogue, "export")
def export(*, out: Annotated[Path, typer.Option("--out", help="File to write.")], one: Open) -> Answer:
    """Writes what this member may know as DCAT (JSON-LD)."""
    from client import searching

    return searching.export(one.member, out)
