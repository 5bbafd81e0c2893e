# SPDX-License-Identifier: Apache-2.0
"""A part of check 11: whether measured velocities are those of the measured positions.

A velocity in another unit, of another joint, with the wrong sign, always 0 or of pure noise does not add up
to the way that its joint went. Both are summed over stretches of a tenth of a second, so that encoder steps
and uneven stamps do not count, and a velocity may be 50 ms late, as filters make it. A recording below 20 Hz
is not judged, because much may happen between two of its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from client.data.quality.finding import Finding, Place, number

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec, Thresholds
    from client.data.series import Array64

__all__ = ["contradiction"]


def contradiction(frames: Frames, spec: QualitySpec) -> Finding | None:
    """The failure, if a joint's velocity contradicts its position; None where nothing is wrong or told."""
    limits = spec.thresholds
    position, velocity = (frames.columns.get(f"observation.joint_{one}") for one in ("pos", "vel"))
    took_s = np.diff(frames.stamps_ns) / 1e9
    if position is None or velocity is None or not len(took_s):
        return None
    period_s = float(np.median(took_s))
    if not 0 < period_s <= limits.agree_period_s:
        return None
    width = min(position.shape[1], velocity.shape[1])
    moved = np.diff(position[:, :width].astype(np.float64), axis=0)
    speed = velocity[:, :width].astype(np.float64)
    told = (speed[1:] + speed[:-1]) / 2 * took_s[:, None]
    usual = (took_s > 0) & (took_s <= limits.gap_periods * period_s)
    sound = np.isfinite(moved) & np.isfinite(told) & usual[:, None]
    moved, told = np.where(sound, moved, 0.0), np.where(sound, told, 0.0)
    rows = max(limits.agree_frames, int(np.ceil(limits.agree_s / period_s)))
    found = None
    for late_s in (0.0, limits.agree_late_s / 2, limits.agree_late_s):
        late = round(late_s / period_s)
        found = _judged(_stretches(moved[: len(moved) - late], told[late:], rows), rows, limits)
        if found is None:
            break
    return found


def _stretches(moved: Array64, told: Array64, rows: int) -> Array64:
    """Way of each joint per stretch, as positions and as velocities have it: ``[2, stretches, joints]``."""
    apart = np.abs(moved - told)
    if len(apart) < rows:
        return np.zeros((2, 0, apart.shape[1]))
    few = np.sort(apart, axis=0)[int(0.97 * len(apart))]  # single steps are check 8's
    jump = apart > np.maximum(12 * np.median(apart, axis=0), few)
    both = np.where(jump, 0.0, np.stack([moved, told]))
    count = both.shape[1] // rows
    summed: Array64 = both[:, : count * rows].reshape(2, count, rows, -1).sum(axis=2)
    return summed


def _judged(ways: Array64, rows: int, limits: Thresholds) -> Finding | None:
    larger = np.abs(ways).max(axis=0)
    moves = larger > limits.agree_rad
    unlike = moves & (np.abs(ways[0] - ways[1]) > limits.agree_unlike * larger)
    share = unlike.sum(axis=0) / np.maximum(moves.sum(axis=0), 1)
    share = np.where(moves.sum(axis=0) >= limits.agree_stretches, share, 0.0)
    if share.max(initial=0.0) <= limits.agree_share:
        return None
    part = int(np.argmax(share))
    at = int(np.argmax(np.where(unlike[:, part], np.abs(ways[0] - ways[1])[:, part], 0)))
    figures = {
        "unlike": number(float(share[part])),
        "moved_rad": number(float(ways[0, at, part])),
        "told_rad": number(float(ways[1, at, part])),
    }
    place = Place(column="observation.joint_vel", part=part, first=at * rows, last=(at + 1) * rows + 1)
    why = "velocity-contradicts"
    return Finding(check="limits", state="FAIL", why=why, figures=figures, place=place)
