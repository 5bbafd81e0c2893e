# SPDX-License-Identifier: Apache-2.0
"""Inserts that may find their row already there: the one place that knows how each database spells them.

A row is found by its primary key. `insert_or_ignore` leaves the old one as it is, also where another unique
constraint stands in the way; `insert_or_update` gives it every value of the new one.

    insert_or_ignore(session, tables.statement, {"digest": named, "bytes": data})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Dialect, Table

    Insert = sqlite.Insert | postgresql.Insert

__all__ = ["insert_or_ignore", "insert_or_update", "updating"]


def insert_or_ignore(session: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row unless it is there."""
    session.execute(_insert(table, session.dialect).on_conflict_do_nothing(), row)


def insert_or_update(session: Connection, table: Table, row: Mapping[str, Any]) -> None:
    """Inserts a row, or gives the one with its primary key these values."""
    session.execute(_updating(table, session.dialect, row), row)


def updating(table: Table) -> Callable[[Dialect], Insert]:
    """`insert_or_update` of whole rows, for `broker.store.prepared.Prepared`."""
    return lambda dialect: _updating(table, dialect, {column.name: None for column in table.columns})


def _insert(table: Table, dialect: Dialect) -> Insert:
    return postgresql.insert(table) if dialect.name == "postgresql" else sqlite.insert(table)


def _updating(table: Table, dialect: Dialect, row: Mapping[str, Any]) -> Insert:
    made = _insert(table, dialect)
    keys = [column.name for column in table.primary_key]
    new = {name: made.excluded[name] for name in row if name not in keys}
    return made.on_conflict_do_update(index_elements=keys, set_=new)
