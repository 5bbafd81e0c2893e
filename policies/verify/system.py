# SPDX-License-Identifier: Apache-2.0
"""The auditor's machine: its clock and its unpredictable bytes. An audit itself needs neither."""

from __future__ import annotations

import secrets  # noqa: TID251  the one source
import time

__all__ = ["SystemClock", "SystemEntropy"]


class SystemClock:
    """`policies.ports.Timer` of a real process."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1_000_000

    def pause_ms(self, milliseconds: int) -> None:
        """Returns after so many milliseconds."""
        time.sleep(milliseconds / 1000)


class SystemEntropy:
    """`policies.ports.Entropy` of a real process."""

    def token_bytes(self, size: int) -> bytes:
        """``size`` bytes from the operating system's generator."""
        return secrets.token_bytes(size)
