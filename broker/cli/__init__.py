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

from broker.cli.audit import audit as audit_group
from broker.cli.audit import auditor as auditor_group
from broker.cli.catalogue import catalogue as catalogue_group
from broker.cli.db import db as db_group
from broker.cli.dsp import dsp as dsp_group
from broker.cli.incident import incident as incident_group
from broker.cli.log import log as log_group
from broker.cli.odrl import contract as contract_group
from broker.cli.options import Home, Json, RunId, Yes, command, finish, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["app", "main"]


app = typer_group("Runs the neutral broker and does what its operators do.")
operator = typer_group("Operators' own keys.")
run = typer_group("Runs of recipes.")
release = typer_group("Candidates and released models.")
for _name, _group in (
    ("operator", operator),
    ("contract", contract_group),
    ("catalogue", catalogue_group),
    ("run", run),
    ("release", release),
    ("audit", audit_group),
    ("auditor", auditor_group),
    ("incident", incident_group),
    ("dsp", dsp_group),
    ("log", log_group),
    ("db", db_group),
):
    app.add_typer(_group, name=_name)


@command(operator, "new")
def operator_new(file: Path) -> Result:
    """Makes an operator's key file and prints its public key."""
    from broker import commands

    return commands.operator_new(file)


@command(app, "init")
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
    database: Annotated[
        str | None, typer.Option("--database", help="postgresql:// URL, instead of a file of SQLite.")
    ] = None,
    private_database: Annotated[
        str | None, typer.Option("--private-database", help="The same for what has to be erasable.")
    ] = None,
    database_owner: Annotated[
        str | None, typer.Option("--database-owner", help="The first one's URL for the owner of its tables.")
    ] = None,
) -> Result:
    """Makes keys, certificate, settings, databases and the log's first entries. Safe to repeat."""
    from broker import commands

    tls = commands.own_tls(tls_cert, tls_key)
    return commands.init(
        directory,
        url,
        operators or [],
        listen_host=listen,
        origin=origin,
        tls=tls,
        database=database,
        private_database=private_database,
        database_owner=database_owner,
    )


@app.command()  # no `command`: with --json it says that it is ready, not that it has ended
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


@command(app, "invite")
def invite(
    *,
    name: Annotated[str, typer.Option("--name", help="Legal name of the organisation.")],
    country: Annotated[str, typer.Option("--country", help="ISO 3166-1 alpha-2.")],
    group: Annotated[str, typer.Option("--group", help="Organisations under one owner have the same.")],
    where: Where,
) -> Result:
    """Prints an invitation for one organisation: single use, 72 hours."""
    from broker import commands

    return commands.invite(where, name=name, country=country, group=group)


@command(app, "members")
def members(where: Where) -> Result:
    """Lists organisations: who waits, who is in, who was put out."""
    from broker import commands

    return commands.members(where)


@command(app, "approve")
def approve(
    org: str,
    where: Where,
    *,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Refuse unless the node's is this.")
    ] = None,
    yes: Yes = False,
) -> Result:
    """Signs your approval of an organisation; two operators have to. Without a terminal: --fingerprint."""
    from broker import commands

    def confirm(question: str) -> bool:
        if yes or fingerprint is not None:
            return True
        return sys.stdin.isatty() and typer.confirm(f"approve {question}?", err=True)

    return commands.approve(where, org, expected=fingerprint, confirm=confirm)


@command(app, "revoke")
def revoke(
    org: str,
    where: Where,
    *,
    reason: Annotated[
        str, typer.Option("--reason", help="A reason code, such as key-lost.")
    ] = "operator-decision",
    left: Annotated[bool, typer.Option("--left", help="The organisation itself asked for it.")] = False,
) -> Result:
    """Ends a membership at once; its keys are refused from then on."""
    from broker import commands

    return commands.revoke(where, org, reason=reason, left=left)


@command(run, "open")
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


@command(run, "stop")
def run_stop(run_id: RunId, where: Where) -> Result:
    """Ends a run once its open round is closed; what was trained may become a candidate."""
    from broker.commands import run as commands_run

    return commands_run.run_stop(where, run_id)


@command(run, "resume")
def run_resume(run_id: RunId, where: Where) -> Result:
    """Lets a run go on that waits because silos rejected its models; find out why first."""
    from broker.commands import run as commands_run

    return commands_run.run_resume(where, run_id)


@command(release, "list")
def release_list(where: Where) -> Result:
    """Lists released models and candidates at the gate."""
    from broker import commands

    return commands.release_list(where)


@command(app, "status")
def status(where: Where) -> Result:
    """Shows how the broker is."""
    from broker import commands

    return commands.status(where)


def main() -> None:
    """Entry point."""
    app()
