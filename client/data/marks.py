# SPDX-License-Identifier: Apache-2.0
"""Marks of an episode by which its frames are known again in a copy that was saved or cut otherwise.

- Frames that repeat the one before are dropped first: what stands still says nothing, and a log that holds
  each value for some rows is told by the values.
- A run is `_RUN` of the frames that are left, hashed over all mapped fields. Where hardly more than one value
  changes from frame to frame, how long each was held is hashed too: else every sweep over the same counts
  would be the same.
- An episode keeps the smallest of each `_WINDOW` runs that follow each other (winnowing), about one in five;
  a short one keeps all. So each stretch of `_RUN` + `_WINDOW` - 1 = 16 frames has a mark, wherever it is cut
  from, and each of 25 has two. That is about 1.2 bytes per frame (client.data.markfiles).
- All runs of a new episode are looked up. Two known ones (`SHARED`) are no accident; of an episode that is
  too short for two, all marks must be known.

What is not known again: values that were changed or rounded, also by another unit or rate; other fields;
fewer than 16 frames in a row. There the owner's import history is all there is. A store of an earlier version
has 16 marks for an episode of any length: they find its copies, joins and coarse cuts, not each fine cut.

    index = MarkIndex()
    index.add(chosen(runs_of(columns)))          # of the episodes that are known
    index.knows(runs_of(other))                  # True: frames of one of them
"""

from __future__ import annotations

import base64
import hashlib
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client.data.series import Array32

__all__ = [
    "KEPT",
    "MARK_BYTES",
    "NO_RUNS",
    "SHARED",
    "MarkIndex",
    "Runs",
    "chosen",
    "marks_of",
    "packed",
    "runs_of",
    "shared",
    "split_marks",
]

KEPT: Final = 16  # of a field that two members compare (client.data.fingerprints)
SHARED: Final = 2
_RUN: Final = 8
_WINDOW: Final = 9
MARK_BYTES: Final = 6
_WIDE: Final = 2 * (_RUN - 1)  # values that change in a run; below, how long each was held is hashed too
_COMPACT: Final = ":"  # before base64; stores of earlier versions have hex
_MERGE: Final = 1 << 16

Runs = npt.NDArray[np.uint64]
NO_RUNS: Final[Runs] = np.empty(0, dtype=np.uint64)


def runs_of(columns: Mapping[str, Array32]) -> Runs:
    """Every run of an episode, in order; equal frames of equal fields give equal runs.

    Args:
        columns: All mapped fields, ``[T, k] float32``.
    """
    frames = np.ascontiguousarray(np.hstack([columns[key] for key in sorted(columns)]).astype("<f4") + 0.0)
    frames[np.isnan(frames)] = np.float32(np.nan)
    words = frames.view(np.uint32)
    changed = (words[1:] != words[:-1]).sum(axis=1)
    starts = np.append(0, np.flatnonzero(changed) + 1)
    count = len(starts) - _RUN + 1
    if count < 1:
        return NO_RUNS
    data, width = frames[starts].tobytes(), frames[:1].nbytes
    held = np.diff(np.append(starts, len(frames))).astype("<u4")
    times, slow = held.tobytes(), _slow(changed[starts[1:] - 1], held, count)
    size, step = _RUN * width, held.itemsize
    hashed = b"".join(
        hashlib.blake2b(data[at : at + size], digest_size=MARK_BYTES).digest()
        for at in range(0, count * width, width)
    )
    runs = _numbers(hashed)
    for at in np.flatnonzero(slow).tolist():
        inner = times[(at + 1) * step : (at + _RUN - 1) * step]  # a cut may shorten the first and the last
        text = data[at * width : at * width + size] + inner
        runs[at] = int.from_bytes(hashlib.blake2b(text, digest_size=MARK_BYTES).digest(), "big")
    return runs


def _slow(changed: npt.NDArray[np.int64], held: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.bool_]:
    """Runs in which little changes and something is held: by their values alone they are anybody's."""
    moves = np.convolve(changed, np.ones(_RUN - 1, dtype=np.int64), "valid")
    inner = np.convolve(held > 1, np.ones(_RUN - 2, dtype=np.int64), "valid")
    found: npt.NDArray[np.bool_] = (moves < _WIDE) & (inner[1 : count + 1] > 0)
    return found


def chosen(runs: Runs) -> str:
    """The marks that an episode keeps, as text."""
    if len(runs) >= 2 * _WINDOW:
        runs = _winnowed(runs)
    return _COMPACT + base64.b64encode(_packed(runs)).decode("ascii") if len(runs) else ""


def packed(texts: Iterable[str]) -> bytes:
    """Marks of episodes: `MARK_BYTES` each, sorted, each once."""
    return _packed(_numbers(b"".join(map(_bytes, texts))))


def shared(runs: Runs, data: bytes) -> int:
    """How many of an episode's runs are among marks that were `packed`."""
    return int(np.isin(np.unique(runs), _numbers(data)).sum())


def _packed(marks: Runs) -> bytes:
    wide = np.unique(marks).astype(">u8").view(np.uint8).reshape(-1, 8)
    return wide[:, 8 - MARK_BYTES :].tobytes()


def _winnowed(runs: Runs) -> Runs:
    window = min(_WINDOW, len(runs))
    return np.unique(np.lib.stride_tricks.sliding_window_view(runs, window).min(axis=1))


class MarkIndex:
    """Marks of the episodes that are known."""

    def __init__(self) -> None:
        self._sorted = NO_RUNS
        self._new: set[int] = set()
        self._unread: list[bytes] = []

    def add(self, text: str) -> None:
        """Notes the marks of an episode, as `chosen` wrote them, or an earlier version."""
        self._unread.append(_bytes(text))

    def add_bytes(self, data: bytes) -> None:
        """Notes marks that were `packed`."""
        self._unread.append(data)

    def knows(self, runs: Runs) -> bool:
        """Whether an episode with these runs has frames of one that is known."""
        self._read()
        own = np.unique(runs)
        shared = int(self._known(own).sum())
        if shared >= SHARED or not shared:
            return shared > 0
        return len(own) < 2 * _WINDOW and bool(self._known(_winnowed(runs)).all())

    def _known(self, runs: Runs) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(runs), dtype=bool)
        if len(self._sorted):
            at = np.searchsorted(self._sorted, runs).clip(max=len(self._sorted) - 1)
            found = self._sorted[at] == runs
        if self._new:
            found |= np.fromiter((one in self._new for one in runs.tolist()), dtype=bool, count=len(runs))
        return found

    def _read(self) -> None:
        numbers = _numbers(b"".join(self._unread))
        self._unread.clear()
        if len(numbers) + len(self._new) < _MERGE:
            self._new.update(numbers.tolist())
            return
        fresh = np.fromiter(self._new, dtype=np.uint64, count=len(self._new))
        self._sorted = np.unique(np.concatenate([self._sorted, fresh, numbers]))
        self._new.clear()


def _numbers(data: bytes) -> Runs:
    narrow = np.frombuffer(data, dtype=np.uint8).reshape(-1, MARK_BYTES)
    wide = np.zeros((len(narrow), 8), dtype=np.uint8)
    wide[:, 8 - MARK_BYTES :] = narrow
    return wide.view(">u8").ravel().astype(np.uint64)


def _bytes(text: str) -> bytes:
    if text.startswith(_COMPACT):
        return base64.b64decode(text[len(_COMPACT) :], validate=True)
    return bytes.fromhex(text)


def marks_of(columns: Mapping[str, Array32]) -> str:
    """The `KEPT` smallest runs in hex, one after the other: what two members compare of one field."""
    named = set(runs_of(columns).tolist())
    return "".join(mark.to_bytes(MARK_BYTES, "big").hex() for mark in nsmallest(KEPT, named))


def split_marks(text: str) -> list[str]:
    """The single marks of `marks_of`."""
    return [text[at : at + 2 * MARK_BYTES] for at in range(0, len(text), 2 * MARK_BYTES)]
