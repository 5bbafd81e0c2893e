# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker db``: the schema of the databases; on PostgreSQL, as the owner of the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["db"]

db = typer_group("The schema of the broker's databases.")


_Owner = Annotated[
    str | None,
    typer.Option("--database-owner", help="On PostgreSQL: the database's URL for the owner of its tables."),
]
_Auditor = Annotated[
    str | None, typer.Option("--auditor", help="On PostgreSQL: a role that shall read, and nothing else.")
]


@command(db, "check")
def db_check(directory: Home) -> Result:
    """Says which schema each database has; exits with 3 if one is not this program's."""
    from broker.commands import db as commands_db

    return commands_db.check(directory)


@command(
    db, "upgrade", effect="the tables are brought up to date; on PostgreSQL the rights of each role are set"
)
def db_upgrade(directory: Home, *, database_owner: _Owner = None, auditor: _Auditor = None) -> Result:
    """Brings the tables up to date. Safe to repeat; stop the broker before, and make a backup."""
    from broker.commands import db as commands_db

    return commands_db.upgrade(directory, owner=database_owner, auditor=auditor)


@command(
    db, "migrate", effect="the tables are brought up to date and the rights of each role are set", hidden=True
)
def db_migrate(
    directory: Home,
    *,
    database_owner: Annotated[
        str, typer.Option("--database-owner", help="The database's URL for the owner of its tables.")
    ],
    auditor: _Auditor = None,
) -> Result:
    """The same as `db upgrade`, on PostgreSQL."""
    from broker.commands import db as commands_db

    return commands_db.migrate(directory, owner=database_owner, auditor=auditor)
