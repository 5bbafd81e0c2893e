# SPDX-License-Identifier: Apache-2.0
"""Noise shares: each silo adds a part of the noise; only a sum that nobody can take apart is private.

- A share has the variance ``(sigma C)^2 / honest_min``. The adversary is the broker with all silos but
  ``honest_min``: what it cannot subtract is at least ``(sigma C)^2``.
- The conditions (`check_conditions`, `check_survivors`): at least four contributors in independent groups;
  ``3 <= honest_min <= groups - max_colluders``; secure aggregation; one step per round; a sum opens only
  with ``honest_min + max_colluders`` survivors. One that fails is ``privacy.shares-unfit``; then nothing
  was opened.
- Shares go onto the integer grid of secure aggregation by rounding once, after the noise
  (`noised_on_grid`, `on_grid`). Between noise and sum stand rounding and reduction modulo the ring, and
  nothing else: no clip, no scaling.
- ``h`` such integers sum to what rounding the one Gaussian mechanism of the plan gives, after public
  uniform noise, up to a distance that `grid_distance` bounds (docs/adr/0011). `delta_grid` is what it adds
  to delta; above one hundredth of delta the grid is too coarse and the plan is refused.
- The ring has room for a clipped sum with its share (`check_room`): one beyond it could not be sent, after it
  was paid for.
- If others collude, epsilon rises (`epsilon_by_colluders`); its last row, own share only, is also the
  figure if secure aggregation fails. Every statement prints both ends.

Standard library, and numpy where shares are drawn: a verifier recomputes every figure of this file.

    check_conditions(plan, groups=4, max_colluders=0, secure_aggregation=True)
    check_grid(plan, parameters=5_700, parties=4, grid_step=clip_norm / 2**20)
    values = noised_on_grid(clipped_sum, std=plan.added_std, grid_step=step, rng=noise)   # int64
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

from policies.limits import HONEST_MIN, SHARES_GROUPS
from policies.privacy.accounting import epsilons_by_colluders
from policies.privacy.errors import SharesUnfitError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from policies.privacy.plan import DpPlan

__all__ = [
    "GRID_SHARE",
    "check_conditions",
    "check_grid",
    "check_room",
    "check_survivors",
    "delta_grid",
    "epsilon_by_colluders",
    "grid_distance",
    "noised_on_grid",
    "on_grid",
    "share_std",
]

GRID_SHARE: Final = 0.01  # of delta, that the grid may cost
_TERMS: Final = 8  # of a series, before a geometric one bounds the rest
_SPLITS: Final = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # any gives a bound; the least is taken
_SLACK: Final = 1 + 1e-9  # above what rounding in the sums can lose
_EXP_MAX: Final = 700.0  # beyond this exp overflows, and no claim is left anyway
_BEYOND: Final = 1e-9  # chance that one value of a whole run has no room in the ring
_INTEGER_BITS: Final = 62  # of a rounded value; a larger one is no update


def share_std(plan: DpPlan) -> float:
    """Standard deviation of what one silo adds to its clipped sum: ``sigma C / sqrt(honest_min)``.

    Raises:
        SharesUnfitError: The plan is ``local-full``.
    """
    _honest(plan)
    return plan.added_std


def check_conditions(plan: DpPlan, *, groups: int, max_colluders: int, secure_aggregation: bool) -> None:
    """Returns if a contract carries noise shares; the checks, in this order.

    1. The plan asks for shares. 2. One step per round. 3. Secure aggregation is required. 4. Enough
    independent groups. 5. ``honest_min`` is large enough, and leaves room for the colluders.

    Args:
        plan: Of the recipe.
        groups: Independent groups among the contributors; two parties of one owner are one.
        max_colluders: Of the contract.
        secure_aggregation: Whether the contract requires it.

    Raises:
        SharesUnfitError: One does not hold.
    """
    honest = _honest(plan)
    if plan.steps_per_round != 1:
        raise _unfit("steps_per_round 1", str(plan.steps_per_round), "one noisy step per round")
    if not secure_aggregation:
        raise _unfit(
            "secure aggregation: a share alone protects little", "a contract without it", "require it"
        )
    if groups < SHARES_GROUPS:
        raise _unfit(
            f"contributors of at least {SHARES_GROUPS} independent groups", str(groups), "more parties"
        )
    if max_colluders < 0 or not HONEST_MIN <= honest <= groups - max_colluders:
        raise _unfit(
            f"honest_min from {HONEST_MIN} to groups minus max_colluders ({groups - max_colluders})",
            f"{honest} of {groups} groups with {max_colluders} colluders",
            "more parties, or fewer colluders in the contract",
        )


def check_survivors(plan: DpPlan, *, survivors: int, max_colluders: int) -> None:
    """Returns if a sum of so many survivors may be opened.

    Raises:
        SharesUnfitError: Too few: the round is aborted. Nothing was opened, so nothing more is spent when
            the same noised vector is sent again.
    """
    need = _honest(plan) + max_colluders
    if survivors < need:
        raise _unfit(
            f"{need} survivors (honest_min {plan.honest_min}, {max_colluders} colluders)",
            str(survivors),
            "abort; a new attempt of the same noised vectors",
        )


def epsilon_by_colluders(plan: DpPlan, n: int) -> tuple[float, ...]:
    """Epsilon of one silo's units if 0, 1, ... n - 1 of the *other* silos collude with the broker.

    Args:
        plan: With shares; with ``local-full`` every row is the same.
        n: Silos in the smallest sum that was, or may be, opened; colluders stay to the end, so they count.
            The number of members would promise too much where a sum opens without all of them.

    Returns:
        Row c for c colluders, rising; the last is for the own share alone, and also holds if secure
        aggregation fails.
    """
    if plan.honest_min is None:
        return (plan.epsilon_rdp,) * n
    return epsilons_by_colluders(
        q=float(plan.sampling_prob),
        sigma=float(plan.noise_multiplier),
        steps=plan.steps,
        delta=float(plan.delta),
        summed=n,
        honest_min=plan.honest_min,
    )


def grid_distance(std_steps: float, summed: int) -> float:
    """Bound on how far one rounded coordinate of the sum is from the ideal, relative to the ideal.

    The ideal is the plan's one Gaussian on that coordinate, plus ``summed - 1`` uniforms on [-1/2, 1/2],
    rounded. The real probability of every integer is the ideal one times a factor within ``1 -+`` this
    bound; half of it bounds the total-variation distance. Proof and check: docs/adr/0011.

    Args:
        std_steps: t, standard deviation of one share in grid steps.
        summed: h, shares in the sum.

    Returns:
        0 for one share; else above 0, however small: a distance is never stated as none. Infinite if the
        grid is far too coarse.
    """
    exponent = 2 * (math.pi * std_steps) ** 2
    if summed == 1:
        return 0.0
    if not exponent > 0:
        return math.inf
    least = (summed - 1) / summed  # square norm of the shortest frequency
    bounds = [_all_frequencies(exponent, summed)]
    bounds += [
        math.exp(-(exponent - split) * least) * _all_frequencies(split, summed)
        for split in _SPLITS
        if split < exponent
    ]
    return max(min(bounds) * _SLACK, sys.float_info.min)


def _all_frequencies(exponent: float, summed: int) -> float:
    """Product over j of the sums over m of ``exp(-exponent m^2 j / (j+1))``, less 1; rounded up."""
    total = 0.0
    for j in range(1, summed):
        rate = exponent * j / (j + 1)
        terms = [math.exp(-rate * m * m) for m in range(1, _TERMS + 1)]
        rest = terms[-1] / math.expm1(rate) if rate < _EXP_MAX else 0.0
        total += math.log1p(2 * (math.fsum(terms) + rest))
    return math.expm1(total) if total < _EXP_MAX else math.inf


def delta_grid(plan: DpPlan, *, parameters: int, parties: int, grid_step: float) -> float:
    """What rounding shares to a grid adds to delta: ``(1 + e^epsilon)`` times the distance of all steps.

    The largest over every number of honest silos that a row of `epsilon_by_colluders` rests on, each with
    its own epsilon: fewer shares are smoothed less. A single share has no distance, so no row of its own
    here.

    Args:
        plan: With shares.
        parameters: D, coordinates of the update.
        parties: Most shares that one sum can have.
        grid_step: One step of the grid, in units of the clipped sum (as ``clip_norm`` is).

    Raises:
        SharesUnfitError: The plan is ``local-full``, or a number is not above 0.
    """
    _honest(plan)
    if not (math.isfinite(grid_step) and grid_step > 0 and parameters > 0 and parties > 1):
        raise _unfit(
            "a grid step and parameters above 0, and two parties or more",
            f"{grid_step}, {parameters}, {parties}",
            "complete the ring",
        )
    std_steps, coordinates = plan.added_std / grid_step, parameters * plan.steps
    rows = epsilon_by_colluders(plan, parties)
    return max(
        _added(rows[parties - honest], coordinates * grid_distance(std_steps, honest) / 2)
        for honest in range(2, parties + 1)
    )


def _added(epsilon: float, distance: float) -> float:
    return math.inf if epsilon > _EXP_MAX else (1 + math.exp(epsilon)) * min(1.0, distance)


def check_grid(plan: DpPlan, *, parameters: int, parties: int, grid_step: float) -> float:
    """`delta_grid` if it is at most a hundredth of the plan's delta.

    Raises:
        SharesUnfitError: The grid is too coarse.
    """
    extra = delta_grid(plan, parameters=parameters, parties=parties, grid_step=grid_step)
    allowed = GRID_SHARE * float(plan.delta)
    if extra > allowed:
        raise _unfit(
            f"a grid that costs at most {allowed:.3g} of delta",
            f"{extra:.3g} at {plan.added_std / grid_step:.3g} grid steps of noise per share",
            "a finer grid (more bits, or a smaller update_norm_max), or local-full",
        )
    return extra


def check_room(
    plan: DpPlan, *, parameters: int, parties: int, largest: float, clause: str | None = None
) -> None:
    """Returns if every value that silos will send fits the ring, but for a chance of one in 10^9 per run.

    A value is a coordinate of the clipped sum, at most ``clip_norm`` for each of ``normalizer`` units that
    all pull the same way, with its share of the noise. No coordinate of any silo in any step has more than
    ``k`` standard deviations of it: a Gaussian passes ``k`` with a chance of at most ``exp(-k^2 / 2)``.

    Args:
        plan: With shares.
        parameters: D, coordinates of the update.
        parties: Silos of the run.
        largest: That the ring has room for, in units of the clipped sum: ``update_norm_max * normalizer``.
        clause: Of the contract, that sets it.

    Raises:
        SharesUnfitError: It does not fit: every round would be paid for, and nothing sent.
    """
    _honest(plan)
    draws = parameters * parties * plan.steps
    noise = math.sqrt(2 * math.log(max(draws, 1) / _BEYOND)) * plan.added_std
    units = max(1.0, float(plan.normalizer))
    most = units * float(plan.clip_norm) + noise
    if not most <= largest:
        least = most / float(plan.normalizer)
        raise SharesUnfitError(
            need=f"update_norm_max at least {least:.4g}: room for a clipped sum with its share of the noise",
            found=f"{largest / float(plan.normalizer):.4g}",
            remedy="a larger update_norm_max, less noise, a larger normalizer, or noise local-full",
            clause=clause,
        )


def noised_on_grid(
    total: npt.NDArray[np.float64], *, std: float, grid_step: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """This silo's summand ``[D] int64``: its clipped sum with its share of the noise, rounded once.

    Rounding the sum first and adding an integer share would raise the sensitivity by half a step per
    coordinate; so noise comes first. Reduce the result modulo the ring; never clip it.

    Args:
        total: Clipped sum, ``[D]``; zeros give the share alone.
        std: `DpPlan.added_std`.
        grid_step: One step of the grid, in units of ``total``.
        rng: Of the node's secure noise.

    Raises:
        SharesUnfitError: A value has no place in 62 bits.
    """
    return on_grid(total + rng.normal(0.0, std, total.shape), grid_step=grid_step)


def on_grid(noised: npt.NDArray[np.float64], *, grid_step: float) -> npt.NDArray[np.int64]:
    """A sum that has its share of the noise already, ``[D]``, rounded once; see `noised_on_grid`.

    Raises:
        SharesUnfitError: A value has no place in 62 bits.
    """
    import numpy as np

    steps = np.rint(noised / grid_step)
    if not np.all(np.abs(steps) < 2.0**_INTEGER_BITS):
        raise _unfit(f"values below 2^{_INTEGER_BITS} grid steps", "a larger one", "a coarser grid")
    return steps.astype(np.int64)


def _honest(plan: DpPlan) -> int:
    if plan.noise != "shares" or plan.honest_min is None:
        raise SharesUnfitError(
            need="a plan with noise shares",
            found=f"noise {plan.noise}",
            remedy="add the whole noise on this node: local-full needs no other silo",
        )
    return plan.honest_min


def _unfit(need: str, found: str, remedy: str) -> SharesUnfitError:
    return SharesUnfitError(need=need, found=found, remedy=f"{remedy}; or noise local-full")
