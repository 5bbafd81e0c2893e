# SPDX-License-Identifier: Apache-2.0
"""What the sandbox's attacks are called, what their report says, and when a defence counts as held. Nothing is started."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sandbox import cli
from sandbox.attacks import lying_broker, playing
from sandbox.attacks.attack import Attack, control, defence, shown
from sandbox.attacks.ground import heard, short_recipe
from sandbox.attacks.hostile_node import overgrown
from sandbox.errors import CommandError, UsageError
from tests.secaggsim import terms_of_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
PAGE = (ROOT / "docs" / "how-to" / "try-attacks.md").read_text("utf-8")

TAKEN = control("the same without the lie is accepted", held=True, found="HTTP 200")
REFUSED = defence("the lie is refused", by="the broker", code="a.b", wanted=("a.b",), found="HTTP 403 a.b")
LET_IN = defence("the lie is refused", by="the broker", code="", wanted=("a.b",), found="")


def attack(*findings: Any) -> Attack:
    def act(_ground: Any) -> Iterator[Any]:
        for one in findings:
            if isinstance(one, Exception):
                raise one
            yield one

    return Attack(threat="T2", words="a lie", tried="lies", gain="much", left="a little", act=act)


@contextmanager
def nothing(_folder: Path, _progress: Any) -> Iterator[Any]:
    """A stage on which no federation is started."""
    yield None


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line without a federation; gives its exit code."""

    def run(*words: str, **attacks: Attack) -> int:
        if attacks:
            monkeypatch.setattr(playing, "ATTACKS", attacks)
        monkeypatch.setattr(playing, "standing", nothing)
        monkeypatch.setattr(sys, "argv", ["iriai-sandbox", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    return run


def test_a_defence_that_did_not_hold_is_exit_3_and_says_which(ended, tmp_path, capsys):
    words = ("attack", "run", "all", "--dir", str(tmp_path / "a"), "--json")
    assert ended(*words, good=attack(TAKEN, REFUSED), bad=attack(TAKEN, REFUSED, LET_IN)) == 3
    told = capsys.readouterr()
    found = json.loads(told.out)["data"]
    assert [(one["attack"], one["held"]) for one in found["attacks"]] == [("good", True), ("bad", False)]
    assert "FAILED  bad (T2): a lie" in told.err
    assert "the lie is refused: it was allowed" in told.err
    assert "1 of 2 defences held" in told.err


def test_a_defence_that_held_is_exit_0_and_says_what_refused(ended, tmp_path, capsys):
    assert ended("attack", "run", "good", "--dir", str(tmp_path / "a"), good=attack(TAKEN, REFUSED)) == 0
    told = capsys.readouterr().out
    assert "refused  a.b, by the broker" in told
    assert "left     a little" in told


@pytest.mark.parametrize(
    ("findings", "held"),
    [
        ((TAKEN, REFUSED), True),
        ((REFUSED,), False),  # perhaps everything is refused
        ((TAKEN,), False),  # nothing was refused
        ((TAKEN, LET_IN), False),
        ((control("it is accepted", held=False, found="HTTP 500"), REFUSED), False),
        ((), False),
    ],
)
def test_what_was_not_tried_shows_nothing(findings, held):
    assert shown(findings) is held


def test_an_attack_that_breaks_off_is_no_defence_that_held_and_the_next_one_runs(ended, tmp_path, capsys):
    broken = CommandError(need="a run", found="none", remedy="look")
    words = ("attack", "run", "all", "--dir", str(tmp_path / "a"), "--json")
    assert ended(*words, broken=attack(TAKEN, REFUSED, broken), good=attack(TAKEN, REFUSED)) == 3
    found = json.loads(capsys.readouterr().out)["data"]["attacks"]
    assert [one["held"] for one in found] == [False, True]
    assert found[0]["checks"][-1]["what"] == "the attack could be carried out"


def test_the_list_names_each_with_a_row_of_the_threat_model_and_the_page_has_them_all(ended, capsys):
    assert ended("attack", "list", "--json") == 0
    told = capsys.readouterr()
    listed = json.loads(told.out)["data"]["attacks"]
    assert list(listed) == list(playing.ATTACKS)
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([A-Z][0-9]+) \|", PAGE, re.MULTILINE))
    assert rows == {name: one["threat"] for name, one in listed.items()}
    for name, one in listed.items():
        assert re.search(rf"^\| {one['threat']} \|", MODEL, re.MULTILINE), name
        assert f"{name:<12} {one['threat']:<4} {one['words']}" in told.err


def test_an_attack_that_there_is_not_and_a_folder_in_use_are_told(ended, tmp_path, capsys):
    assert ended("attack", "run", "none", "--dir", str(tmp_path / "a"), "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["remedy"] == "iriai-sandbox attack list"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="empty folder"):
        playing.play("fork", tmp_path)


def test_the_liars_update_is_beyond_the_bound_and_fits_the_ring():
    terms = terms_of_size(4)
    update = overgrown(np.zeros(terms.dimension, np.float32), terms)
    assert (update.shape, update.dtype) == ((terms.dimension,), np.float32)
    assert np.linalg.norm(update) > float(terms.norm_max)
    assert np.abs(update).max() * terms.scale <= 2**terms.bits


def test_the_lying_broker_is_honest_until_it_is_told_to_lie(tmp_path):
    told = tmp_path / lying_broker.LIE
    assert not lying_broker._tells(told, lying_broker.BUDGET)
    told.write_text("")
    assert not lying_broker._tells(told, lying_broker.BUDGET)
    told.write_text(lying_broker.BUDGET)
    assert lying_broker._tells(told, lying_broker.BUDGET)
    assert not lying_broker._tells(told, lying_broker.COHORT)


def test_a_refusal_of_a_command_has_its_code():
    def refuse() -> None:
        raise CommandError(need="run", found="budget.exhausted: needs 8; found 9. wait", remedy="look")

    assert heard(refuse) == ("budget.exhausted", "budget.exhausted: needs 8; found 9. wait")
    assert heard(lambda: None) == ("", "")


def test_the_recipe_of_attacks_keeps_its_epsilon():
    from policies.recipe import load

    recipe = load(short_recipe())
    assert recipe.plan is not None
    assert (recipe.rounds, recipe.plan.steps) == (2, 4)
    assert recipe.plan.epsilon_rdp <= 8
