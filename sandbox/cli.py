# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox``: a whole federation on one machine, for a first look and for tests."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from click import ClickException

from policies.errors import IriaiError
from sandbox.recipes import NOISE

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A neutral broker and four manufacturers' nodes on this machine, as real processes on loopback.",
)
bench = typer.Typer(no_args_is_help=True, help="Measurements: figures and ratios, never pass or fail.")
app.add_typer(bench, name="bench")

_MB_LEAST, _MB_MOST = 0.0001, 400  # of `bench exchange`
SeedEpisodes = Annotated[
    int,
    typer.Option(min=0, max=250, help="Of them, openly donated by each maker: training starts from these."),
]
NoiseKind = Annotated[
    Literal["local-full", "shares"],
    typer.Option(
        help="`local-full`: each node adds all of it; `shares`: a part each, and sums have the whole."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One envelope on standard output.")]


def _print(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"schema": "1", "status": "ok", "data": data}, ensure_ascii=False))


@app.command()
def demo(
    *,
    epsilon: Annotated[str, typer.Option(help="Per release; `inf` runs without privacy and says so.")] = "8",
    noise: NoiseKind = NOISE,
    episodes: Annotated[int, typer.Option(min=1, max=5000, help="Training episodes per cell.")] = 250,
    seed_episodes: SeedEpisodes = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of recordings and placements.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of report.json and report.html.")] = Path("build/demo"),
    verifier: Annotated[
        Path | None, typer.Option(help="The auditor's own iriai-verify (default: the one installed here).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Takes four makers from invitation to a released common model, and reports where pooling helped."""
    from sandbox.asked import epsilon_of

    asked = epsilon_of(epsilon, noise)
    from sandbox.demo import DemoOptions, run_demo

    report = run_demo(
        DemoOptions(
            epsilon=asked,
            noise=noise,
            episodes=episodes,
            seed_episodes=seed_episodes,
            seed=seed,
            folder=out.resolve(),
            work=out.resolve() / "work",
            verifier=verifier.resolve() if verifier else None,
            command="iriai-sandbox " + " ".join(sys.argv[1:]),
        )
    )
    from sandbox.summary import summary

    for line in summary(report):
        typer.echo(line, err=as_json)
    _print(report, as_json=as_json)
    if not report["log"]["verified"]:
        raise typer.Exit(3)


@app.command()
def up(
    directory: Annotated[Path, typer.Option("--dir", help="Folder of the federation.")],
    *,
    episodes: Annotated[int, typer.Option(min=1, max=5000, help="Training episodes per cell.")] = 10,
    epsilon: Annotated[
        str, typer.Option(help="Per release; `inf` runs without privacy and says so.")
    ] = "inf",
    noise: NoiseKind = NOISE,
    seed_episodes: SeedEpisodes = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of recordings.")] = 0,
    as_json: Json = False,
) -> None:
    """Starts a federation with a signed contract, leaves it running, and prints what to type next."""
    from sandbox.asked import epsilon_of

    asked = epsilon_of(epsilon, noise)
    from sandbox.standing import bring_up

    facts = bring_up(
        directory,
        episodes=episodes,
        epsilon=asked,
        noise=noise,
        seed=seed,
        seed_episodes=seed_episodes,
    )
    for line in facts["next"]:
        typer.echo(line, err=as_json)
    _print(facts, as_json=as_json)


@app.command()
def down(
    directory: Annotated[Path, typer.Option("--dir", help="Folder that was given to `up`.")],
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the folder too; then `up` may use it again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ends the processes that `up` started in a folder, also where it failed; the folder stays."""
    from sandbox.standing import bring_down, delete_folder, still_running

    stopped = bring_down(directory)
    left = still_running(directory)
    nothing = "nothing" if left else "nothing: no process of this folder runs"
    typer.echo("stopped " + (", ".join(stopped) or nothing), err=as_json)
    for name, pid in left.items():
        typer.echo(f"still running {name} (process {pid}): it did not end when told to", err=as_json)
    if delete:
        delete_folder(directory)
    typer.echo(
        f"deleted {directory}" if delete else f"next: iriai-sandbox down --dir {directory} --delete",
        err=as_json,
    )
    _print({"stopped": stopped, "still_running": left, "deleted": delete}, as_json=as_json)
    if left:
        raise typer.Exit(75)


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
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    _print(found, as_json=as_json)


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
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    for line in () if as_json else dp_lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    for line in () if as_json else secagg_lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    _print(found, as_json=as_json)


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
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    for line in () if as_json else pooling_lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


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
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


@bench.command("sim")
def bench_sim(
    *,
    episodes: Annotated[int, typer.Option(min=1, max=250, help="Demonstrations per cell.")] = 5,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="How many, from 0; constants were chosen on seeds from 100.")
    ] = 5,
    rollouts: Annotated[int, typer.Option(min=1, max=1000, help="Per model and cell.")] = 20,
    folder: Annotated[Path, typer.Option("--dir", help="Where recordings are kept.")] = Path(
        "build/bench-sim"
    ),
    as_json: Json = False,
) -> None:
    """Success in simulated cells: alone, pooled, federated and individual, from few demonstrations each."""
    from sandbox.bench_sim import SimOptions, lines, run

    found = run(SimOptions(folder=folder.resolve(), episodes=episodes, seeds=seeds, rollouts=rollouts))
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


@bench.command("real")
def bench_real(
    *,
    data: Annotated[Path, typer.Option("--data", help="Folder that holds ur10 and ur3-cobotops.")],
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="How many, from 0; settings were chosen on seeds from 100.")
    ] = 5,
    as_json: Json = False,
) -> None:
    """Figures on real recordings: alone, pooled, federated and individual; skipped where they are absent."""
    from sandbox.bench_real import lines, run

    found = run(data, seeds=seeds)
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


@bench.command("embodiments")
def bench_embodiments(
    *,
    episodes: Annotated[int, typer.Option(min=1, max=250, help="Demonstrations per cell.")] = 5,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="How many, from 0; settings were chosen on seeds from 100.")
    ] = 16,
    rollouts: Annotated[int, typer.Option(min=1, max=1000, help="Per model and cell.")] = 20,
    folder: Annotated[Path, typer.Option("--dir", help="Where recordings are kept.")] = Path(
        "build/bench-sim"
    ),
    as_json: Json = False,
) -> None:
    """Success of two embodiments that share a trunk: other observations, other actions; against alone.

    With 5 seeds the gains are of the size of their noise; 16 take about 6 CPU minutes.
    """
    from sandbox.bench_embodiments import EmbodimentOptions, lines, run

    found = run(EmbodimentOptions(folder=folder.resolve(), episodes=episodes, seeds=seeds, rollouts=rollouts))
    for line in () if as_json else lines(found):
        typer.echo(line)
    _print(found, as_json=as_json)


def main() -> None:
    """Entry point: errors become one envelope or five lines, and their exit code."""
    as_json = "--json" in sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process that was started is ended
    try:
        app(standalone_mode=False)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except ClickException as error:  # an option that does not fit
        error.show()
        _end(_unfit(error), error.exit_code, as_json=as_json)
    except IriaiError as error:
        typer.echo(str(error), err=True)
        _end(error, error.exit_code, as_json=as_json)


def _unfit(error: ClickException) -> IriaiError:
    from sandbox.errors import UsageError

    return UsageError(
        need="options that fit", found=error.format_message(), remedy="read the help of the command"
    )


def _end(error: IriaiError, code: int, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"schema": "1", "status": "error", "error": error.as_dict()}))
    sys.exit(code)
