# SPDX-License-Identifier: Apache-2.0
"""A database of PostgreSQL, 13 or newer, by its URL (`broker.settings`).

- The writer works in READ COMMITTED and locks the row of the log's head before anything else: who comes
  second waits there, then sees all that the first one committed. It gives up after `_LOCK_WAIT`, or after
  the role's own ``lock_timeout``.
- Readers work in REPEATABLE READ, READ ONLY: one snapshot until they end.
- A commit is on the disk before it returns, text is UTF-8 and sorts by its bytes. What the server really does
  is read back from every new writing connection, because a server can be configured anew while we run.
- The writer may add to the log's tables and not change them, by the rights of its role (`broker.store.roles`)
  as well as by triggers. Tables that it could change are refused.
- No message names a URL: what libpq says names host, user and database, and never a password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine, event, make_url, text

from broker.store.errors import StoreUnreachableError, UnsafeSettingsError
from broker.store.sqlite import READ_WAIT_S
from broker.store.tables import APPEND_ONLY

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.exc import DBAPIError

__all__ = ["check_rights", "making_engine", "reading_engine", "unreachable", "writing_engine"]

_READERS = 8
_WRITERS = 1
_SAID_CHARS = 300
_LOCK_WAIT: Final = "5s"
_DEFAULTS: Final = {
    "application_name": "iriai-broker",
    "client_encoding": "UTF8",
    "connect_timeout": "5",  # seconds
    "tcp_user_timeout": "10000",  # milliseconds until a network that swallows everything is an error
}
_DURABLE: Final = ("on", "local", "remote_write", "remote_apply")  # all of them flush the log of this server
_NEEDS: Final = (
    ("fsync", ("on",)),
    ("full_page_writes", ("on",)),
    ("synchronous_commit", _DURABLE),
    ("server_encoding", ("UTF8",)),
    ("transaction_isolation", ("read committed",)),
)
_SETTINGS: Final = "SELECT " + ", ".join(f"current_setting('{name}')" for name, _ in _NEEDS)
_BY_BYTES: Final = "SELECT 'a' > 'B'"  # false in the order of any language
_RIGHTS: Final = text(
    "SELECT relname, has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE'), pg_has_role(relowner, 'USAGE')"
    " FROM pg_class WHERE oid = CAST(:name AS regclass)"
)


def writing_engine(url: str) -> Engine:
    """An engine for one writer; each of its connections is checked when it is made.

    Raises:
        StoreUnreachableError: The driver is not installed.
    """
    engine = _engine(url, "READ COMMITTED", pool_size=_WRITERS, max_overflow=_WRITERS)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401  the driver's own connection
        with connection.cursor() as cursor:
            if cursor.execute("SELECT current_setting('lock_timeout')").fetchone() == ("0",):
                cursor.execute(f"SET lock_timeout = '{_LOCK_WAIT}'")
            _check_settings(cursor)
        connection.commit()

    return engine


def reading_engine(url: str) -> Engine:
    """An engine whose connections see one snapshot each and cannot write.

    Raises:
        StoreUnreachableError: The driver is not installed.
    """
    engine = _engine(url, "REPEATABLE READ", pool_size=_READERS, max_overflow=_READERS, wait_s=READ_WAIT_S)

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401  the driver's own connection
        connection.read_only = True

    return engine


def making_engine(url: str) -> Engine:
    """An engine without transactions: for making and dropping databases, which takes none.

    Raises:
        StoreUnreachableError: The driver is not installed.
    """
    return _engine(url, "AUTOCOMMIT", pool_size=1, max_overflow=0)


def check_rights(connection: Connection) -> None:
    """Looks whether the role that we are can change what is in the log.

    Raises:
        UnsafeSettingsError: It can, or it owns the tables and could give itself the right.
    """
    for name in APPEND_ONLY:
        table, writes, owns = connection.execute(_RIGHTS, {"name": name}).one()
        if writes or owns:
            raise UnsafeSettingsError(
                need=f"a role that may not UPDATE, DELETE or TRUNCATE {table}, and does not own it",
                found="the owner, or a superuser" if owns else "a role with these rights",
                remedy="name a role of its own in database_url, then: iriai-broker db upgrade "
                "--database-owner URL, which sets its rights",
            )


def unreachable(error: DBAPIError) -> StoreUnreachableError:
    """What to say of a database that could not be opened."""
    said = " ".join(str(error.orig).split()) or type(error.orig).__name__
    return StoreUnreachableError(
        need="a database that answers and lets this role in",
        found=said[:_SAID_CHARS],
        remedy="see that the server runs and that host, user, database and password are right",
    )


def _engine(
    url: str,
    isolation: Any,  # noqa: ANN401  a literal of SQLAlchemy's
    *,
    pool_size: int,
    max_overflow: int,
    wait_s: float = 30.0,
) -> Engine:
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    given = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
    try:
        return create_engine(
            parsed,
            isolation_level=isolation,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=wait_s,
            pool_pre_ping=True,  # a server that was restarted costs nobody an error
            use_native_hstore=False,
            connect_args=given,
        )
    except ModuleNotFoundError as error:
        raise StoreUnreachableError(
            need="psycopg, the driver of PostgreSQL",
            found="not installed",
            remedy="pip install 'iriai[broker,postgres]'",
        ) from error


def _check_settings(cursor: Any) -> None:  # noqa: ANN401  the driver's own
    for (name, allowed), found in zip(_NEEDS, cursor.execute(_SETTINGS).fetchone(), strict=True):
        if found not in allowed:
            raise _unsafe(name, " or ".join(allowed), found)
    if not cursor.execute(_BY_BYTES).fetchone()[0]:
        raise _unsafe("LC_COLLATE", "C", "the order of a language")


def _unsafe(name: str, need: str, found: str) -> UnsafeSettingsError:
    return UnsafeSettingsError(
        need=f"{name} = {need} on the database server",
        found=found,
        remedy="correct postgresql.conf, or what ALTER ROLE and ALTER DATABASE set; encoding and LC_COLLATE"
        " are chosen when a database is made: ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0",
    )
