# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker db``: the main database of PostgreSQL, as the owner of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["db"]

db = typer_group("The broker's database on PostgreSQL.")


@command(db, "migrate")
def db_migrate(
    directory: Home,
    *,
    database_owner: Annotated[
        str, typer.Option("--database-owner", help="The database's URL for the owner of its tables.")
    ],
    auditor: Annotated[
        str | None, typer.Option("--auditor", help="A role that shall read, and nothing else.")
    ] = None,
) -> Result:
    """Brings the tables up to date and sets what each role may do. Safe to repeat; stop the broker before."""
    from broker.commands import db as commands_db

    return commands_db.migrate(directory, owner=database_owner, auditor=auditor)
