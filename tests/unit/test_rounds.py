# SPDX-License-Identifier: Apache-2.0
import pytest

from policies.errors import InvariantError
from policies.limits import REFUSED_PATIENCE_S, REFUSED_WAIT_MAX_S, REFUSED_WAIT_S
from policies.rounds import Again, Attempt, Closed, Lost, doubtful, refused_for_good, too_few, wait_s

COHORT = {"kita": "kita", "nord": "nord", "iber": "iber", "hanbit": "hanbit"}


def attempt(number=1, steps_left=5, cohort=COHORT):
    return Attempt(number=number, cohort=cohort, groups_needed=3, steps_left=steps_left)


def test_a_round_closes_with_the_parties_that_were_accepted():
    one = attempt()
    for party in ("nord", "kita", "iber"):
        one.accept(party)
    assert one.settle() == Closed(("iber", "kita", "nord"))
    assert one.absent == ("hanbit",)


def test_too_few_groups_open_the_next_attempt_and_then_lose_the_round():
    first, second = attempt(), attempt(number=2)
    for one in (first, second):
        one.accept("kita")
        one.refuse("nord", "update.not-finite")
    assert first.settle() == Again(2, 1)
    assert second.settle() == Lost("too-few-groups", 1)
    assert second.refused == {"nord": "update.not-finite"}


def test_two_organisations_of_one_owner_count_once():
    one = attempt(cohort={"kita": "kita", "kita2": "kita", "nord": "nord"})
    for party in ("kita", "kita2", "nord"):
        one.accept(party)
    assert one.groups == 2
    assert one.settle() == Again(2, 2)


def test_no_attempt_is_opened_beyond_the_steps_of_the_plan():
    one = attempt(steps_left=0)
    assert one.settle() == Lost("no-steps-left", 0)


@pytest.mark.parametrize("again", ["accept", "refuse"])
def test_a_party_has_one_verdict_and_a_stranger_none(again):
    one = attempt()
    one.accept("kita")
    with pytest.raises(InvariantError):
        one.accept("kita") if again == "accept" else one.refuse("kita", "x.y")
    with pytest.raises(InvariantError):
        one.accept("stranger")


# --- refusals ---

FOUR = {"a": "a", "b": "b", "c": "c", "d": "d"}


def test_a_refusal_that_leaves_enough_groups_asks_for_no_pause():
    assert wait_s([{"a"}], FOUR, 3) == 0
    assert wait_s([], FOUR, 3) == 0
    assert wait_s([set()], {"a": "a"}, 3) == 0  # silence: nobody said no


def test_pauses_double_up_to_a_bound_and_silence_begins_anew():
    two = {"a", "b"}
    assert [wait_s([two] * n, FOUR, 3) for n in (1, 2, 3)] == [
        REFUSED_WAIT_S,
        2 * REFUSED_WAIT_S,
        4 * REFUSED_WAIT_S,
    ]
    assert wait_s([two] * 50, FOUR, 3) == REFUSED_WAIT_MAX_S
    assert wait_s([two, set(), two], FOUR, 3) == REFUSED_WAIT_S


def test_two_parties_of_one_group_count_once():
    assert too_few(FOUR | {"b": "a"}, {"c"}, 3)
    assert wait_s([{"d"}], FOUR | {"b": "a"}, 3) == REFUSED_WAIT_S


def said(*parties: str, code: str = "contract.refused") -> dict[str, str]:
    return dict.fromkeys(parties, code)


def test_only_the_same_refusal_in_a_row_is_for_good():
    assert refused_for_good([said(*"ab"), said(*"abc")], FOUR, 3)
    assert not refused_for_good([said(*"ab")], FOUR, 3)
    assert not refused_for_good([said(*"ab"), said(*"cd")], FOUR, 3)
    assert not refused_for_good([said(*"ab"), said(*"bc")], FOUR, 3)  # without b alone, enough are left
    assert not refused_for_good([said(*"ab"), {}], FOUR, 3)


def test_what_an_owner_can_mend_is_waited_for_and_not_for_ever():
    mendable = [said(*"ab", code="budget.unknown")] * 40
    assert not refused_for_good(mendable, FOUR, 3, waited_s=REFUSED_PATIENCE_S - 1)
    assert refused_for_good(mendable, FOUR, 3, waited_s=REFUSED_PATIENCE_S)
    assert not refused_for_good([said("a", code="budget.unknown")], FOUR, 3, waited_s=REFUSED_PATIENCE_S)
    one_of_each = [said("a") | said("b", code="local.refused")] * 2
    assert not refused_for_good(one_of_each, FOUR, 3)  # without a alone, enough are left


def test_whoever_said_no_is_asked_first_where_the_attempt_fails_without_them():
    assert doubtful([said(*"ab")], FOUR, 3) == {"a", "b"}
    assert doubtful([said("a")], FOUR, 3) == frozenset()
    assert doubtful([], FOUR, 3) == frozenset()
    assert doubtful([said(*"ab"), {}], FOUR, 3) == frozenset()
