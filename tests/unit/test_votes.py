# SPDX-License-Identifier: Apache-2.0
"""Votes: the margin, the quorum by group, the choice of teams, and what rejections lead to."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.robustness.plan import votes_plan, votes_subject
from policies.robustness.votes import (
    Course,
    accepts,
    choose,
    judged_rounds,
    margin_nano,
    nano,
    tally,
    unions,
)

CLIP = "0.05"
GROUPS = {"hanbit": "hanbit", "iber": "iber", "kita": "kita", "kita-2": "kita", "nord": "nord"}


def test_the_margin_is_a_fifth_of_the_gain_clip() -> None:
    assert margin_nano(CLIP) == 10_000_000
    assert accepts(-10_000_000, CLIP)
    assert not accepts(-10_000_001, CLIP)


@pytest.mark.parametrize(("value", "whole"), [(0.5e-9, 0), (1.5e-9, 2), (-0.01, -10_000_000), (0.0, 0)])
def test_figures_are_rounded_to_billionths_half_to_even(value: float, whole: int) -> None:
    assert abs(nano(value) - whole) <= (0 if value in {0.0, -0.01} else 1)


def test_a_group_rejects_if_one_of_its_parties_does() -> None:
    votes = dict.fromkeys(GROUPS, True)
    assert tally(votes, groups=GROUPS, quorum="0.67", least=3).accepted
    found = tally(votes | {"kita-2": False}, groups=GROUPS, quorum="0.67", least=3)
    assert (found.accepting, found.voting) == (3, 4)
    assert found.accepted


def test_a_quorum_of_two_thirds_is_reached_exactly() -> None:
    votes = {"hanbit": True, "iber": True, "nord": False}
    third = str(Fraction(2, 3).limit_denominator(10**9))
    assert third == "2/3"
    assert tally(votes, groups=GROUPS, quorum="0.66", least=3).accepted
    assert not tally(votes, groups=GROUPS, quorum="0.67", least=3).accepted


def test_too_few_votes_are_no_consent() -> None:
    assert not tally(
        {"kita": True, "kita-2": True, "nord": True}, groups=GROUPS, quorum="0.1", least=3
    ).accepted
    assert not tally({}, groups=GROUPS, quorum="0.1", least=0 + 1).accepted


def test_unions_begin_with_everybody_and_end_with_nobody() -> None:
    found = unions(3)
    assert len(found) == 8
    assert found[0] == {0, 1, 2}
    assert found[-1] == frozenset()


def gains_of(
    good: set[int], teams: int, *, worth: int = 5_000_000, harm: int = -40_000_000
) -> dict[frozenset[int], int]:
    return {one: sum(worth if team in good else harm for team in one) for one in unions(teams)}


def test_everybody_stays_in_unless_another_union_is_better_by_more_than_the_margin() -> None:
    assert choose([gains_of({0, 1, 2}, 3)] * 5, teams=3, gain_clip=CLIP) == {0, 1, 2}
    slightly = gains_of({0, 1}, 3, harm=-10_000_000)
    assert choose([slightly] * 5, teams=3, gain_clip=CLIP) == {0, 1, 2}
    assert choose([gains_of({0, 1}, 3, harm=-10_000_001)] * 5, teams=3, gain_clip=CLIP) == {0, 1}


def test_nobody_is_a_choice_where_every_team_does_harm() -> None:
    assert choose([gains_of(set(), 3)] * 5, teams=3, gain_clip=CLIP) == frozenset()


def test_without_judges_everybody_stays_in() -> None:
    assert choose([], teams=2, gain_clip=CLIP) == {0, 1}


@given(st.lists(st.integers(-(10**9), 10**9), min_size=8, max_size=8))
def test_fewer_than_half_dishonest_judges_change_nothing_where_honest_ones_agree(lies: list[int]) -> None:
    liar = dict(zip(unions(3), lies, strict=True))
    honest = gains_of({0, 2}, 3)
    assert choose([honest] * 5 + [liar] * 4, teams=3, gain_clip=CLIP) == {0, 2}


def test_judged_rounds_are_as_many_as_were_paid_for_and_public() -> None:
    found = judged_rounds("run_a", 300, 24)
    assert len(found) == 24
    assert found <= set(range(1, 301))
    assert found == judged_rounds("run_a", 300, 24)
    assert found != judged_rounds("run_b", 300, 24)
    assert judged_rounds("run_a", 3, 24) == {1, 2, 3}
    assert judged_rounds("run_a", 3, 0) == frozenset()


def test_a_rejection_goes_back_to_the_last_accepted_model_and_counts() -> None:
    course = Course(accepted="start").after("a", accepted=True).after("b", accepted=False)
    assert (course.accepted, course.rejections, course.total) == ("a", 1, 1)
    course = course.after("c", accepted=False).after("d", accepted=False)
    assert course.paused(3)
    assert not course.paused(4)
    assert not course.resumed().paused(3)
    assert course.resumed().total == 3
    assert course.after("e", accepted=True).rejections == 0


class Clause:
    gain_clip, epsilon, judge_episodes, max_judgings = CLIP, "2.0", 200, 24


EVALUATION = {"unit": "episode", "adjacency": "zero-out", "delta": "0.00001"}


def test_the_plan_of_votes_costs_what_the_clause_says_and_no_more() -> None:
    from policies.privacy.plan import EvalPlan

    plan = EvalPlan.load(votes_plan(Clause, EVALUATION))  # type: ignore[arg-type]
    assert 1.99 < plan.epsilon_rdp <= 2.0
    assert plan.steps == 24
    assert plan.noise_std / 200 < 0.01  # about a third of the margin


@pytest.mark.parametrize("missing", ["gain_clip", "epsilon", "judge_episodes", "max_judgings"])
def test_a_clause_that_leaves_a_number_out_asks_for_no_votes(missing: str) -> None:
    part = type("Part", (Clause,), {missing: None})
    assert votes_plan(part, EVALUATION) is None  # type: ignore[arg-type]
    assert votes_plan(None, EVALUATION) is None


def test_each_question_has_a_name_of_its_own() -> None:
    asked = {"run": "run_a", "number": 3, "model": "m", "against": "a"}
    others = [
        asked | {"run": "run_b"},
        asked | {"number": 4},
        asked | {"model": "n"},
        asked | {"against": "b"},
    ]
    assert len({votes_subject(**one) for one in (asked, *others)}) == 5  # type: ignore[arg-type]
