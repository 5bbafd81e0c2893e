# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from policies.privacy.accounting import calibrate, epsilon_rdp
from policies.privacy.errors import InfeasibleError, PlanIncompleteError
from policies.privacy.feasibility import feasibility
from policies.privacy.plan import DpPlan
from tests.learnsim import small_recipe

DEFAULT = DpPlan.load(
    {
        **small_recipe().plan.document,
        "sampling_prob": "0.2",
        "noise_multiplier": "6.2244",
        "clip_norm": "1",
        "steps": 200,
        "normalizer": "40",
    }
)
SHARES = DpPlan.load({**DEFAULT.document, "noise": "shares", "honest_min": 4})
TABLE = {
    200: ((2.2, "warn"), (7.0, "refuse"), (22.0, "refuse")),
    1000: ((0.44, "fine"), (1.4, "warn"), (4.4, "refuse")),
    5000: ((0.09, "fine"), (0.28, "fine"), (0.88, "fine")),
}
SIZES = (1_000, 10_000, 100_000)


def test_planner_table_of_the_default_plan_with_five_silos():
    print(f"\n{'units':>6}  " + "  ".join(f"D {size:<12,}" for size in SIZES))
    for units, row in TABLE.items():
        found = [feasibility(DEFAULT, units, size, 5) for size in SIZES]
        print(f"{units:6d}  " + "  ".join(f"{one.ratio:5.2f} {one.verdict:<8}" for one in found))
        for one, (ratio, verdict) in zip(found, row, strict=True):
            assert one.ratio == pytest.approx(ratio, rel=0.03, abs=0.005)
            assert one.verdict == verdict


def test_shares_divide_the_ratio_by_the_root_of_the_honest_silos():
    full = feasibility(DEFAULT, 200, 1_000, 5).ratio
    assert feasibility(SHARES, 200, 1_000, 5).ratio == pytest.approx(full / 2)
    five = DpPlan.load({**SHARES.document, "honest_min": 5})
    assert feasibility(five, 200, 1_000, 5).ratio == pytest.approx(full / math.sqrt(5))


def test_the_ratio_does_not_hang_on_the_normaliser_or_the_clip():
    other = DpPlan.load({**DEFAULT.document, "normalizer": "7", "clip_norm": "0.1"})
    assert feasibility(other, 200, 1_000, 5) == feasibility(DEFAULT, 200, 1_000, 5)


def applied(plan: DpPlan, counts: tuple[int, int, int], kind: str, value: float, strata: int = 1):
    """The plan's answer with one remedy taken up; the units are in strata of equal size."""
    now = epsilon_rdp(float(plan.sampling_prob), float(plan.noise_multiplier), plan.steps, float(plan.delta))
    document = dict(plan.document)
    if kind == "sampling_prob":
        document |= {
            "sampling_prob": f"{value:g}",
            "noise_multiplier": calibrate(now, 1e-5, value, plan.steps),
        }
    if kind == "strata_target":
        document |= {"strata_target": f"{value:g}"}
    if kind == "epsilon":
        document |= {"noise_multiplier": calibrate(value, 1e-5, float(plan.sampling_prob), plan.steps)}
    units, parameters, silos = counts
    units = int(value) if kind == "units" else units
    return feasibility(
        DpPlan.load(document),
        units,
        int(value) if kind == "parameters" else parameters,
        int(value) if kind == "silos" else silos,
        (units / strata,) * strata,
    )


@pytest.mark.parametrize("plan", [DEFAULT, SHARES], ids=["local-full", "shares"])
@pytest.mark.parametrize("units", [100, 200, 300, 1_000, 3_000])
@pytest.mark.parametrize("parameters", [1_000, 5_700, 100_000])
@pytest.mark.parametrize("silos", [4, 5, 20])
def test_every_remedy_that_is_offered_passes_when_applied(plan, units, parameters, silos):
    found = feasibility(plan, units, parameters, silos)
    for one in found.remedies:
        after = applied(plan, (units, parameters, silos), one.kind, one.value)
        assert after.ratio <= 1.001, one
        assert after.verdict == "fine", one
    kinds = [one.kind for one in found.remedies]
    assert kinds == [k for k in ("parameters", "sampling_prob", "units", "silos", "epsilon") if k in kinds]
    assert (found.verdict == "fine") == (not kinds)


def test_the_cheapest_remedy_is_fewer_parameters_and_comes_with_its_number():
    with pytest.raises(InfeasibleError, match=r"privacy\.infeasible") as refused:
        feasibility(DEFAULT, 1_000, 100_000, 5).check()
    assert refused.value.exit_code == 4
    assert refused.value.found == "4.4 times"
    assert refused.value.remedy.startswith("at most 5 100 trainable parameters; or at least 4 500 units")


def test_a_larger_sampling_probability_is_offered_with_its_noise_and_its_price():
    found = feasibility(DEFAULT, 1_000, 5_200, 5)
    words = [one.words for one in found.remedies if one.kind == "sampling_prob"]
    assert words == [
        "sampling_prob 0.25 with noise_multiplier 7.7294 (the same epsilon, 1.2 times the computing)"
    ]


def test_a_larger_sampling_probability_always_lowers_the_ratio():
    ratios = []
    for n in range(1, 11):
        sigma = calibrate(2.0, 1e-5, n / 10, 200)
        plan = DpPlan.load({**DEFAULT.document, "sampling_prob": f"{n / 10:g}", "noise_multiplier": sigma})
        ratios.append(feasibility(plan, 200, 1_000, 5).ratio)
    assert ratios == sorted(ratios, reverse=True)


@pytest.mark.parametrize(
    ("strata", "drawn"), [((250,), 3), ((125, 125), 6), ((240, 10), 5), ((10,) * 25, 50)], ids=str
)
def test_a_target_per_stratum_draws_fewer_units_and_the_ratio_says_so(strata: tuple[int, ...], drawn: float):
    plan = DpPlan.load({**DEFAULT.document, "strata_target": "3"})
    free, bound = feasibility(DEFAULT, 250, 1_000, 4), feasibility(plan, 250, 1_000, 4, strata)
    assert (free.drawn, bound.drawn) == (50, pytest.approx(drawn))
    assert bound.ratio == pytest.approx(free.ratio * 50 / drawn)
    as_q = DpPlan.load({**DEFAULT.document, "sampling_prob": f"{drawn / 250:g}"})
    assert bound.ratio == pytest.approx(feasibility(as_q, 250, 1_000, 4).ratio)


@pytest.mark.parametrize("target", ["3", "12", "40"])
@pytest.mark.parametrize("strata", [1, 4])
@pytest.mark.parametrize("counts", [(60, 1_000, 4), (250, 1_000, 5), (1_000, 5_700, 20)])
def test_remedies_of_a_plan_with_a_target_pass_when_applied(
    target: str, strata: int, counts: tuple[int, int, int]
):
    plan = DpPlan.load({**DEFAULT.document, "strata_target": target})
    units, parameters, silos = counts
    found = feasibility(plan, units, parameters, silos, (units / strata,) * strata)
    for one in found.remedies:
        assert applied(plan, counts, one.kind, one.value, strata).verdict == "fine", one


def test_more_units_are_no_remedy_where_the_target_leaves_them_out():
    plan = DpPlan.load({**DEFAULT.document, "strata_target": "3"})
    kinds = [one.kind for one in feasibility(plan, 250, 5_700, 4).remedies]
    assert "units" not in kinds
    assert "sampling_prob" not in kinds
    assert "strata_target" not in kinds  # nor do all units: 250 of them are too few without a target


def test_a_warning_is_no_refusal():
    found = feasibility(DEFAULT, 200, 1_000, 5)
    found.check()
    assert found.remedies[0].words == "at most 200 trainable parameters"


def test_where_no_other_remedy_exists_more_units_do():
    hopeless = feasibility(DEFAULT, 1, 2_000_000, 1)
    assert [one.kind for one in hopeless.remedies] == ["units"]
    with pytest.raises(InfeasibleError):
        hopeless.check()


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-5, 1, 1)])
def test_nothing_to_plan_for_is_incomplete(counts):
    with pytest.raises(PlanIncompleteError):
        feasibility(DEFAULT, *counts)
