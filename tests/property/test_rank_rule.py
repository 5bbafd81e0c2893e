# SPDX-License-Identifier: Apache-2.0
"""The rank rule: every row of its table, and that a refusal names exactly who would stand in the open."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contribution.rank_rule import check

TEN = {str(number): f"g{number}" for number in range(10)}
Sum = set[str]


def sums(*texts: str) -> list[Sum]:
    return [set(text) for text in texts]


@pytest.mark.parametrize(
    ("opened", "candidate"),
    [
        ([], "012"),
        ([], "0123456789"),
        (["012", "345"], "6789"),  # disjoint teams
        (["0123456789"], "012"),  # everybody and its own teams
        (["0123456789", "012", "345"], "6789"),
        (["0123"], "2345"),  # four groups in the difference
        (["012"], "012"),  # the same again
    ],
)
def test_sums_that_give_nothing_smaller_away_are_allowed(opened: list[str], candidate: str) -> None:
    assert check(sums(*opened), set(candidate), groups=TEN, k=3).allowed


@pytest.mark.parametrize(
    ("opened", "candidate", "named"),
    [
        ([], "0", "0"),
        ([], "01", "01"),
        (["0123456789"], "123456789", "0"),  # everybody, and everybody but one
        (["0123456789"], "23456789", "01"),
        (["123"], "234", "14"),  # the difference is 1 and 4 alone
        (["0123", "2345"], "0145", None),  # allowed for two sums, not for three: twice 0 and 1
    ],
)
def test_a_refusal_names_the_groups_that_would_stand_in_the_open(
    opened: list[str], candidate: str, named: str | None
) -> None:
    found = check(sums(*opened), set(candidate), groups=TEN, k=3)
    assert not found.allowed
    if named is not None:
        assert found.groups == tuple(f"g{one}" for one in named)


def test_parties_of_one_owner_count_as_one_group() -> None:
    groups = {"a": "g1", "b": "g1", "c": "g2", "d": "g3"}
    assert check([], {"a", "b", "c"}, groups=groups, k=3).groups == ("g1", "g2")
    assert check([], {"a", "c", "d"}, groups=groups, k=3).allowed


SIX = {str(number): f"g{number}" for number in range(6)}
SUPPORTS = st.lists(st.sets(st.sampled_from(sorted(SIX)), min_size=1), min_size=1, max_size=4)


def exposed(rows: list[Sum], k: int) -> bool:
    """By brute force: whether small whole multiples of the rows give a sum over fewer than k groups."""
    for factors in product(range(-3, 4), repeat=len(rows)):
        total = {p: sum(f for f, row in zip(factors, rows, strict=True) if p in row) for p in SIX}
        hit = [party for party, value in total.items() if value]
        if 0 < len(hit) < k:
            return True
    return False


@given(SUPPORTS, st.integers(2, 4))
def test_what_a_combination_gives_away_is_never_allowed(rows: list[Sum], k: int) -> None:
    *opened, candidate = rows
    assert check(opened, candidate, groups=SIX, k=k).allowed == (not exposed(rows, k))


@given(SUPPORTS, st.integers(2, 4), st.randoms(use_true_random=False))
def test_the_order_of_sums_does_not_matter(rows: list[Sum], k: int, order: object) -> None:
    *opened, candidate = rows
    before = check(opened, candidate, groups=SIX, k=k)
    shuffled = list(rows)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert check(shuffled[:-1], shuffled[-1], groups=SIX, k=k) == before


def test_elimination_is_exact_where_floating_point_is_not() -> None:
    rows = [set("01"), set("12"), set("23"), set("34"), set("45"), set("50")]  # a cycle of even length
    assert check(rows[:-1], rows[-1], groups=SIX, k=2).allowed  # rank 5: no party alone
    assert not check([*rows[:-1], set("02")], rows[-1], groups=SIX, k=2).allowed  # an odd cycle: rank 6
