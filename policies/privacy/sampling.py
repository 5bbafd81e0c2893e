# SPDX-License-Identifier: Apache-2.0
"""The Poisson sampler: built from the plan and the frozen set of units, and from nothing else.

- Each unit is drawn on its own with probability q, in each of exactly T steps. An empty draw is a step like
  any other.
- No loader, shuffle, epoch or fixed batch size exists: each of them would void the claimed epsilon (up to 4
  times).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies.encoding import digest
from policies.privacy.errors import BudgetExhaustedError, UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.privacy.plan import DpPlan

__all__ = ["PoissonUnitSampler", "sampler", "unit_manifest"]


class PoissonUnitSampler:
    """Draws the units of each step; at most ``plan.steps`` times.

    Args:
        plan: Gives q and T.
        n_units: Size of the frozen set; private.
        rng: Unpredictable generator of the run, kept in memory only.
    """

    def __init__(self, plan: DpPlan, n_units: int, rng: np.random.Generator) -> None:
        self._q = float(plan.sampling_prob)
        self._left = plan.steps
        self._n = n_units
        self._rng = rng

    @property
    def steps_left(self) -> int:
        """Draws that the plan still allows."""
        return self._left

    def draw(self) -> npt.NDArray[np.intp]:
        """Indices of the chosen units, ascending; may be empty.

        Raises:
            BudgetExhaustedError: All steps of the plan were drawn.
        """
        if self._left < 1:
            raise BudgetExhaustedError(
                need="a step of the plan", found="all were drawn", remedy="a new plan under a new reservation"
            )
        self._left -= 1
        return np.flatnonzero(self._rng.random(self._n) < self._q)


def sampler(plan: DpPlan, n_units: int, rng: np.random.Generator) -> PoissonUnitSampler:
    """The plan's sampler over ``n_units`` units."""
    return PoissonUnitSampler(plan, n_units, rng)


def unit_manifest(unit_ids: Iterable[bytes]) -> str:
    """Digest of a set of units, frozen when budget is reserved; stays on the site.

    Raises:
        UnitRefusedError: A unit occurs twice (equal episodes are one unit), or has no identifier.
    """
    ids = sorted(unit_ids)
    if len(set(ids)) != len(ids) or any(not one for one in ids):
        raise UnitRefusedError(
            need="each unit once, with its identifier",
            found="a unit twice, or one without identifier",
            remedy="merge episodes of one unit before training",
        )
    return digest(b"".join(len(one).to_bytes(4, "big") + one for one in ids))
