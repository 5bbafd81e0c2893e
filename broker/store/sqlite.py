# SPDX-License-Identifier: Apache-2.0
"""A database in a file of SQLite.

- Every transaction of a writing engine begins with ``BEGIN IMMEDIATE``: a second writer waits at its start
  and never fails in the middle. Readers begin a plain one, see one snapshot until they end, and cannot write.
- ``synchronous=FULL``: a commit is on the disk before it returns. Less would be many times faster and is
  refused, because a receipt could then outlive its entry. What was asked for is read back.
"""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL

from broker.store.errors import UnsafeSettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["PRAGMAS", "READ_WAIT_S", "check_pragmas", "make_file", "reading_engine", "writing_engine"]

PRAGMAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "journal_mode": "WAL",
        "synchronous": "FULL",
        "foreign_keys": "ON",
        "recursive_triggers": "ON",  # without it REPLACE would delete a log row past its trigger
        "busy_timeout": "5000",
    }
)
READ_WAIT_S: Final = 1.0
"""How long a reader waits for one of the connections: the event loop stands still meanwhile."""
_SYNCHRONOUS_FULL = 2
_FILE_MODE = 0o600
_READERS = 8


def check_pragmas(engine: Engine, path: Path) -> None:
    """Reads back what the database really does.

    Raises:
        UnsafeSettingsError: Names the first pragma that is weaker than needed.
    """
    with engine.connect() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
    needs = (
        ("journal_mode", found["journal_mode"] == "wal", "WAL"),
        ("synchronous", int(found["synchronous"] or 0) >= _SYNCHRONOUS_FULL, "FULL (2) or EXTRA (3)"),
        ("foreign_keys", found["foreign_keys"] == 1, "ON"),
        ("busy_timeout", int(found["busy_timeout"] or 0) > 0, "more than 0 ms"),
    )
    for name, holds, need in needs:
        if not holds:
            raise UnsafeSettingsError(
                need=f"PRAGMA {name} = {need} on {path}",
                found=str(found[name]),
                remedy="correct the setting, or put the file on a local disk that supports it",
            )


def make_file(path: Path) -> None:
    """Makes a missing file for its owner only.

    Closing any descriptor of an open database would give up its locks in this process: new files only.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))


def writing_engine(path: Path, pragmas: Mapping[str, str]) -> Engine:
    """An engine with one connection, which locks the database when a transaction begins."""
    engine = create_engine(
        _url(path), poolclass=StaticPool, connect_args={"check_same_thread": False, "isolation_level": None}
    )
    _on_connect(engine, pragmas)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path, pragmas: Mapping[str, str]) -> Engine:
    """An engine whose connections see one snapshot each and cannot write."""
    engine = create_engine(
        _url(path),
        pool_size=_READERS,
        max_overflow=_READERS,
        pool_timeout=READ_WAIT_S,
        connect_args={"check_same_thread": False, "isolation_level": None},
    )
    _on_connect(engine, {**pragmas, "query_only": "ON"})

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _on_connect(engine: Engine, pragmas: Mapping[str, str]) -> None:
    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, _record: object) -> None:  # noqa: ANN401  the driver's own connection
        cursor = dbapi_connection.cursor()
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()


def _url(path: Path) -> URL:
    return URL.create("sqlite+pysqlite", database=str(path))
