# SPDX-License-Identifier: Apache-2.0
"""The three roles at a main database of PostgreSQL, and what each of them may do.

    owner      makes and migrates the tables; used by ``iriai-broker db upgrade`` only, in no setting
    broker     reads all tables and changes them, but only adds to `broker.store.tables.APPEND_ONLY`
    auditor    reads all tables that say something of the pool; optional

The roles and the empty database are made by whoever runs the server (docs/how-to/operator.md has the few
lines); `prepare` does the rest and may be repeated. A broker whose role could change the log's tables does
not start. The private database has one role, the broker's, which owns it: what is in there must be erasable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from broker.store import postgres, tables
from broker.store.errors import StoreError, UnsafeSettingsError
from broker.store.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

__all__ = ["check_roles", "prepare"]

_NOT_FOR_AUDITORS: Final = (
    "idempotency",  # what keeps requests apart says nothing of the pool
    "nonce",
    "credential",  # with what people log in is theirs
    "login_session",
    "login_link",
)
_VERSION: Final = "alembic_version"


def prepare(owner: str, *, broker: str, auditor: str | None = None) -> None:
    """Brings a main database to the newest schema and sets everybody's rights.

    Args:
        owner: URL of the database, as the owner of its tables.
        broker: URL of the same database, as the broker; it is not connected to.
        auditor: Role of the auditor, if there is one.

    Raises:
        UnsafeSettingsError: Two of the roles are one, or a setting of the server is too weak.
        SchemaUnknownError: Written by another version of this program.
        StoreError: Two databases; a role does not exist, or the owner may not do this.
        StoreUnreachableError: The server does not answer.
    """
    role = check_roles(owner, broker=broker, auditor=auditor)
    engine = postgres.writing_engine(owner)
    try:
        with engine.connect():
            pass  # a server that does not answer is told apart from one that refuses
    except DBAPIError as error:
        engine.dispose()
        raise postgres.unreachable(error) from error
    try:
        migrate(engine, "main")
        with engine.begin() as connection:
            for statement in _grants(connection, role, auditor):
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        raise StoreError(
            need="an owner that may migrate the database, and roles that exist",
            found=str(error.orig).splitlines()[0][:200],
            remedy="make the roles and the database as docs/how-to/operator.md says, then try again",
        ) from error
    finally:
        engine.dispose()


def check_roles(owner: str, *, broker: str, auditor: str | None = None) -> str:
    """The broker's role, once all of them are different and at one database; nothing is connected to.

    Raises:
        UnsafeSettingsError: Two of the roles are one.
        StoreError: Two databases.
    """
    ours, theirs = make_url(owner), make_url(broker)
    if ours.database != theirs.database:
        raise StoreError(
            need=f"an owner of the database {theirs.database}",
            found=f"one of {ours.database}",
            remedy="name the broker's database, with its owner as the user",
        )
    role = str(theirs.username)
    roles = [str(ours.username), role, *([] if auditor is None else [auditor])]
    if len(set(roles)) != len(roles):
        raise UnsafeSettingsError(
            need="different roles for the owner of the tables, the broker and the auditor",
            found="one role twice",
            remedy="make a role for each: CREATE ROLE name LOGIN",
        )
    return role


def _grants(connection: Connection, broker: str, auditor: str | None) -> Iterator[str]:
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = quote(str(connection.exec_driver_sql("SELECT current_schema()").scalar()))
    yield f"GRANT USAGE ON SCHEMA {schema} TO {quote(broker)}"
    for name in (*tables.main.tables, _VERSION):
        table = f"{schema}.{quote(name)}"
        yield f"REVOKE ALL ON {table} FROM PUBLIC, {quote(broker)}"
        yield f"GRANT {_rights(name)} ON {table} TO {quote(broker)}"
    if auditor is None:
        return
    yield f"GRANT USAGE ON SCHEMA {schema} TO {quote(auditor)}"
    for name in (*tables.main.tables, _VERSION):
        table = f"{schema}.{quote(name)}"
        yield f"REVOKE ALL ON {table} FROM {quote(auditor)}"
        if name not in _NOT_FOR_AUDITORS:
            yield f"GRANT SELECT ON {table} TO {quote(auditor)}"


def _rights(table: str) -> str:
    if table == _VERSION:
        return "SELECT"
    return "SELECT, INSERT" if table in tables.APPEND_ONLY else "SELECT, INSERT, UPDATE, DELETE"
