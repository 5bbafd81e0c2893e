# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from client.learning.engines import PackedEngine, UnitFrames, choose_engine, frame_loss
from client.learning.noise import SecureNoise, SeededNoise
from client.learning.private import PrivateSteps
from client.learning.registry import build, flatten
from client.learning.tensors import frames_of
from policies.privacy.errors import BudgetExhaustedError, RngRefusedError
from tests.learnsim import SeededEntropy, episodes, small_recipe

RECIPE = small_recipe()
FRAMES = [frames_of(RECIPE, one) for one in episodes(40)]


def steps(recipe=RECIPE, frames=FRAMES, *, noise=None, engine=None) -> PrivateSteps:
    plan = recipe.plan
    return PrivateSteps(
        plan=plan,
        frames=frames,
        engine=engine
        or choose_engine(build(recipe), frame_loss, plan.frames_per_unit, clipping=plan.clipping).engine,
        parameters=recipe.parameters,
        noise=noise or SecureNoise(SeededEntropy(1)),
    )


def is_noise(values: np.ndarray, std: float) -> bool:
    """Two-sided chi-square and Kolmogorov-Smirnov, false alarms 2e-6 and 1e-6."""
    scaled = values.astype(np.float64) / std
    level = stats.chi2.cdf((scaled**2).sum(), scaled.size)
    return 1e-6 < level < 1 - 1e-6 and stats.kstest(scaled, "norm").pvalue > 1e-6


def test_predictable_noise_needs_a_plan_that_is_not_private():
    with pytest.raises(RngRefusedError, match=r"privacy\.rng-refused") as refused:
        steps(noise=SeededNoise(1))
    assert "NOT PRIVATE" in refused.value.remedy
    recipe = small_recipe(test_only=True)
    first, second = (steps(recipe, noise=SeededNoise(1)).gradient() for _ in range(2))
    assert (first == second).all()


def test_all_empty_draws_are_noisy_counted_steps():
    recipe = small_recipe(sampling_prob="0.000000001")
    plan = recipe.plan
    private = steps(recipe, engine=lambda units, clip: pytest.fail("a unit was drawn"))
    found = [private.gradient() for _ in range(plan.steps)]
    with pytest.raises(BudgetExhaustedError):
        private.gradient()
    assert is_noise(np.concatenate(found) * float(plan.normalizer), plan.noise_std)
    for step, following in itertools.pairwise(found[:30]):
        assert abs(np.corrcoef(step, following)[0, 1]) < 6 / step.size**0.5


def test_the_noise_is_the_plans_and_not_that_of_the_batch():
    """Kills noise over the square root of the batch, and none: the variance is the plan's, whatever was drawn."""
    recipe = small_recipe(sampling_prob="1", delta="0.001", frames_per_unit=128)
    plan = recipe.plan
    units = [UnitFrames(*(torch.from_numpy(a) for a in (f.inputs, f.targets, f.mask))) for f in FRAMES]
    signal = flatten(PackedEngine(build(recipe), frame_loss)(units, float(plan.clip_norm)))
    private = steps(recipe)
    found = np.concatenate([private.gradient() * float(plan.normalizer) - signal for _ in range(100)])
    assert is_noise(found, plan.noise_std)
    assert not is_noise(found, plan.noise_std / len(units) ** 0.5)
    assert not is_noise(found * 1.05, plan.noise_std)


def test_shares_add_their_part_of_the_noise():
    recipe = small_recipe(noise="shares", honest_min=4, sampling_prob="0.000000001")
    private = steps(recipe)
    found = np.concatenate([private.gradient() for _ in range(20)]) * float(recipe.plan.normalizer)
    assert is_noise(found, recipe.plan.noise_std / 2)


@pytest.mark.parametrize("fineness", [1.0, 2.0, 1000.0])
def test_a_share_on_the_grid_has_its_part_of_the_noise_and_half_a_step_of_rounding(fineness):
    """Kills the whole noise, a share of another number of silos, and a grid step in units of the update."""
    recipe = small_recipe(noise="shares", honest_min=4, sampling_prob="0.000000001")
    plan, private = recipe.plan, steps(recipe)
    step = plan.noise_std / 2 / fineness
    found = np.stack([private.summand(step) for _ in range(40)])
    assert found.dtype == np.int64
    assert is_of_variance(found, fineness**2 + 1 / 12)
    assert not is_of_variance(found, (2 * fineness) ** 2 + 1 / 12)
    assert not is_of_variance(found, fineness**2 * 4 / 3 + 1 / 12)
    assert is_of_variance(found.reshape(10, 4, -1).sum(axis=1), 4 * (fineness**2 + 1 / 12))  # the plan's own


def is_of_variance(values: np.ndarray, variance: float) -> bool:
    """Mean square of independent values near normal, by its own spread; false alarm below 1e-9."""
    squares = values.astype(np.float64).ravel() ** 2
    return abs(squares.mean() - variance) < 6.2 * squares.std() / squares.size**0.5


def test_noise_comes_before_the_one_rounding():
    recipe = small_recipe(noise="shares", honest_min=3, test_only=True, sampling_prob="1", delta="0.001")
    step = recipe.plan.noise_std / 50
    whole = steps(recipe, noise=SeededNoise(1)).summand(step)
    mean = steps(recipe, noise=SeededNoise(1)).gradient().astype(np.float64) * float(recipe.plan.normalizer)
    assert np.abs(whole - mean / step).max() <= 0.5 + 1e-3  # float32 of the mean gradient


def test_a_share_is_a_step_of_the_plan():
    recipe = small_recipe(noise="shares", honest_min=3, sampling_prob="0.000000001")
    private = steps(recipe)
    for _ in range(recipe.plan.steps - 1):
        private.summand(0.001)
    private.gradient()
    with pytest.raises(BudgetExhaustedError):
        private.summand(0.001)


def test_the_unit_is_clipped_and_not_its_frames():
    """Kills clipping per frame: one loud episode moves the sum by C, not by C for each frame."""
    recipe = small_recipe(sampling_prob="1", delta="0.001", noise_multiplier="0.0001")
    plan, clip = recipe.plan, float(recipe.plan.clip_norm)
    loud = next(f for f in FRAMES if len(f.inputs) > 20)
    loud = replace(loud, targets=loud.targets * 1e3)
    moved = np.linalg.norm(steps(recipe, [loud]).gradient()) * float(plan.normalizer)
    assert moved == pytest.approx(clip, rel=0.02)


@pytest.mark.parametrize("clipping", ["flat", "normalised"])
def test_the_plans_clipping_reaches_the_sum(clipping):
    recipe = small_recipe(sampling_prob="1", delta="0.001", noise_multiplier="0.00001", clipping=clipping)
    quiet = [replace(FRAMES[0], mask=FRAMES[0].mask * 1e-4)]
    norm = np.linalg.norm(steps(recipe, quiet).gradient()) * float(recipe.plan.normalizer)
    clip = float(recipe.plan.clip_norm)
    if clipping == "flat":
        assert norm < 0.05 * clip
    loud = [replace(FRAMES[0], targets=FRAMES[0].targets * 50)]
    assert np.linalg.norm(steps(recipe, loud).gradient()) * float(recipe.plan.normalizer) == pytest.approx(
        clip, rel=0.05
    )


def test_a_large_draw_is_summed_in_parts_and_nothing_is_left_out(monkeypatch):
    sizes: list[int] = []
    inner = PackedEngine(build(RECIPE), frame_loss)

    def counted(units, clip):
        sizes.append(len(units))
        return inner(units, clip)

    recipe = small_recipe(sampling_prob="1", delta="0.001", test_only=True, frames_per_unit=128)
    whole = steps(recipe, noise=SeededNoise(3)).gradient()
    monkeypatch.setattr("client.learning.private._UNITS_AT_ONCE", 7)
    parts = steps(recipe, noise=SeededNoise(3), engine=counted).gradient()
    assert sum(sizes) == len(FRAMES)
    assert max(sizes) == 7
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_one_unit_more_or_less_changes_no_divisor_and_no_length():
    recipe = small_recipe(sampling_prob="0.000000001", test_only=True)
    found = []
    for count in (39, 40):
        private = steps(recipe, FRAMES[:count], noise=SeededNoise(8))
        found.append([private.gradient().tobytes() for _ in range(recipe.plan.steps)])
        with pytest.raises(BudgetExhaustedError):
            private.gradient()
    assert {len(one) for one in found[0] + found[1]} == {4 * recipe.parameters}
    assert found[0] == found[1]  # the noise is divided by the plan's constant, whatever the number of units
