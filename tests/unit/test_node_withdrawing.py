# SPDX-License-Identifier: Apache-2.0
"""Ending taking part, and what this node can show of itself: numbers first, nothing without a word, nothing lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from client import chains, model_gains, transmissions, withdrawing
from client.answers import Answer
from client.cli.options import Word, _WouldAskError, ask
from client.contract import stopping
from client.errors import FileTakenError, NoSuchThingError, NotConfirmedError
from client.own_keys import key_show
from client.statements.listing import statement_list
from client.stopping_runs import StoppedRuns
from policies.contract.lifecycle import ACTIVE
from policies.exchange import ExchangeType
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, World, ready_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def stop_run(world: World, *, say: bool) -> tuple[Answer, list[str]]:
    told: list[str] = []
    done = withdrawing.from_run(
        world.home,
        world.worker.shelf,
        world.worker.outbox,
        RUN,
        confirm=lambda _name: say,
        tell=told.extend,
    )
    return done, told


def test_a_run_is_ended_with_its_numbers_shown_first(world: World):
    for number in (1, 2):
        world.ask(round=number)
    effect = withdrawing.run_effect(world.home, world.worker.shelf, world.worker.outbox, RUN)
    assert (effect.rounds_given, effect.last_round, effect.over, effect.stopped) == (2, 2, False, False)
    assert effect.bytes_sent == world.worker.outbox.left.sent_bytes(RUN) > 0
    assert effect.groups_left == len(world.peers)
    done, told = stop_run(world, say=True)
    assert "2 rounds" in told[1]
    assert StoppedRuns(world.home).is_stopped(RUN)
    assert done.data["effect"]["rounds_given"] == 2


def test_without_a_word_nothing_is_ended(world: World):
    world.ask()
    with pytest.raises(NotConfirmedError):
        stop_run(world, say=False)
    assert not StoppedRuns(world.home).is_stopped(RUN)
    with pytest.raises(NoSuchThingError):
        withdrawing.run_effect(world.home, world.worker.shelf, world.worker.outbox, "run_cccccccccccccccc")


def test_a_dry_run_ends_at_the_question(world: World):
    world.ask()
    with pytest.raises(_WouldAskError) as would:
        withdrawing.from_run(
            world.home,
            world.worker.shelf,
            world.worker.outbox,
            RUN,
            confirm=ask("Stop?", yes=Word.DRY),
            tell=lambda _lines: None,
        )
    assert (would.value.shown, StoppedRuns(world.home).is_stopped(RUN)) == (RUN, False)


def test_what_there_is_to_end_is_listed_with_its_command(world: World):
    world.ask()
    shown = withdrawing.overview(world.home, world.worker.shelf, world.worker.outbox)
    assert [one["run"] for one in shown.data["runs"]] == [RUN]
    assert [one["standing"] for one in shown.data["contracts"]] == [ACTIVE]
    assert any(f"iriai-node withdraw {RUN}" in line for line in shown.text)
    world.ask(ExchangeType.JUDGE, round=2)  # now it is over
    assert withdrawing.overview(world.home, world.worker.shelf, world.worker.outbox).data["runs"] == []


def test_dry_runs_of_runs_stop_and_contract_halt_give_the_numbers_and_say_nothing(world: World):
    world.ask()
    shelf, outbox = world.worker.shelf, world.worker.outbox
    before = outbox.left.sent_count()
    stops = withdrawing.preview_run(world.home, shelf, outbox, RUN)
    halts = withdrawing.preview_contract(world.member, shelf, outbox, world.contract.digest)
    assert (stops.data["dry_run"], stops.data["effect"]["rounds_given"]) == (True, 1)
    assert halts.data["effect"]["runs"] == (RUN,)
    assert not StoppedRuns(world.home).is_stopped(RUN)
    assert outbox.left.sent_count() == before


def test_a_contract_is_left_by_the_same_act_as_ever(world: World, monkeypatch: pytest.MonkeyPatch):
    world.ask()
    asked: list[str] = []

    def leave(_member, _shelf, _outbox, digest, **options):
        asked.append(digest)
        options["tell"](["[exit-1] consequences"])
        return Answer(data={"contract": digest}, text=("left",))

    monkeypatch.setattr(stopping, "leave", leave)
    told: list[str] = []
    done = withdrawing.from_contract(
        world.member,
        world.worker.shelf,
        world.worker.outbox,
        world.contract.digest.removeprefix("sha256:")[:12],
        choice="retrain",
        code="party.leaves",
        confirm=lambda _digest: True,
        tell=told.extend,
    )
    assert asked == [world.contract.digest]
    assert done.data["effect"]["runs"] == (RUN,)
    assert told[-1] == "[exit-1] consequences"
    assert "1 rounds" in told[2]


def test_one_transmission_is_shown_with_what_was_signed_in_it(world: World):
    world.ask()
    outbox = world.worker.outbox
    sent = next(one for one in outbox.left.sent(None) if one.first is not None and one.run == RUN)
    shown = transmissions.show(outbox, sent.digest[7:19])
    assert shown.data["digest"] == sent.digest
    assert len(shown.data["envelopes"]) == sent.last - sent.first + 1
    assert {one["grade"] for one in shown.data["envelopes"]} == {"waiting"}
    signed = next(one for one in outbox.envelopes() if one.log_index is not None)
    assert transmissions.show(outbox, str(signed.log_index)).data["envelopes"][0]["entry"] == signed.log_index
    for name in ("", "sha256:", "0" * 12, "999999", sent.digest[7:12]):
        with pytest.raises(NoSuchThingError):
            transmissions.show(outbox, name)


def test_everything_that_left_is_exported_once_and_runs_in_no_spreadsheet(world: World, tmp_path: Path):
    outbox = world.worker.outbox
    with outbox.writing() as letters:
        letters.note(kind="=cmd()", size_bytes=7, digest="sha256:" + "a" * 64)
    done = transmissions.export(outbox, tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    assert len(rows) == done.data["rows"] == outbox.left.sent_count()
    assert sum(int(one["size_bytes"]) for one in rows) == outbox.left.sent_bytes()
    assert rows[-1]["kind"] == "'=cmd()"
    transmissions.export(outbox, tmp_path / "out.json")
    assert len(json.loads((tmp_path / "out.json").read_text())) == len(rows)
    for path, wrong in ((tmp_path / "out.csv", FileTakenError), (tmp_path / "out.txt", NoSuchThingError)):
        with pytest.raises(wrong):
            transmissions.export(outbox, path)


def test_the_chain_and_the_keys_are_shown_without_a_secret(world: World):
    shown = chains.chain_show(world.worker.outbox).data
    assert shown["chain"] == world.worker.outbox.chain
    assert shown["envelopes"] == len(world.worker.outbox.envelopes())
    told = key_show(world.home, entropy=SeedEntropy(b"keys"))
    seed = (world.home.keys / "node.key").read_text().splitlines()[1]
    assert seed not in json.dumps(told.data) + " ".join(told.text)
    assert told.data["former"] == []


def test_statements_that_are_here_are_listed_with_their_verdict(world: World):
    assert statement_list(world.home).data == {"statements": []}
    for name, text in (("a", '{"verdict": "NOT PRIVATE", "tier": "members", "pulled_ms": 5}'), ("c", "[")):
        folder = world.home.models / (name * 64)
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(text)
    first, second = statement_list(world.home).data["statements"]
    assert (first["verdict"], first["readable"], second["readable"]) == ("NOT PRIVATE", True, False)


def test_gains_are_those_that_were_kept_and_a_damaged_file_says_so(world: World):
    assert model_gains.gains(world.home) == ()
    kept = {
        "model": "sha256:" + "a" * 64,
        "recipe": "sha256:" + "b" * 64,
        "mode": "head",
        "kept": "individual",
        "selection_units": 3,
        "report_units": 2,
        "held_out_loss_common": "0.500000",
        "held_out_loss": "0.400000",
        "gain": "0.200000",
        "warnings": ["the gain is measured on 2 held-out units"],
        "secret": "stays",
    }
    for name, data in (("a", json.dumps(kept)), ("c", "{")):
        folder = world.home.models / f"individual-{name * 64}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(data)
    report = model_gains.models_report(world.home)
    rows = {one["model"]: one for one in report.data["models"]}
    assert rows["sha256:" + "a" * 64]["gain"] == "0.200000"
    assert "secret" not in rows["sha256:" + "a" * 64]
    assert rows["sha256:" + "c" * 64]["readable"] is False
    assert any("+20.0 %" in line for line in report.text)
    assert any("UNREADABLE" in line for line in report.text)
    assert any(line.startswith("WARNING") for line in report.text)
