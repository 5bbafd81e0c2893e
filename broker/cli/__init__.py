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
from broker.cli.house import backup as backup_group
from broker.cli.house import config as config_group
from broker.cli.house import stand_on
from broker.cli.incident import incident as incident_group
from broker.cli.keys import key as key_group
from broker.cli.log import log as log_group
from broker.cli.odrl import contract as contract_group
from broker.cli.operators import operator as operator_group
from broker.cli.options import Config, Dir, Home, Json, Yes, command, finish, needed_place, program
from broker.cli.organisations import org as org_group
from broker.cli.pool import budget as budget_group
from broker.cli.pool import invite as invite_group
from broker.cli.pool import node as node_group
from broker.cli.pool import recipe as recipe_group
from broker.cli.pool import witness as witness_group
from broker.cli.proposal import proposal as proposal_group
from broker.cli.release import release as release_group
from broker.cli.run import run as run_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["app", "main"]


app = program("Runs the neutral broker and does what its operators do.")
for _name, _group in (
    ("operator", operator_group),
    ("org", org_group),
    ("invite", invite_group),
    ("node", node_group),
    ("proposal", proposal_group),
    ("contract", contract_group),
    ("catalogue", catalogue_group),
    ("recipe", recipe_group),
    ("run", run_group),
    ("budget", budget_group),
    ("release", release_group),
    ("audit", audit_group),
    ("auditor", auditor_group),
    ("incident", incident_group),
    ("dsp", dsp_group),
    ("log", log_group),
    ("witness", witness_group),
    ("key", key_group),
    ("config", config_group),
    ("db", db_group),
    ("backup", backup_group),
):
    app.add_typer(_group, name=_name)


@command(
    app,
    "init",
    effect="keys, certificate, settings, databases and the log's first entries are made in {directory}",
)
def init(
    *,
    directory: Home,
    config: Annotated[
        Path | None, typer.Option("--config", help="Put the settings file here, not into the folder.")
    ] = None,
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
        config=config,
    )


stand_on(app)


@app.command()  # no `command`: with --json it says that it is ready, not that it has ended
def serve(
    directory: Dir = None,
    config: Config = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Instead of the configured one.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Serves members, operators and nodes on one port until it is told to stop."""
    from broker import serving

    def work() -> Result:
        return serving.serve(needed_place(directory, config), port=port, as_json=as_json)

    finish(work, as_json=False)


@command(app, "members", hidden=True)
def members(where: Where) -> Result:
    """Lists organisations: who waits, who is in, who was put out."""
    from broker import commands

    return commands.members(where)


@command(app, "approve", effect="your approval of {org} is signed and recorded", hidden=True)
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


@command(
    app,
    "revoke",
    effect="the end of the membership of {org} is proposed to a second person",
    hidden=True,
)
def revoke(
    org: str,
    where: Where,
    *,
    reason: Annotated[
        str, typer.Option("--reason", help="A reason code, such as key-lost.")
    ] = "operator-decision",
    left: Annotated[bool, typer.Option("--left", help="The organisation itself asked for it.")] = False,
) -> Result:
    """The same as `org remove`."""
    from broker.commands import organisations

    return organisations.org_remove(where, org, reason=reason, left=left)


@command(app, "status")
def status(where: Where) -> Result:
    """Shows how the broker is."""
    from broker import commands

    return commands.status(where)


@command(app, "openapi")
def openapi() -> Result:
    """Prints the OpenAPI document of the API, as docs/reference/openapi.json holds it."""
    from broker.commands import document

    return document.openapi()


def main() -> None:
    """Entry point."""
    app()
