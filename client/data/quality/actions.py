# SPDX-License-Identifier: Apache-2.0
"""Checks 5 (lag from action to state) and 6 (tracking error): whether command and measurement fit.

A lag is found per joint by the correlation of both motions. Where motion is slow against the rate, several
lags are about as likely: each joint then has an interval, and a failure needs intervals that exclude what is
right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from client.data.quality.commands import Curve, Pair, doubts
from client.data.quality.finding import Finding, Place, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.commands import Doubt
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["check_lag", "check_tracking"]

_MEASURED: Final = {  # command, what it is a command of, and what shows at least that the robot moves
    "joint_pos": ("joint_pos",),
    "joint_vel": ("joint_vel", "joint_pos"),
    "tcp_pos": ("tcp_pos",),
    "tcp_pose_delta": ("tcp_pos", "joint_pos"),
}
_AXES: Final = 3
_FEW: Final = 20


class _Lag(NamedTuple):
    """Lags of one joint in frames, all about as likely as the best."""

    column: str
    part: int
    low: int
    high: int


def check_lag(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: commands of another motion, the state before the action, or joints more than 3 frames apart."""
    if not any(column.startswith("action.") for column in frames.columns):
        return Finding(check="lag", state="NOT_APPLICABLE", why="no-actions")
    judged = [(pair, _curves(pair, spec)) for pair in _pairs(frames, spec)]
    doubted = doubts(judged, spec.thresholds)
    if doubted and doubted[0].state == "FAIL":
        return _doubted(doubted[0], frames)
    lags = [lag for pair, curves in judged for lag in _lags(pair.column, curves, spec)]
    found = _spread(lags, frames, spec)
    if found.state != "FAIL" and doubted:
        return _doubted(doubted[0], frames)
    if not lags and any(np.isfinite(pair.measured).any() for pair, _ in judged):
        return Finding(check="lag", state="UNDETERMINED", why="action-unlike")
    return found


def _spread(lags: list[_Lag], frames: Frames, spec: QualitySpec) -> Finding:
    if not lags:
        return Finding(check="lag", state="UNDETERMINED", why="no-motion")
    middle = float(np.median([(one.low + one.high) / 2 for one in lags]))
    figures = {"lag_frames": number(middle)}
    if np.median([one.high for one in lags]) < 0:
        return _failed("backwards", lags[0], frames, figures)
    latest, earliest = max(lags, key=lambda one: one.low), min(lags, key=lambda one: one.high)
    if latest.low - earliest.high > spec.thresholds.lag_spread:
        figures["spread_frames"] = str(latest.low - earliest.high)
        return _failed("spread", latest, frames, figures)
    return Finding(check="lag", state="PASS", figures=figures)


def _failed(why: str, lag: _Lag, frames: Frames, figures: dict[str, str]) -> Finding:
    place = Place(column=lag.column, part=lag.part, last=frames.length)
    return Finding(check="lag", state="FAIL", why=why, figures=figures, place=place)


def _doubted(doubt: Doubt, frames: Frames) -> Finding:
    place = Place(column=doubt.column, part=doubt.part, last=frames.length)
    return Finding(check="lag", state=doubt.state, why=doubt.why, figures=doubt.figures, place=place)


def _pairs(frames: Frames, spec: QualitySpec) -> list[Pair]:
    """Commands and what they are commands of."""
    found = []
    for field, names in _MEASURED.items():
        of = next((one for one in names if f"observation.{one}" in frames.columns), None)
        if of is not None and f"action.{field}" in frames.columns:
            found.append(_pair(frames, field, of, spec, is_same=of == names[0]))
    return found


def _pair(frames: Frames, field: str, of: str, spec: QualitySpec, *, is_same: bool) -> Pair:
    action, state = frames.columns[f"action.{field}"], frames.columns[f"observation.{of}"]
    width = min(action.shape[1], state.shape[1], _AXES if of == "tcp_pos" else state.shape[1])
    told, values = action[:, :width].astype(np.float64), state[:, :width].astype(np.float64)
    enough = spec.thresholds.travel_m if of == "tcp_pos" else spec.thresholds.travel_rad
    whole = values[np.isfinite(values).all(axis=1)]
    travel = np.ptp(whole, axis=0) if len(whole) else np.zeros(width)
    moves = (travel > enough) & is_same
    commanded = told[:-1] if field == "tcp_pose_delta" else np.diff(told, axis=0)
    return Pair(
        field=field,
        column=f"observation.{of}",
        action=told,
        state=values,
        commanded=np.where(moves, commanded, np.nan),
        measured=np.where(moves, np.diff(values, axis=0), np.nan),
        travel=travel,
        enough=enough,
    )


def _curves(pair: Pair, spec: QualitySpec) -> list[Curve]:
    """Likeness of command and motion of each part that has enough of both."""
    found = []
    for part in range(pair.commanded.shape[1]):
        one, other = pair.commanded[:, part], pair.measured[:, part]
        known = np.isfinite(one) & np.isfinite(other)
        reach = min(spec.thresholds.lag_frames, len(one) // 4)
        if known.sum() < _FEW:
            continue
        told, seen = float(one[known].std()), float(other[known].std())
        if told > 0 and seen > 0:
            likeness = _likeness(np.where(known, one, 0.0), np.where(known, other, 0.0), reach)
            found.append(Curve(part, likeness, seen / told))
    return found


def _lags(column: str, curves: list[Curve], spec: QualitySpec) -> list[_Lag]:
    limits, found = spec.thresholds, []
    for part, likeness, _ in curves:
        best = float(likeness.max())
        if best < limits.lag_likeness:
            continue
        unlike = limits.lag_unlike * (1 - best) + limits.lag_floor
        likely = np.flatnonzero(1 - likeness <= unlike) - len(likeness) // 2
        found.append(_Lag(column, part, int(likely.min()), int(likely.max())))
    return found


def _likeness(action: Array64, state: Array64, reach: int) -> Array64:
    """Correlation at each lag from -reach to reach; positive lags: the state follows."""
    action, state = action - action.mean(), state - state.mean()
    size, found = len(action), []
    for lag in range(-reach, reach + 1):
        one, other = action[max(0, -lag) : size - max(0, lag)], state[max(0, lag) : size - max(0, -lag)]
        scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
        found.append(float(one @ other) / scale if scale > 0 else 0.0)
    return np.array(found)


def check_tracking(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL, a warning: 95 % of the differences of command and position are not within the recipe's bound."""
    action, state = frames.columns.get("action.joint_pos"), frames.columns.get("observation.joint_pos")
    if action is None or state is None:
        return Finding(check="tracking", state="NOT_APPLICABLE", why="no-actions")
    if spec.tracking_p95 is None:
        return Finding(check="tracking", state="NOT_APPLICABLE", why="no-bound")
    width = min(action.shape[1], state.shape[1])
    error = np.abs(action[:, :width].astype(np.float64) - state[:, :width])
    known = error[np.isfinite(error).all(axis=1)]
    if not len(known):
        return Finding(check="tracking", state="UNDETERMINED", why="missing")
    p95 = np.quantile(known, 0.95, axis=0)
    part = int(np.argmax(p95))
    figures = {"p95_rad": number(float(p95[part]))}
    if p95[part] > spec.tracking_p95:
        place = Place(column="observation.joint_pos", part=part, last=frames.length)
        return Finding(check="tracking", state="FAIL", why="tracking", figures=figures, place=place)
    return Finding(check="tracking", state="PASS", figures=figures)
