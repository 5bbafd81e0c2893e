# SPDX-License-Identifier: Apache-2.0
"""How far one unit shifts Gaussian noise: mu, its bounds, the epsilon it stands for, and tests of the noise.

- mu is what a unit adds, in standard deviations of the noise. Canary directions are orthonormal, so each is
  an experiment of its own and one run gives a confidence interval (arXiv 2302.03098). Scores are projections
  of what was released on the directions; counts say how many canaries of that direction went in.
- An audit can only refute: `mu_epsilon` of the *lower* bound is an epsilon that the mechanism does not beat.
- `variance_chance`, `gaussian_chance`, `correlation_chance` and `repeat_chance` are p-values of what noise
  must be: as strong as planned, Gaussian, and fresh at every step. `is_coarse` tells noise on a grid.

Sources: Gaussian privacy curve arXiv 1905.02383 (corollary 2.13); cube root of chi-square E. B. Wilson and M.
M. Hilferty, PNAS 17 (1931); limit law of the largest distance A. N. Kolmogorov (1933). numpy and the standard
library only.

>>> format(mu_epsilon(0.866025, delta=1e-5), ".2f")
'3.71'
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "MU_MAX",
    "MuFit",
    "correlation_chance",
    "fit_mu",
    "gaussian_chance",
    "is_coarse",
    "mu_epsilon",
    "repeat_chance",
    "squares_chance",
    "variance_chance",
    "z_of",
]

Floats = npt.NDArray[np.floating[Any]]
MU_MAX: Final = 1_000.0  # noise a thousandth of a unit's weight or less is no noise
_HALVINGS: Final = 100
_TAIL: Final = 30.0  # beyond so many deviations the normal tail is its own first term
_KS_TERMS: Final = 50
_OVERLAP: Final = 5_000  # products of two samples from which on their sum is normal far into the tail
_LONGEST: Final = 2**22  # samples whose repeats are looked for: 128 MiB of spectrum
_TWINS: Final = (20, 0.01)  # equal samples, and their share, that float32 has by chance at most
_SHORT: Final = 3
_KS_SAMPLES: Final = 50_000  # finds a distance of 0.012 at one in a million


@dataclass(frozen=True, slots=True, kw_only=True)
class MuFit:
    """Scores explained by counts: ``score = weight * count + N(0, std^2)``.

    Attributes:
        weight: What one canary adds to its direction.
        weight_error: Standard error of ``weight``.
        std: Standard deviation of what is left, the noise.
        std_error: Its standard error.
    """

    weight: float
    weight_error: float
    std: float
    std_error: float

    @property
    def mu(self) -> float:
        """``weight / std``, at most `MU_MAX`."""
        return min(MU_MAX, self.weight / self.std) if self.std > 0 else MU_MAX * (self.weight > 0)

    @property
    def error(self) -> float:
        """Standard error of ``mu`` (delta method); 0 without noise."""
        if self.std <= 0 or self.mu >= MU_MAX:
            return 0.0
        return math.hypot(self.weight_error, self.mu * self.std_error) / self.std

    def low(self, confidence: float) -> float:
        """One-sided lower bound of ``mu``, at least 0."""
        return max(0.0, self.mu - z_of(confidence) * self.error)


def _dot(a: Floats, b: Floats) -> float:
    """The inner product, without the threads of a matrix library, which cost more than they save here."""
    return float(np.einsum("i,i->", a, b))


def z_of(confidence: float) -> float:
    """The normal quantile."""
    return NormalDist().inv_cdf(confidence)


def fit_mu(counts: Floats, scores: Floats) -> MuFit:
    """Least squares through the origin; counts of 0 and 1 are the one-shot test of the paper.

    Args:
        counts: ``[n]`` how many canaries of a direction went in; zeros are the unobserved directions.
        scores: ``[n]`` the released vector's projection on that direction.
    """
    given, seen = np.asarray(counts, dtype=np.float64).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    information = _dot(given, given)
    weight = _dot(given, seen) / information if information > 0 else 0.0
    left = seen - weight * given
    degrees = max(1, len(seen) - 1)
    std = math.sqrt(_dot(left, left) / degrees)
    error = std / math.sqrt(information) if information > 0 else math.inf
    return MuFit(weight=weight, weight_error=error, std=std, std_error=std / math.sqrt(2 * degrees))


def _log_tail(x: float) -> float:
    """Logarithm of the normal probability above ``x``."""
    if x < _TAIL:
        return math.log(0.5 * math.erfc(x / math.sqrt(2)))
    return -x * x / 2 - math.log(x * math.sqrt(2 * math.pi)) + math.log1p(-1 / (x * x))


def _delta_of(epsilon: float, mu: float) -> float:
    first = math.exp(_log_tail(epsilon / mu - mu / 2))
    return first - math.exp(min(0.0, epsilon + _log_tail(epsilon / mu + mu / 2)))


def mu_epsilon(mu: float, *, delta: float) -> float:
    """Epsilon at delta of telling N(0, 1) from N(mu, 1)."""
    if mu <= 0 or _delta_of(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, mu * mu + 40 * mu + 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(middle, mu) > delta else (low, middle)
    return low


def variance_chance(samples: Floats, *, std: float) -> float:
    """Two-sided p-value of a sum of squares under N(0, std^2); exact to a percent from 100 samples on."""
    values = np.asarray(samples, dtype=np.float64).ravel()
    return squares_chance(_dot(values, values), len(values), std=std)


def squares_chance(total: float, n: int, *, std: float) -> float:
    """`variance_chance` of n samples whose squares have this sum."""
    ratio = total / (n * std * std)
    spread = 2 / (9 * n)
    return math.erfc(abs(math.cbrt(ratio) - 1 + spread) / math.sqrt(2 * spread))


def gaussian_chance(samples: Floats, *, std: float) -> float:
    """P-value of the largest distance between the samples' distribution and N(0, std^2).

    Of many samples an evenly spaced part is looked at.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    values = np.sort(values[:: max(1, len(values) // _KS_SAMPLES)]) / (std * math.sqrt(2))
    n = len(values)
    below = 0.5 * np.array([1 + math.erf(one) for one in values.tolist()])
    ranks = np.arange(n + 1) / n
    distance = float(max(np.max(ranks[1:] - below), np.max(below - ranks[:-1])))
    at = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if at < 0.3:  # noqa: PLR2004  the series is 1 to nine digits there, and converges slowly
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * k * k * at * at) for k in range(1, _KS_TERMS + 1))
    return min(1.0, max(0.0, math.fsum(terms)))


def correlation_chance(first: Floats, second: Floats) -> float:
    """Two-sided p-value of no correlation between two long rows of noise; 0 where one does not vary."""
    a, b = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    scale = math.sqrt(_dot(a, a) * _dot(b, b))
    if scale <= 0:
        return 0.0
    return math.erfc(abs(_dot(a, b)) / scale * math.sqrt(len(a) / 2))


def repeat_chance(samples: Floats) -> float:
    """P-value of no repeat in a long row of noise, at whatever distance; 1 where the row is short.

    All distances at once, by the Fourier transform of the row.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()[:_LONGEST]
    lags = len(values) - _OVERLAP
    square = _dot(values, values) / max(1, len(values))
    if lags < _OVERLAP or square <= 0:
        return 1.0
    length = 1 << (2 * len(values) - 1).bit_length()
    alike = np.fft.irfft(np.abs(np.fft.rfft(values, length)) ** 2, length)[1 : lags + 1]
    most = float(np.max(np.abs(alike) / np.sqrt(len(values) - np.arange(1, lags + 1)))) / square
    return min(1.0, lags * math.erfc(most / math.sqrt(2)))


def is_coarse(samples: Floats, *, single: bool = False) -> bool:
    """Whether noise lies on a grid: half precision if it was released, single if it comes from a generator.

    Args:
        samples: Of a continuous distribution, one row.
        single: Nothing has rounded them yet, so single precision is coarse too.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    twins = len(values) - len(np.unique(values))
    least, share = _TWINS
    return twins > least + share * len(values) or (
        single and int((values == values.astype(np.float32)).sum()) > _SHORT
    )
