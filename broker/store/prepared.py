# SPDX-License-Identifier: Apache-2.0
"""Statements that run once for every entry: compiled once, then handed to the driver without detours.

They are written with SQLAlchemy, so they stay portable; only their execution is short. An error of the driver
is wrapped as SQLAlchemy would wrap it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Executable
    from sqlalchemy.engine.interfaces import Dialect

__all__ = ["Prepared"]


class Prepared:
    """One statement whose parameters are all named, and text, integers or bytes."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None]] = {}

    def first(self, session: Connection, row: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """First row of the result.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        sql, names = self._for(session.dialect)
        cursor = session.connection.cursor()
        try:
            cursor.execute(sql, _parameters(row, names))
            found: tuple[Any, ...] | None = cursor.fetchone()
        except session.dialect.loaded_dbapi.Error as error:
            raise _wrapped(session.dialect, sql, error) from error
        finally:
            cursor.close()
        return found

    def many(self, session: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Executes the statement for every row; nothing is returned.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        if not rows:
            return
        sql, names = self._for(session.dialect)
        cursor = session.connection.cursor()
        try:
            cursor.executemany(sql, [_parameters(row, names) for row in rows])
        except session.dialect.loaded_dbapi.Error as error:
            raise _wrapped(session.dialect, sql, error) from error
        finally:
            cursor.close()

    def _for(self, dialect: Dialect) -> tuple[str, tuple[str, ...] | None]:
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled: Any = self._statement.compile(dialect=dialect)  # type: ignore[attr-defined]
            names = tuple(compiled.positiontup) if compiled.positional else None
            found = self._compiled[dialect.name] = (compiled.string, names)
        return found


def _parameters(row: Mapping[str, Any], names: tuple[str, ...] | None) -> Any:  # noqa: ANN401  the driver's own
    return row if names is None else tuple([row[name] for name in names])


def _wrapped(dialect: Dialect, sql: str, error: Exception) -> BaseException:
    return DBAPIError.instance(sql, None, error, dialect.loaded_dbapi.Error, dialect=dialect)
