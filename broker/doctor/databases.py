# SPDX-License-Identifier: Apache-2.0
"""Checks of the databases: settings, pages, schema, and the log against the memory of its signer.

Everything is read; no schema is migrated, nothing is signed. A broker may serve meanwhile.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sqlalchemy import inspect, select, text

from broker.backup.looking import reading as reading_file
from broker.doctor.findings import FailedError
from broker.log.recovery import read_head
from broker.store import postgres, sqlite
from broker.store.migrations import HEADS
from broker.store.tables import last_signed, signer_state
from policies.log.merkle import Frontier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.settings import Database, Settings
    from broker.store import Session

__all__ = ["frozen", "head", "integrity", "reading", "schema", "synchronous"]

_STEPS: Final = 1_000_000  # of SQLite's machine between two looks at the count
_MOST_STEPS: Final = 400  # a few seconds; `backup verify` looks at everything


@contextmanager
def reading(where: Database) -> Iterator[Session]:
    """A session that reads a database and cannot change it."""
    if isinstance(where, Path):
        where.stat()  # SQLite's own words name no file
        with reading_file(where) as session:
            yield session
        return
    engine = postgres.reading_engine(where)
    try:
        with engine.connect() as session:
            yield session
    finally:
        engine.dispose()


def _named(settings: Settings) -> dict[str, Database]:
    return {
        "main": settings.main_database,
        "private": settings.private_database,
        "signer": settings.signer_path,
    }


def synchronous(settings: Settings) -> str:
    """What is committed is on the disk: settings as they are read back."""
    for where in _named(settings).values():
        if isinstance(where, Path):
            where.stat()
            _check_header(where)  # first: opening it to write would set it
            engine = sqlite.writing_engine(where, sqlite.PRAGMAS)
            try:
                sqlite.check_pragmas(engine, where)
            finally:
                engine.dispose()
        else:
            server = postgres.writing_engine(where)  # its connections are checked when they are made
            try:
                server.connect().close()
            finally:
                server.dispose()
    return "synchronous=FULL, or what is as safe on a server"


def _check_header(path: Path) -> None:
    """The journal that a file has by itself, whoever opens it."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raise FailedError(f"{path} has journal_mode {mode}", "put it on a local disk that can share memory")


def integrity(settings: Settings) -> str:
    """SQLite finds no damaged page, as far as a few seconds reach."""
    whole = True
    for name, where in _named(settings).items():
        if not isinstance(where, Path):
            continue
        where.stat()
        said = _quick_check(where)
        whole = whole and said is not None
        if said not in {None, "ok"}:
            raise FailedError(
                f"{name}: {said}", "stop the broker, keep its folder as it is, restore the newest backup"
            )
    return "no damaged page" if whole else "no damaged page so far; iriai-broker backup verify reads all"


def _quick_check(path: Path) -> str | None:
    """What SQLite finds; None if there was no time for all of it."""
    looks = 0

    def over() -> bool:
        nonlocal looks
        looks += 1
        return looks > _MOST_STEPS

    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        connection.set_progress_handler(over, _STEPS)
        try:
            return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                return None
            raise
        except sqlite3.DatabaseError as error:
            return str(error)


def schema(settings: Settings) -> str:
    """Each database has the schema of this version of the program."""
    for name, where in _named(settings).items():
        with reading(where) as session:
            there = inspect(session).has_table("alembic_version")
            found = session.scalar(text("SELECT version_num FROM alembic_version")) if there else None
        if found != HEADS[name]:
            raise FailedError(
                f"{name} is at {found or 'no schema'}, the program at {HEADS[name]}",
                "start the broker once, which migrates its files (iriai-broker db upgrade on PostgreSQL); "
                "a newer schema needs the newer program",
            )
    return ", ".join(HEADS.values())


def head(settings: Settings) -> str:
    """The log is at least what the signer signed, and the same where both are as long."""
    with reading(settings.main_database) as session:
        stored = read_head(session)
    with reading(settings.signer_path) as session:
        row = session.execute(select(last_signed).where(last_signed.c.origin == settings.origin)).first()
    if row is None:
        raise FailedError(
            f"{stored.size} entries, and a signer that remembers nothing of {settings.origin}",
            "put the newest signer.db back; a log without it freezes",
        )
    signed = Frontier.from_bytes(row.size, bytes(row.frontier))
    if stored.size < signed.size or (stored.size == signed.size and stored != signed):
        raise FailedError(
            f"a head of {stored.size} entries, where another one of {signed.size} was signed",
            "put the newest database back; else iriai-broker log status and log repair",
        )
    return f"{stored.size} entries, {signed.size} of them signed"


def frozen(settings: Settings) -> str:
    """The signer signs."""
    with reading(settings.signer_path) as session:
        row = session.execute(select(signer_state).where(signer_state.c.origin == settings.origin)).first()
    if row is not None and row.state != "open":
        evidence = str(row.evidence or "").partition("\n")[0]
        raise FailedError(
            f"the log is frozen: {row.reason}: {evidence}"[:300],
            "iriai-broker log status; then log repair or log succeed, by two operators",
        )
    return "not frozen"
