# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from policies.privacy.errors import (
    BudgetExhaustedError,
    DeltaTooLargeError,
    PlanIncompleteError,
    SharesUnfitError,
    UnitRefusedError,
)
from policies.privacy.plan import DpPlan, EvalPlan, noise_std
from policies.privacy.sampling import sampler, unit_manifest
from tests.learnsim import small_recipe

PLAN = small_recipe().plan.document
EVALUATION = small_recipe().evaluation.document
NUMBERS = [key for key, value in PLAN.items() if isinstance(value, str) and value[0].isdigit()]
COUNTS = ["steps", "steps_per_round", "frames_per_unit"]


@pytest.mark.parametrize("key", sorted(PLAN))
def test_a_plan_without_any_one_field_is_incomplete(key):
    with pytest.raises(PlanIncompleteError, match=r"privacy\.plan-incomplete"):
        DpPlan.load({k: v for k, v in PLAN.items() if k != key})


@pytest.mark.parametrize("key", sorted(EVALUATION))
def test_an_evaluation_plan_without_any_one_field_is_incomplete(key):
    with pytest.raises(PlanIncompleteError):
        EvalPlan.load({k: v for k, v in EVALUATION.items() if k != key})


@pytest.mark.parametrize(
    "value", ["0", "NaN", "inf", "-1", "1e-5", "0.10", "", 0.2, 1, None, "0.1234567890123"]
)
@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_are_no_plain_positive_decimals_are_incomplete(key, value):
    with pytest.raises(PlanIncompleteError):
        DpPlan.load({**PLAN, key: value})


@pytest.mark.parametrize("value", [0, -1, "200", 2.0, True, None])
@pytest.mark.parametrize("key", COUNTS)
def test_counts_that_are_no_positive_integers_are_incomplete(key, value):
    with pytest.raises(PlanIncompleteError):
        DpPlan.load({**PLAN, key: value})


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_prob": "1.1"},
        {"delta": "1"},
        {"adjacency": "replace-one"},
        {"mechanism": "gdp-clt"},
        {"steps_per_round": 201},
        {"frames_per_unit": 129},
        {"strata_target": "5"},
        {"sensitivity": "1"},
        {"test_only": 0},
    ],
)
def test_values_out_of_range_and_unknown_fields_are_incomplete(change):
    with pytest.raises(PlanIncompleteError):
        DpPlan.load({**PLAN, **change})


@pytest.mark.parametrize("unit", ["frame", "silo"])
def test_units_that_protect_nobody_are_refused(unit):
    with pytest.raises(UnitRefusedError, match=r"privacy\.unit-refused"):
        DpPlan.load({**PLAN, "unit": unit})


def test_noise_shares_are_refused_until_sums_are_secret():
    with pytest.raises(SharesUnfitError, match="comes with secure aggregation"):
        DpPlan.load({**PLAN, "noise": "shares", "honest_min": 3})


def test_a_plan_cannot_be_changed():
    plan = DpPlan.load(PLAN)
    with pytest.raises(ValidationError, match="frozen"):
        plan.noise_multiplier = "1"  # type: ignore[misc]


def test_noise_and_cost_follow_from_the_same_fields():
    plan = DpPlan.load({**PLAN, "noise_multiplier": "3", "clip_norm": "0.5"})
    assert noise_std(plan) == 1.5
    assert DpPlan.load({**PLAN, "noise_multiplier": "4"}).rho_step_nano(order=4) < plan.rho_step_nano(order=4)
    assert EvalPlan.load(EVALUATION).rho_step_nano(order=4) == math.ceil(1e9 * 4 / (2 * 25) * (1 + 1e-9))


def test_the_digest_changes_with_every_field():
    changed = [DpPlan.load({**PLAN, key: "0.0371"}).digest for key in NUMBERS]
    assert len({*changed, DpPlan.load(PLAN).digest}) == len(NUMBERS) + 1


def test_delta_is_bounded_by_the_number_of_units():
    plan = DpPlan.load({**PLAN, "delta": "0.001"})
    plan.check_units(100)
    with pytest.raises(DeltaTooLargeError, match=r"privacy\.delta-too-large"):
        plan.check_units(101)


def test_sampler_draws_each_unit_alone_with_probability_q():
    plan = DpPlan.load({**PLAN, "steps": 20_000})
    n, q = 40, float(plan.sampling_prob)
    drawer = sampler(plan, n, np.random.Generator(np.random.PCG64(5)))
    drawn = np.zeros((plan.steps, n), dtype=bool)
    for row in drawn:
        row[drawer.draw()] = True
    # six sigma: below 1e-6 over all statistics
    rate_sd = math.sqrt(q * (1 - q) / plan.steps)
    assert np.abs(drawn.mean(0) - q).max() < 6 * rate_sd
    sizes = drawn.sum(1)
    variance = n * q * (1 - q)
    assert abs(sizes.var() / variance - 1) < 6 * math.sqrt(2 / plan.steps) * 1.1
    pairs = np.corrcoef(drawn.T)[np.triu_indices(n, 1)]
    assert np.abs(pairs).max() < 6 / math.sqrt(plan.steps)
    again = np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]
    assert abs(again) < 6 / math.sqrt(plan.steps)


def test_sampler_ends_with_the_plan():
    plan = DpPlan.load({**PLAN, "steps": 2})
    drawer = sampler(plan, 3, np.random.Generator(np.random.PCG64(5)))
    drawer.draw()
    drawer.draw()
    assert drawer.steps_left == 0
    with pytest.raises(BudgetExhaustedError):
        drawer.draw()


def test_a_unit_twice_is_refused_and_order_does_not_matter():
    assert unit_manifest([b"a", b"b"]) == unit_manifest([b"b", b"a"]) != unit_manifest([b"ab"])
    with pytest.raises(UnitRefusedError):
        unit_manifest([b"a", b"a"])
