# SPDX-License-Identifier: Apache-2.0
"""The sandbox's own time and random bytes; the parties have theirs."""

from __future__ import annotations

import os
import time

__all__ = ["now_ms", "random_bytes"]


def now_ms() -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


def random_bytes(size: int) -> bytes:
    """Fresh bytes of the operating system."""
    return os.urandom(size)
