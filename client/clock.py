# SPDX-License-Identifier: Apache-2.0
"""The node's wall clock: the only place of the client that reads the time of the machine, or waits for it."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["SystemClock"]

_PIECE_S: Final = 10.0  # a thread that waits longer looks like one that hangs (`client.lifesign`)


class SystemClock:
    """`policies.ports.Timer` of a real process."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1_000_000

    def steady_ns(self) -> int:
        """Nanoseconds of a clock that nobody sets: it only ever goes on."""
        return time.monotonic_ns()

    def pause_ms(self, milliseconds: int) -> None:
        """Returns after so many milliseconds."""
        until = time.monotonic() + milliseconds / 1000
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _PIECE_S))
