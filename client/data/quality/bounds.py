# SPDX-License-Identifier: Apache-2.0
"""Checks 4 (saturation) and 11 (limits), both against what the map declares of the robot.

Check 11 asks, in this order and of measurements and commands alike: (1) is a value beyond what its quantity
can be at all (`client.data.quality.spec.PHYSICAL`), (2) is one beyond the declared joints or workspace, where
a commanded step of the tool must fit into the workspace, (3) do velocities contradict positions. (1) and (3)
need no declaration; without one, what they do not refute stays ``NOT_APPLICABLE``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from client.data.quality.agreement import contradiction
from client.data.quality.finding import Finding, Place, number
from client.data.quality.spec import DEFAULT, PHYSICAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["check_limits", "check_saturation"]

_LIMITED: Final = ("joint_pos", "joint_vel", "joint_torque")


def check_saturation(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL, a warning: more than 2 % of the frames at a declared limit."""
    judged, most = False, 0.0
    for column, values, limit in _limited(frames, spec, _LIMITED):
        judged = True
        near = spec.thresholds.at_limit_share * np.ptp(limit, axis=1)
        at = (np.abs(values - limit[:, 0]) <= near) | (np.abs(values - limit[:, 1]) <= near)
        share = at.mean(axis=0)
        part = int(np.argmax(share))
        most = max(most, float(share[part]))
        if share[part] > spec.thresholds.saturated_share:
            rows = np.flatnonzero(at[:, part])
            place = Place(column=column, part=part, first=int(rows[0]), last=int(rows[-1]) + 1)
            figures = {"at_limit": number(float(share[part]))}
            return Finding(check="saturation", state="FAIL", why="saturated", figures=figures, place=place)
    if not judged:
        return Finding(check="saturation", state="NOT_APPLICABLE", why="no-limits")
    return Finding(check="saturation", state="PASS", figures={"at_limit": number(most)})


def check_limits(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: a value that cannot be, one beyond the robot by more than 5 %, or velocities that contradict."""
    absurd = _absurd(frames)
    if absurd is not None:
        return absurd
    judged = False
    for column, values, limit in (*_limited(frames, spec, ("joint_pos", "joint_vel")), *_reach(frames, spec)):
        judged = True
        slack = spec.thresholds.beyond_share * np.ptp(limit, axis=1)
        over = np.maximum(limit[:, 0] - slack - values, values - limit[:, 1] - slack)
        if np.nanmax(over, initial=-1.0) > 0:
            return _beyond(column, values, over)
    found = contradiction(frames, spec)
    if found is not None:
        return found
    if not judged:
        return Finding(check="limits", state="NOT_APPLICABLE", why="no-limits")
    return Finding(check="limits", state="PASS")


def _absurd(frames: Frames) -> Finding | None:
    """A value that no robot has or is told, in whatever field; infinite ones are check 1's."""
    for column, values in sorted(frames.columns.items()):
        pair = PHYSICAL.get(column.split(".", 1)[1])
        if pair is None:
            continue
        wrong = np.isfinite(values) & ((values < pair[0]) | (values > pair[1]))
        if wrong.any():
            return _beyond(column, values, np.where(wrong, np.abs(values.astype(np.float64)), 0), "absurd")
    return None


def _reach(frames: Frames, spec: QualitySpec) -> Iterator[tuple[str, Array64, Array64]]:
    """Positions of the tool, and commanded steps of it, against the declared workspace."""
    space = spec.workspace
    if space is None:
        return
    width = np.ptp(space, axis=1)
    step = np.stack([-width, width], axis=1)
    named = {"observation.tcp_pos": space, "action.tcp_pos": space, "action.tcp_pose_delta": step}
    for column, limit in named.items():
        values = frames.columns.get(column)
        if values is not None:
            axes = min(values.shape[1], len(limit))
            yield column, values[:, :axes].astype(np.float64), limit[:axes]


def _beyond(column: str, values: np.ndarray, over: Array64, why: str = "beyond-limit") -> Finding:
    flat = int(np.nanargmax(over))
    row, part = divmod(flat, values.shape[1])
    figures = {"value": number(float(values[row, part])), "frames": str(int((over > 0).any(axis=1).sum()))}
    place = Place(column=column, part=part, first=row, last=row + 1)
    return Finding(check="limits", state="FAIL", why=why, figures=figures, place=place)


def _limited(
    frames: Frames, spec: QualitySpec, fields: tuple[str, ...]
) -> Iterator[tuple[str, Array64, Array64]]:
    """Columns, observed and commanded, that have declared limits: column, values, limits ``[k, 2]``."""
    for field in fields:
        limit = spec.limit(field)
        for role in ("observation", "action"):
            values = frames.columns.get(f"{role}.{field}")
            if limit is not None and values is not None:
                joints = min(values.shape[1], len(limit))
                yield f"{role}.{field}", values[:, :joints].astype(np.float64), limit[:joints]
