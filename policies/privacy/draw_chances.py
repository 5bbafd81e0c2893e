# SPDX-License-Identifier: Apache-2.0
"""P-values of a record of draws: was each unit drawn on its own, afresh at each step, with its probability?

Figures, each of which another wrong sampler gets wrong. A shuffle draws every unit equally often and never
twice in a row; a fixed batch size has no spread of sizes; a reused batch repeats; a wrong q has another rate;
a cap that is forgotten in large strata has another rate there; a loop that is off by one skips one unit; a
draw with replacement takes one twice.

- rate: share of all draws (Bernstein's bound).
- strata: share of the draws of each group of units (Chernoff's bound).
- units: draws of each single unit (Chernoff's bound).
- sizes: spread of the number of units per step.
- shares: spread of the number of steps per unit.
- repeats: draws of one unit in two steps in a row, or in the same step of two runs, which must be
  uncorrelated (Bernstein's bound).
- once: no unit twice in one step.

Spreads are compared with the chi-square of the same mean and variance, where there are draws enough for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["draw_chances"]

Array64 = Any
_DEGREES: Final = 10
NAMES: Final = ("rate", "strata", "units", "sizes", "shares", "repeats", "once")


def draw_chances(
    drawn: npt.NDArray[np.generic],
    *,
    q: float | npt.NDArray[np.float64],
    groups: npt.NDArray[np.intp] | None = None,
    run: int = 0,
) -> dict[str, float]:
    """P-value of each figure; small ones mean another sampler.

    Args:
        drawn: ``[T, n]``, how often each of n units was drawn in each of T steps.
        q: Probability of each unit, or of all.
        groups: Number of the group of each unit, whose rates are looked at too.
        run: Steps of a run, if there are several below each other.
    """
    counts = np.asarray(drawn, dtype=np.float64)
    steps, units = counts.shape
    rates = np.broadcast_to(np.asarray(q, dtype=np.float64), (units,))
    sure = rates >= 1
    found = dict.fromkeys(NAMES, float(bool((counts[:, sure] == 1).all())))
    if sure.all() or steps == 0:
        return found
    found["once"] = min(found["once"], float(bool((counts <= 1).all())))
    counts, rates = counts[:, ~sure], rates[~sure]
    kinds = np.zeros(len(rates), dtype=np.intp) if groups is None else groups[~sure]
    apart, spread = counts - rates, rates * (1 - rates)
    fresh = {
        "rate": _bernstein(float(apart.sum()), steps * float(spread.sum())),
        "strata": _groups_chance(counts, rates, kinds),
        "units": _least(_chernoff(counts.sum(0), steps, rates)),
        "sizes": _sizes_chance(apart.sum(1), spread),
        "shares": _shares_chance(apart.sum(0), steps, spread),
        "repeats": min(1.0, 2 * min(_repeats(apart, spread, lag) for lag in {1, run or 1})),
    }
    return {name: min(found[name], fresh.get(name, 1.0)) for name in NAMES}


def _bernstein(total: float, variance: float) -> float:
    """Bound of the chance that a sum of terms of size at most 1 is so far from its mean 0."""
    if variance <= 0:
        return 1.0
    return min(1.0, 2 * math.exp(-total * total / (2 * (variance + abs(total) / 3))))


def _chernoff(seen: Array64, tries: Array64, q: Array64) -> Array64:
    """Bound of the chance that so many of a number of tries succeed, or as far to the other side."""
    share = np.minimum(seen / tries, 1.0)
    yes = np.where(share > 0, share * np.log(np.maximum(share, 1e-300) / q), 0.0)
    no = np.where(share < 1, (1 - share) * np.log(np.maximum(1 - share, 1e-300) / (1 - q)), 0.0)
    return np.minimum(1.0, 2 * np.exp(-tries * (yes + no)))


def _least(chances: Array64) -> float:
    return min(1.0, len(chances) * float(np.min(chances)))


def _groups_chance(counts: Array64, rates: Array64, groups: Array64) -> float:
    """Units of a group have one rate."""
    chances = []
    for group in np.unique(groups):
        own = counts[:, groups == group]
        chances.append(float(_chernoff(own.sum(), own.size, rates[groups == group][0])))
    return _least(np.array(chances))


def _repeats(apart: Array64, spread: Array64, lag: int) -> float:
    pairs = len(apart) - lag
    if pairs < 1:
        return 1.0
    return _bernstein(float((apart[lag:] * apart[:-lag]).sum()), pairs * float((spread**2).sum()))


def _sizes_chance(apart: Array64, spread: Array64) -> float:
    mean = float(spread.sum())
    fourth = 3 * mean**2 + float((spread * (1 - 6 * spread)).sum())
    return _spread_chance(float(apart @ apart) / mean, len(apart), len(apart) * (fourth / mean**2 - 1))


def _shares_chance(apart: Array64, steps: int, spread: Array64) -> float:
    mean = steps * spread
    fourth = 3 * mean**2 + mean * (1 - 6 * spread)
    return _spread_chance(float((apart**2 / mean).sum()), len(apart), float((fourth / mean**2 - 1).sum()))


def _spread_chance(total: float, mean: float, variance: float) -> float:
    """Two-sided p-value of a sum of squares, as of the chi-square of this mean and variance."""
    degrees = 2 * mean**2 / variance
    if degrees < _DEGREES:
        return 1.0
    cube = 2 / (9 * degrees)
    return math.erfc(abs(math.cbrt(total / mean) - 1 + cube) / math.sqrt(2 * cube))
