# SPDX-License-Identifier: Apache-2.0
"""The grid bound of docs/adr/0011, against exact laws: sums of rounded Gaussians, convolved, and their ideal."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from scipy.special import ndtr

from policies.privacy.errors import SharesUnfitError
from policies.privacy.plan import DpPlan
from policies.privacy.shares import (
    GRID_SHARE,
    check_grid,
    check_room,
    delta_grid,
    epsilon_by_colluders,
    grid_distance,
    noised_on_grid,
)
from tests.learnsim import small_recipe

PLAN = {**small_recipe().plan.document, "noise": "shares", "honest_min": 3}
# the sandbox's recipe for shares: epsilon 8 over 600 steps
SANDBOX = DpPlan.load({**PLAN, "steps": 600, "noise_multiplier": "3.2513", "clip_norm": "0.1"})
OFFSETS = (0.0, 0.25, 0.5)


def rounded(offset: float, std: float, reach: int) -> np.ndarray:
    """Law of ``rint(offset + std G)`` on -reach .. reach."""
    k = np.arange(-reach, reach + 1) - offset
    return ndtr((k + 0.5) / std) - ndtr((k - 0.5) / std)


def ideal(offset: float, std: float, summed: int, reach: int) -> np.ndarray:
    """Law of ``rint(offset + sqrt(h) std G + U_1 + ... + U_(h-1))``, by its characteristic function."""
    k = np.arange(-reach, reach + 1) - offset
    turn = np.linspace(-40 / std, 40 / std, 40_001)
    spectrum = np.exp(-summed * (std * turn) ** 2 / 2) * np.sinc(turn / 2 / np.pi) ** summed
    return np.trapezoid(spectrum * np.cos(np.outer(k, turn)), turn, axis=1) / 2 / np.pi


def worst(std: float, summed: int) -> tuple[float, float]:
    """Largest relative and total-variation distance over offsets, where the ideal has mass to compare with."""
    reach = math.ceil(9 * std * math.sqrt(summed)) + summed
    relative = variation = 0.0
    for offsets in itertools.combinations_with_replacement(OFFSETS, summed):
        real = np.array([1.0])
        for one in offsets:
            real = np.convolve(real, rounded(one, std, reach))
        middle = len(real) // 2
        real = real[middle - reach : middle + reach + 1]
        other = ideal(sum(offsets), std, summed, reach)
        heavy = other > 1e-5
        relative = max(relative, float(np.max(np.abs(real - other)[heavy] / other[heavy])))
        variation = max(variation, float(np.abs(real - other).sum() / 2))
    return relative, variation


@pytest.mark.slow
def test_grid_table_the_bound_holds_against_exact_laws_and_is_tight():
    print(f"\n{'shares':>6} {'t':>4}  {'relative':>9} {'bound':>9} {'factor':>6}  {'TV':>9} {'factor':>6}")
    for summed, std in itertools.product((2, 3, 4), (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)):
        bound = grid_distance(std, summed)
        relative, variation = worst(std, summed)
        print(
            f"{summed:6d} {std:4g}  {relative:9.2e} {bound:9.2e} {bound / relative:6.2f}  {variation:9.2e} "
            f"{bound / 2 / variation:6.2f}"
        )
        assert relative <= bound <= 4.5 * relative
        assert variation <= bound / 2 <= 13 * variation


def test_the_bound_is_the_sum_over_all_frequencies_from_above():
    # the sum of the statement itself, over a box that holds all of it
    for summed, std in ((2, 0.3), (3, 0.35), (3, 0.7), (4, 0.4), (5, 0.6)):
        box = np.array(list(itertools.product(range(-6, 7), repeat=summed - 1)))
        square = (box**2).sum(1) - box.sum(1) ** 2 / summed
        exact = np.exp(-2 * (math.pi * std) ** 2 * square[square > 0]).sum()
        assert exact <= grid_distance(std, summed) <= 3 * exact


def test_one_share_has_no_distance_and_more_are_never_said_to_have_none():
    assert grid_distance(1.0, 1) == 0.0
    assert grid_distance(2.0**20, 3) == sys.float_info.min
    assert grid_distance(0.0, 2) == math.inf
    assert grid_distance(1e-6, 64) == math.inf
    assert grid_distance(float("nan"), 2) == math.inf


def test_a_finer_grid_and_more_shares_are_never_farther():
    fine = [grid_distance(t, 3) for t in np.linspace(0.2, 4, 60)]
    assert fine == sorted(fine, reverse=True)
    assert grid_distance(1.0, 2) > grid_distance(1.0, 3) > grid_distance(1.0, 8)


def test_a_grid_of_a_million_steps_costs_nothing_that_delta_would_notice():
    extra = check_grid(SANDBOX, parameters=5_700, parties=4, grid_step=SANDBOX.added_std / 2**20)
    assert 0 < extra < 1e-290


def test_the_cost_counts_every_row_of_the_colluder_table_with_its_own_epsilon():
    step = SANDBOX.added_std / 2.1
    rows = epsilon_by_colluders(SANDBOX, 4)
    each = [
        (1 + math.exp(rows[4 - honest])) * 5_700 * 600 * grid_distance(2.1, honest) / 2
        for honest in (2, 3, 4)
    ]
    assert delta_grid(SANDBOX, parameters=5_700, parties=4, grid_step=step) == pytest.approx(
        max(each), rel=1e-9
    )


def test_a_grid_that_is_too_coarse_is_refused_and_the_next_finer_one_passes():
    allowed, low, high = GRID_SHARE * float(SANDBOX.delta), 1.0, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        extra = delta_grid(SANDBOX, parameters=5_700, parties=4, grid_step=SANDBOX.added_std / middle)
        low, high = (middle, high) if extra > allowed else (low, middle)
    print(f"\nthe grid costs one hundredth of delta at {high:.3f} steps of noise per share")
    assert 2.0 < high < 2.1
    with pytest.raises(SharesUnfitError, match=r"privacy\.shares-unfit.*a finer grid"):
        check_grid(SANDBOX, parameters=5_700, parties=4, grid_step=SANDBOX.added_std / (high - 0.01))
    check_grid(SANDBOX, parameters=5_700, parties=4, grid_step=SANDBOX.added_std / (high + 0.01))


@pytest.mark.parametrize(
    "wrong", [{"grid_step": 0.0}, {"grid_step": math.nan}, {"parameters": 0}, {"parties": 1}]
)
def test_a_ring_without_its_numbers_is_refused(wrong):
    with pytest.raises(SharesUnfitError):
        delta_grid(SANDBOX, **{"parameters": 10, "parties": 4, "grid_step": 1e-6} | wrong)


def test_no_claim_survives_a_grid_that_a_huge_epsilon_multiplies():
    loud = DpPlan.load({**PLAN, "noise_multiplier": "0.01"})
    assert delta_grid(loud, parameters=10, parties=4, grid_step=1e-6) == math.inf


def test_the_summed_noise_of_all_silos_has_the_planned_variance():
    # one million coordinates: one hundredth is seven standard errors (false alarm 3e-12)
    size, silos = 1_000_000, 4
    step = SANDBOX.added_std / 2**20
    total = np.zeros(size, dtype=np.int64)
    for silo in range(silos):
        rng = np.random.Generator(np.random.PCG64([7, silo]))
        share = noised_on_grid(np.zeros(size), std=SANDBOX.added_std, grid_step=step, rng=rng)
        assert share.dtype == np.int64
        total += share
    planned = SANDBOX.noise_std**2 * silos / SANDBOX.honest_min
    found = float((total * step).var())
    print(f"\nvariance of the summed noise {found / planned:.5f} of sigma^2 C^2 n/h")
    assert found == pytest.approx(planned, rel=0.01)


def test_rounding_comes_after_the_noise_so_equal_noise_moves_by_at_most_the_sum_and_one_step():
    rng = np.random.Generator(np.random.PCG64(3))
    values = rng.normal(size=1_000)
    with_sum, without = (
        noised_on_grid(one, std=1.0, grid_step=0.01, rng=np.random.Generator(np.random.PCG64(9)))
        for one in (values, np.zeros(1_000))
    )
    assert np.abs((with_sum - without) * 0.01 - values).max() <= 0.01


@pytest.mark.parametrize("value", [1e30, math.inf, math.nan])
def test_a_value_without_a_place_on_the_grid_is_refused(value):
    with pytest.raises(SharesUnfitError, match="62"):
        noised_on_grid(
            np.array([value]), std=1.0, grid_step=1e-6, rng=np.random.Generator(np.random.PCG64(1))
        )


def room(plan: DpPlan) -> float:
    """The least that the ring must hold, found from what is refused."""
    low, high = 0.0, 1e9
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        try:
            check_room(plan, parameters=5_700, parties=4, largest=middle)
            high = middle
        except SharesUnfitError:
            low = middle
    return high


def test_the_ring_has_room_for_a_sum_of_clipped_units_with_its_share_of_the_noise() -> None:
    """A Gaussian of all silos, steps and coordinates passes k with a chance of 1e-9: between 7.5 and 9 at this size."""
    units = float(SANDBOX.normalizer) * float(SANDBOX.clip_norm)
    k = (room(SANDBOX) - units) / SANDBOX.added_std
    draws = 5_700 * 4 * SANDBOX.steps
    assert draws * 2 * ndtr(-k) <= 1e-9
    assert draws * 2 * ndtr(-(k - 0.5)) > 1e-9  # and not much more room than that
    doubled = DpPlan.load({**SANDBOX.document, "noise_multiplier": "6.5026"})
    assert room(doubled) - units == pytest.approx(2 * (room(SANDBOX) - units), rel=1e-6)


def test_noise_that_does_not_fit_is_refused_with_the_bound_that_it_needs() -> None:
    largest = 0.1 * float(SANDBOX.normalizer)
    with pytest.raises(SharesUnfitError, match="update_norm_max at least") as refused:
        check_room(SANDBOX, parameters=5_700, parties=4, largest=largest, clause="k-1")
    assert (refused.value.clause, refused.value.found) == ("k-1", "0.1")
    with pytest.raises(SharesUnfitError, match="a plan with noise shares"):
        check_room(small_recipe().plan, parameters=5_700, parties=4, largest=1e9)
