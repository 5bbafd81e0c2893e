# SPDX-License-Identifier: Apache-2.0
"""The few numbers behind a picture of a finding, taken while the episode is in memory. They stay on the site.

A trace has at most `POINTS` points per line: of each stretch its least and its greatest value are kept, so
that a spike of one frame is still to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from client.data.quality.motion import speeds

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.finding import Finding
    from client.data.quality.sets import Near
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["POINTS", "Line", "Trace", "lengths_trace", "pair_trace", "trace_of"]

POINTS: Final = 240
_ZOOM: Final = 60  # frames of a picture of a lag
_OTHERS: Final = 5  # joints that are drawn beside the frozen one


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: its name, its points, and whether it is what the finding is about."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    main: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One picture: lines over ``x`` (``s`` or ``share`` or ``episode``), a marked stretch, level lines."""

    title: str
    unit: str
    x_unit: str
    lines: tuple[Line, ...]
    mark: tuple[float, float] | None = None
    levels: tuple[float, ...] = ()


_UNITS: Final = {
    "joint_pos": "rad",
    "joint_vel": "rad/s",
    "joint_torque": "Nm",
    "joint_current": "A",
    "joint_temp": "K",
    "tcp_pos": "m",
}


def trace_of(finding: Finding, frames: Frames, spec: QualitySpec) -> Trace | None:
    """The picture of a failed check of one episode; None where there is nothing to draw."""
    place = finding.place
    if place is None or frames.length < 2:  # noqa: PLR2004  a line has two ends
        return None
    time_s = (frames.stamps_ns - frames.stamps_ns[0]) / 1e9
    if finding.check == "time" and not place.column:
        step_ms = np.diff(frames.stamps_ns) / 1e6
        period = float(np.median(step_ms))
        at = float(time_s[min(place.first + 1, frames.length - 1)])
        lines = (_line("step", time_s[1:], step_ms),)
        return Trace(title="step", unit="ms", x_unit="s", lines=lines, mark=(at, at), levels=(period,))
    if finding.check == "idle":
        return _idle(frames, time_s, spec)
    values = frames.columns.get(place.column)
    if values is None:
        return None
    field = place.column.split(".", 1)[1]
    end = min(max(place.last - 1, place.first), frames.length - 1)
    whole = place.first == 0 and end == frames.length - 1
    return Trace(
        title=_name(spec, field, place.part),
        unit=_UNITS.get(field, ""),
        x_unit="s",
        lines=_lines(finding, frames, time_s, spec),
        mark=None if whole else (float(time_s[place.first]), float(time_s[end])),
        levels=_levels(finding, field, place.part, spec),
    )


def _lines(finding: Finding, frames: Frames, time_s: Array64, spec: QualitySpec) -> tuple[Line, ...]:
    """The part itself; the other joints beside a frozen one; the command beside a lag or tracking error."""
    place = finding.place
    if place is None:
        return ()
    values, field = frames.columns[place.column], place.column.split(".", 1)[1]
    rows = slice(0, frames.length)
    others: list[Line] = []
    if finding.check == "frozen":
        parts = [part for part in range(values.shape[1]) if part != place.part][:_OTHERS]
        others = [_line(_name(spec, field, part), time_s, values[:, part], main=False) for part in parts]
    action = frames.columns.get(f"action.{field}")
    if finding.check in ("lag", "tracking") and action is not None and place.part < action.shape[1]:
        rows = _fastest(values[:, place.part]) if finding.check == "lag" else rows
        others = [_line("action", time_s[rows], action[rows, place.part], main=False)]
    return (*others, _line(_name(spec, field, place.part), time_s[rows], values[rows, place.part]))


def _fastest(values: np.ndarray) -> slice:
    """Frames around the fastest motion: a shift of a few frames is to be seen nowhere else."""
    step = np.nan_to_num(np.abs(np.diff(values.astype(np.float64))))
    middle = int(np.argmax(step))
    first = min(max(0, middle - _ZOOM // 2), max(0, len(values) - _ZOOM))
    return slice(first, first + _ZOOM)


def _levels(finding: Finding, field: str, part: int, spec: QualitySpec) -> tuple[float, ...]:
    limit = spec.limit(field)
    if finding.check not in ("saturation", "limits") or limit is None or part >= len(limit):
        return ()
    return (float(limit[part, 0]), float(limit[part, 1]))


def _idle(frames: Frames, time_s: Array64, spec: QualitySpec) -> Trace | None:
    found = speeds(frames)
    if found is None:
        return None
    unit, speed = found
    level = spec.thresholds.idle_rad_s if unit == "rad/s" else spec.thresholds.idle_m_s
    lines = (_line("speed", time_s[-len(speed) :], speed),)
    return Trace(title="speed", unit=unit, x_unit="s", lines=lines, levels=(level,))


def pair_trace(near: Near, paths: dict[str, Array64], column: str, spec: QualitySpec) -> Trace:
    """Two near paths, of the part that travels furthest, one drawn over the other."""
    one, other = paths[near.one], paths[near.other]
    part = int(np.argmax(np.ptp(one, axis=0)))
    share = np.linspace(0, 1, len(one))
    field = column.split(".", 1)[1]
    lines = (_line("A", share, one[:, part], main=False), _line("B", share, other[:, part]))
    return Trace(title=_name(spec, field, part), unit=_UNITS.get(field, ""), x_unit="share", lines=lines)


def lengths_trace(lengths: dict[str, int], low: float, high: float) -> Trace:
    """All lengths in rising order, with the fences."""
    values = np.sort(np.array(list(lengths.values()), dtype=np.float64))
    lines = (_line("length", np.arange(len(values), dtype=np.float64), values),)
    return Trace(title="length", unit="frames", x_unit="episode", lines=lines, levels=(max(low, 0.0), high))


def _name(spec: QualitySpec, field: str, part: int) -> str:
    if field.startswith("joint_"):
        return f"{field} {spec.joint(part)}"
    axes = "xyz" if field in ("tcp_pos", "object_pos", "goal_pos") else ""
    return f"{field} {axes[part] if part < len(axes) else part}"


def _line(name: str, x: Array64, y: np.ndarray, *, main: bool = True) -> Line:
    """A line; a missing stretch is a break in it, not a bridge."""
    known = np.isfinite(y)
    at = np.flatnonzero(known)[_thinned(np.asarray(y, dtype=np.float64)[known])]
    lacking = np.cumsum(~known)
    broken = np.flatnonzero(np.diff(lacking[at]) > 0) + 1
    kept_y = np.insert(np.asarray(y, dtype=np.float64)[at], broken, np.nan)
    kept_x = np.insert(np.asarray(x, dtype=np.float64)[at], broken, np.asarray(x)[at][broken])
    return Line(name=name, x=tuple(kept_x.tolist()), y=tuple(kept_y.tolist()), main=main)


def _thinned(y: Array64) -> list[int]:
    """At most `POINTS` places that show every spike."""
    if len(y) <= POINTS:
        return list(range(len(y)))
    edges = np.linspace(0, len(y), POINTS // 2 + 1).astype(int)
    kept: list[int] = []
    for first, last in pairwise(edges.tolist()):
        stretch = y[first:last]
        kept += sorted({first + int(np.argmin(stretch)), first + int(np.argmax(stretch))})
    return kept
