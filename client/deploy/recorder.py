# SPDX-License-Identifier: Apache-2.0
"""The recorder: every served tick, episode by episode, into durable source files. It never stops serving.

- An episode opens with its first tick. It closes when the cell says so (`EpisodeRecorder.end`, with its
  outcome) or when stamps leave a gap of more than ``gap_s``; its outcome is ``unknown`` unless told.
- A closed episode is written beside serving, by one thread, in the order of closing; the future of `end` is
  done once the file is durable.
- **Disk low**: below ``least_free`` bytes recording stops, and serving goes on. The open episode is dropped;
  at the start of each later one the disk is looked at again. A disk that fills up all the same counts alike.
- Dropped and counted, never kept in part: an episode that a crash left open (``crashed``), one longer than
  the ring (``too-long``), one that the disk had no room for (``disk``), one that could not be written for
  another reason (``failed``), one open at the end (``open``), and one of a single tick (``single``): a trial
  question, or a fallback that began before anything moved.

::

    recorder = EpisodeRecorder(files, Ring.open(path, facts), free=free_bytes(folder))
    recorder.tick(tick);  recorder.end("success", "person");  recorder.status();  recorder.close()
"""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Literal

from policies.limits import SERVE_DISK_FREE_BYTES, SERVE_EPISODE_GAP_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    import numpy.typing as npt

    from client.deploy.episode_files import EpisodeFiles
    from client.deploy.ring import Ring
    from client.deploy.serving import Outcome, Tick, Witness

__all__ = ["EpisodeRecorder", "free_bytes"]

_LOOK_TICKS: Final = 256  # between two looks at the disk within an episode
_Lost = Literal["crashed", "too-long", "disk", "failed", "open", "single"]


def free_bytes(folder: Path) -> Callable[[], int]:
    """How much room the folder's disk has, asked each time."""
    return lambda: shutil.disk_usage(folder).free


class EpisodeRecorder:
    """`client.deploy.serving.Recorder`; see the module. One loop calls it."""

    def __init__(
        self,
        files: EpisodeFiles,
        ring: Ring,
        *,
        free: Callable[[], int],
        least_free: int = SERVE_DISK_FREE_BYTES,
        gap_s: float = SERVE_EPISODE_GAP_S,
    ) -> None:
        self._files, self._ring, self._free = files, ring, free
        self._least_free, self._gap_ns = least_free, int(gap_s * 1e9)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="episodes")
        self._kept = self._writing = 0
        self._lost: Counter[_Lost] = Counter({"crashed": ring.left_behind})
        self._last_ns: int | None = None
        self._skips = self._full = False

    def tick(self, tick: Tick) -> None:
        """Takes a tick; a gap closes the episode before it."""
        stamp_ns = tick.question.stamp_ns
        if self._last_ns is not None and stamp_ns - self._last_ns > self._gap_ns:
            self.end("unknown", "")
        begins = self._last_ns is None
        self._last_ns = stamp_ns
        if begins:
            self._skips = False
        if (begins or self._ring.count % _LOOK_TICKS == 0) and self._disk_low():
            self._lose("disk")
        if self._skips:
            return
        try:
            room = self._ring.append(tick)
        except OSError:
            self._full = True
            self._lose("disk")
            return
        if not room:
            self._lose("too-long")

    def _disk_low(self) -> bool:
        try:
            self._full = self._free() < self._least_free
        except OSError:
            self._full = True
        return self._full

    def _lose(self, why: _Lost) -> None:
        """Drops the open episode, once; its later ticks are not recorded."""
        if not self._skips:
            self._lost[why] += 1
        self._skips = True
        self._clear(closed=False)

    def _clear(self, *, closed: bool) -> None:
        try:
            self._ring.clear(closed=closed)
        except OSError:
            self._full = True

    def end(self, outcome: Outcome, by: Witness) -> Future[Path | None] | None:
        """Closes the episode; gives its file once that is durable, or None if the disk refused it."""
        self._last_ns = None
        if self._skips or self._ring.count == 0:
            self._skips = False
            return None
        try:
            rows = self._ring.rows()
        except OSError:
            self._lose("disk")
            return None
        if len(rows) == 1:
            self._lost["single"] += 1
            self._clear(closed=False)
            return None
        self._clear(closed=True)
        self._writing += 1
        return self._writer.submit(self._write, rows, outcome, by)

    def _write(self, rows: npt.NDArray[Any], outcome: Outcome, by: Witness) -> Path | None:
        path = None
        try:
            path = self._files.write(rows, outcome, by)
            self._kept += 1
            self._ring.written()
        except OSError:
            self._full = True
            self._lost["disk"] += path is None
        except Exception:  # noqa: BLE001  whatever the library says of these rows: serving goes on
            self._lost["failed"] += 1
        finally:
            self._writing -= 1
        return path

    def status(self) -> dict[str, Any]:
        """Whether it records, what it kept, what it dropped and why."""
        return {
            "state": "stopped" if self._full else "on",
            "reason": "disk" if self._full else None,
            "folder": str(self._files.folder),
            "episodes": self._kept,
            "writing": self._writing,
            "open_ticks": self._ring.count,
            "dropped": {why: count for why, count in sorted(self._lost.items()) if count},
        }

    def close(self) -> None:
        """Waits for what is being written; an open episode is dropped and counted."""
        if self._ring.count and not self._skips:
            self._lose("open")
        self._writer.shutdown(wait=True)
        self._ring.close()
