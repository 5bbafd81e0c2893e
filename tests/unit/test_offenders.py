# SPDX-License-Identifier: Apache-2.0
"""The search for who spoils teams: named after enough probes, never earlier, and nobody honest in between."""

from fractions import Fraction

from policies.contribution.partition import partition_seed, teams_of
from policies.robustness.offenders import Search, probes_needed

NINE = {f"p{number}": f"p{number}" for number in range(9)}


def searched(bad: set[str], probes: int, *, seed: int = 0) -> Search:
    search = Search(members=9)
    for number in range(probes):
        nonces = [bytes([seed, one]) * 16 for one in range(9)]
        teams = teams_of(
            partition_seed(contract="c", run="r", number=number, nonces=nonces), groups=NINE, k_open=3
        )
        failed = [team for team in teams if bad & set(team)]
        search = search.after(failed=failed, passed=[team for team in teams if team not in failed])
    return search


def test_a_member_that_spoils_every_team_is_named_after_log2_n_plus_2_probes() -> None:
    assert probes_needed(9) == 6
    assert searched({"p4"}, 5).named() == ()
    found = [searched({"p4"}, 6, seed=seed).named() for seed in range(40)]
    assert all("p4" in one for one in found)
    alone = sum(one == ("p4",) for one in found)
    assert Fraction(alone, 40) >= Fraction(9, 10)  # the rest names an honest one beside it: a person decides


def test_probes_in_which_all_teams_pass_say_nothing() -> None:
    search = searched(set(), 50)
    assert (search.probes, search.named()) == (0, ())


def test_who_stood_in_a_team_that_passed_is_no_suspect_any_more() -> None:
    search = Search(members=4)
    for _ in range(10):
        search = search.after(failed=[("a", "b")], passed=[("c", "d")])
    assert search.named() == ("a", "b")
    assert search.after(failed=[("a", "c")], passed=[("b", "d")]).named() == ("a",)


def test_two_who_spoil_teams_apart_clear_each_other_and_nobody_is_named() -> None:
    search = Search(members=4)
    for _ in range(10):
        search = search.after(failed=[("a", "x")], passed=[("b", "y")])
        search = search.after(failed=[("b", "x")], passed=[("a", "y")])
    assert search.named() == ("x",)
