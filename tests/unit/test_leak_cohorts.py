# SPDX-License-Identifier: Apache-2.0
"""Canaries of a whole cohort: one dishonest maker silences nobody's, and honest models pass as often as is said."""

from __future__ import annotations

import itertools
from collections import Counter
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policies.leak_report import leak_figures, party_figures
from policies.limits import MIA_AUC_MAX
from policies.privacy.leakage import CANARIES, CODE_FAILED, MEMBERSHIP, leak_facts, verdicts
from policies.privacy.leakage_estimates import auc, auc_of_few, chance_of_so_low

COHORTS = ((3, 22), (4, 16), (2, 32), (8, 8))
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


def cohort(rng: np.random.Generator, parties: int, count: int, *, shift: float, liars: int = 0) -> Rows:
    """Scores of canaries that were trained on lie higher by ``shift``; liars train on those that show 0."""
    rows: Rows = {}
    for number in range(parties):
        coins = rng.integers(0, 2, count)
        trained = 1 - coins if number < liars else coins
        scores = shift * trained + rng.standard_normal(count)
        rows[f"{number:016x}"] = {
            "scores": [f"{one:.6f}" for one in scores],
            "flips": "".join(str(one) for one in coins),
        }
    return rows


def judged(rows: Rows, *, whole: bool = True) -> dict[str, Any]:
    """The report on scores; without the figures that verdicts on areas do not need, it is quick."""
    figures = party_figures(rows)
    parties = {name: row | figures[name] for name, row in rows.items()}
    scores = [one for row in rows.values() for one in row["scores"]]
    flips = "".join(row["flips"] for row in rows.values())
    if whole:
        found = leak_figures(scores, flips, delta=1e-5)
        assert found is not None
        area, low = dict(found.auc), found.epsilon_low
    else:
        values, coins = np.array([float(one) for one in scores]), np.array([one == "1" for one in flips])
        area, low = {"low": f"{auc(values[coins], values[~coins]).low:.6f}"}, "0.000000"
    leaks = {
        "missing": [],
        "canaries": len(scores),
        "claim": "8.000000",
        "epsilon_low": low,
        "auc": area,
        "parties": parties,
    }
    return leaks | verdicts(leaks, auc_max=None)


def shift_of(area: float) -> float:
    return NormalDist().inv_cdf(area) * 2**0.5


# --- the attack ---


@pytest.mark.parametrize(("parties", "count"), COHORTS)
def test_one_maker_that_trains_on_the_wrong_canaries_silences_nobody_elses(rng, parties, count):
    found = judged(cohort(rng, parties, count, shift=20, liars=1))
    assert found["passed"] == {CANARIES: False, MEMBERSHIP: False}
    assert found["code"] == CODE_FAILED
    facts = leak_facts({"leaks": found}, fields=["tcp_pos"], secrets=[])
    assert float(facts.mia_auc or 0) > MIA_AUC_MAX
    assert facts.canaries_fired == ("tcp_pos",)


@pytest.mark.parametrize(("parties", "count"), [(2, 32), (3, 22), (4, 16)])
def test_the_pooled_figure_alone_would_have_been_silent(rng, parties, count):
    """What the figures of each party are for."""
    rows = cohort(rng, parties, count, shift=20, liars=1)
    liar = rows[f"{0:016x}"]
    liar["scores"] = [f"{1.5 * float(one):.6f}" for one in liar["scores"]]  # trained somewhat harder
    found = judged(rows)
    assert float(found["auc"]["low"]) <= MIA_AUC_MAX
    assert found["code"] == CODE_FAILED


def test_a_maker_that_trained_on_the_wrong_canaries_is_named(rng):
    for _ in range(20):
        found = judged(cohort(rng, 3, 22, shift=20, liars=1))
        assert found["untrained"] == [f"{0:016x}"]


def test_a_maker_named_for_it_fails_the_report_of_a_model_that_knows_nothing_else(rng):
    rows = cohort(rng, 3, 22, shift=0)
    liar = rows[f"{0:016x}"]
    liar["scores"] = [
        f"{float(one) - 20 * int(coin):.6f}" for one, coin in zip(liar["scores"], liar["flips"], strict=True)
    ]
    found = judged(rows)
    assert (found["untrained"], found["code"]) == ([f"{0:016x}"], CODE_FAILED)
    assert found["passed"] == {CANARIES: False, MEMBERSHIP: False}


def test_one_party_whose_canaries_are_known_by_heart_is_seen_among_others_that_are_not(rng):
    rows = cohort(rng, 3, 22, shift=0)
    rows["f" * 16] = next(iter(cohort(rng, 1, 22, shift=20).values()))
    found = judged(rows)
    assert float(found["auc"]["low"]) <= MIA_AUC_MAX < float(found["auc_worst"])
    assert found["code"] == CODE_FAILED


def test_coins_that_fall_all_alike_leave_no_figure_of_their_own_and_hide_nobody(rng):
    rows = cohort(rng, 4, 16, shift=20)
    rows[f"{0:016x}"] = {"scores": ["30.000000"] * 16, "flips": "0" * 16}
    found = judged(rows)
    own = found["parties"][f"{0:016x}"]
    assert (own["auc"], own["chance"]) == (None, None)
    assert float(own["auc_without"]["low"]) > MIA_AUC_MAX
    assert found["code"] == CODE_FAILED


# --- honest models ---


@pytest.mark.parametrize(("parties", "count"), COHORTS)
def test_a_model_that_knows_nothing_passes_in_all_but_one_of_a_hundred_cases(rng, parties, count):
    alarms = Counter[str]()
    for _ in range(1000):
        found = judged(cohort(rng, parties, count, shift=0), whole=False)
        alarms["refused"] += not found["passed"][MEMBERSHIP]
        alarms["named"] += bool(found["untrained"])
    assert alarms["refused"] <= 20  # 2 expected; a rate of 5 in 1000 would do this once in a million
    assert alarms["named"] <= 9  # 1 expected at most


def test_a_model_exactly_at_the_bound_is_refused_about_once_in_ten(rng):
    refused = 0
    for _ in range(1000):
        found = judged(cohort(rng, 4, 16, shift=shift_of(0.65)), whole=False)
        refused += not found["passed"][MEMBERSHIP]
    assert 40 < refused < 160


@pytest.mark.parametrize("members", [8, 5, 3])
def test_bounds_from_a_dozen_scores_hold_where_delongs_do_not(rng, members):
    few = plain = 0
    for _ in range(2000):
        inside, outside = rng.normal(shift_of(0.65), 1, members), rng.normal(0, 1, 16 - members)
        few += auc_of_few(inside, outside, confidence=0.9875).low > 0.65
        plain += auc(inside, outside, confidence=0.9875).low > 0.65
    assert few <= 25 + 5 * 25**0.5 < plain  # 25 expected


# --- estimators ---


def test_bounds_of_few_are_the_areas_that_the_estimate_does_not_refute(rng):
    inside, outside = rng.normal(0.8, 1, 11), rng.normal(0, 1, 11)
    found = auc_of_few(inside, outside)
    assert found.value == auc(inside, outside).value
    assert 0 < found.low < found.value < found.high < 1
    mirrored = auc_of_few(outside, inside)
    assert mirrored.value == pytest.approx(1 - found.value)
    perfect = auc_of_few(np.arange(11) + 100.0, np.arange(11.0))
    assert (perfect.value, perfect.high) == (1, 1)
    assert 0.65 < perfect.low < 0.95


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 5), (8, 8), (11, 11), (4, 12)])
def test_the_chance_of_so_low_an_area_is_that_of_mann_and_whitney(rng, m, n):
    for shift in (-2, 0, 1):
        inside, outside = rng.normal(shift, 1, m), rng.normal(0, 1, n)
        exact = stats.mannwhitneyu(inside, outside, alternative="less", method="exact").pvalue
        assert chance_of_so_low(inside, outside) == pytest.approx(exact, rel=1e-9)


def test_the_chance_counts_every_order_and_ties_make_it_no_smaller():
    values = np.arange(7.0)
    chances = [
        chance_of_so_low(values[list(chosen)], np.delete(values, chosen))
        for chosen in itertools.combinations(range(7), 3)
    ]
    areas = [
        auc(values[list(chosen)], np.delete(values, chosen)).value
        for chosen in itertools.combinations(range(7), 3)
    ]
    for chance, area in zip(chances, areas, strict=True):
        assert chance == pytest.approx(sum(one <= area + 1e-12 for one in areas) / len(areas))
    assert chance_of_so_low(np.zeros(5), np.zeros(6)) > 0.5


def test_the_chance_of_many_scores_follows_the_normal_law(rng):
    inside, outside = rng.normal(-0.2, 1, 100), rng.normal(0, 1, 100)
    exact = stats.mannwhitneyu(inside, outside, alternative="less", method="exact").pvalue
    assert chance_of_so_low(inside, outside) == pytest.approx(exact, rel=0.05)
