# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from policies.errors import IriaiError
from policies.privacy.errors import (
    AccountantRefusedError,
    DeltaTooLargeError,
    PlanIncompleteError,
    PrivacyError,
    SamplerForeignError,
    SearchUnaccountedError,
    SharesUnfitError,
    SiloClaimRefusedError,
    UnitRefusedError,
)
from policies.privacy.plan import DpPlan, EvalPlan, noise_std
from policies.privacy.sampling import unit_manifest
from policies.recipe import load
from tests.learnsim import changed, small_recipe

PLAN = small_recipe().plan.document
EVALUATION = small_recipe().evaluation.document
NUMBERS = [key for key, value in PLAN.items() if isinstance(value, str) and value[0].isdigit()]
COUNTS = ["steps", "steps_per_round", "frames_per_unit"]
SHARES = {**PLAN, "noise": "shares", "honest_min": 3}


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
        {"adjacency": ""},
        {"mechanism": None},
        {"clipping": "none"},
        {"clipping": None},
        {"noise": "some"},
        {"noise": "shares", "honest_min": "3"},
        {"strata_target": "0"},
        {"strata_target": 5},
        {"strata_target": "NaN"},
        {"steps_per_round": 201},
        {"frames_per_unit": 129},
        {"sensitivity": "1"},
        {"test_only": 0},
    ],
)
def test_values_out_of_range_and_unknown_fields_are_incomplete(change):
    with pytest.raises(PlanIncompleteError):
        DpPlan.load({**PLAN, **change})


def test_a_unit_that_protects_nobody_is_refused():
    with pytest.raises(UnitRefusedError, match=r"privacy\.unit-refused"):
        DpPlan.load({**PLAN, "unit": "frame"})


def test_a_plan_claims_nothing_for_whole_silos():
    with pytest.raises(SiloClaimRefusedError, match=r"privacy\.silo-claim-refused") as refused:
        DpPlan.load({**PLAN, "unit": "silo"})
    assert (refused.value.need, refused.value.found) == ("at least 50 silos", "an unknown number")


@pytest.mark.parametrize("name", ["delta", "noise_multiplier", "steps", "unit", "test_only"])
@pytest.mark.parametrize("null", [True, False])
def test_a_field_that_is_missing_or_null_is_named_and_nothing_is_found(name, null):
    document = {key: value for key, value in PLAN.items() if key != name}
    with pytest.raises(PlanIncompleteError) as refused:
        DpPlan.load({**document, name: None} if null else document)
    assert (refused.value.need, refused.value.found) == (f"a complete DpPlan: the field {name}", "nothing")


@pytest.mark.parametrize("kind", [DpPlan, EvalPlan])
def test_an_adjacency_that_hides_the_number_of_units_is_refused_by_name(kind):
    plan = PLAN if kind is DpPlan else EVALUATION
    with pytest.raises(
        PlanIncompleteError, match=r"needs adjacency zero-out; found add-remove.*size buckets"
    ):
        kind.load({**plan, "adjacency": "add-remove"})


def _deep(kind: type) -> object:
    value: object = kind()
    for _ in range(3000):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [DpPlan, EvalPlan])
@pytest.mark.parametrize(
    "value",
    [[], {}, [[]], -(10**5000), _deep(list), _deep(dict)],
    ids=["list", "object", "nested", "long", "deep-list", "deep-object"],
)
def test_any_value_in_any_field_is_refused_by_a_code_however_deep_it_is(kind, value):
    plan = PLAN if kind is DpPlan else EVALUATION
    for name in (*plan, "accountant", "another"):
        with pytest.raises(PrivacyError) as refused:
            kind.load({**plan, name: value})
        assert len(str(refused.value)) < 600
    with pytest.raises(PrivacyError):
        kind.load(value)


@pytest.mark.parametrize("value", [[], {}, [[]]])
def test_a_recipe_with_any_value_in_its_plan_is_refused_by_a_code(value):
    for block, keys in (("plan", PLAN), ("evaluation", EVALUATION)):
        for name in keys:
            with pytest.raises(PrivacyError):
                load(changed(small_recipe().canonical, f"{block}.{name}", value))


def test_a_recipe_that_is_nested_deep_is_refused():
    with pytest.raises(IriaiError, match="recipe"):
        load(b"[" * 50_000 + b"]" * 50_000)


def test_replace_one_adjacency_is_refused_with_its_price():
    with pytest.raises(PlanIncompleteError, match="replace-one costs about twice the epsilon"):
        DpPlan.load({**PLAN, "adjacency": "replace-one"})


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "gdp-clt"},
        {"mechanism": "banded-toeplitz"},
        {"mechanism": ""},
        {"accountant": "gdp"},
        {"accountant": "sum"},
    ],
)
def test_another_mechanism_or_accountant_is_refused(change):
    with pytest.raises(AccountantRefusedError, match=r"privacy\.accountant-refused"):
        DpPlan.load({**PLAN, **change})


@pytest.mark.parametrize("key", ["sampler", "loader", "shuffle", "epochs", "batch_size"])
def test_a_plan_that_names_a_loader_or_an_epoch_is_refused(key):
    with pytest.raises(SamplerForeignError, match=r"privacy\.sampler-foreign"):
        DpPlan.load({**PLAN, key: True})


@pytest.mark.parametrize("key", ["search", "learning_rate_search"])
def test_a_search_on_private_data_is_refused(key):
    with pytest.raises(SearchUnaccountedError, match=r"privacy\.search-unaccounted"):
        DpPlan.load({**PLAN, key: {"rates": ["0.1", "0.01"]}})


def test_a_private_recipe_that_names_a_search_is_refused():
    with pytest.raises(SearchUnaccountedError, match="search on public data"):
        load(changed(small_recipe().canonical, "search", {"rates": ["0.1"]}))


def test_noise_shares_are_a_plan_of_their_own():
    plan = DpPlan.load(SHARES)
    assert plan.honest_min == 3
    assert plan.added_std == pytest.approx(plan.noise_std / math.sqrt(3))
    assert plan.epsilon_rdp == DpPlan.load(PLAN).epsilon_rdp
    assert DpPlan.load(PLAN).added_std == DpPlan.load(PLAN).noise_std


@pytest.mark.parametrize(
    "change",
    [
        {"honest_min": None},
        {"honest_min": 2},
        {"honest_min": 0},
        {"honest_min": -3},
        {"steps_per_round": 2},
        {"noise": "local-full"},
    ],
)
def test_noise_shares_without_their_conditions_are_refused(change):
    with pytest.raises(SharesUnfitError, match=r"privacy\.shares-unfit"):
        DpPlan.load({**SHARES, **change})


@pytest.mark.parametrize("document", [None, [], "plan", 3])
def test_what_is_no_object_is_incomplete(document):
    with pytest.raises(PlanIncompleteError):
        DpPlan.load(document)


def test_a_plan_cannot_be_changed():
    plan = DpPlan.load(PLAN)
    for key in type(plan).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(plan, key, getattr(plan, key))
    with pytest.raises(ValidationError):
        plan.sensitivity = "1"  # type: ignore[attr-defined]


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


def test_a_unit_twice_is_refused_and_order_does_not_matter():
    assert unit_manifest([b"a", b"b"]) == unit_manifest([b"b", b"a"]) != unit_manifest([b"ab"])
    with pytest.raises(UnitRefusedError):
        unit_manifest([b"a", b"a"])
