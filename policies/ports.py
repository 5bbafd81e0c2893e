# SPDX-License-Identifier: Apache-2.0
"""What the ground floor takes from outside: the time and unpredictable bytes. It has neither of its own.

Times are integer milliseconds since 1970 UTC; as text they are RFC 3339 in UTC, with ``Z``.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from typing import Protocol

__all__ = ["Clock", "Entropy", "Timer", "from_ms", "iso_minute", "iso_ms", "iso_s", "to_ms"]

_USUAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)


class Clock(Protocol):
    """Wall clock of a process; tests pass one they move by hand."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01T00:00:00Z."""
        ...


class Timer(Clock, Protocol):
    """A clock that can also wait; tests pass one that moves itself."""

    def pause_ms(self, milliseconds: int) -> None:
        """Returns after so many milliseconds."""
        ...


class Entropy(Protocol):
    """Source of unpredictable bytes (the operating system's, in a real process)."""

    def token_bytes(self, size: int) -> bytes:
        """``size`` fresh bytes."""
        ...


def from_ms(now_ms: int) -> dt.datetime:
    """UTC ``datetime`` of a time in milliseconds."""
    return dt.datetime.fromtimestamp(now_ms / 1000, tz=dt.UTC)


@functools.lru_cache(maxsize=64)  # a batch asks for the same time again and again
def iso_s(now_ms: int) -> str:
    """``2026-11-24T10:04:05Z``: whole seconds, rounded down; the only time format of contracts."""
    return from_ms(now_ms - now_ms % 1000).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_minute(now_ms: int) -> str:
    """``2026-11-24T10:04:00Z``: whole minutes, rounded down; the only time in clear in log entries."""
    return iso_s(now_ms - now_ms % 60_000)


def iso_ms(now_ms: int) -> str:
    """``2026-11-24T10:04:05.123Z``: the exact time in member envelopes."""
    return iso_s(now_ms)[:-1] + f".{now_ms % 1000:03d}Z"


def to_ms(text: str) -> int:
    """Milliseconds of a time written by `iso_s`, `iso_minute` or `iso_ms`.

    Raises:
        ValueError: The text has another form or is no real date.
    """
    if _USUAL.fullmatch(text):
        return round(dt.datetime.fromisoformat(text).timestamp() * 1000)
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in text else "%Y-%m-%dT%H:%M:%SZ"
    when = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
    return round(when.timestamp() * 1000)
