# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from client.cli import app
from client.data.errors import DatasetInUseError
from client.datasets.removing import _open_runs, data_remove
from client.errors import LocalRefusedError, NoSuchThingError, StoppedFileError
from client.learner import HomeLearner
from client.learning.errors import TrainingStoppedError
from client.membership import worker_of
from client.owner_runs import listed, resume, resume_all_damaged, stop
from client.progress import Progress, said, words_of
from client.settings import Home, LocalRules, locked
from client.stopping_runs import StoppedRuns
from policies.exchange import ExchangeType
from policies.ports import to_ms
from tests.learnsim import StillClock, small_plain
from tests.nodesim import HandClock, SeedEntropy
from tests.nodeworld import RUN, ready_world

OTHER = "run_bbbbbbbbbbbbbbbb"


def test_a_stopped_run_is_stopped_for_every_process_at_once(tmp_path):
    home = Home(tmp_path)
    mine, theirs = StoppedRuns(home), StoppedRuns(home)
    assert not theirs.is_stopped(RUN)
    mine.stop(RUN)
    assert (theirs.is_stopped(RUN), theirs.is_stopped(OTHER)) == (True, False)
    mine.stop(OTHER)
    theirs.resume(RUN)
    assert mine.all() == {OTHER}
    with pytest.raises(NoSuchThingError):
        mine.resume(RUN)


@pytest.mark.parametrize("name", ["", "run_", "run_A", "../x", "run_" + "a" * 99, "ctr_aaaaaaaaaaaaaaaa"])
def test_what_has_no_name_of_a_run_is_not_stopped(tmp_path, name):
    with pytest.raises(NoSuchThingError):
        StoppedRuns(Home(tmp_path)).stop(name)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": "iriai-stopped-runs/2", "runs": []}',
        b'{"schema": "iriai-stopped-runs/1", "runs": [3]}',
        b'{"schema": "iriai-stopped-runs/1", "runs": "run_a"}',
        b'{"schema": "iriai-stopped-runs/1", "runs": [], "more": 1}',
        b'{"schema": "iriai-stopped-runs/1", "runs": ["run_a"], "runs": []}',
        b"[" * 100_000,
        b" " * 2_000_000,
    ],
)
def test_a_file_that_cannot_be_read_stops_every_run_until_the_owner_says_so_of_all(tmp_path, data):
    home = Home(tmp_path)
    home.stopped.write_bytes(data)
    runs = StoppedRuns(home)
    assert runs.all() is None
    assert runs.is_stopped(OTHER)
    for word in (runs.stop, runs.resume):
        with pytest.raises(StoppedFileError):
            word(RUN)
    assert home.stopped.read_bytes() == data
    aside = resume_all_damaged(home).data["put_aside"]
    assert runs.all() == frozenset()
    assert (tmp_path / "stopped.json.damaged-1").read_bytes() == data
    assert str(tmp_path / "stopped.json.damaged-1") == aside


def _folder(path):
    path.mkdir()


def _link_to_nothing(path):
    path.symlink_to(path.with_name("nothing"))


def _link_to_itself(path):
    path.symlink_to(path)


def _link_to_a_list_of_none(path):
    other = path.with_name("other.json")
    other.write_text('{"schema": "iriai-stopped-runs/1", "runs": []}')
    path.symlink_to(other)


def _pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_folder, _link_to_nothing, _link_to_itself, _link_to_a_list_of_none, _pipe])
def test_what_is_no_plain_file_stops_every_run_and_is_put_aside_as_it_is(tmp_path, make):
    home = Home(tmp_path)
    make(home.stopped)
    runs = StoppedRuns(home)
    assert runs.is_stopped(RUN)
    with pytest.raises(StoppedFileError):
        runs.stop(RUN)
    with pytest.raises(StoppedFileError):
        runs.resume(RUN)
    runs.resume_all()
    assert not runs.is_stopped(RUN)
    assert os.path.lexists(tmp_path / "stopped.json.damaged-1")
    runs.stop(RUN)
    home.stopped.write_bytes(b"")
    assert runs.resume_all().name == "stopped.json.damaged-2"


def test_a_file_that_can_be_read_is_not_let_go_as_a_damaged_one(tmp_path):
    runs = StoppedRuns(Home(tmp_path))
    runs.stop(RUN)
    with pytest.raises(NoSuchThingError):
        runs.resume_all()
    assert runs.all() == {RUN}


def test_words_that_are_said_at_once_lose_none(tmp_path):
    home = Home(tmp_path)
    names = [f"run_{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: StoppedRuns(home).stop(name), names))
        assert StoppedRuns(home).all() == set(names)
        list(pool.map(lambda name: StoppedRuns(home).resume(name), names[:8]))
    assert StoppedRuns(home).all() == set(names[8:])


def test_a_run_that_never_asked_is_not_stopped_and_those_that_did_are_named(tmp_path):
    world = ready_world(tmp_path)
    world.ask()
    with pytest.raises(NoSuchThingError, match=RUN) as raised:
        stop(world.home, "run_nonexistent")
    assert raised.value.code == "node.not-found"
    assert StoppedRuns(world.home).all() == frozenset()
    world.home.state.write_text(json.dumps({"progress": {"run": OTHER}}))  # in its first round just now
    stop(world.home, OTHER)
    stop(world.home, OTHER)
    assert StoppedRuns(world.home).all() == {OTHER}
    world.worker.close()
    world.home.outbox.write_bytes(b"no database")  # whatever else is broken, a run can be stopped
    stop(world.home, "run_dddddddddddddddd")


def test_a_run_whose_candidate_was_judged_is_over_and_blocks_no_removal(tmp_path):
    world = ready_world(tmp_path)
    dataset = world.worker.guard.seat(world.contract.digest, world.recipe.digest).dataset

    def owner() -> str:
        return listed(world.home, world.worker.outbox, world.worker.shelf).data["runs"][0]["owner"]

    world.ask()
    assert owner() == "goes on"
    with pytest.raises(DatasetInUseError, match=RUN):
        data_remove(world.home, dataset, clock=world.clock)
    assert world.ask(ExchangeType.JUDGE, round=2)[0].status == "ok"
    assert owner() == "over"
    with locked(world.home):  # a worker that runs
        assert data_remove(world.home, dataset, clock=world.clock).data["removed"]


def test_a_run_blocks_no_removal_once_its_owner_stopped_it_or_its_contract_expired(tmp_path):
    world = ready_world(tmp_path)
    dataset = world.worker.guard.seat(world.contract.digest, world.recipe.digest).dataset
    world.ask()
    late = HandClock(to_ms(world.contract.term.expires))
    assert _open_runs(world.home, dataset, late) == ()
    assert _open_runs(world.home, "kita/other", world.clock) == ()
    assert _open_runs(world.home, dataset, world.clock) == (RUN,)
    stop(world.home, RUN)
    assert _open_runs(world.home, dataset, world.clock) == ()
    world.home.state.write_text(json.dumps({"progress": {"run": OTHER}}))
    with locked(world.home):
        assert _open_runs(world.home, dataset, world.clock) == (OTHER,)


def test_the_command_wants_a_run_or_the_word_for_all(tmp_path):
    world = ready_world(tmp_path)
    where = ["--dir", str(world.home.root)]
    run = CliRunner().invoke
    assert run(app, ["runs", "resume", *where]).exit_code == 2
    assert run(app, ["runs", "resume", RUN, "--all-damaged", *where]).exit_code == 2
    assert run(app, ["runs", "resume", "--all-damaged", *where]).exit_code == 3
    world.home.stopped.write_bytes(b"{")
    assert run(app, ["runs", "resume", RUN, *where]).exit_code == 7
    assert run(app, ["runs", "resume", "--all-damaged", *where]).exit_code == 0


def test_the_guard_refuses_a_stopped_run_as_local_stopped_and_lets_it_go_on(tmp_path):
    world = ready_world(tmp_path)
    StoppedRuns(world.home).stop(RUN)
    answer, _ = world.ask()
    assert (answer.status, answer.code) == ("refused", LocalRefusedError.code)
    assert world.learner.trained == []
    assert "local:stopped" in world.worker.outbox.left.decisions(run=RUN)[0].clauses
    shown = listed(world.home, world.worker.outbox, world.worker.shelf)
    assert [(one["run"], one["owner"], one["answer"]) for one in shown.data["runs"]] == [
        (RUN, "STOPPED", "REFUSED")
    ]
    resume(world.home, RUN)
    assert world.ask(round=2)[0].status == "ok"


def test_a_run_that_is_stopped_while_it_trains_sends_no_update_and_tells_the_spend(tmp_path):
    world = ready_world(tmp_path)
    world.learner.fail = TrainingStoppedError(need="a", found="b", remedy="c")
    answer, _ = world.ask()
    assert (answer.status, answer.code) == ("refused", LocalRefusedError.code)
    assert answer.tensor is None
    kinds = [one.kind for one in world.worker.outbox.envelopes(run=RUN)]
    assert "epsilon.spent" in kinds
    assert "submission.received" not in kinds


def test_a_run_that_is_stopped_right_after_training_sends_no_update(tmp_path):
    world = ready_world(tmp_path)
    update = world.learner.update

    def slow(*arguments, **named) -> np.ndarray:
        found = update(*arguments, **named)
        stop(world.home, RUN)
        return found

    world.learner.update = slow
    answer, _ = world.ask()
    assert (answer.status, answer.code) == ("refused", LocalRefusedError.code)
    kinds = [one.kind for one in world.worker.outbox.envelopes(run=RUN)]
    assert "epsilon.spent" in kinds
    assert "submission.received" not in kinds


def test_progress_is_told_at_most_once_a_second_beside_the_last_step(tmp_path):
    home, clock = Home(tmp_path), StillClock()
    home.state.write_text(json.dumps({"pid": 7, "since_ms": 5}))
    tell = Progress(home, clock).of(RUN, 3, 100)
    tell(1, 20)
    clock.ms += 400
    tell(2, 20)
    assert said(home)["progress"] == {
        "run": RUN, "round": 3, "rounds": 100, "step": 1, "steps": 20, "seconds": 0, "at_ms": clock.ms - 400,
    }  # fmt: skip
    clock.ms += 700
    tell(3, 20)
    assert (said(home)["progress"]["step"], said(home)["progress"]["seconds"]) == (3, 1)
    tell(20, 20)
    assert (said(home)["progress"]["step"], said(home)["pid"], said(home)["since_ms"]) == (20, 7, 5)
    assert worker_of(home) == {"running": False}
    with locked(home):
        assert worker_of(home)["progress"]["round"] == 3


def test_a_round_that_is_done_is_told_as_done_with_its_time_and_not_as_if_it_went_on(tmp_path):
    home, clock = Home(tmp_path), HandClock(to_ms("2026-11-29T09:41:54Z"))
    tell = Progress(home, clock).of(RUN, 30, 30)
    tell(0, 1)
    assert words_of(said(home)["progress"]) == (
        f"{RUN} round 30 of 30, step 0 of 1 after 0 s, 2026-11-29T09:41:54Z"
    )
    tell(1, 1)
    done = said(home)["progress"]
    assert words_of(done) == f"{RUN} round 30 of 30, done 2026-11-29T09:41:54Z"
    del done["at_ms"]  # as an older worker wrote it
    assert words_of(done) == f"{RUN} round 30 of 30, done at an unknown time"


def test_the_learner_of_a_site_asks_between_two_steps_and_tells_how_far_it_is(tmp_path):
    world = ready_world(tmp_path)
    learner = HomeLearner(world.home, entropy=SeedEntropy(b"l"), rules=LocalRules, threads=1)
    seat = replace(
        world.worker.guard.seat(world.contract.digest, world.recipe.digest, RUN), recipe=small_plain()
    )
    first = learner.initial(seat.recipe)
    assert learner.update(seat, RUN, (1, 1), first, lambda _units: None).shape == first.shape
    told = said(world.home)["progress"]
    assert (told["run"], told["round"], told["rounds"], told["step"], told["steps"]) == (RUN, 1, 100, 20, 20)
    stop(world.home, RUN)
    with pytest.raises(TrainingStoppedError):
        learner.update(seat, RUN, (2, 1), first, lambda _units: None)
    learner.update(seat, OTHER, (1, 1), first, lambda _units: None)
