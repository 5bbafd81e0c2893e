# SPDX-License-Identifier: Apache-2.0
"""The estimators of audits against scipy, closed forms and simulated truth."""

from __future__ import annotations

import dp_accounting
import numpy as np
import pytest
from scipy import stats

from policies.privacy.draw_chances import draw_chances
from policies.privacy.errors import PlanIncompleteError
from policies.privacy.gaussian_mu import (
    MU_MAX,
    correlation_chance,
    fit_mu,
    gaussian_chance,
    is_coarse,
    mu_epsilon,
    repeat_chance,
    variance_chance,
)
from policies.privacy.leakage_estimates import auc, one_run_epsilon, one_run_low, tpr_at_fpr
from policies.privacy.property_skill import PropertyReport, ridge_predictions, shown, skill


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# --- AUC ---


def test_auc_is_the_rank_statistic_with_ties_counted_half(rng):
    members, others = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    rank = stats.mannwhitneyu(members, others).statistic / (40 * 30)
    assert auc(members, others).value == pytest.approx(rank)
    assert auc(others, members).value == pytest.approx(1 - rank)


def test_the_bounds_of_auc_hold_as_often_as_they_say(rng):
    shift = 0.8
    truth = stats.norm.cdf(shift / np.sqrt(2))
    found = [auc(rng.normal(shift, 1, 32), rng.normal(0, 1, 32)) for _ in range(1000)]
    assert 0.9 < np.mean([one.low <= truth for one in found]) < 0.99  # 95 % asked for; five errors wide
    assert 0.9 < np.mean([one.high >= truth for one in found]) < 0.99


def test_an_auc_of_sixty_four_canaries_has_the_error_of_the_design(rng):
    found = [auc(rng.normal(0, 1, 32), rng.normal(0, 1, 32)).value for _ in range(1000)]
    assert np.std(found) == pytest.approx(0.07, abs=0.01)


def test_a_handful_that_stands_apart_is_not_certain():
    few, many = (auc(np.arange(n) + 100.0, np.arange(n) * 1.0) for n in (3, 64))
    assert few.value == many.value == 1.0
    assert few.low < 0.95 < many.low < 1.0


@pytest.mark.parametrize("bad", [[], [0.1], [0.1, float("nan")], [0.1, float("inf")], [[0.1, 0.2]]])
def test_scores_that_are_missing_or_not_finite_are_refused(bad):
    with pytest.raises(PlanIncompleteError):
        auc(np.array(bad), np.array([0.0, 1.0]))
    with pytest.raises(PlanIncompleteError):
        auc(np.array([0.0, 1.0]), np.array(bad))


def test_true_positives_are_counted_above_the_allowed_false_ones(rng):
    others = np.arange(200.0)
    assert tpr_at_fpr(np.array([198.5, 196.5, 5.0]), others) == pytest.approx(
        1 / 3
    )  # two false ones may pass
    assert tpr_at_fpr(np.array([49.0, 50.0]), np.arange(50.0)) == 0.5  # none may, and a tie is none
    assert tpr_at_fpr(np.array([0.0]), others, fpr=1.0) == 1.0
    big = rng.normal(0, 1, 20_000), rng.normal(2, 1, 20_000)
    assert tpr_at_fpr(big[1], big[0]) == pytest.approx(stats.norm.sf(stats.norm.isf(0.01) - 2), abs=0.02)


# --- one run ---


@pytest.mark.parametrize(("guesses", "cap"), [(200, 4.2), (1000, 5.8), (5000, 7.3)])
def test_the_one_run_bound_is_capped_by_its_guesses(guesses, cap):
    assert one_run_epsilon(canaries=guesses, guesses=guesses, right=guesses, delta=1e-5) == pytest.approx(
        cap, abs=0.1
    )


def test_the_one_run_bound_is_that_of_the_binomial_without_delta():
    low = one_run_epsilon(canaries=300, guesses=200, right=150, delta=0)
    assert stats.binom.sf(149, 200, 1 / (1 + np.exp(-low))) == pytest.approx(0.05, rel=1e-6)


def test_delta_makes_the_one_run_bound_smaller_and_chance_gives_none():
    bounds = [one_run_epsilon(canaries=1000, guesses=400, right=320, delta=d) for d in (0, 1e-5, 1e-3)]
    assert bounds[0] > bounds[1] > bounds[2] >= 0
    assert one_run_epsilon(canaries=1000, guesses=400, right=205, delta=1e-5) == 0
    assert one_run_epsilon(canaries=10, guesses=0, right=0, delta=0) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"right": 11}, {"guesses": 21}, {"right": -1}, {"delta": 1.0}, {"delta": -1e-9}, {"confidence": 1.0}],
)
def test_impossible_counts_are_refused(wrong):
    with pytest.raises(PlanIncompleteError):
        one_run_epsilon(**({"canaries": 20, "guesses": 10, "right": 10, "delta": 0.0} | wrong))


def test_the_one_run_bound_holds_under_randomised_response(rng):
    epsilon, above = 1.0, 0
    for _ in range(300):
        flips = rng.random(200) < 0.5
        kept = rng.random(200) < 1 / (1 + np.exp(-epsilon))
        told = np.where(kept, flips, ~flips)
        above += one_run_low(told + 1e-6 * rng.random(200), flips, delta=0.0) > epsilon
    assert above <= 35  # at most 5 % of 300 on average; a chance below one in a million


def test_the_one_run_bound_finds_a_mechanism_that_hides_nothing(rng):
    flips = rng.random(1000) < 0.5
    assert one_run_low(flips.astype(float), flips, delta=1e-5) > 4.5
    with pytest.raises(PlanIncompleteError):
        one_run_low(np.zeros(10), np.zeros(9, dtype=bool), delta=0.0)


# --- mu ---


@pytest.mark.parametrize("mu", [0.05, 0.4544, 0.866025, 2.0, 5.0])
def test_epsilon_of_mu_is_that_of_the_gaussian_mechanism(mu):
    closed = dp_accounting.get_epsilon_gaussian(1 / mu, 1e-5)
    assert mu_epsilon(mu, delta=1e-5) == pytest.approx(closed, rel=1e-6, abs=1e-9)


def test_epsilon_of_mu_grows_without_overflow():
    figures = [mu_epsilon(mu, delta=1e-5) for mu in (0, 1e-7, 0.1, 1, 10, 100, MU_MAX)]
    assert figures == sorted(figures)
    assert figures[:2] == [0, 0]
    assert figures[-1] == pytest.approx(MU_MAX**2 / 2, rel=0.01)


def test_the_lower_bound_of_mu_holds_as_often_as_it_says(rng):
    counts = np.r_[np.ones(200), np.zeros(200)]
    fits = [fit_mu(counts, 0.5 * counts + rng.normal(0, 2, 400)) for _ in range(2000)]
    assert np.mean([one.mu for one in fits]) == pytest.approx(0.25, abs=0.01)
    assert np.std([one.mu for one in fits]) == pytest.approx(np.mean([one.error for one in fits]), rel=0.1)
    assert 0.92 < np.mean([one.low(0.95) <= 0.25 for one in fits]) < 0.98


def test_without_noise_mu_is_its_largest_value():
    fit = fit_mu(np.array([1.0, 0, 1]), np.array([1.0, 0, 1]))
    assert fit.mu == fit.low(0.999999) == MU_MAX
    assert fit_mu(np.zeros(3), np.zeros(3)).mu == 0


@pytest.mark.parametrize("scale", [0.9, 0.97, 1.0, 1.03, 1.1])
def test_chances_of_noise_agree_with_scipy(rng, scale):
    samples = 3.0 * scale * rng.standard_normal(2000)
    square = float((samples**2).sum()) / 9
    two_sided = 2 * min(stats.chi2.sf(square, 2000), stats.chi2.cdf(square, 2000))
    assert variance_chance(samples, std=3.0) == pytest.approx(two_sided, rel=0.02)
    assert gaussian_chance(samples, std=3.0) == pytest.approx(
        stats.kstest(samples / 3, "norm").pvalue, rel=0.1, abs=1e-3
    )


def test_noise_of_another_shape_is_found_and_its_own_repetition_too(rng):
    noise = rng.standard_normal(10_000)
    assert gaussian_chance(rng.uniform(-np.sqrt(3), np.sqrt(3), 10_000), std=1) < 1e-12
    assert gaussian_chance(np.zeros(10_000), std=1) < 1e-12
    assert correlation_chance(noise, noise) < 1e-12
    assert correlation_chance(noise, np.zeros(10_000)) == 0
    assert correlation_chance(noise, rng.standard_normal(10_000)) > 1e-3


# --- draws ---


@pytest.mark.parametrize("q", [0.01, 0.2, 0.9])
def test_independent_draws_are_likely(rng, q):
    assert min(draw_chances(rng.random((300, 200)) < q, q=q).values()) > 1e-4
    assert min(draw_chances(np.ones((3, 4), dtype=bool), q=1.0).values()) == 1
    assert max(draw_chances(np.eye(4, dtype=bool), q=1.0).values()) == 0


def test_each_wrong_sampler_is_unlikely_in_its_own_figure(rng):
    steps, units, q = 300, 100, 0.2
    order = np.concatenate([rng.permutation(units) for _ in range(steps * 20 // units)]).reshape(steps, 20)
    shuffled = np.array([np.isin(np.arange(units), row) for row in order])
    fixed = np.array([np.isin(np.arange(units), rng.choice(units, 20, replace=False)) for _ in range(steps)])
    free = rng.random((steps, units)) < q
    assert draw_chances(shuffled, q=q)["shares"] < 1e-12
    assert draw_chances(shuffled, q=q)["repeats"] < 1e-12
    assert draw_chances(fixed, q=q)["sizes"] < 1e-12
    assert draw_chances(np.repeat(free[::2], 2, axis=0), q=q)["repeats"] < 1e-12
    assert draw_chances(rng.random((steps, units)) < 0.25, q=q)["rate"] < 1e-12


def test_what_shows_in_single_units_groups_and_runs_is_found(rng):
    steps, units, q = 300, 400, 0.2
    free = (rng.random((steps, units)) < q).astype(int)
    skipped, twice, again = free.copy(), free.copy(), free.copy()
    skipped[:, 0] = 0
    twice[7, np.flatnonzero(free[7])[0]] = 2
    again[150:] = again[:150]
    groups = np.repeat(np.arange(40), 10)
    capped = np.where(groups < 2, 0.1, q)
    assert draw_chances(skipped, q=q)["units"] < 1e-12
    assert draw_chances(twice, q=q)["once"] == 0
    assert draw_chances(again, q=q, run=150)["repeats"] < 1e-12
    assert draw_chances(free, q=capped, groups=groups)["strata"] < 1e-12
    right = rng.random((steps, units)) < capped
    assert min(draw_chances(right, q=capped, groups=groups, run=150).values()) > 1e-4
    whole, sure = np.where(groups < 2, right, 1), np.where(groups < 2, 0.1, 1.0)
    assert min(draw_chances(whole, q=sure, groups=groups).values()) > 1e-4
    whole[3, -1] = 0
    assert draw_chances(whole, q=sure, groups=groups)["rate"] == 0


def test_a_repeat_at_any_distance_and_a_grid_are_found(rng):
    noise = rng.standard_normal(60_000)
    assert repeat_chance(noise) > 1e-3
    assert repeat_chance(rng.standard_normal(9_000)) == repeat_chance(np.zeros(20_000)) == 1
    for sign in (1, -1):
        copied = noise.copy()
        copied[31_415:34_415] = sign * copied[:3_000]
        assert repeat_chance(copied) < 1e-12
    assert not is_coarse(noise, single=True)
    assert not is_coarse(noise.astype(np.float32)[:20_000])
    assert is_coarse(noise.astype(np.float32), single=True)
    assert is_coarse(noise.astype(np.float16)[:1_000])


# --- properties ---


def test_skill_is_one_for_certainty_and_none_for_the_average(rng):
    actual = rng.random(400)
    sure = skill(actual, actual, guess=0.5)
    assert (sure.value, sure.low, sure.high) == (1, 1, 1)
    assert skill(np.full(400, 0.5), actual, guess=0.5).value == 0
    assert skill(np.ones(4), np.ones(4), guess=1.0).value == 0  # nothing was to be found out


def test_a_ridge_regression_finds_what_is_there_and_nothing_else(rng):
    rows, values = rng.standard_normal((300, 50)), rng.random(300)
    rows[:, 7] += 10 * values
    found = ridge_predictions(rows[:200], values[:200], rows[200:])
    assert skill(found, values[200:], guess=float(values[:200].mean())).low > 0.4
    blind = ridge_predictions(np.delete(rows, 7, 1)[:200], values[:200], np.delete(rows, 7, 1)[200:])
    assert skill(blind, values[200:], guess=float(values[:200].mean())).value < 0.15


def test_a_property_report_reads_back_and_a_changed_one_is_refused(rng):
    figures = shown(skill(rng.random(9), rng.random(9), guess=0.5))
    report = PropertyReport(
        recipe="sha256:a", plan="sha256:b", about="mix", units=4, silos=5, steps=1, shadows=9,
        skills={"update": figures, "sum": {"value": "0.2", "low": "0.1", "high": "0.3"}}, seconds="1.5",
    )  # fmt: skip
    assert PropertyReport.load(report.document) == report
    assert report.skill_of(secure_aggregation=True) == 0.2
    for name, value in (("seconds", "1.50"), ("units", 0), ("units", "4"), ("skills", {}), ("more", 1)):
        with pytest.raises(PlanIncompleteError):
            PropertyReport.load(report.document | {name: value})
