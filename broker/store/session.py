# SPDX-License-Identifier: Apache-2.0
"""Connections to the three databases.

- Every transaction of a writing engine begins with ``BEGIN IMMEDIATE``: a second writer waits at its start
  and never fails in the middle. Readers begin a plain one, see one snapshot until they end, and cannot write.
- ``synchronous=FULL``: a commit is on the disk before it returns. Less would be many times faster and is
  refused, because a receipt could then outlive its entry. What was asked for is read back when the store
  opens.
- The schema is migrated while opening; a schema from another version is refused.
- The writer thread of `broker.log` owns the writing connections; services read with `Store.read` from any
  thread.

    with store.read() as session:
        state = session.scalar(select(tables.run.c.state).where(tables.run.c.run_id == run_id))
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine import URL

from broker.store.errors import UnsafeSettingsError
from broker.store.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["PRAGMAS", "Session", "Store", "check_pragmas"]

Session = Connection
"""What a service reads and writes with: a Core connection in a transaction that somebody else ends."""

PRAGMAS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "journal_mode": "WAL",
        "synchronous": "FULL",
        "foreign_keys": "ON",
        "recursive_triggers": "ON",  # without it REPLACE would delete a log row past its trigger
        "busy_timeout": "5000",
    }
)
_SYNCHRONOUS_FULL = 2
_FILE_MODE = 0o600
_READERS = 8


class Store:
    """The three databases of one broker, open and migrated."""

    def __init__(
        self, *, main: Engine, private: Engine, signer: Engine, readers: Engine, private_readers: Engine
    ) -> None:
        self.main = main
        self.private = private
        self.signer = signer
        self.readers = readers
        self.private_readers = private_readers

    @classmethod
    def open(cls, main: Path, private: Path, signer: Path, *, pragmas: Mapping[str, str] = PRAGMAS) -> Store:
        """Opens the files, makes missing ones (mode 0600), migrates them and reads the pragmas back.

        Args:
            main: Business rows and the log.
            private: Salts and confidential values.
            signer: What was signed; best on another disk.
            pragmas: SQLite settings; weaker ones than `PRAGMAS` are refused.

        Raises:
            UnsafeSettingsError: A pragma did not take, or is too weak.
            SchemaUnknownError: Written by another version of this program.
        """
        engines: list[Engine] = []
        try:
            for name, path in (("main", main), ("private", private), ("signer", signer)):
                _make_file(path)
                engine = _writing_engine(path, pragmas)
                engines.append(engine)
                check_pragmas(engine, path)
                migrate(engine, name)
            engines += [_reading_engine(main, pragmas), _reading_engine(private, pragmas)]
        except BaseException:
            for engine in engines:
                engine.dispose()
            raise
        return cls(
            main=engines[0],
            private=engines[1],
            signer=engines[2],
            readers=engines[3],
            private_readers=engines[4],
        )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A connection that sees one snapshot of the main database and cannot change it."""
        with self.readers.connect() as connection:
            yield connection

    @contextmanager
    def read_private(self) -> Iterator[Session]:
        """`read` for the salts and confidential values."""
        with self.private_readers.connect() as connection:
            yield connection

    def reset(self) -> None:
        """Gives the writer new connections: after an error, whatever state the old ones are in."""
        for engine in (self.main, self.private, self.signer):
            engine.dispose()

    def close(self) -> None:
        """Closes all connections; nobody may use the store afterwards."""
        for engine in (self.readers, self.private_readers, self.main, self.private, self.signer):
            engine.dispose()


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


def _writing_engine(path: Path, pragmas: Mapping[str, str]) -> Engine:
    engine = create_engine(
        _url(path), poolclass=StaticPool, connect_args={"check_same_thread": False, "isolation_level": None}
    )
    _on_connect(engine, pragmas)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _reading_engine(path: Path, pragmas: Mapping[str, str]) -> Engine:
    engine = create_engine(
        _url(path),
        pool_size=_READERS,
        max_overflow=_READERS,
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


def _make_file(path: Path) -> None:
    """Closing any descriptor of an open database would give up its locks in this process: new files only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE))
