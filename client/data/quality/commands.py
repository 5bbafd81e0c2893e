# SPDX-License-Identifier: Apache-2.0
"""A part of check 5: whether commands are commands of this motion at all.

Asked of each pair of a command and what it is a command of, in this order:

1. sign: a joint goes the other way than it is told, at every lag;
2. scale: the same motion, more than 10 times as large or small, so in another unit;
3. swapped: two joints each follow the other's command and not their own;
4. explained: the robot moves, and the command neither moves nor leads where it goes, or is noise;
5. answered: a joint is told to move and does not (blocked, switched off, or a dead sensor): left open.

Commands and measurements of the same quantity (joint_pos, joint_vel, tcp_pos) fail. A commanded difference of
the tool may stand in the tool's own frame or in the controller's units, so 1 and 2 leave it open. 4 leaves a
command open while another one of the same episode explains the motion: a driver may send zeros in the mode
that it does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from client.data.quality.finding import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.data.quality.finding import State
    from client.data.quality.spec import Thresholds
    from client.data.series import Array64

__all__ = ["Curve", "Doubt", "Pair", "doubts"]


class Pair(NamedTuple):
    """A command and its measurement: values ``[T, k]``, motions ``[T - 1, k]``, travel of each part.

    The motions of a part that travels too little are NaN; ``field`` is the command's.
    """

    field: str
    column: str
    action: Array64
    state: Array64
    commanded: Array64
    measured: Array64
    travel: Array64
    enough: float

    @property
    def is_delta(self) -> bool:
        """Whether the command is a difference of the tool's position."""
        return self.field == "tcp_pose_delta"

    @property
    def is_rate(self) -> bool:
        """Whether a command of 0 means that nothing is to move."""
        return self.is_delta or self.column.endswith("pos") != self.field.endswith("pos")


class Curve(NamedTuple):
    """Likeness of one part's motions at each lag, and how many times larger the measured one is."""

    part: int
    likeness: Array64
    gain: float


class Doubt(NamedTuple):
    """One thing that is wrong with a command: fails the check, or leaves it open."""

    state: State
    why: str
    column: str
    part: int
    figures: dict[str, str]


def doubts(judged: list[tuple[Pair, list[Curve]]], limits: Thresholds) -> list[Doubt]:
    """What is wrong with the commands of an episode, in the order of the questions."""
    found = [one for pair, curves in judged for one in _unlike(pair, curves, limits)]
    found += [one for pair, _ in judged for one in _swapped(pair, limits)]
    explained = any(curve.likeness.max() >= limits.lag_likeness for _, curves in judged for curve in curves)
    state: State = "UNDETERMINED" if explained else "FAIL"
    found += [one for pair, curves in judged for one in _unexplained(pair, curves, limits, state)]
    found += [one for pair, _ in judged for one in _unanswered(pair, limits)]
    return sorted(found, key=lambda one: one.state != "FAIL")


def _unlike(pair: Pair, curves: list[Curve], limits: Thresholds) -> Iterator[Doubt]:
    """Questions 1 and 2, per part."""
    state: State = "UNDETERMINED" if pair.is_delta else "FAIL"
    times = limits.delta_times if pair.is_delta else limits.scale_times
    for part, likeness, gain in curves:
        best, least = float(likeness.max()), float(likeness.min())
        if least < limits.reversed_likeness and best < -least - limits.reversed_margin:
            yield Doubt(state, "sign", pair.column, part, {"likeness": number(least)})
        elif best > limits.scale_likeness and not 1 / times <= gain <= times:
            yield Doubt(state, "scale", pair.column, part, {"times": number(gain)})


def _swapped(pair: Pair, limits: Thresholds) -> Iterator[Doubt]:
    """Question 3: of absolute positions of joints, each far from its own command and near the other's."""
    if pair.field != "joint_pos":
        return
    moving = np.flatnonzero(pair.travel > pair.enough)
    known = np.isfinite(pair.action).all(axis=1) & np.isfinite(pair.state).all(axis=1)
    action, state = pair.action[known][:, moving], pair.state[known][:, moving]
    if not len(action) or len(moving) < 2:  # noqa: PLR2004  two joints to swap
        return
    own = np.median(np.abs(action - state), axis=0)
    far = np.flatnonzero(own > limits.swapped_rad)
    for one, other in ((a, b) for a in far for b in far if a < b):
        there = float(np.median(np.abs(action[:, other] - state[:, one])))
        back = float(np.median(np.abs(action[:, one] - state[:, other])))
        if max(there / own[one], back / own[other]) < limits.swapped_share:
            figures = {"own_rad": number(float(own[one])), "other_rad": number(there)}
            yield Doubt("FAIL", "swapped", pair.column, int(moving[one]), figures)


def _unexplained(pair: Pair, curves: list[Curve], limits: Thresholds, state: State) -> Iterator[Doubt]:
    """Question 4: no command of the parts that travel far moves, leads where they go, or is like the way."""
    far = np.flatnonzero(pair.travel > limits.explain_travels * pair.enough)
    known = np.isfinite(pair.action).all(axis=1) & np.isfinite(pair.state).all(axis=1)
    if not len(far) or known.sum() < limits.lag_frames:
        return
    action, measured, travel = pair.action[known][:, far], pair.state[known][:, far], pair.travel[far]
    if pair.is_rate:
        explains = np.abs(pair.action[known]).sum() > limits.explain_share * travel.max()
    else:
        start, end = np.abs(measured[0] - action[0]), np.abs(measured[-1] - action[0])
        goal = (end < start / 2).all()  # one command for the whole way: where the robot is to go
        moves = (np.ptp(action, axis=0) > limits.explain_share * travel).any()
        like = any(one.part in far and one.likeness.max() >= limits.lag_likeness for one in curves)
        told, went = (np.abs(np.diff(one, axis=0)).sum(axis=0) for one in (action, measured))
        noise = not like and bool((told > limits.scale_times * went).all())
        explains = (moves or goal) and not noise
    if not explains:
        part = int(far[np.argmax(travel)])
        figures = {"travel": number(float(pair.travel[part]))}
        yield Doubt(state, "action-explains-nothing", pair.column, part, figures)


def _unanswered(pair: Pair, limits: Thresholds) -> Iterator[Doubt]:
    """Question 5: a joint that stays where it is, though told to move long before the end."""
    early = pair.action[: -2 * limits.lag_frames]
    if pair.field != "joint_pos" or len(early) < limits.lag_frames:
        return
    whole = early[np.isfinite(early).all(axis=1)]
    told = np.ptp(whole, axis=0) if len(whole) else np.zeros(early.shape[1])
    still = (pair.travel <= pair.enough) & (told > 2 * limits.explain_travels * pair.enough)
    for part in np.flatnonzero(still)[:1]:
        yield Doubt("UNDETERMINED", "no-answer", pair.column, int(part), {"told_rad": number(told[part])})
