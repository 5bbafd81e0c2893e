# SPDX-License-Identifier: Apache-2.0
"""Checks 9 (duplicates) and 10 (lengths) of a whole data set: findings for a person. They exclude nothing.

A filter over the set would let one unit decide about another and break the privacy claim; so a person looks,
and says by name that it may stay (client.data.quality.accepted).

Near duplicates: paths of 64 points, resampled by frame number; two are near if their rms distance is below
1e-3 of each joint's range over the set. All pairs are found, without comparing all: paths that are near are
near along any one direction, so they are neighbours in that order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from client.data.quality.finding import Finding, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec
    from client.data.series import Array64

__all__ = ["Near", "check_duplicates", "check_lengths", "near_pairs", "path_of"]

_PATHS: Final = ("joint_pos", "tcp_pos", "joint_vel", "joint_current")
_STILL: Final = 0.01  # a joint that hardly moves is measured against the one that moves most
_PAIRS: Final = 10_000  # more are not listed; the finding is the same


class Near(NamedTuple):
    """Two episodes that are near; ``distance`` is the rms share of the range."""

    one: str
    other: str
    distance: float


def path_of(frames: Frames, spec: QualitySpec = DEFAULT) -> tuple[str, Array64] | None:
    """Column and path ``[64, k]`` of an episode; None without joints or tool, or where values are too few."""
    for field in _PATHS:
        values = frames.columns.get(f"observation.{field}")
        if values is None:
            continue
        whole = values[np.isfinite(values).all(axis=1)].astype(np.float64)
        if len(whole) < 2:  # noqa: PLR2004  a path has two ends
            return None
        at = np.linspace(0, len(whole) - 1, spec.thresholds.path_points)
        rows = np.arange(len(whole))
        return f"observation.{field}", np.column_stack([np.interp(at, rows, one) for one in whole.T])
    return None


def near_pairs(paths: Mapping[str, Array64], spec: QualitySpec = DEFAULT) -> list[Near]:
    """Pairs of episodes whose paths are near, in the order of their names."""
    names = sorted(paths)
    if len(names) < 2:  # noqa: PLR2004  a pair
        return []
    whole = np.stack([paths[name] for name in names])
    width = np.ptp(whole, axis=(0, 1))
    width = np.maximum(width, max(_STILL * float(width.max()), float(np.finfo(np.float32).tiny)))
    flat = (whole / width).reshape(len(names), -1) / np.sqrt(whole.shape[1] * whole.shape[2])
    along = flat.sum(axis=1) / np.sqrt(
        flat.shape[1]
    )  # length of the projection: never more than the distance
    order = np.argsort(along, kind="stable")
    found = []
    for place, at in enumerate(order):
        end = int(np.searchsorted(along[order], along[at] + spec.thresholds.path_distance, side="right"))
        others = order[place + 1 : end]
        distance = np.sqrt(((flat[others] - flat[at]) ** 2).sum(axis=1))
        for other, far in zip(others, distance, strict=True):
            if far < spec.thresholds.path_distance:
                one, two = sorted((names[at], names[other]))
                found.append(Near(one, two, float(far)))
        if len(found) > _PAIRS:
            break
    return sorted(found)[:_PAIRS]


def check_duplicates(pairs: list[Near], *, paths: int, unequal: bool = False) -> Finding:
    """FAIL, for a person: near episodes. Equal ones never get here: they are one unit since their import."""
    if unequal or paths == 0:
        return Finding(check="duplicates", state="NOT_APPLICABLE", why="no-path")
    if paths == 1:
        return Finding(check="duplicates", state="UNDETERMINED", why="one-episode")
    if not pairs:
        return Finding(check="duplicates", state="PASS")
    named = tuple(sorted({name for pair in pairs for name in (pair.one, pair.other)}))
    figures = {"pairs": str(len(pairs)), "nearest": number(min(pair.distance for pair in pairs))}
    return Finding(check="duplicates", state="FAIL", why="near", figures=figures, episodes=named)


def check_lengths(lengths: Mapping[str, int], spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL, for a person: an episode's length is outside Tukey's fences of 3 interquartile ranges."""
    if len(lengths) < spec.thresholds.fence_episodes:
        return Finding(check="lengths", state="UNDETERMINED", why="few-episodes")
    values = np.array([lengths[name] for name in sorted(lengths)], dtype=np.float64)
    low, high = np.quantile(values, (0.25, 0.75))
    reach = spec.thresholds.fence_iqr * (high - low)
    outside = tuple(name for name in sorted(lengths) if not low - reach <= lengths[name] <= high + reach)
    figures = {"from": number(low - reach), "to": number(high + reach)}
    if outside:
        return Finding(check="lengths", state="FAIL", why="outside-fences", figures=figures, episodes=outside)
    return Finding(check="lengths", state="PASS", figures=figures)
