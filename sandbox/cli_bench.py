# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox bench``: measurements, each of a module of its own that is loaded when it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from sandbox.cli_options import Json, NoiseKind, print_envelope, tell

__all__ = ["bench"]

bench = typer.Typer(
    suggest_commands=False, no_args_is_help=True, help="Measurements: figures and ratios, never pass or fail."
)

_MB_LEAST, _MB_MOST = 0.0001, 400  # of `bench exchange`
_Episodes = Annotated[int, typer.Option(min=1, max=250, help="Demonstrations per cell.")]
_Seeds = Annotated[
    int, typer.Option(min=1, max=100, help="How many, from 0; settings were chosen on seeds from 100.")
]
_Rollouts = Annotated[int, typer.Option(min=1, max=1000, help="Per model and cell.")]
_Recordings = Annotated[Path, typer.Option("--dir", help="Where recordings are kept.")]


@bench.command("exchange")
def bench_exchange(
    *,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Node processes.")] = 4,
    mb: Annotated[
        str, typer.Option(help=f"Sizes in megabytes, at most {_MB_MOST}, separated by commas.")
    ] = "0.001,1",
    exchanges: Annotated[int, typer.Option(min=1, max=1000, help="Exchanges per size.")] = 50,
    as_json: Json = False,
) -> None:
    """Time, CPU, bytes and the broker's memory of one exchange over TLS with signed messages, per size."""
    from sandbox.bench_exchange import lines, run

    found = run(nodes=nodes, sizes_mb=_sizes(mb), exchanges=exchanges)
    tell(found, lines, as_json=as_json)


@bench.command("rounds")
def bench_rounds(
    *,
    nodes: Annotated[
        int, typer.Option(min=4, max=16, help="Node processes; noise shares need four groups.")
    ] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds that are counted.")] = 100,
    as_json: Json = False,
) -> None:
    """Secure rounds per second of a whole federation with a small model, and where their time goes."""
    from sandbox.bench_rounds import lines, run

    found = run(nodes=nodes, rounds=rounds)
    tell(found, lines, as_json=as_json)


@bench.command("decide")
def bench_decide(
    *,
    decisions: Annotated[int, typer.Option(min=10, max=100_000, help="Per block and request.")] = 2_000,
    blocks: Annotated[int, typer.Option(min=1, max=100, help="How often the engines take turns.")] = 10,
    as_json: Json = False,
) -> None:
    """Decisions per second of the evaluator and of Cedar with the same contract's rules, taking turns."""
    from sandbox.bench_decide import run

    found = run(decisions=decisions, blocks=blocks)
    if not as_json:
        typer.echo(json.dumps(found, indent=2))
    print_envelope(found, as_json=as_json)


@bench.command("log")
def bench_log(
    *,
    batches: Annotated[int, typer.Option(min=1, max=10_000, help="Waves of 256 units.")] = 40,
    entries: Annotated[int, typer.Option(min=1_000, max=1_000_000, help="Of the verified bundle.")] = 100_000,
    main: Annotated[
        str | None, typer.Option("--database-url", help="Empty, migrated PostgreSQL; else one is started.")
    ] = None,
    private: Annotated[str | None, typer.Option("--private-db-url", help="Another one.")] = None,
    as_json: Json = False,
) -> None:
    """Entries per second into the log on SQLite and PostgreSQL; proofs; an audit of 100,000 entries."""
    from sandbox.bench_log import lines, run

    urls = (main, private) if main is not None and private is not None else None
    found = run(batches=batches, entries=entries, urls=urls, told=lambda what: typer.echo(what, err=True))
    tell(found, lines, as_json=as_json)


@bench.command("console")
def bench_console(
    *,
    rows: Annotated[
        int, typer.Option(min=1_000, max=10_000_000, help="Entries of the larger log.")
    ] = 1_000_000,
    small: Annotated[int, typer.Option(min=1_000, max=1_000_000, help="Of the smaller one.")] = 10_000,
    repeats: Annotated[int, typer.Option(min=1, max=1_000, help="Fetches of each screen.")] = 20,
    story: Annotated[
        bool, typer.Option("--story/--no-story", help="Whether a federation finishes a run first.")
    ] = True,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where it lives; else a temporary folder.")
    ] = None,
    database: Annotated[
        Literal["sqlite", "postgres"],
        typer.Option(help="Of the broker; a server of PostgreSQL is started for it."),
    ] = "sqlite",
    as_json: Json = False,
) -> None:
    """Time and weight of every screen of the console, with a small log and with a large one."""
    from sandbox.bench_console import lines, run

    found = run(rows=rows, small=small, repeats=repeats, story=story, folder=folder, database=database)
    tell(found, lines, as_json=as_json)


@bench.command("dp")
def bench_dp(
    *,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Turns of each way.")] = 5,
    as_json: Json = False,
) -> None:
    """Milliseconds and peak memory of a clipped sum: our engines, both Opacus modes, a plain gradient."""
    from sandbox.bench_tables import dp_before, dp_lines

    typer.echo(dp_before(repeats), err=True)
    from sandbox.bench_dp import run

    found = run(repeats=repeats)
    tell(found, dp_lines, as_json=as_json)


@bench.command("secagg")
def bench_secagg(
    *,
    parties: Annotated[int, typer.Option(min=3, max=50, help="Of the round.")] = 10,
    dim: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Parameters.")] = 1_000_000,
    drop: Annotated[int, typer.Option(min=0, max=16, help="Vanish before they send.")] = 1,
    flower: Annotated[bool, typer.Option(help="Measure Flower's SecAgg+ beside it.")] = True,
    as_json: Json = False,
) -> None:
    """CPU seconds, bytes and memory of one secure sum, beside Flower's SecAgg+ with the same vector."""
    from sandbox.bench_secagg import check_asked, run
    from sandbox.bench_tables import secagg_before, secagg_lines

    check_asked(parties, drop)
    typer.echo(secagg_before(parties, dim), err=True)
    found = run(parties=parties, dim=dim, drop=drop, flower=flower)
    tell(found, secagg_lines, as_json=as_json)


@bench.command("cobotops")
def bench_cobotops(
    data: Annotated[Path, typer.Argument(help="CSV of UR3 CobotOps, or the folder that holds it.")],
    *,
    seeds: Annotated[str, typer.Option(help="Of splits and noise, separated by commas.")] = "0,1,2,3,4",
    as_json: Json = False,
) -> None:
    """AUROC of grip loss on a real recording, work cycle as unit: four sites together and alone."""
    from sandbox.bench_cobotops import run

    path = next(iter(sorted(data.glob("*.csv"))), data) if data.is_dir() else data
    found = run(path, seeds=_numbers(seeds))
    if not as_json:
        typer.echo(json.dumps(found, indent=2))
    print_envelope(found, as_json=as_json)


@bench.command("robustness")
def bench_robustness(
    *,
    seeds: Annotated[str, typer.Option(help="Of data, teams and noise, separated by commas.")] = "1,2,3,4,5",
    exact: Annotated[bool, typer.Option("--exact", help="Votes without the noise of their privacy.")] = False,
    as_json: Json = False,
) -> None:
    """Error under attacks by one to three of nine silos.

    Columns: nothing (no defence), team-median, veto, norm (test of each team), vote, both (norm, then vote).
    """
    from sandbox.bench_robustness import lines, run

    found = run(seeds=_numbers(seeds), noised=not exact)
    tell(found, lines, as_json=as_json)


def _sizes(text: str) -> tuple[float, ...]:
    """Megabytes; a size is a few values at least, and small enough for memory and temporary folder."""
    try:
        sizes = tuple(float(one) for one in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or len(set(sizes)) != len(sizes) or not all(_MB_LEAST <= one <= _MB_MOST for one in sizes):
        raise typer.BadParameter(
            f"different sizes from {_MB_LEAST} to {_MB_MOST} megabytes, separated by commas"
        )
    return sizes


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(one.isdecimal() for one in parts) or len({int(one) for one in parts}) != len(parts):
        raise typer.BadParameter("different whole numbers, separated by commas")
    return tuple(int(one) for one in parts)


@bench.command("pooling")
def bench_pooling(
    *,
    epsilon: Annotated[str, typer.Option(help="Of the whole run; `inf` runs without privacy.")] = "8",
    noise: NoiseKind = "local-full",
    seed_episodes: Annotated[
        int, typer.Option(min=0, max=100, help="Openly donated episodes per maker; 0: no seed set.")
    ] = 0,
    seeds: Annotated[
        str, typer.Option(help="Of recordings and placements, separated by commas.")
    ] = "0,1,2,3,4",
    episodes: Annotated[int, typer.Option(min=1, max=5000, help="Training episodes per cell.")] = 250,
    rollouts: Annotated[int, typer.Option(min=1, max=1000, help="Per model and cell.")] = 50,
    folder: Annotated[Path, typer.Option("--dir", help="Where recordings are kept.")] = Path("build/study"),
    as_json: Json = False,
) -> None:
    """Mean success of the common model in all four cells, trained in one process: what privacy costs."""
    from sandbox.asked import epsilon_of
    from sandbox.bench_tables import pooling_before, pooling_lines
    from sandbox.study import StudyOptions, run

    options = StudyOptions(
        folder=folder.resolve(),
        epsilon=epsilon_of(epsilon, noise),
        noise=noise,
        seed_episodes=seed_episodes,
        seeds=_numbers(seeds),
        episodes=episodes,
        rollouts=rollouts,
    )
    typer.echo(pooling_before(options), err=True)
    found = run(options)
    tell(found, pooling_lines, as_json=as_json)


@bench.command("ingest")
def bench_ingest(
    *,
    megabytes: Annotated[
        float, typer.Option("--mb", min=0.1, max=65_536, help="Of each recording, about.")
    ] = 100,
    formats: Annotated[
        str | None, typer.Option(help="Some of the formats, separated by commas; all if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How fast recordings of every format become episodes, and the memory that this takes."""
    from sandbox.bench_ingest import lines, run
    from sandbox.ingest_sets import FORMATS

    chosen = FORMATS if formats is None else tuple(formats.split(","))
    if not set(chosen) <= set(FORMATS):
        raise typer.BadParameter("formats of " + ", ".join(FORMATS))
    found = run(megabytes, formats=chosen)
    tell(found, lines, as_json=as_json)


@bench.command("sim")
def bench_sim(
    *,
    episodes: _Episodes = 5,
    seeds: _Seeds = 5,
    rollouts: _Rollouts = 20,
    folder: _Recordings = Path("build/bench-sim"),
    as_json: Json = False,
) -> None:
    """Success in simulated cells: alone, pooled, federated and individual, from few demonstrations each."""
    from sandbox.bench_sim import SimOptions, lines, run

    found = run(SimOptions(folder=folder.resolve(), episodes=episodes, seeds=seeds, rollouts=rollouts))
    tell(found, lines, as_json=as_json)


@bench.command("real")
def bench_real(
    *,
    data: Annotated[Path, typer.Option("--data", help="Folder that holds ur10 and ur3-cobotops.")],
    seeds: _Seeds = 5,
    as_json: Json = False,
) -> None:
    """Figures on real recordings: alone, pooled, federated and individual; skipped where they are absent."""
    from sandbox.bench_real import lines, run

    found = run(data, seeds=seeds)
    tell(found, lines, as_json=as_json)


@bench.command("embodiments")
def bench_embodiments(
    *,
    episodes: _Episodes = 5,
    seeds: _Seeds = 16,
    rollouts: _Rollouts = 20,
    folder: _Recordings = Path("build/bench-sim"),
    as_json: Json = False,
) -> None:
    """Success of two embodiments that share a trunk: other observations, other actions; against alone.

    With 5 seeds the gains are of the size of their noise; 16 take about 6 CPU minutes.
    """
    from sandbox.bench_embodiments import EmbodimentOptions, lines, run

    found = run(EmbodimentOptions(folder=folder.resolve(), episodes=episodes, seeds=seeds, rollouts=rollouts))
    tell(found, lines, as_json=as_json)
