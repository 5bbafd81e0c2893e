# SPDX-License-Identifier: Apache-2.0
"""An episode brought to the contract's time base by its own stamps: its frames say nothing of its rate.

- One episode at a time, and nothing but public constants: no other episode has a say in it.
- The grid starts at the episode's first stamp and has a point every ``1 / rate_hz`` seconds up to its last.
- A continuous field is interpolated linearly; a quaternion along the shorter way, and made a unit again. A
  command of two states, a mode, a label and an angle that may wrap keep their last value. An increment
  (``tcp_pose_delta``) is the way covered up to the next grid point: its sum over the episode stays the same.
- Rows that lack a value were left out before; the line goes across.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from policies.limits import EPISODE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.data.series import Array32, Array64, Int64

__all__ = ["resampled"]

_HELD: Final = frozenset({"gripper_cmd", "gripper_width", "outcome", "robot_mode", "safety_mode"})
_INCREMENTS: Final = frozenset({"tcp_pose_delta"})
_QUATERNION: Final = 4


def resampled(columns: Mapping[str, Array32], stamps_ns: Int64, rate_hz: float) -> dict[str, Array32]:
    """Columns ``[T, k]`` of one episode at ``rate_hz``, ``[N, k] float32``.

    Args:
        columns: By key of the store (``observation.tcp_pos``, ``label.grip_lost``), all of one length.
        stamps_ns: Their stamps, not falling.
        rate_hz: Of the time base; no episode gets more than `EPISODE_FRAMES` points.
    """
    rising = np.append(np.diff(stamps_ns) > 0, True)[: len(stamps_ns)]  # of equal stamps the last row counts
    seconds = (stamps_ns[rising] - stamps_ns[:1]) / 1e9
    if not len(seconds):
        return dict(columns)
    points = min(EPISODE_FRAMES, int(np.floor(seconds[-1] * rate_hz + 1e-6)) + 1)
    grid = np.minimum(np.arange(points) / rate_hz, seconds[-1])
    found = {}
    for key, values in columns.items():
        name = key.split(".", 1)[1]
        whole = values.astype(np.float64)
        if key.startswith("label."):
            found[key] = _held(whole[rising], seconds, grid)
        elif name in _INCREMENTS:
            found[key] = _increments(np.cumsum(whole, axis=0)[rising], seconds, grid)
        elif name in _HELD or (name == "tcp_rot" and values.shape[1] != _QUATERNION):
            found[key] = _held(whole[rising], seconds, grid)
        elif name == "tcp_rot":
            found[key] = _rotations(whole[rising], seconds, grid)
        else:
            found[key] = _lines(whole[rising], seconds, grid)
    return {key: np.ascontiguousarray(values, dtype=np.float32) for key, values in found.items()}


def _held(values: Array64, seconds: Array64, grid: Array64) -> Array64:
    held: Array64 = values[np.searchsorted(seconds, grid + 1e-9, side="right") - 1]
    return held


def _lines(values: Array64, seconds: Array64, grid: Array64) -> Array64:
    return np.column_stack([np.interp(grid, seconds, column) for column in values.T])


def _increments(sums: Array64, seconds: Array64, grid: Array64) -> Array64:
    """What is covered from each grid point to the next; the last one covers what is left.

    A row's increment is made between its stamp and the next row's: the sum before row 0 is zero.
    """
    step = seconds[-1] - seconds[-2] if len(seconds) > 1 else 1.0
    ends = np.append(seconds, seconds[-1] + step)
    covered = np.vstack([np.zeros(sums.shape[1]), sums])
    return np.diff(_lines(covered, ends, np.append(grid, ends[-1])), axis=0)


def _rotations(values: Array64, seconds: Array64, grid: Array64) -> Array64:
    """Quaternions (w, x, y, z), w not negative: linear between neighbours of one sign, then of length 1."""
    turns = np.append(1.0, np.where(np.sum(values[1:] * values[:-1], axis=1) < 0, -1.0, 1.0))
    between = _lines(values * np.cumprod(turns)[:, None], seconds, grid)
    length = np.linalg.norm(between, axis=1, keepdims=True)
    unit = between / np.where(length > 0, length, 1.0)
    return np.where(unit[:, :1] < 0, -unit, unit)
