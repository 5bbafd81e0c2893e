# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker catalogue``: the data sets that members describe."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["catalogue"]

catalogue = typer_group("Data sets, as their owners describe them.")

_Class = Annotated[str | None, typer.Option("--class", help="Embodiment class, as 6r-arm.")]
_Task = Annotated[str | None, typer.Option("--task", help="One of its tasks.")]
_Episodes = Annotated[str | None, typer.Option("--episodes", help="A bucket, as 100-299, or a larger one.")]
_Field = Annotated[str | None, typer.Option("--field", help="One of its fields.")]
_Certified = Annotated[bool, typer.Option("--certified", help="Only with a certificate of quality.")]


@command(catalogue, "search")
def search(
    *,
    embodiment: _Class = None,
    task: _Task = None,
    episodes: _Episodes = None,
    field: _Field = None,
    certified: _Certified = False,
    where: Where,
) -> Result:
    """Lists data sets that have all that is asked for; without options, all."""
    from broker.commands import catalogue as commands

    asked = commands.asked(embodiment, task, episodes, field, certified=certified)
    return commands.search(where, asked)


@command(catalogue, "list")
def listed(where: Where) -> Result:
    """Lists every data set."""
    from broker.commands import catalogue as commands

    return commands.search(where, {})


@command(catalogue, "show")
def show(
    dataset: Annotated[str, typer.Argument(help="Name of a data set, or ORG/NAME.")], where: Where
) -> Result:
    """Shows one data set as its owner describes it."""
    from broker.commands import catalogue as commands

    return commands.show(where, dataset)


@command(catalogue, "export")
def export(*, out: Annotated[Path, typer.Option("--out", help="File to write.")], where: Where) -> Result:
    """Writes the catalogue as DCAT (JSON-LD)."""
    from broker.commands import catalogue as commands

    return commands.export(where, out)
