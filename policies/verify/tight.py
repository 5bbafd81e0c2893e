# SPDX-License-Identifier: Apache-2.0
"""A lower bound of the tight epsilon, from the standard library: what no honest statement can go below.

A mechanism is (epsilon, delta)-private only if ``P(E) - exp(epsilon) Q(E) <= delta`` for every event E. One
family of events is enough for a bound: the sum of all noisy steps passes a threshold. With a unit absent the
sum is Gaussian with variance ``steps sigma^2``; with it present its mean is binomial besides. Any accountant
that never understates, as a pessimistic PLD, therefore gives at least this bound. A part of the binomial sum
is left out, which only lowers the bound.
"""

from __future__ import annotations

import math

__all__ = ["is_too_small"]

_WIDTH = 12  # standard deviations of the binomial that are summed
_TERMS = 20_000  # and never more, however many steps a plan claims
_THRESHOLDS = 81  # 0 to 8 standard deviations of the noise
_SLACK = 0.001  # far above rounding


def is_too_small(epsilon: float, *, q: float, sigma: float, steps: int, delta: float) -> bool:
    """Whether a plan is provably not (epsilon, delta)-private.

    Args:
        epsilon: The claim.
        q: Sampling probability, above 0 and at most 1.
        sigma: Noise multiplier, above 0.
        steps: At least 1.
        delta: Of the plan.
    """
    factor = math.exp(min(epsilon + _SLACK, 700.0))
    terms = _binomial(q, steps)
    width = sigma * math.sqrt(steps)
    for step in range(_THRESHOLDS):
        threshold = step * 8 / (_THRESHOLDS - 1)
        present = math.fsum(weight * _tail(threshold - hits / width) for hits, weight in terms)
        if present - factor * _tail(threshold) > delta:
            return True
    return False


def _tail(x: float) -> float:
    """Probability that a standard Gaussian passes x."""
    return math.erfc(x / math.sqrt(2)) / 2


def _binomial(q: float, steps: int) -> list[tuple[int, float]]:
    """Likely values of a binomial variable, with their probabilities."""
    if q >= 1:
        return [(steps, 1.0)]
    mean, spread = steps * q, _WIDTH * math.sqrt(steps * q * (1 - q)) + 1
    low, high = max(0, math.floor(mean - spread)), min(steps, math.ceil(mean + spread))
    whole, log_q, log_rest = math.lgamma(steps + 1), math.log(q), math.log1p(-q)
    found = []
    for hits in range(low, min(high, low + _TERMS) + 1):
        ways = whole - math.lgamma(hits + 1) - math.lgamma(steps - hits + 1)
        found.append((hits, math.exp(ways + hits * log_q + (steps - hits) * log_rest)))
    return found
