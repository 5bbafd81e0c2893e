# SPDX-License-Identifier: Apache-2.0
"""Single reports of values, each with its source's stamp, become rows of a table.

- A source reports changes: a column keeps its last value until the next report, until its quality is not good
  (``value=None``), or until the connection is lost (`lost`); after that it is missing until reported again.
- Rows come in the order of their stamps. Reports arrive a little out of order: the newest ``hold_ns`` wait.
- Reports within ``join_ns`` of a row's first one belong to it, at most one of each column: a server stamps
  the axes of one sample some microseconds apart. The row's stamp is its earliest one.
- The first report of a column after a connection is what it was before: it holds, and makes no row. So a
  constant that was written last week does not begin the recording last week.
- A report older than the row that is under way makes no row either (`late`); if it is its column's newest, it
  holds from there on.

    rows = RowJoiner(columns=2, join_ns=5_000_000, hold_ns=1_000_000_000)
    rows.report(0, 17_000_000_000, 0.5)          # known from here on
    rows.report(0, 18_000_000_000, 0.6)
    for row in rows.finished():                  # nothing yet: another report may belong to 18 s
        ...
    for row in rows.lost():                      # Row(stamp_ns=18_000_000_000, values=(0.6, None))
        ...
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Row", "RowJoiner", "Value"]

Value = float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Values of all columns at one stamp; None is missing."""

    stamp_ns: int
    values: tuple[Value, ...]


class RowJoiner:
    """Joins reports to rows. Bounded by how much is reported within ``hold_ns``."""

    def __init__(self, *, columns: int, join_ns: int, hold_ns: int) -> None:
        self._join_ns, self._hold_ns = join_ns, hold_ns
        self._held: list[Value] = [None] * columns
        self._newest = [-1] * columns  # stamp of the value that is held
        self._waiting: list[tuple[int, int, int, Value]] = []
        self._order = 0
        self._met: set[int] = set()  # columns that were reported in this connection
        self._floor = -1  # stamp of the last row
        self._open: tuple[int, set[int]] | None = None
        self.late = 0

    @property
    def waiting(self) -> int:
        """Reports that wait for older ones."""
        return len(self._waiting)

    def report(self, column: int, stamp_ns: int, value: Value) -> None:
        """A value of a column; None where its quality is not good."""
        if column not in self._met:
            self._met.add(column)
            self._hold(column, stamp_ns, value)
            return
        self._order += 1
        insort(self._waiting, (stamp_ns, self._order, column, value), key=lambda one: one[:2])

    def finished(self) -> Iterator[Row]:
        """Rows that nothing on its way can change."""
        if self._waiting:
            yield from self._drain(self._waiting[-1][0] - self._hold_ns)

    def lost(self) -> Iterator[Row]:
        """The connection is gone: all rows that were begun; from here on every column is missing."""
        yield from self._drain(None)
        yield from self._close()
        self._held = [None] * len(self._held)
        self._met.clear()

    def _drain(self, until: int | None) -> Iterator[Row]:
        taken = 0
        for stamp, _, column, value in self._waiting:
            if until is not None and stamp > until:
                break
            taken += 1
            yield from self._take(stamp, column, value)
        del self._waiting[:taken]

    def _take(self, stamp: int, column: int, value: Value) -> Iterator[Row]:
        if stamp < (self._open[0] if self._open else self._floor):
            self.late += 1
            self._hold(column, stamp, value)
            return
        if self._open and (stamp - self._open[0] > self._join_ns or column in self._open[1]):
            yield from self._close()
        if self._open is None:
            self._open = (stamp, set())
        self._open[1].add(column)
        self._hold(column, stamp, value)

    def _hold(self, column: int, stamp: int, value: Value) -> None:
        """Keeps a column's newest value."""
        if stamp >= self._newest[column] or self._held[column] is None:
            self._held[column], self._newest[column] = value, max(stamp, self._newest[column])

    def _close(self) -> Iterator[Row]:
        if self._open is not None:
            yield Row(stamp_ns=self._open[0], values=tuple(self._held))
            self._floor, self._open = self._open[0], None
