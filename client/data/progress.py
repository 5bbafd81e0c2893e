# SPDX-License-Identifier: Apache-2.0
"""How far an import is, for whoever draws a bar; it is told after each part of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.series import Probe, Series

__all__ = ["Progress", "Watched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Bytes of the source that were read, of how many; source files seen; episodes that were found.

    ``bytes_done`` never falls and is ``bytes_total`` at the end. ``resumed``: source files that an
    interrupted import had done already.
    """

    bytes_done: int
    bytes_total: int
    files: int
    episodes: int
    resumed: int = 0


class Watched:
    """Counts bytes and files of a source while it is read."""

    def __init__(self, source: Path, probe: Probe) -> None:
        self._total = probe.bytes or _size(source)
        self._all_rows = probe.rows or 0
        self._rows = self._done = self._files = self._resumed = 0
        self._file = ""

    def saw(self, series: Series, *, resumed: bool) -> None:
        """A part came in."""
        self._rows += series.length
        if series.source.file_sha256 != self._file:
            self._file = series.source.file_sha256
            self._files += 1
            self._resumed += resumed
        reckoned = self._total * self._rows // self._all_rows if self._all_rows else 0
        done = reckoned if series.bytes_read is None else series.bytes_read
        self._done = max(self._done, min(self._total, done))

    def at(self, episodes: int, *, ended: bool = False) -> Progress:
        """How far the import is."""
        return Progress(
            bytes_done=self._total if ended else self._done,
            bytes_total=self._total,
            files=self._files,
            episodes=episodes,
            resumed=self._resumed,
        )


def _size(source: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
