# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant

from policies.privacy import accounting as acc
from policies.privacy import tight
from policies.privacy.errors import OrderUnfitError, PlanIncompleteError
from tests.learnsim import document, small_recipe


def test_default_plan_gives_the_published_figures():
    assert acc.calibrate(epsilon=2, delta=1e-5) == "6.2244"
    assert acc.epsilon_rdp(q=0.2, sigma=6.2244, steps=200, delta=1e-5) == pytest.approx(2.0, abs=5e-4)
    assert 200 * acc.rho_step_nano(q=0.2, sigma=6.2244, order=4) == pytest.approx(0.4217e9, rel=2e-4)
    assert acc.rho_max_nano(epsilon=8.0, delta=1e-5, order=4) == 4_912_138_371


@pytest.mark.parametrize(
    ("epsilon", "steps", "sigma"), [(8, 600, "3.2513"), (2, 600, "10.6147"), (8, 200, "2.0134")]
)
def test_calibrate_gives_the_smallest_noise_of_four_decimals(epsilon, steps, sigma):
    assert acc.calibrate(epsilon=epsilon, delta=1e-5, steps=steps) == sigma
    below = float(sigma) - 1e-4
    assert acc.epsilon_rdp(q=0.2, sigma=float(sigma), steps=steps, delta=1e-5) <= epsilon
    assert acc.epsilon_rdp(q=0.2, sigma=below, steps=steps, delta=1e-5) > epsilon


def test_rdp_step_equals_dp_accounting_at_random_points():
    rng = np.random.default_rng(7)
    for _ in range(200):
        q, sigma = float(rng.uniform(0.001, 1)), float(rng.uniform(0.5, 20))
        order = int(rng.choice(acc.ORDERS))
        other = RdpAccountant([order], dpa.NeighboringRelation.ADD_OR_REMOVE_ONE)
        other.compose(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)))
        theirs = other.get_epsilon(1e-5)
        ours = acc.epsilon_at(rho=acc.rdp_step(q=q, sigma=sigma, order=order), order=order, delta=1e-5)
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_a_public_vector_of_opacus_bounds_ours_from_below():
    # accountants_test.py: best order 7.32911 with fractional orders, tight 6.7774; integer orders lie just above
    ours = acc.epsilon_rdp(q=0.04, sigma=1.5, steps=2250, delta=1e-5)
    assert 7.32911117143 <= ours <= 7.32911117143 + 0.01


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "delta", "epsilon"),
    [
        (0.01, 4.0, 10_000, 1e-5, 0.9470),
        (256 / 60_000, 1.1, 60 * 60_000 // 256, 1e-5, 2.3817),
        (0.04, 1.5, 2250, 1e-5, 6.777395712150674),
    ],
)
def test_tight_figure_equals_published_reference_cases(q, sigma, steps, delta, epsilon):
    plan = small_recipe().plan
    assert plan is not None
    reference = plan.model_copy(
        update={
            "sampling_prob": repr(q),
            "noise_multiplier": repr(sigma),
            "steps": steps,
            "delta": f"{delta:f}",
        }
    )
    found = tight.epsilon_pld(reference)
    assert found == pytest.approx(epsilon, rel=5e-3)
    assert found <= reference.epsilon_rdp + 0.01


def test_full_batch_equals_the_closed_form_of_the_gaussian():
    plan = small_recipe().plan
    assert plan is not None
    full = plan.model_copy(
        update={"sampling_prob": "1", "noise_multiplier": "20", "steps": 300, "delta": "0.0001"}
    )
    exact = dpa.get_epsilon_gaussian(20 / 300**0.5, 1e-4)
    assert tight.epsilon_pld(full) == pytest.approx(exact, abs=0.02)
    assert full.epsilon_rdp >= exact


@pytest.mark.parametrize(
    ("cap", "release", "order", "runs"),
    [
        (8, 2, 4, 11),
        (8, 1, 4, 40),
        (6, 1.5, 5, 11),
        (4, 2, 6, 3),
        (4, 1, 6, 12),
        (3, 1, 8, 7),
        (2, 0.5, 10, 12),
        (8, 8, 4, 1),
    ],
)
def test_order_is_the_one_that_holds_most_reference_runs(cap, release, order, runs):
    assert acc.choose_order(epsilon_max=cap, epsilon_release=release, delta=1e-5) == (order, runs)


def test_a_cap_below_its_release_is_refused():
    with pytest.raises(OrderUnfitError, match=r"privacy\.order-unfit"):
        acc.filter_order(epsilon_total="1", epsilon_per_release="2", delta="0.00001")


def test_a_wrong_order_is_a_catastrophe_and_the_right_one_a_small_price():
    # five contracts of different noise; the tight total is a lower bound that no stop rule may use
    plans = [(0.05, 1.5, 300), (0.2, 6.2244, 200), (0.2, 4.0, 200), (0.01, 0.9, 1000), (0.1, 3.0, 500)]

    def at(order):
        rho = sum(t * acc.rho_step_nano(q=q, sigma=s, order=order) for q, s, t in plans)
        return acc.epsilon_filter(rho_nano=rho, delta=1e-5, order=order)

    best = min(at(order) for order in acc.ORDERS)
    assert at(4) < 1.15 * best
    assert at(32) > 5 * best


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_is_no_noise_is_refused(sigma):
    with pytest.raises(PlanIncompleteError):
        acc.rdp_step(q=0.2, sigma=sigma, order=4)


def test_costs_rise_with_steps_and_sampling_and_fall_with_noise():
    base = acc.epsilon_rdp(q=0.2, sigma=2.0, steps=200, delta=1e-5)
    assert acc.epsilon_rdp(q=0.21, sigma=2.0, steps=200, delta=1e-5) > base
    assert acc.epsilon_rdp(q=0.2, sigma=2.0, steps=201, delta=1e-5) > base
    assert acc.epsilon_rdp(q=0.2, sigma=2.01, steps=200, delta=1e-5) < base


def test_epsilon_text_rounds_up_but_not_over_a_cap():
    assert acc.epsilon_text(2.0000001) == "2.000001"
    assert acc.epsilon_text(8.0) == "8.000000"
    assert acc.epsilon_text(0.0) == "0.000000"


def test_the_verifiers_path_needs_the_standard_library_only():
    code = (
        "import sys; import policies.privacy.accounting, policies.privacy.ledger, policies.privacy.statement;"
        "bad = {'numpy', 'pydantic', 'torch', 'dp_accounting'} & set(sys.modules); sys.exit(bool(bad))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_tight_event_has_the_fields_of_the_plan():
    plan = small_recipe().plan
    assert plan is not None
    event = tight.dp_event(plan)
    assert (event.count, event.event.sampling_probability) == (plan.steps, float(plan.sampling_prob))
    assert document(small_recipe().canonical)["plan"]["steps"] == plan.steps
