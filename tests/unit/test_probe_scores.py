# SPDX-License-Identifier: Apache-2.0
"""Which rounds are probes, which sums may be open together, and what judges' gains of teams come to."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from policies.robustness.scores import candidates, choice, gains_of, probe_subject
from policies.secagg.contexts import NO_NONCE
from policies.secagg.errors import CohortTooSmallError
from policies.secagg.opening import OpenedSum
from policies.secagg.probes import Probes, release_guard
from tests.secaggsim import terms_of_size

PLAN: dict[str, Any] = {"noise_multiplier": "1", "loss_bound": "0.05", "normalizer": "1000"}
MILLION = 1_000_000


def reveals(n: int = 9, *, owed: int = 0, seed: int = 1) -> dict[str, bytes]:
    names = terms_of_size(n).parties
    return {name: NO_NONCE if at < owed else bytes([seed, at + 1]) * 16 for at, name in enumerate(names)}


def probes(n: int = 9, share: Fraction = Fraction(1), **terms: Any) -> Probes:
    return Probes(terms=terms_of_size(n, **terms), rounds=frozenset({1, 2}), share=share)


def test_a_round_that_is_not_judged_is_no_probe_whatever_the_nonces() -> None:
    assert probes().teams(3, reveals()) is None


def test_teams_follow_from_nonces_and_have_enough_groups_each() -> None:
    found = probes().teams(1, reveals())
    assert found is not None
    assert sorted(name for team in found for name in team) == list(terms_of_size(9).parties)
    assert [len(team) for team in found] == [3, 3, 3]
    assert found == probes().teams(1, reveals())
    assert found not in {probes().teams(2, reveals()), probes().teams(1, reveals(seed=2))}


@pytest.mark.parametrize(("owed", "teams"), [(0, 3), (2, 3), (3, 1), (9, 1)])
def test_without_the_nonces_of_t_members_there_is_one_team(owed: int, teams: int) -> None:
    found = probes().teams(1, reveals(owed=owed))
    assert found is not None
    assert len(found) == teams


def test_a_share_of_none_and_too_few_groups_give_one_team() -> None:
    assert probes(share=Fraction(0)).teams(1, reveals()) == (terms_of_size(9).parties,)
    few = [f"group {at % 5}" for at in range(9)]
    assert probes(groups=few).teams(1, reveals()) == (terms_of_size(9).parties,)


def opened(*supports: tuple[str, ...], attempt: int = 1, at: int = 1) -> OpenedSum:
    return OpenedSum(round=at, attempt=attempt, supports=supports)


def test_the_guard_lets_disjoint_teams_pass_and_refuses_everybody_beside_everybody_but_one() -> None:
    terms = terms_of_size(6)
    names, guard = terms.parties, release_guard(terms_of_size(6))
    guard((), opened(names[:3], names[3:]))
    guard([opened(names, at=1)], opened(names[:5], at=2))  # another round: other updates
    with pytest.raises(CohortTooSmallError, match=terms.member(names[5]).group):
        guard([opened(names)], opened(names[:5], attempt=2))
    with pytest.raises(CohortTooSmallError):
        guard((), opened(names[:3], names[1:4]))
    with pytest.raises(CohortTooSmallError):
        guard((), opened(names[:2]))


# --- figures ---


def said(*figures: int) -> list[int]:
    return list(figures)


@pytest.mark.parametrize(
    "value", [None, [1, 2], [1, 2, "3"], [1, 2, True], [1, 2, 3.0], {"0": 1}, [1, 2, 3, 4]]
)
def test_figures_of_another_form_are_no_answer(value: object) -> None:
    assert gains_of(value, 2) is None


def test_figures_come_in_the_order_of_unions_the_whole_first() -> None:
    found = gains_of(said(3, 2, 1), 2)
    assert found == dict(zip(candidates(2), (3, 2, 1), strict=True))
    assert candidates(2) == (frozenset({0, 1}), frozenset({0}), frozenset({1}))
    assert [len(candidates(teams)) for teams in (1, 2, 3, 4)] == [1, 3, 7, 15]


def chosen(rows: dict[str, list[int]], groups: dict[str, str] | None = None, least: int = 3) -> set[int]:
    gains = {party: found for party, row in rows.items() if (found := gains_of(row, 2)) is not None}
    owners = groups or {party: party for party in rows}
    return set(choice(gains, teams=2, groups=owners, plan=PLAN, least=least))


def test_the_teams_that_most_judges_gain_by_make_the_model() -> None:
    better = said(-20 * MILLION, 30 * MILLION, -40 * MILLION)
    lie = said(50 * MILLION, -50 * MILLION, 50 * MILLION)
    assert chosen({"a": better, "b": better, "c": better, "d": lie}) == {0}
    assert chosen(dict.fromkeys("abc", said(MILLION, MILLION, MILLION))) == {0, 1}
    assert chosen(dict.fromkeys("abc", said(*[-40 * MILLION] * 3))) == set()


def test_too_few_groups_choose_nothing_and_a_group_is_one_judge() -> None:
    fine = said(MILLION, 0, 0)
    assert chosen({"a": fine, "b": fine}) == set()
    assert chosen({"a": fine, "b": fine, "c": fine}, {"a": "x", "b": "x", "c": "y"}) == set()
    lie = said(-50 * MILLION, 50 * MILLION, -50 * MILLION)
    rows = {"a": fine, "b": fine, "c": lie, "d": lie, "e": lie}
    assert chosen(rows) == {0}
    assert chosen(rows, {"a": "a", "b": "b", "c": "x", "d": "x", "e": "x"}) == {0, 1}


@pytest.mark.parametrize(("teams", "left_out"), [(2, True), (4, False)])
def test_more_teams_make_more_noise_so_that_more_of_a_lead_is_asked_for(teams: int, left_out: bool) -> None:
    row = dict.fromkeys(candidates(teams), 0) | {frozenset({0}): 15 * MILLION}
    plan = PLAN | {"noise_multiplier": "40"}  # 2 million on one figure, 3.5 on each of 3, 7.7 on each of 15
    groups = dict(zip("abcd", "abcd", strict=True))
    found = choice(dict.fromkeys("abcd", row), teams=teams, groups=groups, plan=plan, least=3)
    assert found == (frozenset({0}) if left_out else frozenset(range(teams)))


def test_each_question_has_a_name_of_its_own() -> None:
    asked = {"run": "run_1", "number": 1, "base": "a", "against": "b", "sums": ["c", "d"]}
    others = [{"run": "run_2"}, {"number": 2}, {"base": "x"}, {"against": "x"}, {"sums": ["d", "c"]}]
    names = {probe_subject(**asked | one) for one in ({}, *others)}
    assert len(names) == 6
