# SPDX-License-Identifier: Apache-2.0
"""Norm tests on opened sums: what every member clipped to C, their mean cannot exceed.

- A mean of vectors of norm at most C has a norm of at most C, whatever the positive weights. So an opened
  mean beyond C proves that a member did not clip, and says nothing about which.
- Room above C is for what honest members add beside their update, and for nothing else: rounding to the grid
  (half a step per value and member), and noise shares, where the plan has them, up to a length that honest
  noise exceeds with a chance below 1e-6.
- Limits: a team of m that passes bounds a single member by ``(2m - 1) C`` only. The test is cheap, and it is
  one layer of several.

    room = rounding_room(members=9, step=terms.kappa(online), size=terms.dimension)
    norm_test(mean, bound="1.0", room=room).passed
    team_norm_test({("a", "b", "c"): mean, …}, bound="1.0")         # teams that stay in
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NormFinding", "noise_room", "norm_test", "rounding_room", "team_norm_test"]

Array = npt.NDArray[np.floating[Any]]
Team = tuple[str, ...]
_TAIL: Final = 5.3  # the norm is 1-Lipschitz: beyond sqrt(d) + t with a chance of at most exp(-t^2 / 2)
_FLOAT_SLACK: Final = 1e-6  # relative; the node's own clip ends in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class NormFinding:
    """Norm of an opened mean beside what honest members could have made.

    Attributes:
        norm: Of the mean; infinite where a value is not finite.
        most: Bound with room.
    """

    norm: float
    most: float

    @property
    def passed(self) -> bool:
        """Whether honest members could have made it."""
        return self.norm <= self.most


def norm_test(mean: Array, *, bound: str | float, room: float = 0.0) -> NormFinding:
    """The test of one opened mean.

    Args:
        mean: ``[d]``, weighted mean of the members behind it.
        bound: C, ``update_norm_max`` of the contract.
        room: Of `rounding_room` and `noise_room`.
    """
    values = np.asarray(mean, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(float(np.dot(values, values)))
    return NormFinding(
        norm=norm if math.isfinite(norm) else math.inf, most=float(bound) * (1 + _FLOAT_SLACK) + room
    )


def team_norm_test(means: Mapping[Team, Array], *, bound: str | float, room: float = 0.0) -> tuple[Team, ...]:
    """Teams whose mean passes, in the order given; the others are left out."""
    return tuple(team for team, mean in means.items() if norm_test(mean, bound=bound, room=room).passed)


def rounding_room(*, members: int, step: float, size: int) -> float:
    """Norm that rounding can add: half a step per member in each value of the mean.

    Args:
        members: Behind the sum.
        step: What one step of the opened sum is worth in the mean.
        size: Values of an update.
    """
    return 0.5 * members * step * math.sqrt(size)


def noise_room(std: float, size: int) -> float:
    """Norm that Gaussian noise of a mean exceeds with a chance below 1e-6 (Gaussian concentration).

    Args:
        std: Standard deviation per value of the mean; 0 where the noise is clipped with the update.
        size: Values of an update.
    """
    return std * (math.sqrt(size) + _TAIL)
