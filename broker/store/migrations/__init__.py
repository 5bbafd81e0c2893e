# SPDX-License-Identifier: Apache-2.0
"""Migrations of the three databases (Alembic): one folder each, run when the store opens.

Nothing ever drops or rewrites a log table. A database at the newest revision costs one query and loads no
Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from broker.store.errors import NotMigratedError, SchemaUnknownError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

__all__ = ["HEADS", "check_newest", "config", "migrate"]

HEADS: Final = {"main": "main_0016", "private": "private_0001", "signer": "signer_0001"}
_HERE = Path(__file__).parent


def config(name: str) -> Config:
    """Alembic's configuration for the database ``name`` (a key of `HEADS`), built in code."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    made.set_main_option("version_locations", str(_HERE / name).replace("%", "%%"))
    made.set_main_option("path_separator", "newline")
    made.attributes["database"] = name
    return made


def migrate(engine: Engine, name: str) -> None:
    """Brings a database to the newest schema, in one transaction.

    Raises:
        SchemaUnknownError: It holds a revision that this version does not know.
    """
    with engine.begin() as connection:
        found = _revision(connection)
        if found == HEADS[name]:
            return
        from alembic import command

        made = config(name)
        _check_known(made, name, found)
        made.attributes["connection"] = connection
        command.upgrade(made, "head")


def check_newest(connection: Connection, name: str) -> None:
    """Refuses a database that somebody else has to migrate.

    Raises:
        NotMigratedError: It has no tables yet, or those of an earlier version.
        SchemaUnknownError: It holds a revision that this version does not know.
    """
    found = _revision(connection)
    if found == HEADS[name]:
        return
    _check_known(config(name), name, found)
    raise NotMigratedError(
        need=f"a database at revision {HEADS[name]}",
        found=found or "one without tables",
        remedy="as the role that owns the tables: iriai-broker db upgrade --dir DIR --database-owner URL; "
        "to begin, repeat iriai-broker init with --database-owner URL",
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _check_known(made: Config, name: str, found: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(made).walk_revisions()}
    if found is None or found in known:
        return
    other = next((one for one in HEADS if one != name and found.startswith(f"{one}_")), None)
    raise SchemaUnknownError(
        need=f"a revision of {name} up to {HEADS[name]}",
        found=found,
        remedy="start the version of the program that wrote it, or a newer one"
        if other is None
        else f"name another database: this is the {other} one",
    )
