# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import dp_accounting as dpa
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from policies.privacy import accounting as acc
from policies.privacy import tight
from policies.privacy.errors import BudgetExhaustedError, OrderUnfitError, PlanIncompleteError
from policies.privacy.plan import DpPlan
from tests.learnsim import DELTA, Budget, cap, document, small_recipe


def plan_of(*, q: float, sigma: float, steps: int, delta: float, **change: object) -> DpPlan:
    """The small recipe's plan with other numbers, also with more digits than a signed plan may have."""
    plan = small_recipe().plan
    assert plan is not None
    numbers = {"sampling_prob": repr(q), "noise_multiplier": repr(sigma), "delta": f"{delta:f}"}
    return plan.model_copy(update={**numbers, "steps": steps} | change)


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


def test_full_batch_equals_the_closed_form_of_the_gaussian():
    full = plan_of(q=1.0, sigma=20.0, steps=300, delta=1e-4)
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


# five contracts as different as contracts are: q, sigma, T; the tight total is a lower bound that no stop rule
# may use, because each contract is written after earlier models were seen
MIXED = ((0.02, 0.9, 400), (0.02, 1.2, 400), (0.1, 4.0, 50), (0.2, 2.0, 100), (0.1, 2.5, 100))


def at_order(order: int) -> float:
    rho = sum(t * acc.rho_step_nano(q=q, sigma=s, order=order) for q, s, t in MIXED)
    return acc.epsilon_filter(rho_nano=rho, delta=1e-5, order=order)


def test_five_mixed_contracts_cost_little_at_the_right_order_and_everything_at_a_wrong_one():
    total = PLDAccountant(
        neighboring_relation=dpa.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-4
    )
    for q, sigma, steps in MIXED:
        total.compose(
            dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)), steps)
        )
    tight, naive = total.get_epsilon(1e-5), sum(acc.epsilon_rdp(q, s, t, 1e-5) for q, s, t in MIXED)
    found = {order: at_order(order) for order in (4, 5, 6, 8)}
    print(f"PLD {tight:.2f}, naive sum {naive:.1f}, filter " + str({k: f"{v:.3f}" for k, v in found.items()}))
    assert found[4] == pytest.approx(7.293, abs=5e-4)
    assert [round(found[5], 2), round(found[6], 1), round(found[8])] == [7.94, 9.9, 203]
    assert (round(tight, 2), round(naive, 1)) == (6.67, 13.9)
    assert found[4] < 1.1 * tight
    assert found[4] == min(at_order(order) for order in acc.ORDERS)


def test_a_wrong_order_refuses_and_shows_its_author_which(tmp_path):
    q, sigma, steps = MIXED[0]
    plan = plan_of(q=q, sigma=sigma, steps=steps, delta=1e-5).document
    recipe = small_recipe(**{**plan, "delta": DELTA})
    fits, unfit = cap(total="8", release="8"), cap(total="3", release="1")
    assert (fits.order, unfit.order) == (4, 8)
    with Budget(tmp_path / "four.db", recipe).create(fits) as store:
        Budget(tmp_path / "four.db", recipe).reserve(store)
    with (
        Budget(tmp_path / "eight.db", recipe).create(unfit) as store,
        pytest.raises(BudgetExhaustedError, match="at order 8"),
    ):
        Budget(tmp_path / "eight.db", recipe).reserve(store)
    # not the smaller cap: at order 8 this one contract is above a cap of 8, too
    assert steps * acc.rho_step_nano(q=q, sigma=sigma, order=8) > acc.rho_max_nano(
        epsilon=8.0, delta=1e-5, order=8
    )


def test_names_are_called_by_place_as_by_name():
    assert acc.calibrate(2, 1e-5, 0.2, 200) == acc.calibrate(epsilon=2, delta=1e-5, q=0.2, steps=200)
    by_name = acc.epsilon_rdp(q=0.2, sigma=3.0, steps=200, delta=1e-5)
    assert acc.epsilon_rdp(0.2, 3.0, 200, 1e-5) == by_name


@pytest.mark.parametrize(("steps", "delta"), [(0, 1e-5), (1, 0.0), (1, 1.0), (1, float("nan")), (-1, 1e-5)])
def test_a_claim_without_steps_or_delta_is_refused(steps, delta):
    with pytest.raises(PlanIncompleteError):
        acc.epsilon_rdp(0.2, 2.0, steps, delta)
    with pytest.raises(PlanIncompleteError):
        acc.calibrate(2.0, delta, 0.2, steps)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_is_no_noise_is_refused(sigma):
    with pytest.raises(PlanIncompleteError):
        acc.rdp_step(q=0.2, sigma=sigma, order=4)


@pytest.mark.parametrize(("sigma", "stated"), [("0.62", True), ("0.6", False), ("0.0001", False)])
def test_a_plan_above_a_hundred_has_no_tight_figure(sigma: str, stated: bool):
    plan = plan_of(q=0.2, sigma=float(sigma), steps=200, delta=1e-5)
    assert (plan.epsilon_rdp <= tight.EPSILON_MOST) == stated
    assert (tight.tight_text(plan) is not None) == stated


@pytest.mark.parametrize("figure", [DpPlan.epsilon_rdp.fget, tight.epsilon_pld], ids=["rdp", "pld"])
def test_costs_rise_with_steps_and_sampling_and_fall_with_noise(figure):
    base = {"q": 0.2, "sigma": 2.0, "steps": 200, "delta": 1e-5}
    at = figure(plan_of(**base))
    assert figure(plan_of(**{**base, "q": 0.21})) > at
    assert figure(plan_of(**{**base, "steps": 210})) > at
    assert figure(plan_of(**{**base, "sigma": 2.05})) < at


@pytest.mark.parametrize(("q", "sigma", "steps"), [(0.2, 6.2244, 200), (0.01, 4.0, 10_000), (1.0, 20.0, 300)])
def test_zero_out_costs_what_add_remove_costs(q, sigma, steps):
    event = tight.dp_event(plan_of(q=q, sigma=sigma, steps=steps, delta=1e-5))
    found = []
    for relation in ("REPLACE_SPECIAL", "ADD_OR_REMOVE_ONE"):
        accountant = PLDAccountant(
            neighboring_relation=dpa.NeighboringRelation[relation], value_discretization_interval=1e-4
        )
        accountant.compose(event)
        found.append(accountant.get_epsilon(1e-5))
    assert found[0] == pytest.approx(found[1], rel=1e-10)


def test_epsilon_text_rounds_up_but_not_over_a_cap():
    assert acc.epsilon_text(2.0000001) == "2.000001"
    assert acc.epsilon_text(8.0) == "8.000000"
    assert acc.epsilon_text(0.0) == "0.000000"


def test_epsilon_text_is_never_below_its_number():
    rng = np.random.default_rng(11)
    for one in (2.0000000001, 7.3000000004, *(rng.random(2000) * 10.0 ** rng.integers(-8, 7, 2000)).tolist()):
        assert 0 <= Fraction(acc.epsilon_text(one)) - Fraction(one) < Fraction(1, 10**6)


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
