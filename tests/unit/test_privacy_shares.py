# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from policies.privacy import silo
from policies.privacy.accounting import epsilon_rdp
from policies.privacy.errors import SharesUnfitError, SiloClaimRefusedError
from policies.privacy.plan import DpPlan
from policies.privacy.shares import (
    check_conditions,
    check_survivors,
    epsilon_by_colluders,
    share_std,
)
from tests.learnsim import small_recipe

LOCAL = small_recipe().plan
SHARES = DpPlan.load({**LOCAL.document, "noise": "shares", "honest_min": 3})
FIT = {"groups": 4, "max_colluders": 0, "secure_aggregation": True}


def test_four_groups_three_honest_and_secure_aggregation_carry_shares():
    check_conditions(SHARES, **FIT)
    check_conditions(SHARES, **{**FIT, "max_colluders": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 3},
        {"groups": 0},
        {"max_colluders": 2},
        {"max_colluders": -1},
        {"secure_aggregation": False},
    ],
)
def test_shares_without_one_condition_are_refused(change):
    with pytest.raises(SharesUnfitError, match=r"privacy\.shares-unfit") as refused:
        check_conditions(SHARES, **FIT | change)
    assert refused.value.remedy.endswith("or noise local-full")


@pytest.mark.parametrize("change", [{"steps_per_round": 2}, {"honest_min": 2}])
def test_two_local_steps_or_two_honest_silos_are_refused_whoever_made_the_plan(change):
    with pytest.raises(SharesUnfitError):
        check_conditions(SHARES.model_copy(update=change), **FIT)


def test_more_honest_silos_than_there_can_be_are_refused():
    with pytest.raises(SharesUnfitError, match="honest_min from 3 to groups minus max_colluders"):
        check_conditions(SHARES.model_copy(update={"honest_min": 5}), **FIT)


def test_a_plan_of_full_local_noise_has_no_share():
    for ask in (
        lambda: share_std(LOCAL),
        lambda: check_conditions(LOCAL, **FIT),
        lambda: check_survivors(LOCAL, survivors=9, max_colluders=0),
    ):
        with pytest.raises(SharesUnfitError, match="a plan with noise shares"):
            ask()


@pytest.mark.parametrize(("survivors", "colluders"), [(2, 0), (3, 1), (0, 0)])
def test_a_sum_of_too_few_survivors_is_aborted(survivors, colluders):
    with pytest.raises(SharesUnfitError, match="abort; a new attempt of the same noised vectors"):
        check_survivors(SHARES, survivors=survivors, max_colluders=colluders)


def test_a_sum_of_enough_survivors_opens():
    check_survivors(SHARES, survivors=3, max_colluders=0)
    check_survivors(SHARES, survivors=4, max_colluders=1)


def test_a_share_is_the_noise_of_one_honest_silo():
    assert share_std(SHARES) ** 2 * 3 == pytest.approx(SHARES.noise_std**2)


def test_the_table_of_colluders_rises_to_the_own_share_alone():
    rows = epsilon_by_colluders(SHARES, 4)
    q, sigma = float(SHARES.sampling_prob), float(SHARES.noise_multiplier)
    alone = epsilon_rdp(q, sigma / math.sqrt(3), SHARES.steps, float(SHARES.delta))
    print("\nepsilon for 0, 1, 2, 3 colluders of 4:", [f"{one:.2f}" for one in rows])
    assert len(rows) == 4
    assert list(rows) == sorted(rows)
    assert rows[0] < SHARES.epsilon_rdp  # all four are honest: more noise than planned
    assert rows[1] == SHARES.epsilon_rdp
    assert rows[-1] == pytest.approx(alone, rel=1e-12)


def test_a_smaller_sum_starts_at_the_claim():
    assert epsilon_by_colluders(SHARES, 3)[0] == SHARES.epsilon_rdp
    assert epsilon_by_colluders(SHARES, 3) == epsilon_by_colluders(SHARES, 4)[1:]


def test_full_local_noise_holds_against_everybody():
    assert epsilon_by_colluders(LOCAL, 5) == (LOCAL.epsilon_rdp,) * 5


@pytest.mark.parametrize("silos", [0, 3, 20, 49])
def test_a_claim_about_whole_silos_is_refused_below_fifty(silos):
    with pytest.raises(SiloClaimRefusedError, match=r"privacy\.silo-claim-refused"):
        silo.silo_claim(silos)


def test_fifty_silos_may_be_claimed_for():
    silo.silo_claim(50)
    assert silo.NO_SILO_CLAIM.startswith("No silo-level privacy.")


def test_the_reason_is_the_noise_that_a_silo_claim_needs():
    cells = ((10, 100_000), (10, 1_000), (50, 1_000))
    found = {
        n: [
            silo.silo_noise_ratio(n, steps=steps, parameters=size, epsilon=8, delta=1e-3)
            for steps, size in cells
        ]
        for n in (3, 10, 20, 50, 200)
    }
    expected = {
        3: (173, 17, 39),
        10: (52, 5.2, 11.6),
        20: (26, 2.6, 5.8),
        50: (10.4, 1.0, 2.3),
        200: (2.6, 0.26, 0.58),
    }
    for n, row in expected.items():
        assert found[n] == pytest.approx(row, rel=0.05), n
