# SPDX-License-Identifier: Apache-2.0
"""Checks of one episode: 1 (schema, missing) and 2 (time). Pure functions; figures stay on the site.

A failed check excludes the episode: it stays stored and is never handed to training. Only checks of one
episode may exclude; a check that compared episodes would let one decide about another and break the privacy
claim. ``UNDETERMINED`` is never ``PASS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.series import Array64

__all__ = ["Verdict", "check_schema", "check_time", "failed_checks"]

State = Literal["PASS", "FAIL", "UNDETERMINED", "NOT_APPLICABLE"]
_CORE: Final = ("joint_", "tcp_", "gripper_", "object_", "goal_")
_CORE_MISSING: Final = 0.05  # GB/Z 218.1-2026 as an open checker transcribes it
_OTHER_MISSING: Final = 0.20
_GAP_PERIODS: Final = 1.5
_GAP_SHARE: Final = 0.01
_JITTER_PERIODS: Final = 0.1
_EQUAL_STEPS: Final = 1e-6
_EQUAL_FRAMES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """State of one check of one episode; ``why`` is one word for the import report."""

    check: str
    state: State
    why: str = ""


def check_schema(frames: Frames) -> Verdict:
    """Check 1: missing values of 5 % or more in a core field, 20 % or more in another."""
    for key, values in sorted(frames.columns.items()):
        share = float(np.isnan(values).any(axis=1).mean())
        bound = _CORE_MISSING if key.split(".", 1)[1].startswith(_CORE) else _OTHER_MISSING
        if share >= bound:
            return Verdict(check="schema", state="FAIL", why="missing")
    return Verdict(check="schema", state="PASS")


def check_time(frames: Frames) -> Verdict:
    """Check 2: stamps that do not rise, too many gaps, jitter (``host`` clock only)."""
    step = np.diff(frames.stamps_ns).astype(np.float64)
    if frames.clock == "simulation":
        return Verdict(check="time", state="NOT_APPLICABLE", why="simulation")
    if frames.clock == "derived" or not len(step):
        return Verdict(check="time", state="UNDETERMINED", why="derived")
    period = float(np.median(step))
    gaps = step > _GAP_PERIODS * period
    many = gaps.sum() > max(1, _GAP_SHARE * frames.length)
    if (step <= 0).any() or many:
        return Verdict(check="time", state="FAIL", why="gaps" if many else "order")
    if frames.clock == "controller":
        return Verdict(check="time", state="PASS")
    return _jitter(step, gaps, period)


def _jitter(step: Array64, gaps: npt.NDArray[np.bool_], period: float) -> Verdict:
    """The part that only a host clock has: even steps look made, uneven ones are too loose."""
    if len(step) >= _EQUAL_FRAMES and np.ptp(step) <= _EQUAL_STEPS * period:
        return Verdict(check="time", state="UNDETERMINED", why="looks-derived")
    if step[~gaps].std() > _JITTER_PERIODS * period:
        return Verdict(check="time", state="FAIL", why="jitter")
    return Verdict(check="time", state="PASS")


def failed_checks(frames: Frames) -> tuple[str, ...]:
    """Names of the checks that exclude the episode."""
    return tuple(v.check for v in (check_schema(frames), check_time(frames)) if v.state == "FAIL")
