# SPDX-License-Identifier: Apache-2.0
"""Check 1: values that are missing or not finite. Units are checked where they are declared (signal map)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from client.data.quality.finding import Finding, Place, number
from client.data.quality.spec import DEFAULT

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.quality.spec import QualitySpec

__all__ = ["check_schema"]

_CORE: Final = ("joint_", "tcp_", "gripper_", "object_", "goal_")


def check_schema(frames: Frames, spec: QualitySpec = DEFAULT) -> Finding:
    """FAIL: an infinite value; 5 % or more missing in a core field, 20 % or more in another."""
    limits = spec.thresholds
    most = ("", 0.0)
    for column, values in sorted(frames.columns.items()):
        infinite = np.isinf(values).any(axis=1)
        if infinite.any():
            first = int(np.argmax(infinite))
            place = Place(column=column, first=first, last=first + 1)
            return Finding(check="schema", state="FAIL", why="not-finite", place=place)
        share = float(np.isnan(values).any(axis=1).mean())
        core = column.split(".", 1)[1].startswith(_CORE)
        if share >= (limits.core_missing if core else limits.other_missing):
            return _missing(column, values, share)
        most = max(most, (column, share), key=lambda one: one[1])
    return Finding(check="schema", state="PASS", figures={"missing": number(most[1])})


def _missing(column: str, values: np.ndarray, share: float) -> Finding:
    """The failure, at the longest stretch without values."""
    lacking = np.isnan(values).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lacking.astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    place = Place(
        column=column,
        part=int(np.argmax(np.isnan(values).sum(axis=0))),
        first=int(starts[longest]),
        last=int(ends[longest]),
    )
    return Finding(
        check="schema", state="FAIL", why="missing", figures={"missing": number(share)}, place=place
    )
