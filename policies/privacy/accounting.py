# SPDX-License-Identifier: Apache-2.0
"""Privacy accounting of the Poisson-sampled Gaussian mechanism; an auditor replays it with this file alone.

Two of the three figures live here (`policies.privacy.tight` has the third); they are never mixed:

- `epsilon_rdp`: the best order of one plan. Decides the cap per release; every party gets the same digits.
- rho at one order fixed in advance (`rho_step_nano`, `rho_max_nano`, `epsilon_filter`), in integer
  billionths. Decides lifetime caps, because contracts are written after earlier models were seen, and only a
  filter at a fixed Rényi order is a sound stop rule then (arXiv 2008.11193). Its epsilon starts high after
  the first run by construction.

Formulas, integer order a >= 2: one step costs ``log(sum_k C(a,k) (1-q)^(a-k) q^k exp(k(k-1)/2s^2)) / (a-1)``
(arXiv 1908.10530, section 3.3); conversion ``max(0, rho + log(1-1/a) - log(d a)/(a-1))`` (arXiv 2004.00010).

>>> format(epsilon_rdp(q=0.2, sigma=6.2244, steps=200, delta=1e-5), ".3f")
'2.000'
>>> rho_max_nano(epsilon=8.0, delta=1e-5, order=4)
4912138371
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from policies.privacy.errors import OrderUnfitError, PlanIncompleteError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ORDERS",
    "calibrate",
    "choose_order",
    "epsilon_at",
    "epsilon_filter",
    "epsilon_rdp",
    "epsilon_text",
    "epsilon_together",
    "epsilon_with_honest",
    "epsilons_by_colluders",
    "filter_order",
    "gaussian_rho_nano",
    "rdp_step",
    "rho_max_nano",
    "rho_step_nano",
    "runs_that_fit",
]

ORDERS: Final = (*range(2, 65), 80, 96, 128, 192, 256)
NANO: Final = 10**9
MICRO: Final = 10**6
_SLACK: Final = 1 + 1e-9  # above what rounding in the sum can lose
_SIGMA_STEPS: Final = 10_000  # calibrated sigmas have four decimals
_SIGMA_MAX: Final = 10_000
_REFERENCE_Q: Final = 0.2
_REFERENCE_STEPS: Final = 200


def _check(*, q: float, sigma: float) -> None:
    if not (0 < q <= 1 and math.isfinite(sigma) and sigma > 0):
        raise PlanIncompleteError(
            need="0 < sampling_prob <= 1 and a finite noise_multiplier above 0",
            found=f"sampling_prob {q}, noise_multiplier {sigma}",
            remedy="complete the plan",
        )


def _check_claim(*, steps: int, delta: float) -> None:
    if not (0 < delta < 1 and steps >= 1):
        raise PlanIncompleteError(
            need="0 < delta < 1 and at least one step",
            found=f"delta {delta}, steps {steps}",
            remedy="complete the plan",
        )


@cache
def _log_binomials(order: int) -> tuple[float, ...]:
    return tuple(math.log(math.comb(order, k)) for k in range(order + 1))


@lru_cache(maxsize=65_536)
def rdp_step(*, q: float, sigma: float, order: int) -> float:
    """Rényi divergence of one step at an integer order.

    Args:
        q: Sampling probability per unit, 0 < q <= 1.
        sigma: Noise standard deviation in units of the clip norm.
        order: Integer, at least 2.

    Raises:
        PlanIncompleteError: A number is out of range.
    """
    _check(q=q, sigma=sigma)
    half = 0.5 / (sigma * sigma)
    if q == 1:
        return order * half
    log_q, log_p = math.log(q), math.log1p(-q)
    terms = []
    for k, log_c in enumerate(_log_binomials(order)):
        x = k * (k - 1) * half
        if x > 0:  # the sum minus one: log1p keeps the digits of tiny costs
            log_expm1 = x + math.log1p(-math.exp(-x)) if x > 1 else math.log(math.expm1(x))
            terms.append(log_c + (order - k) * log_p + k * log_q + log_expm1)
    top = max(terms)
    log_excess = top + math.log(math.fsum(math.exp(t - top) for t in terms))
    log_sum = (
        log_excess + math.log1p(math.exp(-log_excess)) if log_excess > 0 else math.log1p(math.exp(log_excess))
    )
    return log_sum / (order - 1)


def epsilon_at(*, rho: float, order: int, delta: float) -> float:
    """Epsilon at delta of a Rényi divergence ``rho`` at one order."""
    return max(0.0, rho + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))


def epsilon_rdp(q: float, sigma: float, steps: int, delta: float) -> float:
    """Epsilon of a whole plan by its best order; the figure that caps one release.

    Raises:
        PlanIncompleteError: A number is not finite or out of range.
    """
    return epsilon_together([(q, sigma, steps)], delta)


def epsilon_together(plans: Sequence[tuple[float, float, int]], delta: float) -> float:
    """Epsilon of several plans that read the same units, by the best order of their sum.

    Never a sum of their epsilons, which would be more.

    Args:
        plans: Sampling probability, noise multiplier and steps of each; at least one.
        delta: Of all of them together.

    Raises:
        PlanIncompleteError: A number is not finite or out of range.
    """
    for q, sigma, steps in plans:
        _check(q=q, sigma=sigma)
        _check_claim(steps=steps, delta=delta)

    def rho(order: int) -> float:
        return sum(steps * rdp_step(q=q, sigma=sigma, order=order) for q, sigma, steps in plans)

    return min(epsilon_at(rho=rho(a), order=a, delta=delta) for a in ORDERS)


def epsilon_with_honest(
    *, q: float, sigma: float, steps: int, delta: float, honest: int, honest_min: int
) -> float:
    """Epsilon of a plan with shares when ``honest`` shares are all that the adversary lacks."""
    return epsilon_rdp(q, sigma * math.sqrt(honest / honest_min), steps, delta)


def epsilons_by_colluders(
    *, q: float, sigma: float, steps: int, delta: float, summed: int, honest_min: int
) -> tuple[float, ...]:
    """`epsilon_with_honest` while 0, 1, ... of the other silos in a sum of ``summed`` collude; rising."""
    return tuple(
        epsilon_with_honest(
            q=q, sigma=sigma, steps=steps, delta=delta, honest=summed - bad, honest_min=honest_min
        )
        for bad in range(summed)
    )


def epsilon_text(epsilon: float) -> str:
    """An epsilon with six decimals, rounded up from its exact binary value: never below it."""
    micro = math.ceil(Fraction(epsilon) * MICRO)
    return f"{micro // MICRO}.{micro % MICRO:06d}"


def rho_step_nano(*, q: float, sigma: float, order: int) -> int:
    """Cost of one step at the filter's order, in billionths, rounded up."""
    return math.ceil(NANO * rdp_step(q=q, sigma=sigma, order=order) * _SLACK)


def gaussian_rho_nano(*, sigma: float, order: int) -> int:
    """Cost of one Gaussian query on all units (an `EvalPlan` call), in billionths, rounded up."""
    return rho_step_nano(q=1.0, sigma=sigma, order=order)


def rho_max_nano(*, epsilon: float, delta: float, order: int) -> int:
    """What a cap of epsilon at delta holds at one order, in billionths, rounded down; may be negative."""
    return math.floor(NANO * (epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)))


def epsilon_filter(*, rho_nano: int, delta: float, order: int) -> float:
    """Epsilon that a filter's total stands for. Never a sum of epsilons."""
    return epsilon_at(rho=rho_nano / NANO, order=order, delta=delta)


def calibrate(epsilon: float, delta: float, q: float = _REFERENCE_Q, steps: int = _REFERENCE_STEPS) -> str:
    """Smallest noise multiplier of four decimals, rounded up, whose `epsilon_rdp` is at most ``epsilon``.

    Raises:
        PlanIncompleteError: A number is out of range, or no sigma below 10 000 reaches epsilon.
    """
    _check(q=q, sigma=1.0)
    _check_claim(steps=steps, delta=delta)
    low, high = 1, _SIGMA_MAX * _SIGMA_STEPS

    def reaches(n: int) -> bool:
        return epsilon_rdp(q=q, sigma=n / _SIGMA_STEPS, steps=steps, delta=delta) <= epsilon

    if not (math.isfinite(epsilon) and epsilon > 0 and reaches(high)):
        raise PlanIncompleteError(
            need="an epsilon that some noise reaches",
            found=f"epsilon {epsilon}, delta {delta}, steps {steps}",
            remedy="a larger epsilon, fewer steps or a smaller sampling_prob",
        )
    guess = max(1, min(high, int(_SIGMA_STEPS * q * math.sqrt(steps) / epsilon)))
    while not reaches(guess):
        low, guess = guess, min(high, guess * 4)
    high = guess
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return f"{low // _SIGMA_STEPS}.{low % _SIGMA_STEPS:04d}".rstrip("0").rstrip(".")


def runs_that_fit(*, epsilon_max: float, delta: float, order: int, sigma: float, q: float, steps: int) -> int:
    """How many runs of one plan a cap holds at one order."""
    cap = rho_max_nano(epsilon=epsilon_max, delta=delta, order=order)
    return max(0, cap) // (steps * rho_step_nano(q=q, sigma=sigma, order=order))


@lru_cache(maxsize=1024)
def choose_order(
    *,
    epsilon_max: float,
    epsilon_release: float,
    delta: float,
    q: float = _REFERENCE_Q,
    steps: int = _REFERENCE_STEPS,
) -> tuple[int, int]:
    """The filter order that holds most reference plans (q 0.2, 200 steps) under a cap, and how many.

    Among orders that hold equally many, the one that leaves the largest share of the cap unspent.

    Raises:
        OrderUnfitError: No order holds a single release.
    """
    sigma = float(calibrate(epsilon=epsilon_release, delta=delta, q=q, steps=steps))
    best = max(
        ORDERS,
        key=lambda a: (
            runs_that_fit(epsilon_max=epsilon_max, delta=delta, order=a, sigma=sigma, q=q, steps=steps),
            rho_max_nano(epsilon=epsilon_max, delta=delta, order=a)
            / (steps * rho_step_nano(q=q, sigma=sigma, order=a)),
        ),
    )
    runs = runs_that_fit(epsilon_max=epsilon_max, delta=delta, order=best, sigma=sigma, q=q, steps=steps)
    if runs < 1:
        raise OrderUnfitError(
            need=f"a filter order under which a cap of {epsilon_max} holds one release of {epsilon_release}",
            found="none",
            remedy="a larger epsilon_total, or a smaller epsilon_per_release",
        )
    return best, runs


def filter_order(*, epsilon_total: str, epsilon_per_release: str, delta: str) -> int:
    """Filter order that follows from a contract's caps (decimal strings); the same for every party.

    Raises:
        OrderUnfitError: The cap does not hold one release.
    """
    return choose_order(
        epsilon_max=float(epsilon_total), epsilon_release=float(epsilon_per_release), delta=float(delta)
    )[0]
