# SPDX-License-Identifier: Apache-2.0
"""Statements that run once for every entry: compiled once, then handed to the driver without detours.

They are written with SQLAlchemy, so they stay portable; only their execution is short. An error of the driver
is wrapped as SQLAlchemy would wrap it, and one that says that the connection is gone makes an end of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Executable
    from sqlalchemy.engine.interfaces import DBAPICursor, Dialect

__all__ = ["BEFORE_STATEMENT", "Prepared", "run_text"]

BEFORE_STATEMENT = "iriai.before-statement"
"""Key of a connection's ``info``: a function that is called before each statement."""


class Prepared:
    """One statement whose parameters are all named, and text, integers or bytes.

    Values that the statement itself compares with are parameters of its own; an ``in_`` has no fixed form. A
    function makes the statement for a dialect, where it is written differently (`broker.store.upserts`).
    """

    def __init__(self, statement: Executable | Callable[[Dialect], Executable]) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None]] = {}
        self._own: dict[str, Any] = {}

    def first(self, session: Connection, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """First row of the result; the others are not fetched.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        sql, names = self._for(session.dialect)
        with _cursor(session, sql) as cursor:
            cursor.execute(sql, self._parameters(row, names))
            found: tuple[Any, ...] | None = cursor.fetchone()
        return found

    def all(self, session: Connection, row: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """All rows of the result.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        sql, names = self._for(session.dialect)
        with _cursor(session, sql) as cursor:
            cursor.execute(sql, self._parameters(row, names))
            return cursor.fetchall()

    def many(self, session: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Executes the statement for every row; nothing is returned.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        if not rows:
            return
        sql, names = self._for(session.dialect)
        with _cursor(session, sql) as cursor:
            cursor.executemany(sql, [self._parameters(row, names) for row in rows])

    def _for(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
        found = self._compiled.get(dialect.name)
        if found is None:
            made = self._statement
            statement: Any = made(dialect) if callable(made) else made
            compiled: Any = statement.compile(dialect=dialect)
            self._own = {name: value for name, value in compiled.params.items() if value is not None}
            names = tuple(compiled.positiontup) if compiled.positional else None
            found = self._compiled[dialect.name] = (compiled.string, names)
        return found

    def _parameters(self, row: Mapping[str, Any], names: tuple[str, ...] | None) -> Any:  # noqa: ANN401  the driver's own
        whole = {**self._own, **row} if self._own else row
        return whole if names is None else tuple([whole[name] for name in names])


def run_text(session: Connection, sql: str) -> None:
    """Executes one statement without parameters or result; a savepoint, for example.

    Raises:
        DBAPIError: As from SQLAlchemy.
    """
    with _cursor(session, sql) as cursor:
        cursor.execute(sql)


@contextmanager
def _cursor(session: Connection, sql: str) -> Iterator[DBAPICursor]:
    """The driver's cursor; its errors leave as SQLAlchemy's."""
    driver = session.dialect.loaded_dbapi.Error
    announce = session.info.get(BEFORE_STATEMENT)
    if announce is not None:
        announce()
    connection = session.connection
    cursor = connection.cursor()
    try:
        yield cursor
    except driver as error:
        lost = session.dialect.is_disconnect(error, connection.dbapi_connection, cursor)
        if lost:
            session.invalidate(error)
        raise DBAPIError.instance(
            sql, None, error, driver, connection_invalidated=lost, dialect=session.dialect
        ) from error
    finally:
        cursor.close()
