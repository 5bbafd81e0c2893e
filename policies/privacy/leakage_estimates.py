# SPDX-License-Identifier: Apache-2.0
"""What a leakage test says, and how sure it is: AUC, true positives at few false ones, one-run epsilon.

- A score is a number that is higher for what the tester takes for a member. ``members`` were trained on,
  ``others`` were not and could have been.
- Every figure comes with its bound, because a gate that compares bare estimates of 64 canaries decides by
  luck: one AUC of 64 has a standard error of 0.07.
- A party of a cohort has a dozen canaries or two. DeLong's error, estimated from so few, alarms four times
  as often as it says; `auc_of_few` takes the error at the area in question instead.
- The one-run bound is capped by its number of guesses (200 right ones: 4.2; 1000: 5.8; 5000: 7.3), so it is
  an alarm and never a proof that a larger claim holds.

Sources: AUC and its error E. R. DeLong et al., Biometrics 44 (1988); separation Hanley and McNeil, Radiology
143 (1982); true positives at a fixed share of false ones arXiv 2112.03570; one run arXiv 2305.08846, theorem
5.2. numpy and the standard library only.

>>> import numpy as np
>>> area = auc(np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.3, 0.1]))
>>> round(area.value, 4), area.low < 0.8 < area.high
(0.8889, True)
>>> format(one_run_epsilon(canaries=200, guesses=200, right=200, delta=0.0), ".2f")
'4.19'
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.privacy.errors import PlanIncompleteError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CONFIDENCE",
    "Bounded",
    "auc",
    "auc_of_few",
    "chance_of_so_low",
    "one_run_epsilon",
    "one_run_low",
    "tpr_at_fpr",
]

Floats = npt.NDArray[np.floating[Any]]
Array64 = npt.NDArray[np.float64]
CONFIDENCE: Final = 0.95
_GUESSED: Final = (1.0, 0.5, 0.25, 0.125)  # shares of the canaries that are guessed; each is one test
_EPSILON_MAX: Final = 64.0
_HALVINGS: Final = 60
_PAIRS_COUNTED: Final = (
    4096  # up to so many pairs of scores, orders are counted; beyond, the normal law is used
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """An estimate with a lower and an upper bound, each of them one-sided at the confidence asked for."""

    value: float
    low: float
    high: float


def _finite(name: str, scores: Floats, *, least: int) -> Array64:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) < least or not np.isfinite(values).all():
        raise PlanIncompleteError(
            need=f"at least {least} finite scores of {name}, one dimension",
            found=f"shape {list(values.shape)}, {int(np.isfinite(values).sum())} finite",
            remedy="score every canary; one without a score is a failed test, not a missing value",
        )
    return values


def auc(members: Floats, others: Floats, *, confidence: float = CONFIDENCE) -> Bounded:
    """Chance that a member scores above another (ties count half), with DeLong's error.

    Where all members stand apart DeLong's error is zero; then the error is that of Hanley and McNeil half a
    pair away, so that a handful of canaries never looks certain.

    Args:
        members: ``[m]``, at least two.
        others: ``[n]``, at least two.
        confidence: Of each of the two bounds.

    Raises:
        PlanIncompleteError: Too few scores, or one that is not finite.
    """
    inside, outside = _finite("members", members, least=2), _finite("others", others, least=2)
    m, n = len(inside), len(outside)
    above = _placements(inside, outside)
    below = 1 - _placements(outside, inside)
    value = float(above.mean())
    variance = float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n
    if value in {0.0, 1.0}:
        variance = _variance_at(1 - 0.5 / (m * n), m, n)
    reach = NormalDist().inv_cdf(confidence) * math.sqrt(variance)
    return Bounded(value=value, low=max(0.0, value - reach), high=min(1.0, value + reach))


def auc_of_few(members: Floats, others: Floats, *, confidence: float = CONFIDENCE) -> Bounded:
    """The area, between the lowest and the highest area that so few scores do not refute.

    An area is refuted if the estimate lies further off than Hanley and McNeil's error at *that* area.

    Args:
        members: ``[m]``, at least two.
        others: ``[n]``, at least two.
        confidence: Of each of the two bounds.

    Raises:
        PlanIncompleteError: Too few scores, or one that is not finite.
    """
    value = auc(members, others).value
    m, n, reach = len(members), len(others), NormalDist().inv_cdf(confidence)

    def refuted(area: float) -> bool:
        return abs(value - area) > reach * math.sqrt(_variance_at(area, m, n))

    return Bounded(value=value, low=_furthest(value, 0.0, refuted), high=_furthest(value, 1.0, refuted))


def _furthest(value: float, end: float, refuted: Callable[[float], bool]) -> float:
    """The area nearest to an end that is not refuted, between the estimate and that end."""
    inside, outside = value, end
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return inside


def chance_of_so_low(members: Floats, others: Floats) -> float:
    """Chance of an area as low as this one or lower, if coins that say nothing chose the members.

    Exact (Mann and Whitney) without ties; with ties, a little too large.

    Raises:
        PlanIncompleteError: Too few scores, or one that is not finite.
    """
    value, m, n = auc(members, others).value, len(members), len(others)
    if m * n > _PAIRS_COUNTED:
        return NormalDist().cdf((value - 0.5) / math.sqrt((m + n + 1) / (12 * m * n)))
    orders = _orders(m, n)
    return sum(orders[: math.ceil(value * m * n - 1e-9) + 1]) / math.comb(m + n, m)


def _orders(m: int, n: int) -> list[int]:
    """How many orders of m members among n others have 0, 1, … pairs in which the member stands above."""
    counts = [1] + [0] * (m * n)
    for number in range(1, m + 1):  # times (1 - x^(n + number)), then divided by (1 - x^number)
        for pairs in range(m * n, n + number - 1, -1):
            counts[pairs] -= counts[pairs - n - number]
        for pairs in range(number, m * n + 1):
            counts[pairs] += counts[pairs - number]
    return counts


def _placements(of: Array64, among: Array64) -> Array64:
    """Share of ``among`` that each of ``of`` stands above, ties half."""
    ordered = np.sort(among)
    lower = np.searchsorted(ordered, of, side="left")
    upper = np.searchsorted(ordered, of, side="right")
    return (lower + upper) / (2 * len(among))


def _variance_at(area: float, m: int, n: int) -> float:
    """Variance of an estimated area by Hanley and McNeil."""
    first, second = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + (m - 1) * (first - area**2) + (n - 1) * (second - area**2)
    return spread / (m * n)


def tpr_at_fpr(members: Floats, others: Floats, *, fpr: float = 0.01) -> float:
    """Largest share of members above a threshold that at most ``fpr`` of the others are above.

    With fewer than ``1 / fpr`` others no false one is allowed at all.

    Raises:
        PlanIncompleteError: No score, or one that is not finite.
    """
    inside, outside = _finite("members", members, least=1), _finite("others", others, least=1)
    allowed = math.floor(fpr * len(outside) + 1e-9)
    if allowed >= len(outside):
        return 1.0
    threshold = np.sort(outside)[len(outside) - 1 - allowed]
    return float((inside > threshold).mean())


def one_run_epsilon(
    *, canaries: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Lower bound of epsilon from guesses about coin flips of one run; 0 where there is no evidence.

    A mechanism of epsilon and delta lets ``right`` of ``guesses`` be right with at most the probability
    ``f(right) + 2 m delta max_i (f(right - i) - f(right)) / i``, where f is the tail of a binomial with
    success ``e^eps / (1 + e^eps)`` and m the number of canaries. The bound is the largest epsilon that this
    refutes.

    Args:
        canaries: Coin flips, guessed or not.
        guesses: How many were guessed; chosen without looking at the flips.
        right: How many guesses were right.
        delta: Of the claim; 0 for pure privacy.
        confidence: Of the bound.

    Raises:
        PlanIncompleteError: Not ``0 <= right <= guesses <= canaries``, or numbers out of range.
    """
    if not (0 <= right <= guesses <= canaries and 0 <= delta < 1 and 0 < confidence < 1):
        raise PlanIncompleteError(
            need="0 <= right <= guesses <= canaries, 0 <= delta < 1, 0 < confidence < 1",
            found=f"{right} of {guesses} of {canaries}, delta {delta}, confidence {confidence}",
            remedy="count each canary once",
        )
    log_choose = _log_choose(guesses)

    def refuted(epsilon: float) -> bool:
        return _chance(log_choose, right, epsilon=epsilon, weight=2 * canaries * delta) <= 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, _EPSILON_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _log_choose(n: int) -> Array64:
    whole = math.lgamma(n + 1)
    return np.array([whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])


def _chance(log_choose: Array64, right: int, *, epsilon: float, weight: float) -> float:
    """Largest probability of at least ``right`` right guesses under epsilon and the weight of delta."""
    n = len(log_choose) - 1
    k = np.arange(n + 1)
    log_win, log_lose = -math.log1p(math.exp(-epsilon)), -epsilon - math.log1p(math.exp(-epsilon))
    mass = np.exp(log_choose + k * log_win + (n - k) * log_lose)
    tail = np.cumsum(mass[::-1])[::-1]
    chance = float(tail[right])
    if weight > 0 and right > 0:
        flips = np.arange(1, right + 1)
        chance += weight * float(np.max((tail[right - flips] - tail[right]) / flips))
    return min(1.0, chance)


def one_run_low(
    scores: Floats, included: npt.NDArray[np.bool_], *, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Lower epsilon of one run from the canaries' scores and the coin flips.

    The highest and the lowest scores are guessed as in and out, equally many of each, for four numbers of
    guesses that are fixed beforehand; the confidence is divided among them, so that taking the best is no
    cheat.

    Args:
        scores: ``[m]``, higher for a canary that was trained on.
        included: ``[m]``, the flips.
        delta: Of the claim.
        confidence: Of the bound.

    Raises:
        PlanIncompleteError: Fewer than two scores, one that is not finite, or another number of flips.
    """
    values = _finite("canaries", scores, least=2)
    flips = np.asarray(included, dtype=bool)
    if flips.shape != values.shape:
        raise PlanIncompleteError(
            need=f"{len(values)} coin flips", found=f"shape {list(flips.shape)}", remedy="one flip per canary"
        )
    in_order = flips[np.argsort(values, kind="stable")]
    each = 1 - (1 - confidence) / len(_GUESSED)
    best = 0.0
    for share in _GUESSED:
        half = max(1, int(len(values) * share) // 2)
        right = int((~in_order[:half]).sum()) + int(in_order[-half:].sum())
        low = one_run_epsilon(
            canaries=len(values), guesses=2 * half, right=right, delta=delta, confidence=each
        )
        best = max(best, low)
    return best
