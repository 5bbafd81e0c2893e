# SPDX-License-Identifier: Apache-2.0
"""Databases of PostgreSQL in a backup: an archive of ``pg_dump``, restored on trial, restored for good.

- A dump is of one snapshot, and whoever made it looks into the very same one: what the log in the archive is
  was read and hashed in it. Writers go on meanwhile.
- A trial has a database of its own on some server, made for it, closed to everybody else and dropped
  whatever happens. The server is the broker's own unless another is named; its role may make databases.
- An archive is SQL that is executed. Only bytes whose digest a signed manifest names come this far.
- For good it goes into a database that holds nothing yet, in one transaction: all of it, or nothing. Then
  the server counts what is in it: without that its first plans of queries are bad ones.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from broker.backup.errors import BackupServerError
from broker.backup.programs import call, find
from broker.store import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from broker.store import Session
    from policies.ports import Clock

__all__ = ["check_empty", "counted", "dumped", "restore", "scratch"]

_MAJOR: Final = text("SELECT CAST(current_setting('server_version_num') AS integer) / 10000")
_SNAPSHOT: Final = text("SELECT pg_export_snapshot()")
_HELD: Final = text(
    "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE nspname <> 'information_schema' AND left(nspname, 3) <> 'pg_'"
)
_DUMP: Final = (
    "--format=custom",
    "--no-owner",
    "--no-privileges",
    "--no-comments",
    "--lock-wait-timeout=30s",
)
_RESTORE: Final = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
_MAY_READ: Final = (
    "let the role that the settings name read every table of this database (iriai-broker db upgrade sets "
    "that), and see that the disk of --out has room"
)
_MAY_FILL: Final = (
    "see that the role may make tables in this database and that the server has room; then repeat with an "
    "empty one"
)


@contextmanager
def dumped(url: str, target: Path) -> Iterator[Session]:
    """Writes one snapshot of a database to a new file (mode 0600); gives a session that sees the same one.

    Raises:
        BackupToolsError: ``pg_dump`` of the server's version is not here.
        BackupServerError: The role may not read all of it.
        StoreUnreachableError: The server does not answer.
    """
    engine = postgres.reading_engine(url)
    try:
        with _connected(engine) as session:
            program = find("pg_dump", session.scalar(_MAJOR))
            options = (*_DUMP, f"--snapshot={session.scalar(_SNAPSHOT)}", f"--file={target}")
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            call(program, options, url, remedy=_MAY_READ)
            yield session
    finally:
        engine.dispose()


@contextmanager
def scratch(server: str, name: str, clock: Clock) -> Iterator[str]:
    """The URL of an empty database for a trial; it is gone afterwards.

    Raises:
        BackupServerError: The role may make none.
        StoreUnreachableError: The server does not answer.
    """
    made = f"iriai_trial_{clock.now_ms()}_{os.getpid()}_{name}"
    engine = postgres.making_engine(server)
    try:
        with _connected(engine) as session:
            try:
                session.execute(text(f"CREATE DATABASE {made} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"))
            except DBAPIError as error:
                raise _may_not_make(error) from error
            try:
                session.execute(text(f"REVOKE ALL ON DATABASE {made} FROM PUBLIC"))
                yield make_url(server).set(database=made).render_as_string(hide_password=False)
            finally:
                session.execute(text(f"DROP DATABASE {made} WITH (FORCE)"))
    finally:
        engine.dispose()


def restore(archive: Path, url: str) -> None:
    """Executes an archive in an empty database, as the owner of what it makes.

    Raises:
        BackupToolsError: ``pg_restore`` of the server's version is not here.
        BackupServerError: The database is not empty, or does not take all of it: then it has nothing of it.
        StoreUnreachableError: The server does not answer.
    """
    major = check_empty(url)
    call(find("pg_restore", major), _RESTORE, url, remedy=_MAY_FILL, file=archive)


def counted(url: str) -> None:
    """Lets the server count what is in a database; as its owner.

    Raises:
        StoreUnreachableError: The server does not answer.
    """
    engine = postgres.making_engine(url)
    try:
        with _connected(engine) as session:
            session.execute(text("ANALYZE"))
    finally:
        engine.dispose()


def check_empty(url: str) -> int:
    """The major version of a server, once a database there holds nothing of anybody.

    Raises:
        BackupServerError: It holds something.
        StoreUnreachableError: The server does not answer.
    """
    engine = postgres.reading_engine(url)
    try:
        with _connected(engine) as session:
            major, held = int(session.scalar(_MAJOR)), session.scalar(_HELD)
    finally:
        engine.dispose()
    if held:
        raise BackupServerError(
            need=f"an empty database {make_url(url).database}",
            found=f"one with {held} tables and indexes",
            remedy="make another, and name it with --database-url or --private-db-url; nothing was changed",
        )
    return major


@contextmanager
def _connected(engine: Engine) -> Iterator[Session]:
    try:
        with engine.connect() as session:
            yield session
    except DBAPIError as error:
        raise postgres.unreachable(error) from error


def _may_not_make(error: DBAPIError) -> BackupServerError:
    return BackupServerError(
        need="a role that may make a database for the trial",
        found=" ".join(str(error.orig).split())[:200],
        remedy="CREATE ROLE iriai_trial LOGIN CREATEDB, and name the server with this role: "
        "--server postgresql://iriai_trial@host/postgres; best another server than the broker's",
    )
