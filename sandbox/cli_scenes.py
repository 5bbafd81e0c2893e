# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox cell`` and ``scenario``: recordings of simulated cells, and stories that are checked."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from sandbox.cli_options import Json, print_envelope

__all__ = ["cell", "scenario"]

cell = typer.Typer(no_args_is_help=True, help="The simulated robot cells, and recordings of them.")
scenario = typer.Typer(no_args_is_help=True, help="Named stories of a federation, played and checked.")


@cell.command("list")
def cell_list(*, as_json: Json = False) -> None:
    """The four cells, and how they differ: where parts lie, gain of the controller, mass, noise."""
    from dataclasses import asdict

    from sandbox.cells import CELLS

    found = [asdict(one) for one in CELLS.values()]
    for one in found:
        least, most = one["object_x_m"]
        rest = ", ".join(f"{name} {one[name]}" for name in ("gain", "mass", "noise"))
        typer.echo(f"{one['name']}   parts from {least:+.3f} to {most:+.3f} m, {rest}", err=as_json)
    print_envelope({"cells": found}, as_json=as_json)


@cell.command("record")
def cell_record(
    name: Annotated[str, typer.Argument(metavar="CELL", help="A, B, C or D.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: a LeRobotDataset v3.0.")],
    episodes: Annotated[int, typer.Option(min=1, max=5000, help="Training episodes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal bytes.")] = 0,
    as_json: Json = False,
) -> None:
    """Lets the scripted expert of a cell demonstrate; `iriai-node data add` imports what it writes."""
    from sandbox.cells import record

    made = record(name, out, train=episodes, seed=seed)
    words = f"{made.train} training and {made.held_out} held-out episodes, {made.frames} frames: {made.path}"
    typer.echo(words, err=as_json)
    typer.echo(f"next: iriai-node data add {made.path} --dataset NAME/pick", err=as_json)
    facts = {"dir": str(made.path), "train": made.train, "held_out": made.held_out, "frames": made.frames}
    print_envelope(facts, as_json=as_json)


@scenario.command("list")
def scenario_list(*, as_json: Json = False) -> None:
    """What can be played, and what it shows."""
    from sandbox.scenarios import SCENARIOS

    for name, one in SCENARIOS.items():
        typer.echo(f"{name:<12} {one.words}", err=as_json)
    print_envelope({"scenarios": {name: one.words for name, one in SCENARIOS.items()}}, as_json=as_json)


@scenario.command("run")
def scenario_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As scenario list names it.")],
    *,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where it is played: a folder that is empty, or none.")
    ],
    as_json: Json = False,
) -> None:
    """Plays a story with real processes and checks what must hold; exit 3 if something did not."""
    from sandbox.scenarios import play

    found = play(name, folder)
    for one in found["checks"]:
        typer.echo(f"{'ok    ' if one['held'] else 'FAILED'}  {one['what']}: {one['found']}", err=as_json)
    print_envelope(found, as_json=as_json)
    if not found["held"]:
        raise typer.Exit(3)
