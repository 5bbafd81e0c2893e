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

from client.learning.canary_gradients import CANARY_RAW
from client.learning.engines import GAMMA
from client.learning.noise_chances import fresh_chances, least, shape_chances, strength_chances
from policies.privacy.conformance import CHECKS, Check, figure, mu_expected
from policies.privacy.draw_chances import draw_chances
from policies.privacy.gaussian_mu import fit_mu, mu_epsilon, z_of

if TYPE_CHECKING:
    from client.learning.conformance_seen import Observed
    from policies.privacy.gaussian_mu import MuFit
    from policies.privacy.plan import DpPlan

__all__ = ["findings"]

FALSE_ALARM: Final = 1e-6
DRAW_ALARM: Final = 1e-8
TOLERANCE: Final = 0.25
REPORTED: Final = 0.95
_SURE: Final = 1 - FALSE_ALARM
_EXACT: Final = 0.01  # of a clip norm; engines clip to a little less than the bound
_STRAY: Final = 1e-6  # rounding to float32


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
    fit = fit_mu(np.hstack([seen.counts, np.zeros_like(seen.free)]), seen.canaries.scores)
    mu = _composed(plan, fit, seen, probability)
    draws, exact, moved = _draw_chances(seen, probability), seen.exact, _moved(plan, seen)
    strength, shape, fresh = (
        least(tests(plan, seen)) for tests in (strength_chances, shape_chances, fresh_chances)
    )
    expected = mu_expected(plan.document)
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
        "sampling_rate": figure(float(seen.canaries.drawn.mean())),
        "remove_one": figure(moved),
        "clip_norm": plan.clip_norm,
        "noise_chance": figure(strength[1]),
        "shape_chance": figure(shape[1]),
        "fresh_chance": figure(fresh[1]),
    }
    worst = min(draws, key=lambda name: draws[name])
    empty, lightest = np.concatenate(seen.empty.runs), _lightest(plan)
    rows = (
        (
            seen.empty.counted and bool((np.abs(empty).max(axis=1, initial=0.0) > 0).all()),
            "as many noisy steps as planned, and a refusal after them",
            f"{len(seen.empty.first)} steps, {'then a refusal' if seen.empty.counted else 'another number'}",
        ),
        (
            moved <= 1 and exact.stray <= _STRAY,
            "at most 1 clip norm, and nothing where nobody was drawn",
            f"{figures['remove_one']} clip norms, {figure(exact.stray)} where nobody was drawn",
        ),
        (
            0 < seen.longest <= plan.frames_per_unit,
            f"at most {plan.frames_per_unit} frames of a unit",
            f"at most {seen.longest}",
        ),
        (
            draws[worst] >= DRAW_ALARM,
            f"rate {figure(probability)}, less in large strata if there is a target, and independent draws",
            f"rate {figures['sampling_rate']}; least likely: {worst}, chance {draws[worst]:.1e}",
        ),
        (
            strength[1] >= FALSE_ALARM,
            f"standard deviation {figures['noise_std_planned']}",
            f"{figures['noise_std']} beside canaries; least likely: {strength[0]}, chance {strength[1]:.1e}",
        ),
        (
            shape[1] >= FALSE_ALARM,
            "distances of a Gaussian sample, on no coarse grid",
            f"least likely: {shape[0]}, chance {shape[1]:.1e}",
        ),
        (
            fresh[1] >= FALSE_ALARM,
            "no correlation, and a key of 256 bits for each generator",
            f"least likely: {fresh[0]}, chance {fresh[1]:.1e}",
        ),
        (
            abs(mu.value - expected) <= allowed * expected
            and abs(fit.std / planned - 1) <= TOLERANCE
            and exact.least >= lightest - _EXACT,
            f"mu within {100 * allowed:.0f} % of {figure(expected)}; {lightest:.3f} clip norms without noise",
            f"mu {mu.value:.4f}: {fit.weight:.3f} clip norms in noise of {fit.std:.3f}"
            + (f", not {planned:.3f}" if abs(fit.std / planned - 1) > TOLERANCE else "")
            + f"; {exact.least:.3f} without noise",
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


def _lightest(plan: DpPlan) -> float:
    """What the lightest canary weighs: the normalised rule leaves a short gradient a little short of C."""
    raw = CANARY_RAW * float(plan.clip_norm)
    return 1.0 if plan.clipping == "flat" else raw / (raw + GAMMA)


def _moved(plan: DpPlan, seen: Observed) -> float:
    """The farthest that a unit moves a sum, or that the engine was allowed to let it, in clip norms."""
    return max(seen.moved, seen.exact.most, seen.clip / float(plan.clip_norm))


def _draw_chances(seen: Observed, probability: float) -> dict[str, float]:
    """P-values of the canaries' draws, and of the crowd's."""
    canaries, crowd = seen.canaries, seen.crowd
    own = draw_chances(canaries.drawn, q=probability, run=canaries.run)
    many = draw_chances(crowd.drawn, q=crowd.q, groups=crowd.sizes, run=crowd.run)
    return {f"{name} of canaries": one for name, one in own.items()} | many


def _composed(plan: DpPlan, fit: MuFit, seen: Observed, probability: float) -> _Mu:
    """Mu over the plan's T steps of the sum that the plan protects, at q times the rate seen over expected.

    The bounds are those of a canary, which is drawn at less than q where the target of a stratum is below it.
    """
    canaries, q = seen.canaries.drawn, float(plan.sampling_prob)
    if not canaries.any():
        return _Mu(value=0.0, low=0.0, sure=0.0, error=0.0)
    rate = q * float(canaries.mean()) / probability
    scale = rate * math.sqrt(plan.steps / (plan.honest_min or 1))
    return _Mu(
        value=scale * fit.mu,
        low=scale * probability / q * fit.low(REPORTED),
        sure=scale * probability / q * fit.low(_SURE),
        error=scale * fit.error,
    )
