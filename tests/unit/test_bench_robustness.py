# SPDX-License-Identifier: Apache-2.0
"""The table of attacks and defences: what it promises, on fixed seeds."""

import functools
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.bench_robustness import ATTACKS, DEFENCES, Attack, lines, run
from sandbox.cli import app

SEEDS = (1, 2, 3)


@functools.cache
def table() -> dict[str, Any]:
    return run(seeds=SEEDS, defences=("nothing", "both"))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.name)
def test_both_defences_together_stay_within_5_percent_of_no_attack(attack: Attack) -> None:
    rows = {row["attack"]: row for row in table()["rows"]}
    assert rows[attack.name]["both"]["error"] <= 1.05 * rows["none"]["nothing"]["error"]


def test_without_defence_the_strong_attacks_ruin_the_model() -> None:
    last = table()["rows"][-1]
    assert last["nothing"]["error"] > 50 * table()["untrained"]


@pytest.mark.parametrize("noised", [True, False])
def test_a_clean_run_refuses_nothing(*, noised: bool) -> None:
    found = run(seeds=SEEDS, attacks=ATTACKS[:1], defences=("veto", "norm", "vote", "both"), noised=noised)
    assert {found["rows"][0][one]["refused"] for one in ("veto", "norm", "vote", "both")} == {0.0}


def test_team_median_and_a_veto_alone_are_no_defence() -> None:
    found = run(seeds=SEEDS[:1], attacks=ATTACKS[5:6], defences=("team-median", "veto", "both"))
    row = found["rows"][0]
    assert row["team-median"]["error"] > found["untrained"]
    assert row["veto"]["refused"] == found["rounds"]  # a stall: nothing is learned
    assert row["both"]["error"] < 0.5 * row["veto"]["error"]


def test_the_same_seeds_give_the_same_table() -> None:
    asked = {"seeds": (1,), "attacks": ATTACKS[3:4], "defences": ("both",)}
    assert run(**asked) == run(**asked)  # type: ignore[arg-type]


def test_the_command_prints_one_document_for_programs_and_its_rows_make_a_table() -> None:
    document = CliRunner().invoke(app, ["bench", "robustness", "--seeds", "1", "--json"])
    assert document.exit_code == 0, document.output
    found = json.loads(document.stdout)["data"]
    assert [row["attack"] for row in found["rows"]] == [one.name for one in ATTACKS]
    told = list(lines(found))
    assert told[0].startswith("9 silos, 12 rounds, 1 seed;")
    assert told[2 : 2 + len(ATTACKS)] == [
        line for line in told if line.startswith(("none", "1 silo,", "2 silos,", "3 silos,"))
    ]
    words = "\n".join(told[2 + len(ATTACKS) :])
    for explained in ("in brackets", "a: each attacker", *(f"{name}:" for name in DEFENCES)):
        assert explained in words
    assert "the team median was worse than no defence in " in told[-1]
