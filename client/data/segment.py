# SPDX-License-Identifier: Apache-2.0
"""Cuts a continuous recording into episodes; nothing is merged.

Order of authority: the format's own episodes, then the map's rule:

- ``column``: the episode changes whenever the id changes, also backwards; an id that returns is a new
  episode; an empty id goes on.
- ``edge``: an episode lasts while the signal is high; the rest is no episode.
- ``idle``: stretches in which all |joint_vel| < ``below`` until ``for_s`` have passed separate episodes and
  belong to none.
- ``window``: pieces of ``length_s``, counted from the start of the recording, from each break, and from each
  row at which the unit's key changes. They follow each other and never overlap (R1).
- ``file``: the whole recording.

Two cuts are always on: a stamp gap above ``max_gap_s`` and a stamp that goes back. Pieces under
``min_frames`` are dropped and counted.

`cut` is a pure function of one whole series. `Cutter` does the same for a recording that comes in parts, and
gives the same pieces wherever the parts are cut: it carries over the rows whose episode may go on, and what
the rows before them said.

    cutter = Cutter(signals)
    for series in reader.read(...):
        for piece in cutter.feed(series):      # each piece is a series of exactly one episode
            frames_of(piece, signals, 0, piece.length, allow)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client.data.errors import MapInvalidError, TooLargeError
from client.data.units import to_si
from policies.limits import EPISODE_FRAMES

if TYPE_CHECKING:
    from client.data.series import Array64, Int64, Series, Texts
    from client.data.signalmap import Segment, SignalMap

__all__ = ["Cut", "Cutter", "cut"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Pieces as (first row, one past the last), in order, and how many were too short."""

    pieces: tuple[tuple[int, int], ...]
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What the rows before a series said: last id, whether a pause goes on, start of the stretch."""

    word: str = ""
    idle: bool = False
    start_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marked:
    """The runs of a series, too short ones too, and what is still open behind ``settled``."""

    runs: list[tuple[int, int]]
    settled: int  # no later row can change a run that ends here or before
    pause: int  # first row of a pause that is not long enough yet; the length if there is none
    words: Texts | None
    idle: Bools | None
    starts_ns: Int64 | None

    def before(self, row: int, earlier: _Before) -> _Before:
        """What a series that starts at this row must know."""
        word = earlier.word if self.words is None or not row else str(self.words[row - 1])
        idle = earlier.idle if self.idle is None or not row else bool(self.idle[row - 1])
        last = 0 if self.starts_ns is None else min(row, len(self.starts_ns) - 1)
        return _Before(
            word=word, idle=idle, start_ns=None if self.starts_ns is None else int(self.starts_ns[last])
        )


def cut(series: Series, signals: SignalMap) -> Cut:
    """The episodes of a whole series.

    Raises:
        MapInvalidError: The rule is ``idle`` and no joint velocity is mapped.
    """
    runs = _mark(series, signals, _Before()).runs
    kept = tuple((a, b) for a, b in runs if b - a >= signals.segment.min_frames)
    return Cut(pieces=kept, dropped=len(runs) - len(kept))


class Cutter:
    """Episodes of recordings that come in parts. ``dropped``: pieces that were too short so far."""

    def __init__(self, signals: SignalMap) -> None:
        self.dropped = 0
        self._signals = signals
        self._tail: Series | None = None
        self._before = _Before()

    def feed(self, series: Series) -> list[Series]:
        """The episodes that end in this part, in order.

        Raises:
            MapInvalidError: The rule is ``idle`` and no joint velocity is mapped.
            TooLargeError: An episode that has too many frames already.
        """
        whole = series if self._tail is None else self._tail.joined(series)
        marked = _mark(whole, self._signals, self._before)
        settled = marked.settled if series.more else whole.length
        done = [(a, b) for a, b in marked.runs if b <= settled]
        kept = [(a, b) for a, b in done if b - a >= self._signals.segment.min_frames]
        self.dropped += len(done) - len(kept)
        for first, last in [*kept, (settled, marked.pause)]:
            if last - first > EPISODE_FRAMES:
                raise _too_large(whole, first, last)
        self._before = marked.before(settled, self._before) if series.more else _Before()
        self._tail = whole.part(settled, whole.length) if series.more else None
        return [whole.part(first, last) for first, last in kept]


def _mark(series: Series, signals: SignalMap, before: _Before) -> _Marked:
    rule, rows = signals.segment, series.length
    inside, starts = np.ones(rows, dtype=bool), np.zeros(rows, dtype=bool)
    starts[1:] |= _breaks(series.stamps_ns, rule)
    words: Texts | None = None
    idle: Bools | None = None
    starts_ns: Int64 | None = None
    pause = rows
    if series.declared is None and rows:
        if rule.by == "column":
            words = _filled(series.texts[rule.column or ""], before.word)
            starts[1:] |= words[1:] != words[:-1]
        elif rule.by == "edge":
            inside = np.isin(series.texts[rule.column or ""].astype(str), rule.high)
        elif rule.by == "idle":
            idle, pause = _idle(series, signals, before=before.idle)
            inside = ~idle
        elif rule.by == "window":
            if signals.unit is not None:
                words = _filled(series.texts[signals.unit.column], before.word)
                starts[1:] |= words[1:] != words[:-1]
            starts_ns = _stretches(series.stamps_ns, starts, before.start_ns)
            number = (series.stamps_ns - starts_ns) // max(1, round((rule.length_s or 0) * 1e9))
            starts[1:] |= number[1:] != number[:-1]
    runs = _runs(inside, starts)
    settled = next((a for a, b in runs if b > pause or b == rows), rows)
    return _Marked(runs=runs, settled=settled, pause=pause, words=words, idle=idle, starts_ns=starts_ns)


def _breaks(stamps_ns: Int64, rule: Segment) -> Bools:
    step = np.diff(stamps_ns)
    broken = step < 0
    if rule.max_gap_s is not None:
        broken |= step > rule.max_gap_s * 1e9
    return broken


def _filled(words: Texts, before: str) -> Texts:
    """The last word at or before each row that has one."""
    with_before = np.concatenate([np.array([before], dtype=object), words])
    known = with_before != ""
    filled: Texts = with_before[np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))][1:]
    return filled


def _stretches(stamps_ns: Int64, starts: Bools, before: int | None) -> Int64:
    """For each row the stamp at which its stretch starts."""
    first = np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))
    found: Int64 = stamps_ns[first]
    if before is not None:
        found = np.where(first == 0, before, found)
    return found


def _idle(series: Series, signals: SignalMap, *, before: bool) -> tuple[Bools, int]:
    """Rows of pauses, and the first row of a pause at the end that is not long enough yet."""
    rule = signals.segment
    signal = next((s for s in signals.signals if s.key == "observation.joint_vel"), None)
    if signal is None or rule.below is None or rule.for_s is None:
        raise MapInvalidError(
            need='joint_vel, for segment by "idle"',
            found="a map without it",
            remedy="map it, or cut by another rule",
        )
    speed: Array64 = to_si(np.column_stack([series.columns[c] for c in signal.columns]), signal.unit)
    still: Bools = np.asarray((np.abs(speed) < rule.below).all(axis=1))  # a missing value is no stillness
    long_enough = np.zeros_like(still)
    pause = series.length
    for first, last in _runs(still, np.zeros_like(still)):
        stamps_ns = series.stamps_ns[first:last]
        if (before and first == 0) or stamps_ns.max() - stamps_ns[0] >= rule.for_s * 1e9:
            long_enough[first:last] = True
        elif last == series.length:
            pause = first
    return long_enough, pause


def _runs(inside: Bools, starts: Bools) -> list[tuple[int, int]]:
    """Maximal runs of rows that are inside, cut before every row of ``starts``."""
    if not len(inside):
        return []
    edge = np.flatnonzero(np.diff(inside.astype(np.int8)) != 0) + 1
    bounds = np.unique(np.concatenate([[0], edge, np.flatnonzero(starts), [len(inside)]]))
    return [(int(a), int(b)) for a, b in pairwise(bounds) if inside[a]]


def _too_large(series: Series, first: int, last: int) -> TooLargeError:
    at, end = series.span(first, last)
    return TooLargeError(
        need=f"episodes of at most {EPISODE_FRAMES} frames",
        found=f"{series.name}, rows {at} to {end}: more",
        remedy="cut it by a segment rule of the signal map",
    )
