# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox cell``, ``scenario`` and ``attack``: simulated cells, stories, attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sandbox.cli_options import DryRun, Json, print_envelope, told_dry

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["attack", "cell", "scenario"]

_CHECK_FAILED = 3
Folder = Annotated[Path, typer.Option("--dir", help="Where it is played: a folder that is empty, or none.")]

cell = typer.Typer(
    suggest_commands=False, no_args_is_help=True, help="The simulated robot cells, and recordings of them."
)
scenario = typer.Typer(
    suggest_commands=False, no_args_is_help=True, help="Named stories of a federation, played and checked."
)
attack = typer.Typer(
    suggest_commands=False,
    no_args_is_help=True,
    help="Attacks on a federation that runs, and what refused them.",
)


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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Lets the scripted expert of a cell demonstrate; `iriai-node data add` imports what it writes."""
    from sandbox.cells import cell_named, check_room, held_out_for, record

    if dry_run:
        cell_named(name)
        check_room(out)
        facts = {"dir": str(out), "train": episodes, "held_out": held_out_for(episodes)}
        words = f"record {episodes} training and {facts['held_out']} held-out episodes into {out}"
        told_dry(facts, words, as_json=as_json)
        return
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
    folder: Folder,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Plays a story with real processes and checks what must hold; exit 3 if something did not."""
    from sandbox.scenarios import SCENARIOS, play
    from sandbox.staging import check_free, check_known, lines_of

    if dry_run:
        check_known("scenario", name, SCENARIOS)
        check_free(folder)
        told_dry({"scenario": name, "dir": str(folder)}, f"play {name} in {folder}", as_json=as_json)
        return
    found = play(name, folder)
    _tell(found, lines_of(found["checks"]), as_json=as_json)


@attack.command("list")
def attack_list(*, as_json: Json = False) -> None:
    """What can be tried, with its row in the threat model."""
    from sandbox.attacks.playing import ATTACKS

    for name, one in ATTACKS.items():
        typer.echo(f"{name:<12} {one.threat:<4} {one.words}", err=as_json)
    listed = {name: {"threat": one.threat, "words": one.words} for name, one in ATTACKS.items()}
    print_envelope({"attacks": listed}, as_json=as_json)


@attack.command("run")
def attack_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As attack list names it, or all.")],
    *,
    folder: Folder = Path("build/attacks"),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Attacks a federation of its own, and tells what refused it; exit 3 if a defence did not hold."""
    from sandbox.attacks.playing import ALL, ATTACKS, lines, play
    from sandbox.staging import check_free, check_known

    if dry_run:
        check_known("attack", name, (*ATTACKS, ALL))
        check_free(folder)
        tried = list(ATTACKS) if name == ALL else [name]
        words = f"try {len(tried)} attacks in {folder}"
        told_dry({"attacks": tried, "dir": str(folder)}, words, as_json=as_json)
        return
    found = play(name, folder)
    _tell(found, lines(found), as_json=as_json)


def _tell(found: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """What was found, for people or as the envelope; ends with exit code 3 where something did not hold."""
    for line in lines:
        typer.echo(line, err=as_json)
    print_envelope(found, as_json=as_json)
    if not found["held"]:
        raise typer.Exit(_CHECK_FAILED)
