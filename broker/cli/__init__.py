# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker``: the operator's command line.

It only reads the line; `broker.commands` does the work and is imported when a command runs.

Exit codes: 0 ok, 1 our bug, 2 usage, 3 check failed, 4 denied by policy, 5 no answer, 6 identity, 7 needs a
human, 75 try again.
"""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.dsp import dsp as dsp_group
from broker.cli.odrl import contract as contract_group
from broker.cli.options import Dir, Home, Json, Key, Pin, Url, Yes, finish, typer_group, where_of

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["app", "main"]


app = typer_group("Runs the neutral broker and does what its operators do.")
operator = typer_group("Operators' own keys.")
run = typer_group("Runs of recipes.")
release = typer_group("Candidates and released models.")
audit = typer_group("What an auditor is given.")
for _name, _group in (
    ("operator", operator),
    ("contract", contract_group),
    ("run", run),
    ("release", release),
    ("audit", audit),
    ("dsp", dsp_group),
):
    app.add_typer(_group, name=_name)


@operator.command("new")
def operator_new(file: Path, *, as_json: Json = False) -> None:
    """Makes an operator's key file and prints its public key."""
    from broker import commands

    finish(lambda: commands.operator_new(file), as_json=as_json)


@app.command()
def init(
    *,
    directory: Home,
    url: Annotated[str, typer.Option("--url", help="https://host:port, as members reach it.")],
    operators: Annotated[
        list[str] | None, typer.Option("--operator", help="NAME=ed25519:…, repeatable.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Your own certificate chain (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="Its private key (PEM, mode 0600).")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Address to listen on; default: the URL's host.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option("--origin", help="Name of the log; default: from the URL.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Makes keys, certificate, settings, databases and the log's first entries. Safe to repeat."""
    from broker import commands

    def work() -> Result:
        tls = commands.own_tls(tls_cert, tls_key)
        return commands.init(directory, url, operators or [], listen_host=listen, origin=origin, tls=tls)

    finish(work, as_json=as_json)


@app.command()
def serve(
    directory: Home,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Instead of the configured one.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Serves members, operators and nodes on one port until it is told to stop."""
    from broker import serving

    finish(lambda: serving.serve(directory, port=port, as_json=as_json), as_json=False)


@app.command()
def invite(
    name: Annotated[str, typer.Option("--name", help="Legal name of the organisation.")],
    country: Annotated[str, typer.Option("--country", help="ISO 3166-1 alpha-2.")],
    group: Annotated[str, typer.Option("--group", help="Organisations under one owner have the same.")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Prints an invitation for one organisation: single use, 72 hours."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.invite(where, name=name, country=country, group=group), as_json=as_json)


@app.command()
def members(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Lists organisations: who waits, who is in, who was put out."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.members(where), as_json=as_json)


@app.command()
def approve(
    org: str,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Refuse unless the node's is this.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Signs your approval of an organisation; two operators have to. Without a terminal: --fingerprint."""
    from broker import commands

    def confirm(question: str) -> bool:
        if yes or fingerprint is not None:
            return True
        return sys.stdin.isatty() and typer.confirm(f"approve {question}?", err=True)

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.approve(where, org, expected=fingerprint, confirm=confirm), as_json=as_json)


@app.command()
def revoke(
    org: str,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    reason: Annotated[
        str, typer.Option("--reason", help="A reason code, such as key-lost.")
    ] = "operator-decision",
    as_json: Json = False,
) -> None:
    """Ends a membership at once; its keys are refused from then on."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.revoke(where, org, reason=reason), as_json=as_json)


@run.command("open")
def run_open(
    digest: Annotated[
        str, typer.Option("--contract", help="Digest of a contract that all signed; 12 hex digits do.")
    ],
    recipe: Annotated[str, typer.Option("--recipe", help="Id of one of its recipes.")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Opens a run of a recipe."""
    from broker.commands import run as commands_run

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_run.run_open(where, contract=digest, recipe=recipe), as_json=as_json)


@run.command("list")
def run_list(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Lists runs."""
    from broker.commands import run as commands_run

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_run.run_list(where), as_json=as_json)


@run.command("show")
def run_show(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Shows one run and its rounds."""
    from broker.commands import run as commands_run

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_run.run_show(where, run_id), as_json=as_json)


@run.command("stop")
def run_stop(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Ends a run once its open round is closed; what was trained may become a candidate."""
    from broker.commands import run as commands_run

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_run.run_stop(where, run_id), as_json=as_json)


@run.command("resume")
def run_resume(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Lets a run go on that waits because silos rejected its models; find out why first."""
    from broker.commands import run as commands_run

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_run.run_resume(where, run_id), as_json=as_json)


@release.command("list")
def release_list(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Lists released models and candidates at the gate."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.release_list(where), as_json=as_json)


@audit.command("bundle")
def audit_bundle(
    *,
    out: Annotated[Path, typer.Option("--out", help="New file.")],
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Takes everything that an offline audit needs, as one file."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.audit_bundle(where, out), as_json=as_json)


@audit.command("vectors")
def audit_vectors(
    *,
    directory: Home,
    run_id: Annotated[str, typer.Option("--run", help="Whose masked vectors.")],
    out: Annotated[Path, typer.Option("--out", help="New folder.")],
    as_json: Json = False,
) -> None:
    """Copies the masked vectors of a run that are still kept, for an auditor who redoes its sums."""
    from broker import commands

    finish(lambda: commands.audit_vectors(directory, run_id, out), as_json=as_json)


@audit.command("policy")
def audit_policy(
    contracts: Annotated[
        list[str] | None, typer.Option("--contract", help="Accept only this one, repeatable.")
    ] = None,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Prints a policy file for an auditor, to be compared by another way."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.audit_policy(where, contracts or []), as_json=as_json)


@app.command()
def status(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Shows how the broker is."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.status(where), as_json=as_json)


def main() -> None:
    """Entry point."""
    app()
