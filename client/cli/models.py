# SPDX-License-Identifier: Apache-2.0
"""``iriai-node models``: released models at home. Libraries are imported inside commands; torch never is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from client.cli.options import DryRun, Open, command, group, opened

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["models"]

models = group("Released models: fetch them, train them on at home.")


@command(models, "list")
def models_list(one: Open) -> Answer:
    """Released models, and which of them are here."""
    from client import models as shelf

    return shelf.models_list(one.member)


@command(models, "report")
def models_report(home: Home) -> Answer:
    """What training on at home gained, model by model: losses before and after, on which held-out units."""
    from client.model_gains import models_report as report

    return report(home.need())


@command(models, "pull")
def models_pull(model: str, *, dry_run: DryRun = False, one: Open) -> Answer:
    """Fetches a released model that the contract lets you have, and checks bytes and statement."""
    from client import models as shelf

    if dry_run:
        one.member.client.look_only()
    return shelf.pull(one.member, one.shelf, model)


@command(models, "personalise")
def models_personalise(
    model: str,
    *,
    mode: Annotated[
        Literal["full", "head"], typer.Option("--mode", help="Train on all of it, or its last layer alone.")
    ] = "full",
    replace: Annotated[
        bool, typer.Option("--replace", help="Keep the new one, even where the one kept before is better.")
    ] = False,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Trains a pulled model on at home and keeps the best: common, earlier or new. Nothing of it leaves."""
    from client import models as shelf

    if dry_run:
        return _would(home.need(), model, f"would be trained on at home, mode {mode}")
    return shelf.personalise(home.need(), model, mode=mode, replace=replace)


@command(models, "package")
def models_package(
    model: str,
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, e.g. pick.iriai.")],
    individual: Annotated[
        bool, typer.Option("--individual", help="The one that was trained on here.")
    ] = False,
    aasx: Annotated[
        bool | None,
        typer.Option(
            "--aasx/--no-aasx", help="An Asset Administration Shell inside; else if it can be made."
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure latency again.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Makes the signed package of a model: ONNX graph, limits, privacy statement, card, latency, lineage."""
    from client.deploy import commands
    from client.deploy.taken import check_free

    if dry_run:
        check_free(out, force=force)
        return _would(home.need(), model, f"would be packaged into {out}", individual=individual)
    return commands.package(
        home.need(), model, out, individual=individual, aasx=aasx, measure=measure, force=force
    )


def _would(home: Home, name: str, words: str, *, individual: bool = False) -> Answer:
    """What a dry run says of a model that is here, whose bytes are checked."""
    from client import models as shelf
    from client.answers import Answer

    model = shelf.model_here(home, name)
    _, weights = shelf.read_model(home, model, individual=individual)
    told = f"{model} with {weights.size} weights {words}; nothing was changed"
    return Answer(data={"dry_run": True, "model": model, "weights": int(weights.size)}, text=(told,))


@command(models, "check")
def models_check(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE")],
    *,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A signer's key, ed25519:…; may be repeated.")
    ] = None,
    home: Home,
) -> Answer:
    """Loads a package as the server does, with every check, and shows what it says."""
    from client.deploy import commands

    return commands.check(home, package, keys=key or ())


Name = Annotated[str, typer.Option("--name", help="Of the service, where a site has several cells.")]


@command(models, "serve")
def models_serve(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE")],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 0,
    name: Name = "cell",
    clock: Annotated[
        Literal["host", "controller", "simulation"],
        typer.Option(help="Which clock stamps the observations: this machine's, the controller's own, none."),
    ] = "host",
    record: Annotated[
        str | None, typer.Option("--record", help="Data set that episodes are imported into at the end.")
    ] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Keep no episodes.")] = False,
    opcua: Annotated[
        str | None, typer.Option("--opcua", help="opc.tcp://HOST:PORT/ of an OPC UA server beside.")
    ] = None,
    opcua_client: Annotated[
        list[Path] | None,
        typer.Option("--opcua-client", help="Certificate that needs no password; may be repeated."),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A signer's key, ed25519:…; may be repeated.")
    ] = None,
    home: Home,
) -> Answer:
    """Lets a package act on this machine, behind guards, and records what it does; until SIGTERM."""
    from client.clock import SystemClock
    from client.deploy import serve_commands
    from client.entropy import SystemEntropy
    from policies.errors import IriaiError

    if record is not None:
        with opened(home.need()) as one:
            serve_commands.can_record(one, record)
    options = serve_commands.serve_options(
        home,
        name=name,
        port=port,
        clock_kind=clock,
        record=not no_record,
        opcua=opcua,
        clients=opcua_client or (),
    )
    found = serve_commands.serve(
        home, package, options, keys=key or (), clock=SystemClock(), entropy=SystemEntropy()
    )
    recorder = found.data["recorder"]
    if record is None or not recorder.get("episodes"):
        return found
    try:
        with opened(home) as one:
            return serve_commands.add_recorded(one, found, Path(recorder["folder"]), dataset=record)
    except IriaiError as error:
        return serve_commands.not_imported(found, error, dataset=record)


@command(models, "ask", takes_minus=True)
def models_ask(
    observation: Annotated[
        str | None,
        typer.Argument(
            metavar="[OBSERVATION]", help="Numbers in quotes: '0.01, 0.72'; none shows the schema."
        ),
    ] = None,
    *,
    name: Name = "cell",
    home: Home,
) -> Answer:
    """Asks a service that runs here once, as its cell would, and ends that attempt; nothing moves by it."""
    from client.clock import SystemClock
    from client.deploy import serve_commands

    return serve_commands.ask(home, name, observation, clock=SystemClock())


@command(models, "status")
def models_status(*, name: Name = "cell", home: Home) -> Answer:
    """Says where a service that runs here stands, how fast it answers and what it records."""
    from client.deploy import serve_commands

    return serve_commands.status(home, name)


@command(models, "resume")
def models_resume(*, name: Name = "cell", dry_run: DryRun = False, home: Home) -> Answer:
    """Lets a service act again that a guard stopped; look at the cell first."""
    from client.deploy import serve_commands

    return serve_commands.resume(home, name, dry_run=dry_run)


@command(models, "judge")
def models_judge(
    episode: Annotated[Path, typer.Argument(metavar="EPISODE", help="A recorded file, or its name.")],
    outcome: Annotated[Literal["success", "fail", "unknown"], typer.Argument(metavar="OUTCOME")],
    *,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Says how a recorded attempt ended: only what a person calls a success is an example to learn from."""
    from client.deploy import serve_commands

    return serve_commands.judge(home, episode, outcome, dry_run=dry_run)
