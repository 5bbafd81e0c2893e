# SPDX-License-Identifier: Apache-2.0
"""Phases of a demo: shown while they run, kept with their times."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress"]


class Progress:
    """Where the demo is. ``phases`` holds (name, start, end) in seconds since it began."""

    def __init__(self, *, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._began = time.monotonic()
        self._live = self._stream.isatty()
        self._status: object = None
        self.phases: list[tuple[str, float, float]] = []

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One phase; its line says how long it took."""
        start = self.seconds
        with self._spinner(name):
            yield
        end = self.seconds
        self.phases.append((name, round(start, 2), round(end, 2)))
        self.say(f"{name}: {end - start:.1f} s")

    def say(self, text: str) -> None:
        """One line."""
        print(f"[{self.seconds:6.1f} s] {text}", file=self._stream, flush=True)

    def step(self, text: str) -> None:
        """What happens inside a phase: replaces the live line; every tenth is a plain line elsewhere."""
        if self._status is not None:
            self._status.update(text)  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _spinner(self, name: str) -> Iterator[None]:
        if not self._live:
            yield
            return
        from rich.console import Console

        with Console(file=self._stream).status(name) as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def timings(self) -> dict[str, float]:
        """Phase → seconds; ``total`` is the whole."""
        found = {name: round(end - start, 2) for name, start, end in self.phases}
        return found | {"total": round(self.seconds, 2)}
