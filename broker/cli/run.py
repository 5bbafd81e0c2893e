# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker run``: open, watch, pause, end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import RunId, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["run"]

run = typer_group("Runs of recipes.")


@command(
    run,
    "open",
    effect="recipe {recipe} of {digest} begins a run; every round reserves privacy budget at each party",
)
def run_open(
    *,
    digest: Annotated[
        str, typer.Option("--contract", help="Digest of a contract that all signed; 12 hex digits do.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", help="Id of one of its recipes.")],
    where: Where,
) -> Result:
    """Opens a run of a recipe."""
    from broker.commands import run as commands_run

    return commands_run.run_open(where, contract=digest, recipe=recipe)


@command(run, "list")
def run_list(where: Where) -> Result:
    """Lists runs."""
    from broker.commands import run as commands_run

    return commands_run.run_list(where)


@command(run, "show")
def run_show(run_id: RunId, where: Where) -> Result:
    """Shows one run and its rounds."""
    from broker.commands import run as commands_run

    return commands_run.run_show(where, run_id)


@command(run, "watch")
def run_watch(
    run_id: RunId,
    *,
    every: Annotated[int, typer.Option("--every", min=1, max=3600, help="Seconds between two looks.")] = 5,
    lines: Annotated[
        bool, typer.Option("--jsonl", help="Each change as one JSON object on standard output.")
    ] = False,
    where: Where,
) -> Result:
    """Follows a run until it is over. Exits with 3 if not every round gave its model."""
    from broker.commands import watching

    return watching.run_watch(where, run_id, every_s=every, lines=lines)


@command(run, "pause", effect="run {run_id} asks nobody once its open round is closed, until it is resumed")
def run_pause(run_id: RunId, where: Where) -> Result:
    """Pauses a run once its open round is closed; what nodes reserved or spent stays so."""
    from broker.commands import watching

    return watching.run_pause(where, run_id)


@command(run, "resume", effect="run {run_id} goes on, from its last accepted model")
def run_resume(run_id: RunId, where: Where) -> Result:
    """Lets a run go on that was paused, or whose models silos rejected; then find out why first."""
    from broker.commands import run as commands_run

    return commands_run.run_resume(where, run_id)


@command(run, "stop", effect="run {run_id} ends once its open round is closed, for good", asks=True)
def run_stop(run_id: RunId, where: Where) -> Result:
    """Ends a run once its open round is closed; what was trained may become a candidate."""
    from broker.commands import run as commands_run

    return commands_run.run_stop(where, run_id)
