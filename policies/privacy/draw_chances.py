# SPDX-License-Identifier: Apache-2.0
"""P-values of a record of draws: was each unit drawn on its own, afresh at each step, with probability q?

Four figures, each of which another wrong sampler gets wrong. A shuffle draws every unit equally often and
never twice in a row; a fixed batch size has no spread of sizes; a reused batch repeats; a wrong q has another
rate.

- rate: share of all draws (Bernstein's bound).
- sizes: spread of the number of units per step, ``n q (1 - q)``.
- shares: spread of the number of steps per unit, ``T q (1 - q)``.
- repeats: draws of one unit in two steps in a row, which must be uncorrelated (Bernstein's bound).

Spreads are compared with the chi-square of the same mean and variance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["draw_chances"]


def draw_chances(drawn: npt.NDArray[np.bool_], *, q: float) -> dict[str, float]:
    """P-value of each figure; small ones mean another sampler.

    Args:
        drawn: ``[T, n]``, which of n units were drawn in each of T steps.
        q: Probability of the plan.
    """
    steps, units = drawn.shape
    if q >= 1 or drawn.size == 0:
        whole = float(bool(drawn.all()))
        return {"rate": whole, "sizes": whole, "shares": whole, "repeats": whole}
    apart = drawn - q
    spread = q * (1 - q)
    return {
        "rate": _bernstein(float(apart.sum()), drawn.size * spread),
        "sizes": _spread_chance(apart.sum(1), among=units, q=q),
        "shares": _spread_chance(apart.sum(0), among=steps, q=q),
        "repeats": _bernstein(float((apart[1:] * apart[:-1]).sum()), (steps - 1) * units * spread**2),
    }


def _bernstein(total: float, variance: float) -> float:
    """Bound of the chance that a sum of terms of size at most 1 is so far from its mean 0."""
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * math.exp(-total * total / (2 * (variance + abs(total) / 3))))


def _spread_chance(apart: npt.NDArray[np.float64], *, among: int, q: float) -> float:
    """Two-sided p-value of the sum of squares of centred binomials of ``among`` tries."""
    spread = q * (1 - q)
    mean = among * spread
    fourth = mean * (1 + (3 * among - 6) * spread)
    degrees = len(apart) * 2 * mean**2 / (fourth - mean**2)
    ratio = float(apart @ apart) / (len(apart) * mean)
    cube = 2 / (9 * degrees)
    return math.erfc(abs(math.cbrt(ratio) - 1 + cube) / math.sqrt(2 * cube))
