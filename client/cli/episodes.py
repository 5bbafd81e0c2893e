# SPDX-License-Identifier: Apache-2.0
"""``iriai-node data mark|exclude``: what a person says of single episodes. Nothing of it leaves."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from client.cli.data import Dataset, data
from client.cli.options import DryRun, command
from client.clock import SystemClock
from client.rehearsal import rehearsed, told_dry

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["data"]

Episodes = Annotated[list[str], typer.Argument(metavar="EPISODE...", help="Ids, as data show has them.")]
By = Annotated[str, typer.Option("--by", help="Who looked.")]


@command(data, "mark")
def data_mark(
    dataset: Dataset,
    episodes: Episodes,
    *,
    outcome: Annotated[Literal["success", "fail", "unknown"], typer.Option(help="How they ended.")],
    by: By,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """A person says how episodes ended; a model's attempts are imitated only if it was a success."""
    from client.datasets.marking import data_mark as mark

    with rehearsed(home) if dry_run else nullcontext(home.need()) as into:
        done = mark(into, dataset, episodes, outcome=outcome, by=by, clock=SystemClock())
    return told_dry(done) if dry_run else done


@command(data, "exclude")
def data_exclude(
    dataset: Dataset,
    episodes: Episodes,
    *,
    by: By,
    include: Annotated[
        bool, typer.Option("--include", help="Take them back, unless a check excludes them.")
    ] = False,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """A person leaves episodes out of training, before the data are first used; they stay stored."""
    from client.datasets.excluding import data_exclude as exclude
    from client.identity import load_identity

    identity = load_identity(home.need())
    with rehearsed(home) if dry_run else nullcontext(home) as into:
        done = exclude(into, identity, dataset, episodes, include=include, by=by, clock=SystemClock())
    return told_dry(done) if dry_run else done
