# SPDX-License-Identifier: Apache-2.0
"""Several streams become one table: one row per message of the base stream, the others by their last value.

- Another stream's value belongs to a row if it is the last one whose stamp is not after the row's, and not
  older than one period: the longer of the two streams' median steps, and the tenth of it that may be jitter.
  Else it is missing. Nothing is interpolated here.
- Times are header stamps where every mapped topic has them and the map does not ask for the log time; else
  all are log times, because stamps of one topic say nothing about the log of another.
- A row is settled once messages are read that were logged `BAG_WAIT_NS` later, so that a message may arrive
  late and still find its row. Memory holds no more than that, and one part; where one wait has more than
  `BAG_HELD_BYTES` of rows, the recording is refused.
- A stamp that goes back by more than that wait is a clock that began anew: rows before it are settled with
  what was said before it, and all of that is forgotten.

    joining = Joining(base=key, by_stamp=True)
    joining.take({key: rows, other: rows})      # again and again, in the order of the log
    for table in joining.parts(last=False): ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from client.data.errors import TooLargeError
from client.data.readers.ros_streams import Rows
from policies.limits import BAG_HELD_BYTES, BAG_WAIT_NS, SERIES_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.data.readers.ros_streams import StreamKey
    from client.data.series import Array64, Int64, Texts

__all__ = ["Joined", "Joining"]

_PERIODS: Final = 1.1  # one period, and the jitter that check 2 allows
_STEPS: Final = 3  # stamps that make a period


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Rows of the base stream with, for each other stream, its values and words in each row."""

    base: Rows
    values: Mapping[StreamKey, Array64]
    words: Mapping[StreamKey, Texts]
    missing: int

    def part(self, first: int, last: int | None = None) -> Joined:
        """Rows ``first`` to ``last`` (one past the end)."""
        return Joined(
            base=self.base.part(first, last),
            values={key: v[first:last] for key, v in self.values.items()},
            words={key: w[first:last] for key, w in self.words.items()},
            missing=self.missing if first == 0 else 0,
        )


@dataclass(slots=True, kw_only=True)
class Joining:
    """Rows that are read and not yet handed on."""

    by_stamp: bool = True
    waiting: list[Rows] = field(default_factory=list)
    others: dict[StreamKey, list[Rows]] = field(default_factory=dict)
    _settled: list[Joined] = field(default_factory=list)
    _periods: dict[StreamKey | None, float] = field(default_factory=dict)
    _newest: dict[StreamKey, int] = field(default_factory=dict)

    def take(self, block: Mapping[StreamKey, Rows], base: StreamKey | None) -> None:
        """The next messages of the log, by stream."""
        left = dict(block)
        for at in self._restarts(block):
            before = {key: _until(rows, at) for key, rows in left.items()}
            left = {key: rows.part(before[key].length) for key, rows in left.items()}
            self._append(before, base)
            self._settle(None)
            self.others.clear()
        self._append(left, base)
        if not self.waiting:
            self._trim()
        elif self.others:
            logged = max(int(rows.log_ns[-1]) for rows in block.values())
            self._settle(logged - BAG_WAIT_NS)
        else:
            self._settle(None)
        self._check_held()

    def _check_held(self) -> None:
        held = [*self.waiting, *(rows for parts in self.others.values() for rows in parts)]
        if sum(rows.bytes for rows in held) > BAG_HELD_BYTES:
            raise TooLargeError(
                need=f"at most {BAG_HELD_BYTES} bytes of mapped messages that were logged within a second",
                found="more",
                remedy="check the log times of the recording; map fewer topics",
            )

    def parts(self, *, last: bool) -> Iterator[tuple[Joined, bool]]:
        """Tables of at most `SERIES_ROWS` rows, each with whether more follow; the rest with the ``last``."""
        if last:
            self._settle(None)
        count = sum(one.base.length for one in self._settled)
        if count > SERIES_ROWS or (last and count):
            whole = _concatenated(self._settled)
            first = 0
            while count - first > SERIES_ROWS:
                yield whole.part(first, first + SERIES_ROWS), True
                first += SERIES_ROWS
            self._settled = [whole.part(first)] if first < count else []
            if last:
                yield self._settled.pop(), False

    def _append(self, block: Mapping[StreamKey, Rows], base: StreamKey | None) -> None:
        for key, rows in block.items():
            if rows.length:
                (self.waiting if key == base else self.others.setdefault(key, [])).append(rows)

    def _trim(self) -> None:
        """Forgets what no row to come can ask for, while the base stream is silent."""
        for key, parts in self.others.items():
            rows = self._sorted(Rows.joined(parts))
            self._measure(key, rows)
            self.others[key] = [self._needed(rows, rows)]

    def _restarts(self, block: Mapping[StreamKey, Rows]) -> list[int]:
        """Numbers of the messages whose stamp goes back by more than the wait."""
        found: set[int] = set()
        for key, rows in block.items():
            times = self._times(rows)
            before = np.concatenate([[self._newest.get(key, times[0])], times[:-1]])
            found.update(rows.numbers_in_bag[times < before - BAG_WAIT_NS].tolist())
            self._newest[key] = int(times[-1])
        return sorted(found)

    def _times(self, rows: Rows) -> Int64:
        return rows.stamp_ns if self.by_stamp else rows.log_ns

    def _settle(self, until_ns: int | None) -> None:
        """Joins the rows that were logged by then, or all."""
        if not self.waiting:
            return
        rows = Rows.joined(self.waiting)
        count = rows.length if until_ns is None else int(np.searchsorted(rows.log_ns, until_ns, "right"))
        if not count:
            self.waiting = [rows]
            return
        self._measure(None, rows)
        ready, self.waiting = rows.part(0, count), [rows.part(count)] if count < rows.length else []
        values, words, missing = {}, {}, 0
        for key, parts in self.others.items():
            other = self._sorted(Rows.joined(parts))
            self._measure(key, other)
            values[key], words[key], late = self._last_known(ready, other, key)
            missing += late
            self.others[key] = [self._needed(other, ready)]
        self._settled.append(Joined(base=ready, values=values, words=words, missing=missing))

    def _measure(self, key: StreamKey | None, rows: Rows) -> None:
        """Fixes a stream's period by the first stamps of it that are seen together."""
        if key not in self._periods and rows.length >= _STEPS:
            steps = np.diff(np.sort(self._times(rows)))
            rising = steps[steps > 0]
            if len(rising):
                self._periods[key] = float(np.median(rising))

    def _sorted(self, rows: Rows) -> Rows:
        times = self._times(rows)
        return rows if (np.diff(times) >= 0).all() else rows.picked(np.argsort(times, kind="stable"))

    def _last_known(self, rows: Rows, other: Rows, key: StreamKey) -> tuple[Array64, Texts, int]:
        times, theirs = self._times(rows), self._times(other)
        oldest = _PERIODS * max(self._periods.get(None, 0.0), self._periods.get(key, 0.0))
        at = np.searchsorted(theirs, times, side="right") - 1
        known = (at >= 0) & (times - theirs[np.maximum(at, 0)] <= oldest)
        values = np.where(known[:, None], other.values[np.maximum(at, 0)], np.nan)
        words = other.words[np.maximum(at, 0)]
        words[~known] = ""
        return values, words, int((~known).sum())

    def _needed(self, other: Rows, ready: Rows) -> Rows:
        """What a later row may still ask for: all from the last value before the newest settled row on."""
        newest = self._times(ready).max() - BAG_WAIT_NS
        return other.part(max(0, int(np.searchsorted(self._times(other), newest, "right")) - 1))


def _until(rows: Rows, number: int) -> Rows:
    return rows.part(0, int(np.searchsorted(rows.numbers_in_bag, number)))


def _concatenated(parts: list[Joined]) -> Joined:
    """One table. A stream that spoke up later is missing in the parts before."""
    base = Rows.joined([p.base for p in parts])
    keys = list(dict.fromkeys(key for p in parts for key in p.values))
    return Joined(
        base=base,
        values={key: np.concatenate([_values_of(p, key, parts) for p in parts]) for key in keys},
        words={key: np.concatenate([_words_of(p, key, parts) for p in parts]) for key in keys},
        missing=sum(p.missing for p in parts),
    )


def _values_of(part: Joined, key: StreamKey, parts: list[Joined]) -> Array64:
    if key in part.values:
        return part.values[key]
    width = next(p.values[key].shape[1] for p in parts if key in p.values)
    return np.full((part.base.length, width), np.nan)


def _words_of(part: Joined, key: StreamKey, parts: list[Joined]) -> Texts:
    if key in part.words:
        return part.words[key]
    width = next(p.words[key].shape[1] for p in parts if key in p.words)
    return np.full((part.base.length, width), "", dtype=object)
