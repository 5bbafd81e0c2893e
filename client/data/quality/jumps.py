# SPDX-License-Identifier: Apache-2.0
"""Check 8: steps of a joint that it cannot make in the time that passed.

Each value is compared with the last one that is known, over the time between the two: a step does not become
smaller because the row beside it is missing. A recording that jumps all the time has no usual step to be
measured against, so where many steps are impossible, all of them count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from client.data.quality.finding import Finding, Place, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    import numpy.typing as npt

    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["check_jumps"]

_FEW: Final = 3


class _Steps(NamedTuple):
    """Per row from the second: the way from the last known value, the time and the rows that it took."""

    way: Array64
    took_s: Array64
    rows: npt.NDArray[np.int64]


def check_jumps(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: a step of joint_pos above 8 MAD and above what the velocity limit allows in that time.

    Without a declared velocity limit, only a step that no arm could make fails; a smaller one stays open.
    """
    values = frames.columns.get("observation.joint_pos")
    if values is None:
        return Finding(check="jumps", state="NOT_APPLICABLE", why="no-joint-position")
    if len(values) <= _FEW:
        return Finding(check="jumps", state="UNDETERMINED", why="too-short")
    limits, steps = spec.thresholds, _steps(values.astype(np.float64), frames.stamps_ns)
    size = np.abs(steps.way)
    spread = np.median(np.abs(steps.way - np.median(steps.way, axis=0)), axis=0)
    odd = size > limits.jump_mads * spread * steps.rows
    declared = spec.limit("joint_vel")
    fastest = np.full(size.shape[1], limits.jump_rad_s)
    if declared is not None:
        joints = min(len(fastest), len(declared))
        fastest[:joints] = np.abs(declared[:joints]).max(axis=1)
    allowed = fastest * steps.took_s
    often = (size > limits.noise_times * allowed).mean(axis=0) > limits.noise_share
    jumped = (odd | often) & (size > allowed)
    if jumped.any():
        return _jump(steps, jumped, allowed)
    if declared is None and odd.any():
        return Finding(check="jumps", state="UNDETERMINED", why="no-velocity-limit")
    return Finding(check="jumps", state="PASS")


def _steps(values: Array64, stamps_ns: npt.NDArray[np.int64]) -> _Steps:
    known = np.isfinite(values)
    at = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(known, at, -1), axis=0)[:-1]
    told = known[1:] & (last >= 0)
    last = np.maximum(last, 0)
    filled = np.where(known, values, 0.0)
    period_s = float(np.median(np.diff(stamps_ns))) / 1e9
    took_s = (stamps_ns[1:, None] - stamps_ns[last]) / 1e9
    way = np.where(told, filled[1:] - np.take_along_axis(filled, last, axis=0), 0.0)
    return _Steps(way, np.maximum(took_s, period_s), at[1:] - last)


def _jump(steps: _Steps, jumped: npt.NDArray[np.bool_], allowed: Array64) -> Finding:
    """The failure, at the fastest step."""
    size = np.abs(steps.way)
    speed = np.where(jumped, size / np.maximum(steps.took_s, 1e-9), 0)
    row, part = (int(one) for one in np.unravel_index(int(np.argmax(speed)), size.shape))
    first = row + 1 - int(steps.rows[row, part])
    place = Place(column="observation.joint_pos", part=part, first=first, last=row + 2)
    figures = {
        "jumps": str(int(jumped.sum())),
        "step_rad": number(float(size[row, part])),
        "allowed_rad": number(float(allowed[row, part])),
    }
    return Finding(check="jumps", state="FAIL", why="jump", figures=figures, place=place)
