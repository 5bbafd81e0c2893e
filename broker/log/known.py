# SPDX-License-Identifier: Apache-2.0
"""Which event ids are certainly not in the log: 8 bytes of memory for each that is.

An event that is new, as almost all are, need not be looked up. "Perhaps" sends the caller to the database,
which decides; the unique index on event ids stands behind both.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KnownIds"]

_RECENT: Final = 65_536  # before they are sorted in
_HEAD: Final = 8


class KnownIds:
    """The first 8 bytes of every id that was added; it may know more than the log holds, never less.

    Attributes:
        size: Entries of the log, from the first one on, whose ids it has for certain.
    """

    def __init__(self) -> None:
        self.size = 0
        self._sorted = array("Q")
        self._recent: set[int] = set()

    def add(self, ids: Iterable[bytes]) -> None:
        """Remembers ids."""
        self._recent.update([int.from_bytes(one[:_HEAD], "big") for one in ids])
        if len(self._recent) >= _RECENT:
            self._sorted = array("Q", sorted([*self._sorted, *self._recent]))
            self._recent.clear()

    def may_hold(self, event_id: bytes) -> bool:
        """False only if the log has no such event."""
        head = int.from_bytes(event_id[:_HEAD], "big")
        if head in self._recent:
            return True
        at = bisect_left(self._sorted, head)
        return at < len(self._sorted) and self._sorted[at] == head
