# SPDX-License-Identifier: Apache-2.0
"""Migrations of the three databases (Alembic): one folder each, run when the store opens.

Nothing ever drops or rewrites a log table. A database at the newest revision costs one query and loads no
Alembic.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from broker.store.errors import SchemaUnknownError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Engine

__all__ = ["HEADS", "config", "migrate"]

HEADS: Final = {"main": "main_0006", "private": "private_0001", "signer": "signer_0001"}
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
        found = None
        if inspect(connection).has_table("alembic_version"):
            found = connection.scalar(text("SELECT version_num FROM alembic_version"))
        if found == HEADS[name]:
            return
        from alembic import command
        from alembic.script import ScriptDirectory

        made = config(name)
        known = {script.revision for script in ScriptDirectory.from_config(made).walk_revisions()}
        if found is not None and found not in known:
            raise SchemaUnknownError(
                need=f"a revision of {name} up to {HEADS[name]}",
                found=str(found),
                remedy="start the version of the program that wrote it, or a newer one",
            )
        made.attributes["connection"] = connection
        command.upgrade(made, "head")
