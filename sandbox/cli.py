# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox``: a whole federation on one machine, for a first look and for tests."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from click import ClickException

from policies.errors import IriaiError
from sandbox.cli_bench import bench
from sandbox.cli_options import DryRun, Json, NoiseKind, print_envelope, told_dry
from sandbox.cli_scenes import attack, cell, scenario
from sandbox.noise import NOISE

__all__ = ["app", "main"]

app = typer.Typer(
    suggest_commands=False,  # click proposes already
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A neutral broker and manufacturers' nodes on this machine, as real processes on loopback.",
)
for _name, _one in (("attack", attack), ("bench", bench), ("cell", cell), ("scenario", scenario)):
    app.add_typer(_one, name=_name)

SeedEpisodes = Annotated[
    int,
    typer.Option(min=0, max=250, help="Of them, openly donated by each maker: training starts from these."),
]
Folder = Annotated[Path, typer.Option("--dir", help="Folder that was given to `up`.")]


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
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Takes four makers from invitation to a released common model, and reports where pooling helped."""
    from sandbox.asked import epsilon_of

    asked = epsilon_of(epsilon, noise)
    from sandbox.demo import DemoOptions, checked, run_demo

    options = DemoOptions(
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
    if dry_run:
        recipe = checked(options)
        facts = {"dir": str(options.work), "replaced": options.work.exists(), "rounds": recipe.rounds}
        told_dry(facts, f"run {recipe.rounds} rounds in {options.work}", as_json=as_json)
        return
    report = run_demo(options)
    from sandbox.summary import summary

    for line in summary(report):
        typer.echo(line, err=as_json)
    print_envelope(report, as_json=as_json)
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
    nodes: Annotated[int, typer.Option(min=3, max=8, help="Makers; four have a cell of their own.")] = 4,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Starts a federation with a signed contract, leaves it running, and prints what to open and to type."""
    from sandbox.asked import epsilon_of

    asked = epsilon_of(epsilon, noise)
    from sandbox.standing import bring_up, checked

    if dry_run:
        checked(
            directory,
            episodes=episodes,
            epsilon=asked,
            noise=noise,
            seed_episodes=seed_episodes,
            nodes=nodes,
        )
        made = {"dir": str(directory), "nodes": nodes, "episodes": nodes * episodes}
        words = f"start a broker and {nodes} nodes in {directory}, with {nodes * episodes} episodes to train"
        told_dry(made, words, as_json=as_json)
        return
    facts = bring_up(
        directory,
        episodes=episodes,
        epsilon=asked,
        noise=noise,
        seed=seed,
        seed_episodes=seed_episodes,
        nodes=nodes,
    )
    for line in facts["next"]:
        typer.echo(line, err=as_json)
    print_envelope(facts, as_json=as_json)


@app.command("open")
def open_doors(
    directory: Folder,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sessions and passwords end.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ends every session, password and passkey of the console's people; prints a fresh link for each."""
    from sandbox.doors import ENDS
    from sandbox.standing import open_again, open_to

    if dry_run:
        federation, processes = open_to(directory)
        told = {"url": federation.url, "processes": processes}
        told_dry(told, f"give fresh logins at {federation.url} and end the earlier ones", as_json=as_json)
        return
    open_to(directory)  # a folder without a broker is refused before anybody is asked
    if not yes:
        typer.echo(ENDS, err=True)
        if sys.stdin.isatty() and not typer.confirm("Go on?", err=True):
            typer.echo("nothing was changed", err=True)
            raise typer.Exit(7)
    facts = open_again(directory)
    for line in facts["next"]:
        typer.echo(line, err=as_json)
    print_envelope(facts, as_json=as_json)


@app.command("status")
def show_status(directory: Folder, *, as_json: Json = False) -> None:
    """Which processes run, and what the broker says of nodes and runs; exit 3 if one ended."""
    from sandbox.standing import status

    facts = status(directory)
    for name, pid in facts["running"].items():
        typer.echo(f"running      {name} (process {pid})", err=as_json)
    for name in facts["ended"]:
        typer.echo(f"ENDED        {name}", err=as_json)
    for one in facts["nodes"]:
        typer.echo(f"node         {one['name']:<8} {one['state']}", err=as_json)
    for one in facts["runs"]:
        typer.echo(f"run          {one['run']} {one['state']}, round {one['round']}", err=as_json)
    print_envelope(facts, as_json=as_json)
    if facts["ended"]:
        raise typer.Exit(3)


@app.command()
def down(
    directory: Folder,
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the folder too; then `up` may use it again.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Ends the processes that `up` started in a folder, also where it failed; the folder stays."""
    from sandbox.standing import bring_down, delete_folder, still_running, would_stop

    if dry_run:
        ended = would_stop(directory)
        gone = f" and delete {directory}" if delete else ""
        told_dry(
            {"would_stop": ended, "would_delete": delete},
            f"end {len(ended)} processes{gone}",
            as_json=as_json,
        )
        return
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
    print_envelope({"stopped": stopped, "still_running": left, "deleted": delete}, as_json=as_json)
    if left:
        raise typer.Exit(75)


def main() -> None:
    """Entry point: errors become one envelope or five lines, and their exit code."""
    as_json = "--json" in sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process that was started is ended
    try:
        code = app(standalone_mode=False)  # of a typer.Exit, else None
    except ClickException as error:  # an option that does not fit
        error.show()
        _end(_unfit(error), error.exit_code, as_json=as_json)
    except IriaiError as error:
        typer.echo(str(error), err=True)
        _end(error, error.exit_code, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _unfit(error: ClickException) -> IriaiError:
    from sandbox.errors import UsageError

    return UsageError(
        need="options that fit", found=error.format_message(), remedy="read the help of the command"
    )


def _end(error: IriaiError, code: int, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"schema": "1", "status": "error", "error": error.as_dict()}))
    sys.exit(code)
