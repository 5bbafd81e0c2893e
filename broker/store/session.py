# SPDX-License-Identifier: Apache-2.0
"""Connections to the three databases, alike on SQLite and PostgreSQL (`broker.store.sqlite`, `.postgres`).

- What is committed is on the disk. Settings under which it might not be are refused when the store opens.
- There is one writer at a time: SQLite locks the file when a transaction begins, PostgreSQL the row of the
  log's head, which the writer reads first.
- A reader sees one snapshot until it ends, and cannot write. Connections are few: no read is held while
  something else is waited for, and who finds all of them in use is sent away after a second.
- The schema is migrated while opening; a schema from another version is refused. Only the main database of
  PostgreSQL is migrated by somebody else, the owner of its tables (`broker.store.roles`).
- The writer thread of `broker.log` owns the writing connections; services read with `Store.read` from any
  thread.

    with store.read() as session:
        state = session.scalar(select(tables.run.c.state).where(tables.run.c.run_id == run_id))
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from broker.store import postgres, sqlite, tables
from broker.store.errors import StoreBusyError
from broker.store.migrations import check_newest, migrate
from broker.store.sqlite import PRAGMAS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.settings import Database

__all__ = ["Session", "Store", "holds_log"]

Session = Connection
"""What a service reads and writes with: a Core connection in a transaction that somebody else ends."""


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
    def open(
        cls,
        main: Database,
        private: Database,
        signer: Path,
        *,
        pragmas: Mapping[str, str] = PRAGMAS,
        trial: bool = False,
    ) -> Store:
        """Opens the databases, makes missing files (mode 0600), migrates, and reads the settings back.

        Args:
            main: Business rows and the log.
            private: Salts and confidential values.
            signer: What was signed; best on another disk.
            pragmas: SQLite settings; weaker ones than `PRAGMAS` are refused.
            trial: Whether these are copies that are looked at and dropped, and on PostgreSQL our own.

        Raises:
            UnsafeSettingsError: A setting did not take, or is too weak, or a role may do too much.
            SchemaUnknownError: Written by another version of this program.
            NotMigratedError: The owner of a database of PostgreSQL has to migrate it.
            StoreUnreachableError: A database does not answer, or its driver is missing.
        """
        engines: list[Engine] = []
        try:
            for name, where in (("main", main), ("private", private), ("signer", signer)):
                engines.append(_writing(where, pragmas))
                _make_ready(engines[-1], name, where, trial=trial)
            engines += [_reading(main, pragmas), _reading(private, pragmas)]
        except BaseException as error:
            for engine in engines:
                engine.dispose()
            if isinstance(error, DBAPIError):
                raise postgres.unreachable(error) from error
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
        """A connection that sees one snapshot of the main database and cannot change it.

        Raises:
            StoreBusyError: All of them are in use.
        """
        with _taken(self.readers) as connection:
            yield connection

    @contextmanager
    def read_private(self) -> Iterator[Session]:
        """`read` for the salts and confidential values."""
        with _taken(self.private_readers) as connection:
            yield connection

    def reset(self) -> None:
        """Gives the writer new connections: after an error, whatever state the old ones are in."""
        for engine in (self.main, self.private, self.signer):
            engine.dispose()

    def close(self) -> None:
        """Closes all connections; nobody may use the store afterwards."""
        for engine in (self.readers, self.private_readers, self.main, self.private, self.signer):
            engine.dispose()


def holds_log(main: Database) -> bool:
    """Whether a main database exists and, on PostgreSQL, has entries already.

    Raises:
        StoreUnreachableError: The server does not answer.
    """
    if isinstance(main, Path):
        return main.exists()
    engine = postgres.reading_engine(main)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(tables.log_entry.name):
                return False
            return connection.scalar(select(tables.log_entry.c.idx).limit(1)) is not None
    except DBAPIError as error:
        raise postgres.unreachable(error) from error
    finally:
        engine.dispose()


def _taken(readers: Engine) -> Session:
    try:
        return readers.connect()
    except NoConnectionError as error:
        raise StoreBusyError(
            need="one of the connections that read the database",
            found="all of them in use",
            remedy="send the same request again in a moment",
        ) from error


def _writing(where: Database, pragmas: Mapping[str, str]) -> Engine:
    if not isinstance(where, Path):
        return postgres.writing_engine(where)
    sqlite.make_file(where)
    return sqlite.writing_engine(where, pragmas)


def _make_ready(engine: Engine, name: str, where: Database, *, trial: bool) -> None:
    """Migrates and checks one database."""
    if isinstance(where, Path):
        sqlite.check_pragmas(engine, where)
        migrate(engine, name)
    elif name == "main" and not trial:
        with engine.begin() as connection:
            check_newest(connection, name)
            postgres.check_rights(connection)
    else:
        migrate(engine, name)


def _reading(where: Database, pragmas: Mapping[str, str]) -> Engine:
    if isinstance(where, Path):
        return sqlite.reading_engine(where, pragmas)
    return postgres.reading_engine(where)
