# SPDX-License-Identifier: Apache-2.0
"""From where the next action's change is measured: the guard of the change has no gap at an episode's start.

Within an episode it is the action that was sent last. Before the first action of an episode, and after an
owner resumed, for each component:

| output | measured from |
|---|---|
| a position | ``measured``, else the same field where observed, else what was sent last; none: refused |
| a rate or an increment | anything between standing still and what was carried out or sent last |
| another | ``measured``, else the same field where observed, else what was sent last; none: free |

So the cell cannot get round the bound by ending an episode, and a robot that stands may begin to move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from client.deploy.ports import Array64, Facts
    from client.deploy.states import Question, Standing

__all__ = ["POSITIONS", "RATES", "References"]

RATES: Final = frozenset({"tcp_pose_delta", "tcp_vel", "joint_vel", "joint_acc"})
POSITIONS: Final = frozenset({"joint_pos", "tcp_pos", "tcp_rot"})


class References:
    """The rules of one model's facts."""

    def __init__(self, facts: Facts) -> None:
        places: dict[tuple[str, int], int] = {}
        at = 0
        for one in facts.inputs:
            places.setdefault((one.field, one.size), at)
            at += one.size
        columns = []
        for one in facts.outputs:
            first = places.get((one.field, one.size))
            columns += [-1 if first is None else first + i for i in range(one.size)]
        self._seen = np.array(columns, dtype=np.intp)
        self._rates = np.array([one.field in RATES for one in facts.outputs for _ in range(one.size)])

    def of(self, question: Question, before: Standing) -> tuple[Array64, Array64]:
        """Least and most that each component of the next action is measured from; NaN where nothing is."""
        last = before.last_action(question.seq)
        if last is not None:
            return last, last
        found = np.full(len(self._seen), np.nan) if before.last is None else before.last
        seen = np.where(self._seen >= 0, question.observation[self._seen], np.nan)
        found = np.where(np.isfinite(seen), seen, found)
        if question.measured is not None:
            found = np.where(np.isfinite(question.measured), question.measured, found)
        moved = np.where(np.isfinite(found), found, 0.0)
        low, high = np.minimum(moved, 0.0), np.maximum(moved, 0.0)
        return np.where(self._rates, low, found), np.where(self._rates, high, found)
