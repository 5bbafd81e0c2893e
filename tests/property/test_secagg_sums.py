# SPDX-License-Identifier: Apache-2.0
"""Whoever drops out, and when: the opened sum is the plain ring sum of who is in it, bit by bit, counts and tags included."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.encoding import digest as digest_of
from policies.secagg import transcript
from policies.secagg.record import Record
from tests.secaggsim import Fleet, Outcome, terms_of_size

STEPS = ("contribute", "confirm", "unmask")
EVERY = {3: range(1), 4: range(2), 10: range(4), 30: (0, 1, 9)}


def check(fleet: Fleet, outcome: Outcome, at: int) -> None:
    """Sum, counts, and what an auditor redoes; the tag is checked by each node before the next round."""
    assert np.array_equal(outcome.z, fleet.plain_sum(outcome.opened.parties, at))
    found = transcript.check(Record.from_bytes(outcome.opened.transcript), fleet.terms)
    vectors = {one: outcome.vectors[one].tobytes() for one in outcome.opened.online}
    assert transcript.recompute(found, vectors) == outcome.opened.sums[0]
    assert not fleet.refused


@pytest.mark.parametrize("n", [3, 4, 10, 30])
def test_any_number_of_drop_outs_at_any_step_leaves_the_sum_exact(n: int) -> None:
    fleet = Fleet(terms_of_size(n, dimension=3))
    names = fleet.terms.parties
    assert max(EVERY[n]) == n - fleet.terms.t
    cases = list(product(STEPS, EVERY[n]))
    setup = fleet.setup(rounds=len(cases))
    for at, (step, gone) in enumerate(cases, start=1):
        away = names[at % n :] + names[: at % n]
        outcome = fleet.round(setup, at, away={step: away[:gone]})
        assert len(outcome.opened.online) == (n - gone if step == "contribute" else n)
        check(fleet, outcome, at)


@st.composite
def _fleets(draw: st.DrawFn) -> tuple[int, dict[str, list[str]], tuple[int, ...], int]:
    n = draw(st.integers(3, 8))
    terms = terms_of_size(n)
    leaving = draw(st.lists(st.sampled_from(terms.parties), unique=True, max_size=n - terms.t))
    away: dict[str, list[str]] = {}
    for one in leaving:
        away.setdefault(draw(st.sampled_from(("advertise", "share", "open", *STEPS))), []).append(one)
    weights = tuple(draw(st.integers(1, 1_000_000)) for _ in range(n - 1))
    return n, away, (1_000_000, *weights), draw(st.integers(1, 6))


@given(_fleets())
@settings(max_examples=30, deadline=None)
def test_drop_outs_at_several_steps_and_unequal_weights_leave_the_sum_exact(
    case: tuple[int, dict[str, list[str]], tuple[int, ...], int],
) -> None:
    n, away, weights, dimension = case
    fleet = Fleet(terms_of_size(n, dimension=dimension, weights=weights))
    setup = fleet.setup(rounds=1, away=away)
    outcome = fleet.round(setup, 1, away=away)
    gone = {one for step in ("advertise", "share", "open", "contribute") for one in away.get(step, ())}
    assert set(outcome.opened.online) == set(fleet.terms.parties) - gone
    check(fleet, outcome, 1)


@given(st.sets(st.integers(0, 7), max_size=2), st.sampled_from(STEPS))
@settings(max_examples=15, deadline=None)
def test_teams_are_opened_one_by_one_and_one_that_is_too_small_stays_closed(
    gone: set[int], step: str
) -> None:
    terms = terms_of_size(8, dimension=4)
    names = terms.parties
    teams = (names[0::2], names[1::2])
    fleet = Fleet(terms)
    for one in names:
        fleet.machines[one] = fleet.begin(one, expected_teams=lambda _round, _nonces: teams)
    setup = fleet.setup(rounds=1)
    away = [names[at] for at in gone]
    outcome = fleet.round(setup, 1, away={step: away}, teams=teams)
    left = [set(team) - (set(away) if step == "contribute" else set()) for team in teams]
    assert [set(team) for team in outcome.opened.teams] == [
        team for team in left if len(team) >= terms.k_open
    ]
    for team, digest in zip(outcome.opened.teams, outcome.opened.sums, strict=True):
        plain = fleet.plain_sum(team, 1)
        assert digest == digest_of(plain.tobytes())
