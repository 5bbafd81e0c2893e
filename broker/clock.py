# SPDX-License-Identifier: Apache-2.0
"""The broker's wall clock: the only place in the broker that asks the operating system for the time."""

from __future__ import annotations

import time

__all__ = ["SystemClock"]


class SystemClock:
    """`policies.ports.Clock` of a real process."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1_000_000

    def pause_ms(self, milliseconds: int) -> None:
        """Returns after so many milliseconds (`policies.ports.Timer`)."""
        time.sleep(milliseconds / 1000)
