# SPDX-License-Identifier: Apache-2.0
"""The ticks of the open episode, in one file of bounded size.

- A ring of rows of fixed size: an episode's rows follow those of the one before and begin again at the front.
  An episode longer than the ring overruns itself: it is lost, and counted by whoever asks (`OpenEpisode`).
- Rows are written with ``pwrite``: a full disk is an error here, never a signal. Nothing is made durable:
  what a crash leaves behind is dropped, so only *that* there was something has to be seen again: an episode
  that was open, and those that were closed and not yet `written` (``left_behind``).

::

    ring = Ring.open(path, facts)
    ring.append(tick)               # False: the episode is longer than the ring
    rows = ring.rows()              # the open episode, oldest first; structured array
    ring.clear(closed=True)         # the next episode begins
    ring.written()                  # this one is durable elsewhere
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.deploy.guards import Flag
from policies.limits import EPISODE_FRAMES, SERVE_RING_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from client.deploy.ports import Facts
    from client.deploy.serving import Tick

__all__ = ["FLAG_BITS", "Ring", "row_type"]

FLAG_BITS: Final = {one: 1 << at for at, one in enumerate(Flag)}
_HEAD: Final = np.dtype([("count", "<i8"), ("closed", "<i8"), ("written", "<i8")])
_WRITTEN_AT: Final = 16  # its own eight bytes: another thread counts here


def row_type(facts: Facts) -> np.dtype[np.void]:
    """One tick: stamps, number, flags, observation, action sent, action measured; NaN is missing."""
    return np.dtype(
        [
            ("stamp_ns", "<i8"),
            ("served_ns", "<i8"),
            ("seq", "<i8"),
            ("flags", "<u4"),
            ("observation", "<f4", (facts.input_size,)),
            ("sent", "<f4", (facts.output_size,)),
            ("measured", "<f4", (facts.output_size,)),
        ]
    )


class Ring:
    """See the module. Raises `OSError` where the disk does."""

    def __init__(self, descriptor: int, kind: np.dtype[np.void], capacity: int, left_behind: int) -> None:
        self._file, self._kind, self.capacity = descriptor, kind, capacity
        self.left_behind = left_behind
        self._first = self.count = self._closed = self._written = 0

    @classmethod
    def open(cls, path: Path, facts: Facts, *, capacity: int | None = None) -> Ring:
        """The ring of a file; what a process that died left open in it is counted and given up."""
        kind = row_type(facts)
        rows = min(EPISODE_FRAMES, SERVE_RING_BYTES // kind.itemsize) if capacity is None else capacity
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        head = np.frombuffer(os.pread(descriptor, _HEAD.itemsize, 0).ljust(_HEAD.itemsize, b"\0"), _HEAD)[0]
        left_behind = (int(head["count"]) > 0) + max(0, int(head["closed"] - head["written"]))
        os.pwrite(descriptor, bytes(_HEAD.itemsize), 0)
        return cls(descriptor, kind, rows, left_behind)

    def append(self, tick: Tick) -> bool:
        """Adds a tick; whether there was room."""
        if self.count == self.capacity:
            return False
        os.pwrite(self._file, self._row(tick), self._at((self._first + self.count) % self.capacity))
        self.count += 1
        self._write_head()
        return True

    def _row(self, tick: Tick) -> bytes:
        row = np.zeros((), dtype=self._kind)
        question = tick.question
        row["stamp_ns"], row["served_ns"], row["seq"] = question.stamp_ns, tick.served_ns, question.seq
        row["flags"] = sum(FLAG_BITS[one] for one in set(tick.flags))
        with np.errstate(over="ignore"):
            row["observation"] = question.observation
            row["sent"] = np.nan if tick.sent is None else tick.sent
            row["measured"] = np.nan if question.measured is None else question.measured
        return row.tobytes()

    def rows(self) -> npt.NDArray[Any]:
        """The open episode, oldest row first."""
        end = min(self._first + self.count, self.capacity)
        parts = [(self._first, end), (0, self._first + self.count - end)]
        data = b"".join(os.pread(self._file, (b - a) * self._kind.itemsize, self._at(a)) for a, b in parts)
        return np.frombuffer(data, dtype=self._kind)

    def clear(self, *, closed: bool) -> None:
        """The next row begins another episode; this one was closed and will be written, or is given up."""
        self._first = (self._first + self.count) % self.capacity
        self.count = 0
        self._closed += closed
        self._write_head()

    def written(self) -> None:
        """A closed episode is durable elsewhere, or given up; the thread that writes calls it."""
        self._written += 1
        os.pwrite(self._file, self._written.to_bytes(8, "little"), _WRITTEN_AT)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _at(self, row: int) -> int:
        return _HEAD.itemsize + row * self._kind.itemsize

    def _write_head(self) -> None:
        os.pwrite(self._file, self.count.to_bytes(8, "little") + self._closed.to_bytes(8, "little"), 0)
