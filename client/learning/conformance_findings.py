# SPDX-License-Identifier: Apache-2.0
"""From what the conformance audit saw to its figures and checks: numbers in, numbers out.

Every check is at one false alarm in a million; the tests of draws, whose p-values are approximate, at one in
a hundred million. mu must be within 25 % of the plan's; where so few canaries were drawn that a right
installation could miss that, the bound is what the audit can resolve, and the check says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from policies.privacy.conformance import CHECKS, Check, figure, mu_expected
from policies.privacy.draw_chances import draw_chances
from policies.privacy.gaussian_mu import (
    MuFit,
    correlation_chance,
    fit_mu,
    gaussian_chance,
    mu_epsilon,
    variance_chance,
    z_of,
)

if TYPE_CHECKING:
    from policies.privacy.plan import DpPlan

__all__ = ["Observed", "findings"]

Array64 = npt.NDArray[np.float64]
FALSE_ALARM: Final = 1e-6
DRAW_ALARM: Final = 1e-8
TOLERANCE: Final = 0.25
REPORTED: Final = 0.95
_SURE: Final = 1 - FALSE_ALARM
_LAGS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen; scores and noisy sums are before division by the normaliser.

    Attributes:
        sizes: Lengths of the tensors of a noisy sum, ``[P]`` together; the port's is last.
        empty: Steps with nobody drawn, ``[t, P]``.
        counted: Exactly the plan's number of them ran.
        moved: The farthest that one unit moves the sum without noise, in clip norms.
        longest: Frames of the longest unit that reached the engine.
        drawn: Canaries of each step, ``[T, n]``.
        scores: The port's coordinates of each step, in clip norms, ``[T, c]``.
        directions: The first so many coordinates have canaries, canary i the coordinate ``i % directions``.
    """

    sizes: tuple[int, ...]
    empty: Array64
    counted: bool
    moved: float
    longest: int
    drawn: npt.NDArray[np.bool_]
    scores: Array64
    directions: int

    @property
    def counts(self) -> Array64:
        """Canaries of each direction in each step, ``[T, directions]``."""
        by_copy = self.drawn.reshape(len(self.drawn), -1, self.directions)
        counts: Array64 = by_copy.sum(1).astype(np.float64)
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mu:
    """mu of the whole plan, composed from single steps."""

    value: float
    low: float
    sure: float
    error: float


def findings(
    plan: DpPlan, seen: Observed, *, probability: float, epsilon_pld: float
) -> tuple[dict[str, str], tuple[Check, ...]]:
    """Figures by name, and the checks in the order of `CHECKS`.

    Args:
        plan: The plan that was audited.
        seen: What was seen.
        probability: q of the canaries.
        epsilon_pld: The claim.
    """
    counts = seen.counts
    fit = fit_mu(np.hstack([counts, np.zeros_like(seen.scores[:, seen.directions :])]), seen.scores)
    mu = _composed(plan, fit, seen, counts)
    draws = draw_chances(seen.drawn, q=probability)
    strength, shape, fresh = _noise_chances(plan, seen, counts)
    expected = mu_expected(plan.document) * probability / float(plan.sampling_prob)
    allowed = max(TOLERANCE, z_of(1 - FALSE_ALARM / 2) * mu.error / expected)
    delta = float(plan.delta)
    low, sure = mu_epsilon(mu.low, delta=delta), mu_epsilon(mu.sure, delta=delta)
    planned = plan.added_std / float(plan.clip_norm)
    figures = {
        "mu": figure(max(0.0, mu.value)),
        "mu_low": figure(mu.low),
        "mu_expected": figure(expected),
        "epsilon_low": figure(low),
        "epsilon_sure": figure(sure),
        "epsilon_pld": figure(epsilon_pld),
        "delta": plan.delta,
        "weight": figure(max(0.0, fit.weight)),
        "noise_std": figure(fit.std * float(plan.clip_norm)),
        "noise_std_planned": figure(plan.added_std),
        "sampling_rate": figure(float(seen.drawn.mean())),
        "remove_one": figure(seen.moved),
        "clip_norm": plan.clip_norm,
        "noise_chance": figure(strength),
        "shape_chance": figure(shape),
        "fresh_chance": figure(fresh),
    }
    worst = min(draws, key=lambda name: draws[name])
    rows = (
        (
            seen.counted and bool((np.abs(seen.empty).max(axis=1, initial=0.0) > 0).all()),
            "as many noisy steps as planned, and a refusal after them",
            f"{len(seen.empty)} steps, {'then a refusal' if seen.counted else 'another number'}",
        ),
        (seen.moved <= 1, "at most 1 clip norm", f"{figure(seen.moved)} clip norms"),
        (
            0 < seen.longest <= plan.frames_per_unit,
            f"at most {plan.frames_per_unit} frames of a unit",
            f"at most {seen.longest}",
        ),
        (
            draws[worst] >= DRAW_ALARM,
            f"rate {figure(probability)}, and spreads and repeats of independent draws",
            f"rate {figures['sampling_rate']}; least likely: {worst}, chance {draws[worst]:.1e}",
        ),
        (
            strength >= FALSE_ALARM,
            f"standard deviation {figures['noise_std_planned']}",
            f"{figures['noise_std']} beside canaries, chance {strength:.1e}",
        ),
        (shape >= FALSE_ALARM, "distances of a Gaussian sample", f"chance {shape:.1e}"),
        (fresh >= FALSE_ALARM, "no correlation", f"chance {fresh:.1e}"),
        (
            abs(mu.value - expected) <= allowed * expected,
            f"mu within {100 * allowed:.0f} % of {figure(expected)}",
            f"mu {mu.value:.4f}: {fit.weight:.3f} clip norms in noise of {fit.std:.3f}, not {planned:.3f}"
            if abs(fit.std / planned - 1) > TOLERANCE
            else f"mu {mu.value:.4f}: {fit.weight:.3f} clip norms in noise of {fit.std:.3f}",
        ),
        (
            sure <= epsilon_pld,
            f"at most the claim, {figure(epsilon_pld)} at delta {plan.delta}",
            f"{figure(low)} with 95 % confidence, {figure(sure)} with one false alarm in a million",
        ),
    )
    checks = tuple(
        Check(name=name, passed=bool(passed), need=need, found=found)
        for name, (passed, need, found) in zip(CHECKS, rows, strict=True)
    )
    return figures, checks


def _composed(plan: DpPlan, fit: MuFit, seen: Observed, counts: Array64) -> _Mu:
    """Mu over the plan's T steps, at the rate that was seen, of the sum that the plan protects."""
    rate = float(seen.drawn.mean())
    scale = rate * math.sqrt(plan.steps / (plan.honest_min or 1))
    if not counts.any():
        return _Mu(value=0.0, low=0.0, sure=0.0, error=0.0)
    return _Mu(
        value=scale * fit.mu,
        low=scale * fit.low(REPORTED),
        sure=scale * fit.low(_SURE),
        error=scale * fit.error,
    )


def _noise_chances(plan: DpPlan, seen: Observed, counts: Array64) -> tuple[float, float, float]:
    """Chances of the noise's strength, shape and freshness: smallest of the tests, times their number."""
    std = plan.added_std / float(plan.clip_norm)
    free = seen.scores[:, seen.directions :]
    beside = np.concatenate([free.ravel(), seen.scores[:, : seen.directions][counts == 0]])
    tensors = np.split(seen.empty, np.cumsum(seen.sizes)[:-1], axis=1)
    strengths = [variance_chance(beside, std=std)]
    strengths += [variance_chance(one, std=plan.added_std) for one in tensors]
    shapes = [gaussian_chance(beside, std=std), gaussian_chance(seen.empty, std=plan.added_std)]
    lags = {*range(1, _LAGS + 1), plan.steps_per_round, plan.steps}
    fresh = [correlation_chance(free[:-lag], free[lag:]) for lag in sorted(lags) if lag < len(free)]
    fresh += [
        correlation_chance(seen.empty[:-1], seen.empty[1:]),
        correlation_chance(seen.empty[:, :-1], seen.empty[:, 1:]),
    ]
    return _least(strengths), _least(shapes), _least(fresh)


def _least(chances: list[float]) -> float:
    sound = all(math.isfinite(one) for one in chances)  # what is not a number is no noise
    return min(1.0, len(chances) * min(chances)) if sound else 0.0
