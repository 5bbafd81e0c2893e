# SPDX-License-Identifier: Apache-2.0
"""The first rows of a table, as `data inspect` looks at them: cells, delimiter and decimal sign, rate.

What is said of delimiter, decimal sign and rate is what these rows show; an import goes by the map alone.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from client.data.errors import FileInvalidError, TooLargeError
from policies.limits import SIGNALS, TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CLOCK_WORDS", "COMMA_NUMBER", "DATED", "Head", "head_of", "head_rate"]

CLOCK_WORDS: Final = re.compile(r"^t$|time|stamp|uptime|header\.tm|ipoc", re.IGNORECASE)
COMMA_NUMBER: Final = re.compile(r"^-?\d+,\d+([eE][+-]?\d+)?$")
DATED: Final = re.compile(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_HEAD_ROWS: Final = 50
_DELIMITERS: Final = (";", ",", "\t", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """First rows of a table, as cells; ``delimiter`` is empty where the table is no text."""

    delimiter: str
    decimal: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def cells(self, name: str) -> list[str]:
        """Cells of a column that are not empty."""
        at = self.names.index(name)
        return [row[at] for row in self.rows if at < len(row) and row[at]]


def head_of(path: Path) -> Head | None:
    """The head of a table; of a text one with the signs that its rows show. None for other sources.

    Raises:
        DataError: A table that cannot be read.
    """
    from client.data.readers.foreign import parsing

    with parsing(path):
        return _head_of(path)


def _head_of(path: Path) -> Head | None:
    if path.is_dir():
        suffixes = {".csv", ".parquet"}
        inside = [p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        return _head_of(min(inside)) if inside else None
    if path.suffix.lower() == ".parquet":
        return _parquet_head(path)
    if path.suffix.lower() != ".csv":
        return None
    with path.open("rb") as file:
        data = file.read(TEXT_ROW_BYTES)
    lines = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [one for one in lines[: _HEAD_ROWS + 1] if one]
    if not lines:
        return None
    delimiter = max(_DELIMITERS, key=lines[0].count)
    names, *rows = ([cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter))
    whole = tuple(tuple(row) for row in rows if len(row) == len(names))
    comma = delimiter != "," and any(COMMA_NUMBER.match(cell) for row in whole for cell in row)
    return Head(delimiter=delimiter, decimal="," if comma else ".", names=tuple(names), rows=whole)


def _parquet_head(path: Path) -> Head:
    """Column by column, so that one with long cells or of another kind is merely empty here."""
    from client.data.readers import parquet

    with parquet.opened(path) as file:
        names = tuple(file.schema_arrow.names)
        flat = [one for one in dict.fromkeys(names) if names.count(one) == 1][:SIGNALS]
    cells = {one: _parquet_cells(path, one) for one in flat}
    count = max((len(some) for some in cells.values()), default=0)
    rows = tuple(tuple(_at(cells.get(one, ()), row) for one in names) for row in range(count))
    return Head(delimiter="", decimal=".", names=names, rows=rows)


def _at(cells: Sequence[str], row: int) -> str:
    return cells[row] if row < len(cells) else ""


def _parquet_cells(path: Path, name: str) -> tuple[str, ...]:
    from client.data.readers import parquet

    with parquet.opened(path, [name]) as file, parquet.refusing(path):
        if pa.types.is_nested(file.schema_arrow.field(name).type):
            return ()
        try:
            batch = next(parquet.batches(file, [name], where=path.name), None)
        except (TooLargeError, FileInvalidError):
            return ()
    cells = [] if batch is None else batch.column(0).slice(0, _HEAD_ROWS).to_pylist()
    return tuple("" if cell is None else str(cell) for cell in cells)


def head_rate(head: Head) -> float | None:
    """Rows per second by the first stamps that are written as dates, in the middle of all steps."""
    for name in head.names:
        cells = head.cells(name)
        if CLOCK_WORDS.search(name) and cells and DATED.match(cells[0]):
            break
    else:
        return None
    try:
        stamps = [datetime.fromisoformat(one) for one in cells]
        steps = sorted((b - a).total_seconds() for a, b in pairwise(stamps))
    except (ValueError, TypeError):  # words, or some with a time zone and some without
        return None
    middle = steps[len(steps) // 2] if steps else 0.0
    return 1 / middle if middle > 0 else None
