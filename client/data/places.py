# SPDX-License-Identifier: Apache-2.0
"""Rows of source files, and whether rows that are asked for were taken already, whole or in part.

rows = Rows.read("9f…:120-360")
taken = RowIndex([rows])
taken.overlaps(Rows(file="9f…", first=300, last=400))     # True: another cut of the same rows
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RowIndex", "Rows"]


@dataclass(frozen=True, slots=True, order=True)
class Rows:
    """Rows ``first`` to ``last`` (one past the end) of the file with this SHA-256."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}-{self.last}"

    @classmethod
    def read(cls, text: str) -> Rows:
        """The rows behind their text.

        Raises:
            ValueError: It is none.
        """
        file, _, span = text.rpartition(":")
        first, _, last = span.partition("-")
        return cls(file, int(first), int(last))


class RowIndex:
    """Rows that were taken; those of one file may overlap in stores of earlier versions."""

    def __init__(self, taken: Iterable[Rows] = ()) -> None:
        self._spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._longest: dict[str, int] = defaultdict(int)
        for rows in taken:
            self.add(rows)

    def add(self, rows: Rows) -> None:
        """Takes rows."""
        insort(self._spans[rows.file], (rows.first, rows.last))
        self._longest[rows.file] = max(self._longest[rows.file], rows.last - rows.first)

    def overlaps(self, rows: Rows) -> bool:
        """Whether one of these rows was taken."""
        spans = self._spans.get(rows.file, [])
        at = bisect_left(spans, (rows.first - self._longest.get(rows.file, 0), 0))
        while at < len(spans) and spans[at][0] < rows.last:
            if spans[at][1] > rows.first:
                return True
            at += 1
        return False
