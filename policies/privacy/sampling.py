# SPDX-License-Identifier: Apache-2.0
"""The Poisson sampler: built from the plan and the frozen set of units, and from nothing else.

- Each unit is drawn on its own with probability q, in each of exactly T steps. An empty draw is a step
  like any other.
- With ``strata_target`` m a unit of a stratum of n units is drawn with ``min(q, m / n)``: every stratum
  weighs the same, whatever its volume. A unit's loss depends on its own probability, at most q, only; so
  the run is accounted at q (zero-out adjacency). A stratum below m/q units still shows.
- No loader, shuffle, epoch or fixed batch size exists: each of them would void the claimed epsilon (up to
  4 times).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies.encoding import digest
from policies.privacy.errors import BudgetExhaustedError, UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.privacy.plan import DpPlan

__all__ = ["PoissonUnitSampler", "sampler", "unit_manifest"]


class PoissonUnitSampler:
    """Draws the units of each step; at most ``plan.steps`` times.

    Args:
        plan: Gives q, T and the public target per stratum.
        strata: Stratum of each unit of the frozen set, ``[N]``; its length is private, and so are the
            names.
        rng: Unpredictable generator of the run, kept in memory only.
    """

    def __init__(self, plan: DpPlan, strata: Sequence[str], rng: np.random.Generator) -> None:
        self._q = _probabilities(plan, strata)
        self._left = plan.steps
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
        return np.flatnonzero(self._rng.random(len(self._q)) < self._q)


def _probabilities(plan: DpPlan, strata: Sequence[str]) -> npt.NDArray[np.float64]:
    """Probability of each unit: q, or less in a stratum of more units than the target needs."""
    q = float(plan.sampling_prob)
    if plan.strata_target is None:
        return np.full(len(strata), q)
    sizes = Counter(strata)
    return np.array([min(q, float(plan.strata_target) / sizes[one]) for one in strata])


def sampler(plan: DpPlan, strata: Sequence[str], rng: np.random.Generator) -> PoissonUnitSampler:
    """The plan's sampler over units, given the stratum of each (all "" where there are none)."""
    return PoissonUnitSampler(plan, strata, rng)


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
