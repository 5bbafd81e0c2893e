# SPDX-License-Identifier: Apache-2.0
"""Where ``reconcile`` reads the broker's tables: its SQLite files, or files of ``iriai-broker audit rows``.

- ``sqlite:PATH``: the main database, or the broker's folder (then ``broker.db`` in it). The private database
  is ``private.db`` beside it; where it is elsewhere, ``sqlite:MAIN,PRIVATE``. Opened read-only, in one
  transaction each: a broker may go on meanwhile.
- a folder: one ``<table>.jsonl`` per table, one JSON object per row. Bytes are ``{"b64": text}``.

Both give rows as mappings from column to integer, text, bytes or None, by the primary key. A table that is
not there is None: it is named as not checked. Anything else that is malformed is refused before it is used.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from policies.verify.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Rows", "open_database", "open_rows", "row_line"]

MAIN: Final = "broker.db"
PRIVATE: Final = "private.db"
PRIVATE_TABLES: Final = frozenset({"log_private"})
_SCHEME = "sqlite:"
_TABLE = re.compile(r"[a-z_]{1,40}\Z")
_LINE_CHARS = 8 * 1024 * 1024
_COLUMNS = 40


class Rows(Protocol):
    """A source of rows."""

    def table(self, name: str, order: str) -> Iterator[Mapping[str, Any]] | None:
        """Rows of a table by a column; None where it is not there."""
        ...


def _refuse(need: str, found: str) -> InputError:
    return InputError(
        need=need,
        found=ascii(found)[1:-1][:200],
        remedy="give --db sqlite:PATH of the broker's database, or --rows from `iriai-broker audit rows`",
    )


# --- the databases ---


class _Database:
    def __init__(self, main: sqlite3.Connection, private: sqlite3.Connection | None) -> None:
        self._main = main
        self._private = private

    def table(self, name: str, order: str) -> Iterator[Mapping[str, Any]] | None:
        source = self._private if name in PRIVATE_TABLES else self._main
        if source is None or not _TABLE.match(name) or not _TABLE.match(order):
            return None
        known = source.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
        if known.fetchone() is None:
            return None
        query = f'SELECT * FROM "{name}" ORDER BY "{order}"'  # noqa: S608  names of ours, matched above
        return self._rows(source, query)

    @staticmethod
    def _rows(source: sqlite3.Connection, query: str) -> Iterator[Mapping[str, Any]]:
        try:
            for row in source.execute(query):
                yield dict(zip(row.keys(), row, strict=True))
        except sqlite3.Error as error:
            raise _refuse("a database of a broker", str(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def open_database(where: str) -> Iterator[Rows]:
    """The databases behind ``sqlite:PATH``.

    Raises:
        InputError: They are not there, or are none.
    """
    if not where.startswith(_SCHEME):
        raise _refuse("sqlite:PATH", where)
    main_text, _, private_text = where.removeprefix(_SCHEME).partition(",")
    main = Path(main_text)
    main = main / MAIN if main.is_dir() else main
    private = Path(private_text) if private_text else main.with_name(PRIVATE)
    if not main.is_file() or (private_text and not private.is_file()):
        raise _refuse("a file", f"{main} {private_text}")
    try:
        with closing(_connect(main)) as first:
            if not private.is_file():
                yield _Database(first, None)
                return
            with closing(_connect(private)) as second:
                yield _Database(first, second)
    except sqlite3.Error as error:
        raise _refuse("a database of a broker", f"{main}: {error}") from error


# --- files ---


def row_line(row: Mapping[str, Any]) -> str:
    """One row as a line of a ``.jsonl`` file, its newline included."""
    shown = {
        name: {"b64": base64.b64encode(bytes(value)).decode("ascii")}
        if isinstance(value, bytes | memoryview)
        else value
        for name, value in row.items()
    }
    return json.dumps(shown, ensure_ascii=True, sort_keys=True, separators=(",", ":")) + "\n"


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, name: str, order: str) -> Iterator[Mapping[str, Any]] | None:
        path = self._folder / f"{name}.jsonl"
        if not _TABLE.match(name) or not path.is_file():
            return None
        return self._rows(path, order)

    @staticmethod
    def _rows(path: Path, order: str) -> Iterator[Mapping[str, Any]]:
        with path.open(encoding="utf-8", errors="replace") as file:
            number = 0
            while line := file.readline(_LINE_CHARS):
                number += 1
                row = _parsed(line)
                if row is None or order not in row:
                    raise _refuse(f"{path.name}, line {number}: one row with {order}", line[:80])
                yield row


def _parsed(line: str) -> dict[str, Any] | None:
    """A row from its line, or None."""
    try:
        row = json.loads(line)
        if not line.endswith("\n") or not isinstance(row, dict) or len(row) > _COLUMNS:
            return None
        return {name: _value(value) for name, value in row.items()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _value(value: Any) -> Any:  # noqa: ANN401  a column's value
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise TypeError


@contextmanager
def open_rows(folder: Path) -> Iterator[Rows]:
    """The files of a folder.

    Raises:
        InputError: There are none.
    """
    if not folder.is_dir() or not any(folder.glob("*.jsonl")):
        raise _refuse("a folder with <table>.jsonl files", str(folder))
    yield _Folder(folder)
