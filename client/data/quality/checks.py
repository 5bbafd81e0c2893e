# SPDX-License-Identifier: Apache-2.0
"""The checks of one episode, in their order; a failure of an excluding one keeps the episode out of training.

An excluded episode stays stored and is never handed on. Only checks of one episode may exclude; a check that
compared episodes would let one decide about another and break the privacy claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.data.quality.actions import check_lag, check_tracking
from client.data.quality.bounds import check_limits, check_saturation
from client.data.quality.jumps import check_jumps
from client.data.quality.motion import check_frozen, check_idle
from client.data.quality.schema import check_schema
from client.data.quality.spec import DEFAULT
from client.data.quality.timing import check_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.data.frames import Frames
    from client.data.quality.finding import CheckName, Finding
    from client.data.quality.spec import QualitySpec

__all__ = ["EPISODE_CHECKS", "EXCLUDING", "SET_CHECKS", "check_episode", "failed_checks"]

EPISODE_CHECKS: Final[dict[CheckName, Callable[[Frames, QualitySpec], Finding]]] = {
    "schema": check_schema,
    "time": check_time,
    "frozen": check_frozen,
    "saturation": check_saturation,
    "lag": check_lag,
    "tracking": check_tracking,
    "idle": check_idle,
    "jumps": check_jumps,
    "limits": check_limits,
}
EXCLUDING: Final[tuple[CheckName, ...]] = ("schema", "time", "frozen", "lag", "jumps", "limits")
SET_CHECKS: Final[tuple[CheckName, ...]] = ("duplicates", "lengths", "personal")


def check_episode(frames: Frames, spec: QualitySpec | None = None) -> tuple[Finding, ...]:
    """The nine findings of one episode; nothing about other episodes enters them."""
    return tuple(check(frames, spec or DEFAULT) for check in EPISODE_CHECKS.values())


def failed_checks(frames: Frames, spec: QualitySpec | None = None) -> tuple[str, ...]:
    """Names of the checks that exclude the episode."""
    chosen = spec or DEFAULT
    return tuple(name for name in EXCLUDING if EPISODE_CHECKS[name](frames, chosen).state == "FAIL")
