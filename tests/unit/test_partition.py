# SPDX-License-Identifier: Apache-2.0
"""Teams from committed nonces: the same for everybody, chosen by nobody, every group in one of them."""

import hashlib
from collections import Counter
from fractions import Fraction

import pytest

from policies.contribution.partition import chain, draw, link_holds, partition_seed, teams_of

NINE = {f"p{number}": f"p{number}" for number in range(9)}

GOLDEN = (("p0", "p3", "p7"), ("p2", "p4", "p6"), ("p1", "p5", "p8"))


def seed_of(number: int) -> bytes:
    return partition_seed(
        contract="sha256:" + "0" * 64, run="run_x", number=number, nonces=[b"\1" * 32, None]
    )


def test_a_chain_is_revealed_backwards_and_each_link_fits_its_place_only() -> None:
    links = chain(b"\7" * 32, 32)
    end = hashlib.sha256(links[0]).digest()
    for position, link in enumerate(links):
        assert link_holds(link, end, position)
        assert not link_holds(link, end, position + 1)
    assert links[-1] == b"\7" * 32
    assert len(set(links)) == 32


@pytest.mark.parametrize("wrong", [b"", b"\0" * 31, b"\0" * 33, b"\0" * 32])
def test_a_link_of_another_chain_or_length_does_not_hold(wrong: bytes) -> None:
    links = chain(b"\7" * 32, 4)
    assert not link_holds(wrong, hashlib.sha256(links[0]).digest(), 0)


def test_every_part_of_the_seed_matters() -> None:
    nonces = [b"\1" * 32, None, b"\2" * 32]
    base = {"contract": "c", "run": "r", "number": 3, "nonces": nonces}
    changed = [
        base | {"contract": "d"},
        base | {"run": "s"},
        base | {"number": 4},
        base | {"nonces": [None, b"\1" * 32, b"\2" * 32]},
        base | {"nonces": [b"\1" * 32, b"\2" * 32]},
    ]
    seeds = {partition_seed(**one) for one in (base, *changed)}  # type: ignore[arg-type]
    assert len(seeds) == 6
    assert partition_seed(**base) == partition_seed(**base | {"nonces": [b"\1" * 32, bytes(32), b"\2" * 32]})  # type: ignore[arg-type]


def test_the_first_teams_of_nine_never_change() -> None:
    # remade by printing `teams_of(seed_of(1), groups=NINE, k_open=3)`
    assert teams_of(seed_of(1), groups=NINE, k_open=3) == GOLDEN


def test_parties_of_one_owner_are_never_in_two_teams() -> None:
    groups = {f"p{number}": f"g{number // 2}" for number in range(16)}
    for number in range(50):
        teams = teams_of(seed_of(number), groups=groups, k_open=3)
        assert len(teams) == 2
        where = {party: index for index, team in enumerate(teams) for party in team}
        assert set(where) == set(groups)
        assert all(where[f"p{2 * one}"] == where[f"p{2 * one + 1}"] for one in range(8))


@pytest.mark.parametrize(
    ("players", "k_open", "teams"), [(5, 3, 1), (6, 3, 2), (9, 3, 3), (11, 3, 3), (20, 3, 4)]
)
def test_there_are_as_many_teams_as_players_allow_and_at_most_four(
    players: int, k_open: int, teams: int
) -> None:
    groups = {f"p{number:02}": f"p{number:02}" for number in range(players)}
    found = teams_of(seed_of(1), groups=groups, k_open=k_open)
    assert len(found) == teams
    sizes = [len(team) for team in found]
    assert max(sizes) - min(sizes) <= 1
    assert teams == 1 or min(sizes) >= k_open


def test_a_plain_round_has_one_team_of_everybody() -> None:
    asked = {"groups": NINE, "k_open": 3, "share": Fraction(1), "judgings_left": 24}
    assert draw(seed_of(1), **asked).probe  # type: ignore[arg-type]
    for less in ({"share": Fraction(0)}, {"judgings_left": 0}, {"k_open": 5}):
        found = draw(seed_of(1), **asked | less)  # type: ignore[arg-type]
        assert not found.probe
        assert found.teams == (tuple(sorted(NINE)),)


def test_probes_are_drawn_at_the_share_of_the_contract() -> None:
    rounds = 4_000
    drawn = sum(
        draw(seed_of(n), groups=NINE, k_open=3, share=Fraction(1, 2), judgings_left=1).probe
        for n in range(rounds)
    )
    assert abs(drawn - rounds / 2) < 5.5 * (rounds / 4) ** 0.5  # seeds are fixed; 5.5 sigma


def test_everybody_is_with_everybody_equally_often() -> None:
    rounds = 6_000
    pairs: Counter[tuple[str, str]] = Counter()
    for number in range(rounds):
        for team in teams_of(seed_of(number), groups=NINE, k_open=3):
            pairs.update((a, b) for a in team for b in team if a < b)
    expected = rounds * 2 / 8  # two of the other eight
    assert len(pairs) == 36
    assert max(abs(count - expected) for count in pairs.values()) < 6 * (rounds * 0.25 * 0.75) ** 0.5
