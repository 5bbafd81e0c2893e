# SPDX-License-Identifier: Apache-2.0
"""The broker stops anywhere in a run, or its log and its disk do: the run goes on and ends as if nothing had been."""

from __future__ import annotations

import asyncio
import errno
import functools

import pytest

from broker.federation import checkpoints, local, runner
from broker.federation.session import RunSession
from broker.log.errors import LogUnavailableError
from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, Killed, Pool, running

STEPS = 62  # of an undisturbed run; `test_the_steps_are_still_those` says when this is another number
STORED = 22  # of them: before and after each transaction, and each file of a model
ASKED = range(8, 62, 5)  # between requests to nodes: some of them


def unavailable() -> LogUnavailableError:
    return LogUnavailableError(need="a database that can be written", found="SQLITE_FULL", remedy="make room")


@functools.cache
def undisturbed() -> tuple[str, str, tuple[str, ...]]:
    """Run id, final model and step names of a run in which nothing goes wrong."""
    with running() as (pool, go):
        run = go(pool.run())
        return run, pool.row(run).model_digest, tuple(pool.steps.names)


async def through_kills(pool: Pool) -> str:
    """Opens a run and starts the broker's process again whenever it was killed."""
    run = await pool.open_run()
    while True:
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
            await pool.open()
        else:
            return run


def check_as_if_nothing_had_been(pool: Pool, run: str) -> None:
    name, model, _ = undisturbed()
    assert run == name
    row = pool.row(run)
    assert (row.state, row.round, row.steps, row.model_digest) == ("completed", ROUNDS, ROUNDS, model)
    assert row.contract == pool.contract.digest
    assert pool.verdicts(run) == [dict.fromkeys(NAMES, "accepted")] * ROUNDS
    assert list(pool.candidates().values()) == ["released"]
    assert len(pool.entries(EntryType.ROUND_OPENED, run)) == ROUNDS
    assert len(pool.entries(EntryType.RUN_CLOSED, run)) == 1
    assert len(pool.entries(EntryType.MODEL_RELEASED, run)) == 1
    for one in pool.nodes.values():  # answered again from their ledgers: nothing was trained or judged twice
        assert one.learner.trained == [(run, number, 1) for number in range(1, ROUNDS + 1)]
        assert one.learner.judged == 1
    pool.check_books(run)
    pool.check_audit()


def test_the_steps_are_still_those():
    _, _, names = undisturbed()
    assert len(names) == STEPS
    assert sum(name.split()[-1] in {"commit", "file"} for name in names) == STORED


@pytest.mark.parametrize("number", range(STORED))
def test_a_broker_killed_before_or_after_anything_is_stored_goes_on_at_the_last_settled_attempt(number: int):
    _, _, names = undisturbed()
    with running() as (pool, go):
        pool.steps.at = [at for at, name in enumerate(names) if name.split()[-1] in {"commit", "file"}][
            number
        ]
        run = go(through_kills(pool))
        assert pool._opened == 2
        check_as_if_nothing_had_been(pool, run)


@pytest.mark.parametrize("step", ASKED)
def test_a_broker_killed_while_it_asks_is_answered_again_from_the_ledgers(step: int):
    with running() as (pool, go):
        pool.steps.at = step
        run = go(through_kills(pool))
        assert pool._opened == 2
        check_as_if_nothing_had_been(pool, run)


def test_a_broker_killed_again_and_again():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        for life in range(3, 60, 4):
            pool.steps.names.clear()
            pool.steps.at = life
            try:
                await pool.idle()
            except Killed:
                await pool.kill()
                await pool.open()
        pool.steps.at = None
        await pool.idle()
        return run

    with running() as (pool, go):
        run = go(story(pool))
        assert pool._opened > 5
        check_as_if_nothing_had_been(pool, run)


@pytest.mark.parametrize("step", [5, 20, 33, 47])
def test_broker_and_all_nodes_killed_at_once(step: int):
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
        for one in pool.nodes.values():
            one.restart()
        await pool.open()
        await pool.idle()
        return run

    with running() as (pool, go):
        pool.steps.at = step
        check_as_if_nothing_had_been(pool, go(story(pool)))


def test_a_run_that_goes_on_gives_its_nodes_a_moment_to_come_back():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
        pool.fleet.offline |= {pool.nodes["kita"].id}  # enough are there at once; kita takes three seconds
        await pool.open()
        await asyncio.sleep(3)
        pool.fleet.offline.clear()
        await pool.idle()
        return run

    with running() as (pool, go):
        pool.steps.at = undisturbed()[2].index("after nord train.contribute", 25)  # all have answered round 2
        check_as_if_nothing_had_been(pool, go(story(pool)))


def test_a_run_that_goes_on_does_not_wait_for_who_stays_away():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
        pool.fleet.offline |= {pool.nodes["kita"].id}
        await pool.open()
        await pool.idle()
        return run

    with running() as (pool, go):
        pool.steps.at = undisturbed()[2].index("after nord train.contribute", 25)
        run = go(story(pool))
        assert [sorted(one) for one in pool.verdicts(run)] == [
            sorted(NAMES),
            *[["hanbit", "iber", "nord"]] * 2,
        ]
        assert pool.row(run).state == "completed"
        assert pool.expected_model(run) == pool.row(run).model_digest
        pool.check_books(run)
        pool.check_audit()


def test_a_node_that_died_while_it_trained_declines_that_attempt_only():
    class Died(BaseException):
        pass

    with running() as (pool, go):
        kita = pool.nodes["kita"]
        honest, true = kita.ask, kita.learner.spoil

        def dies(update):
            kita.learner.spoil = true
            raise Died

        def ask(*asked):
            try:
                return honest(*asked)
            except Died:
                kita.restart()
                return honest(*asked)  # the same request again, as the engine sends it once the node is back

        kita.ask, kita.learner.spoil = ask, dies  # type: ignore[method-assign]
        run = go(pool.run())
        assert [one["kita"] for one in pool.verdicts(run)] == ["declined", "accepted", "accepted"]
        assert pool.journal.of("reply.declined")[0]["code"] == "engine.interrupted"
        assert kita.spends(run) == {(number, 1): 1 for number in (1, 2, 3)}
        assert pool.mirror(run)["kita"] == kita.spends(
            run
        )  # the spend of the dead attempt was told at restart
        pool.check_audit()


# --- what passes: the log and the disk ---


@pytest.mark.parametrize("nth", range(18))
def test_a_log_that_does_not_answer_is_waited_for(nth: int):
    """``after commit``: it was stored and nobody was told."""
    _, _, names = undisturbed()
    with running() as (pool, go):
        pool.steps.at = [number for number, name in enumerate(names) if name.endswith("commit")][nth]
        pool.steps.error = unavailable
        before = pool.clock.ms
        run = go(pool.run())
        assert len(pool.journal.of("run.waiting")) == 1
        assert pool.clock.ms == before + 5_000
        check_as_if_nothing_had_been(pool, run)


def test_a_log_that_stays_away_is_waited_for_as_long_as_it_takes():
    with running() as (pool, go):
        reach, away = pool.steps.reach, iter(range(30))

        def again(name: str) -> None:
            reach(name)
            if name == "before commit" and len(pool.steps.names) > 25 and next(away, None) is not None:
                raise unavailable()

        pool.steps.reach = again  # type: ignore[method-assign]
        before = pool.clock.ms
        run = go(pool.run())
        assert len(pool.journal.of("run.waiting")) == 30
        assert pool.clock.ms == before + 150_000
        check_as_if_nothing_had_been(pool, run)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_full_disk_under_a_checkpoint_is_waited_for(number: int, monkeypatch: pytest.MonkeyPatch):
    written, honest = [], checkpoints.replace_file

    def full(path, data, *, mode):
        written.append(path.name)
        if len(written) in (number + 1, number + 2):
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(path, data, mode=mode)

    monkeypatch.setattr(checkpoints, "replace_file", full)
    with running() as (pool, go):
        run = go(pool.run())
        assert len(pool.journal.of("run.waiting")) == 2
        check_as_if_nothing_had_been(pool, run)


def test_a_checkpoint_that_was_damaged_fails_the_run_and_not_the_broker():
    with running() as (pool, go):
        pool.steps.at = undisturbed()[2].index("before hanbit train.contribute", 24)

        async def story() -> str:
            run = await pool.open_run()
            try:
                await pool.idle()
            except Killed:
                await pool.kill()
            for path in (pool.folder / "broker" / "runs" / run).iterdir():
                path.write_bytes(path.read_bytes()[:100])
            await pool.open()
            await pool.idle()
            return run

        run = go(story())
        assert pool.row(run).state == "failed"
        assert pool.journal.of("run.failed")[0]["code"] == "run.checkpoint-damaged"
        again = go(pool.run())
        assert pool.row(again).state == "completed"
        pool.check_audit()


def test_a_run_that_fails_while_the_log_does_not_answer_is_closed_when_it_does():
    with running() as (pool, go):
        pool.nodes["kita"].learner.first = lambda weights: weights + 1
        pool.nodes["nord"].learner.first = lambda weights: weights + 2

        def again(name: str) -> None:
            closing.append(name)
            if name == "before commit" and closing.count(name) < 3:
                raise unavailable()

        closing: list[str] = []
        pool.steps.reach = again  # type: ignore[method-assign]
        run = go(pool.run())
        assert pool.row(run).state == "failed"
        assert len(pool.journal.of("run.waiting")) >= 2


def test_a_bug_in_one_run_neither_ends_the_broker_nor_another_run(monkeypatch: pytest.MonkeyPatch):
    honest, broken = RunSession._settle, []

    def bug(self, *given):
        if not broken or broken == [self.run]:
            broken[:] = [self.run]
            raise ZeroDivisionError("row 17: serial=SECRET-42")
        return honest(self, *given)

    monkeypatch.setattr(RunSession, "_settle", bug)

    async def story(pool: Pool) -> tuple[str, str]:
        runs = await pool.open_run(), await pool.open_run()
        await pool.idle()
        return runs

    with running() as (pool, go):
        first, second = go(story(pool))
        assert (pool.row(first).state, pool.row(second).state) == ("running", "completed")
        assert pool.journal.of("run.broken") == [{"run": first, "code": "ZeroDivisionError"}]
        monkeypatch.undo()
        go(pool.kill())
        go(pool.open())  # the next start goes on with it
        go(pool.idle())
        assert pool.row(first).state == "completed"
        assert pool.expected_model(first) == pool.row(first).model_digest
        pool.check_audit()


def test_an_orderly_stop_in_mid_run_leaves_it_for_the_next_start():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        while len(pool.rounds(run)) < 2:  # noqa: ASYNC110  one turn of the loop, in virtual time
            await asyncio.sleep(0)
        await pool.services.stop()
        pool.services.close()
        await pool._hang_up()
        await pool.open()
        assert pool.row(run).state == "running"
        await pool.idle()
        return run

    with running() as (pool, go):
        check_as_if_nothing_had_been(pool, go(story(pool)))


def test_more_runs_than_may_be_active_wait_for_each_other(monkeypatch: pytest.MonkeyPatch):
    async def story(pool: Pool) -> list[str]:
        runs = [await pool.open_run() for _ in range(3)]
        await pool.idle()
        return runs

    for module in (runner, local):
        monkeypatch.setattr(module, "MAX_ACTIVE_RUNS", 2)
    with running(private=False) as (pool, go):
        runs = go(story(pool))
        assert {pool.row(one).state for one in runs} == {"completed"}
        assert all(pool.expected_model(one) == pool.row(one).model_digest for one in runs)
        assert "run.waiting" not in dict(pool.journal.lines)
        pool.check_audit()


def test_a_closed_run_is_not_driven_again():
    async def again(pool: Pool, run: str) -> None:
        pool.runner.opened(run)
        pool.runner.opened(run)
        await pool.idle()

    with running() as (pool, go):
        run = go(pool.run())
        asked = len(pool.fleet.asked)
        go(again(pool, run))
        assert len(pool.fleet.asked) == asked
        assert len(pool.entries(EntryType.RUN_CLOSED, run)) == 1


def test_a_candidate_that_the_last_process_left_undecided_is_decided_at_the_next_start():
    _, _, names = undisturbed()
    closing = max(number for number, name in enumerate(names) if name == "after commit") - 2
    assert names[closing] == "after commit"  # the run is closed; the gate has not looked
    with running() as (pool, go):
        pool.steps.at = closing
        run = go(through_kills(pool))
        assert pool._opened == 2
        check_as_if_nothing_had_been(pool, run)
