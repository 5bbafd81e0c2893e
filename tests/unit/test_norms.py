# SPDX-License-Identifier: Apache-2.0
"""Norm tests on opened means: honest members always pass, whatever the weights; a multiple of C does not."""

import numpy as np
import pytest

from policies.robustness.norms import noise_room, norm_test, rounding_room, team_norm_test

D = 400


def unit_vectors(count: int, *, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, D))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 10, 100, 1000)])
def test_a_mean_of_clipped_updates_passes_under_any_weights(weights: tuple[int, ...]) -> None:
    updates = np.tile(unit_vectors(1), (4, 1)) * 2.0  # all point the same way: the longest mean there is
    mean = np.average(updates, axis=0, weights=weights)
    assert norm_test(mean, bound="2").passed
    assert not norm_test(mean * 1.001, bound="2").passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_mean_that_is_not_finite_or_overflows_never_passes(bad: float) -> None:
    mean = np.zeros(D)
    mean[7] = bad
    assert not norm_test(mean, bound="1e6", room=1.0).passed


def test_an_attacker_beyond_the_bound_fails_its_team_and_no_other() -> None:
    honest = unit_vectors(9)
    means = {}
    for number in range(3):
        team = tuple(f"p{one}" for one in range(3 * number, 3 * number + 3))
        updates = honest[3 * number : 3 * number + 3].copy()
        if number == 1:
            updates[0] *= -10
        means[team] = updates.mean(axis=0)
    assert team_norm_test(means, bound="1") == (("p0", "p1", "p2"), ("p6", "p7", "p8"))


def test_what_a_single_member_may_hide_in_a_passing_team_is_what_the_documentation_says() -> None:
    honest = unit_vectors(1)[0]
    team = 3
    most = 2 * team - 1  # the other two push the other way with all they may
    assert norm_test((most * honest - 2 * honest) / team, bound="1").passed
    assert not norm_test(((most + 0.01) * honest - 2 * honest) / team, bound="1").passed


def test_rounding_to_the_grid_stays_inside_its_room() -> None:
    members, step = 4, 1e-3
    updates = np.tile(unit_vectors(1), (members, 1))
    values = np.rint(updates / (step * members)) * step * members
    mean = values.mean(axis=0)
    assert norm_test(mean, bound="1", room=rounding_room(members=members, step=step, size=D)).passed


def test_honest_noise_stays_inside_its_room() -> None:
    draws = np.random.default_rng(3).standard_normal((20_000, D)) * 0.7
    assert np.linalg.norm(draws, axis=1).max() < noise_room(0.7, D)
    assert noise_room(0.0, D) == 0
