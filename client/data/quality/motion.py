# SPDX-License-Identifier: Apache-2.0
"""Checks 3 (frozen channel) and 7 (idle): what moves, and what does not.

Each is a function of one episode. A joint that stands still because the task does not need it is no frozen
channel: its encoder still shows noise, which a dead channel does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from client.data.quality.finding import Finding, Place, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["check_frozen", "check_idle", "speeds"]

_CHANNELS: Final = ("joint_pos", "joint_vel", "joint_torque", "joint_current")
_FEW: Final = 3


def check_frozen(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: a channel's std is below 1e-6 of its range while another joint moves."""
    judged, moving = False, False
    for field in _CHANNELS:
        values = _observed(frames, field)
        if values is None or values.shape[1] < 2 or len(values) < _FEW:  # noqa: PLR2004  another joint
            continue
        judged = True
        travel = np.ptp(values, axis=0)
        width = _width(spec, field, travel)
        moves = travel > spec.thresholds.moving_share * width
        moving |= bool(moves.any())
        still = (values.std(axis=0) < spec.thresholds.frozen_share * width) & ~moves
        if moves.any() and still.any():
            stuck = (one for one in np.flatnonzero(still).tolist() if _should_move(frames, field, one))
            part = next(stuck, None)
            if part is not None:
                place = Place(column=f"observation.{field}", part=part, last=frames.length)
                figures = {"std": number(values[:, part].std()), "range": number(width[part])}
                return Finding(check="frozen", state="FAIL", why="frozen", figures=figures, place=place)
    if not judged:
        return Finding(check="frozen", state="NOT_APPLICABLE", why="no-joints")
    if not moving:
        return Finding(check="frozen", state="UNDETERMINED", why="no-motion")
    return Finding(check="frozen", state="PASS")


def _should_move(frames: Frames, field: str, part: int) -> bool:
    """A velocity of exactly 0 is right for a joint whose position does not change either."""
    if field != "joint_vel":
        return True
    position = _observed(frames, "joint_pos")
    return position is None or part >= position.shape[1] or bool(np.ptp(position[:, part]) > 0)


def _width(spec: QualitySpec, field: str, travel: Array64) -> Array64:
    """Range of each channel: as declared, else the widest travel among them in this episode."""
    declared = spec.limit(field)
    width = np.full(len(travel), float(travel.max()))
    if declared is not None:
        joints = min(len(width), len(declared))
        width[:joints] = np.ptp(declared[:joints], axis=1)
    least: Array64 = np.maximum(width, float(np.finfo(np.float32).tiny))
    return least


def _observed(frames: Frames, field: str) -> Array64 | None:
    """Whole rows of an observed field, float64."""
    values = frames.columns.get(f"observation.{field}")
    if values is None:
        return None
    return values[np.isfinite(values).all(axis=1)].astype(np.float64)


def speeds(frames: Frames) -> tuple[str, Array64] | None:
    """The fastest part per frame, of joints (``rad/s``) or else of the tool (``m/s``); None without."""
    measured = frames.columns.get("observation.joint_vel")
    if measured is not None:
        return "rad/s", np.abs(measured.astype(np.float64)).max(axis=1)
    step_s = np.maximum(np.diff(frames.stamps_ns) / 1e9, 1e-9)
    for field, unit in (("joint_pos", "rad/s"), ("tcp_pos", "m/s")):
        values = frames.columns.get(f"observation.{field}")
        if values is not None and len(values) > 1:
            return unit, np.abs(np.diff(values.astype(np.float64), axis=0)).max(axis=1) / step_s
    return None


def check_idle(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL, a warning: more than 80 % of the frames below the motion threshold."""
    found = speeds(frames)
    if found is None:
        return Finding(check="idle", state="NOT_APPLICABLE", why="no-motion-channel")
    unit, speed = found
    limits = spec.thresholds
    known = speed[np.isfinite(speed)]
    if not len(known):
        return Finding(check="idle", state="UNDETERMINED", why="missing")
    slow = speed < (limits.idle_rad_s if unit == "rad/s" else limits.idle_m_s)
    share = float(slow.sum()) / len(known)
    figures = {"idle": number(share)}
    if share > limits.idle_share:
        place = Place(column="speed", last=frames.length)
        return Finding(check="idle", state="FAIL", why="idle", figures=figures, place=place)
    return Finding(check="idle", state="PASS", figures=figures)
