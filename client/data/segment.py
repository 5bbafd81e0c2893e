# SPDX-License-Identifier: Apache-2.0
"""Cuts a continuous recording into episodes. Pure functions of one series; nothing is merged.

Order of authority: the format's own episodes, then the map's rule:

- ``column``: the episode changes whenever the id changes, also backwards; an id that returns is a new
  episode; an empty id goes on.
- ``edge``: an episode lasts while the signal is high; the rest is no episode.
- ``idle``: stretches of at least ``for_s`` in which all |joint_vel| < ``below`` separate episodes and belong
  to none.
- ``file``: the whole series.

Two cuts are always on: a stamp gap above ``max_gap_s`` and a stamp that goes back. Pieces under
``min_frames`` are dropped and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client.data.errors import MapInvalidError
from client.data.units import to_si

if TYPE_CHECKING:
    from client.data.series import Array64, Int64, Series
    from client.data.signalmap import Segment, SignalMap

__all__ = ["Cut", "cut"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Pieces as (first row, one past the last), in order, and how many were too short."""

    pieces: tuple[tuple[int, int], ...]
    dropped: int


def cut(series: Series, signals: SignalMap) -> Cut:
    """The episodes of a series.

    Raises:
        MapInvalidError: The rule is ``idle`` and no joint velocity is mapped.
    """
    rule = signals.segment
    inside = np.ones(series.length, dtype=bool)
    starts = np.zeros(series.length, dtype=bool)
    if series.declared is None:
        if rule.by == "column":
            starts[1:] |= _changes(series.texts[rule.column or ""])
        elif rule.by == "edge":
            inside = np.isin(series.texts[rule.column or ""].astype(str), rule.high)
        elif rule.by == "idle":
            inside = ~_idle(series, signals)
    starts[1:] |= _breaks(series.stamps_ns, rule)
    pieces = _runs(inside, starts)
    kept = tuple((a, b) for a, b in pieces if b - a >= rule.min_frames)
    return Cut(pieces=kept, dropped=len(pieces) - len(kept))


def _breaks(stamps_ns: Int64, rule: Segment) -> Bools:
    step = np.diff(stamps_ns)
    broken = step < 0
    if rule.max_gap_s is not None:
        broken |= step > rule.max_gap_s * 1e9
    return broken


def _changes(ids: npt.NDArray[np.object_]) -> Bools:
    known = ids != ""
    # the last row at or before each row that has an id
    last = np.maximum.accumulate(np.where(known, np.arange(len(ids)), 0))
    filled = ids[last]
    changed: Bools = filled[1:] != filled[:-1]
    return changed


def _idle(series: Series, signals: SignalMap) -> Bools:
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
    for first, last in _runs(still, np.zeros_like(still)):
        if series.stamps_ns[last - 1] - series.stamps_ns[first] >= rule.for_s * 1e9:
            long_enough[first:last] = True
    return long_enough


def _runs(inside: Bools, starts: Bools) -> list[tuple[int, int]]:
    """Maximal runs of rows that are inside, cut before every row of ``starts``."""
    if not len(inside):
        return []
    edge = np.flatnonzero(np.diff(inside.astype(np.int8)) != 0) + 1
    bounds = np.unique(np.concatenate([[0], edge, np.flatnonzero(starts), [len(inside)]]))
    return [(int(a), int(b)) for a, b in pairwise(bounds) if inside[a]]
