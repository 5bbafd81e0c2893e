# SPDX-License-Identifier: Apache-2.0
"""A run that an operator pauses: its open round is closed, nobody is asked meanwhile, and it goes on where it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.federation.budgets import budgets_of
from broker.federation.mirror import epsilon_after
from broker.membership.directory import Operator
from broker.runs.errors import RunClosedError, RunNotPausedError
from policies.log.entries import EntryType
from policies.recipe import load as load_recipe
from tests.federationsim import ROUNDS, SECURE, Pool, Said, running

ALICE = Operator(name="alice", key=b"", active=True)


def word(pool: Pool, act: str, run: str, request: str = "a") -> dict[str, Any]:
    """An operator's word about a run, as the routes take it."""
    does = getattr(pool.services.runs, act)

    def work(session: Any, tx: Any) -> Any:
        return does(session, tx, run_id=run, operator=ALICE, request=f"sha256:{request * 64}")

    done, _ = pool.services.writer.submit(work).result()
    return done


def pausing(pool: Pool, round_: int) -> Any:
    """A node's answer in a round is the moment of the pause."""
    done: list[object] = []

    def lie(said: Said) -> Said:
        if said.contributes and said.header.round == round_ and not done:
            done.append(word(pool, "pause", said.header.run))
        return said

    return lie


def budgets(pool: Pool) -> dict[str, Any]:
    services = pool.services
    with services.store.read() as session:
        now_ms = services.clock.now_ms()
        return budgets_of(session, services.contracts, services.outlooks, pool.contract, now_ms=now_ms)


def reckoned(pool: Pool, run: str) -> dict[str, str]:
    """What the judge reckons for each party if this run goes on to its end: the mirror's own sums."""
    contracts, row = pool.services.contracts, pool.row(run)
    with pool.services.store.read() as session:
        plan = load_recipe(contracts.annex(session, pool.contract, row.recipe_digest)).plan
        assert plan is not None
        return {
            one.party: epsilon_after(
                session, contracts, pool.contract, party=one.party, plan=plan, run_id=run
            ).total
            for one in pool.contract.contributors
        }


def shown(pool: Pool, run: str) -> dict[str, Any]:
    with pool.services.store.read() as session:
        body = pool.services.runs.views.show(session, run, ALICE).body
    assert body is not None
    return body


def test_a_paused_run_closes_its_open_round_asks_nobody_and_goes_on_from_there():
    with running(**SECURE) as (pool, go):
        pool.nodes["iber"].lies.append(pausing(pool, 2))
        run = go(pool.open_run())
        go(asyncio.sleep(300))
        assert [(one.round, one.model is not None) for one in pool.rounds(run)] == [(1, True), (2, True)]
        assert pool.row(run).outcome is None
        body = shown(pool, run)
        assert body["state"] == "suspended"
        assert body["paused_ms"] is not None
        spent = {name: dict(node.spends(run)) for name, node in pool.nodes.items()}
        assert word(pool, "resume", run, "b")["resumed"]
        go(asyncio.sleep(900))
        assert [one.round for one in pool.rounds(run)] == list(range(1, ROUNDS + 1))
        assert pool.row(run).outcome == "completed"
        assert shown(pool, run)["paused_ms"] is None
        for name, node in pool.nodes.items():
            assert dict(node.spends(run)).items() >= spent[name].items()
        said = [one.pub["action"] for one in pool.entries(EntryType.CONSOLE_ACTION)]
        assert [one for one in said if one.startswith("run.")][-2:] == ["run.pause", "run.continue"]


def test_budgets_count_what_was_spent_and_what_an_open_run_holds():
    with running() as (pool, go):
        pool.nodes["iber"].lies.append(pausing(pool, 1))
        run = go(pool.open_run())
        go(asyncio.sleep(300))
        open_ = budgets(pool)
        assert {one["party"] for one in open_["parties"]} == {one.party for one in pool.contract.contributors}
        (recipe,) = [one for one in open_["recipes"] if one["rounds_used"]]
        assert recipe["rounds_used"] == 1
        for one in open_["parties"]:
            assert 0 < float(one["epsilon_spent"]) <= float(one["epsilon_with_reserved"])
            assert float(one["epsilon_with_reserved"]) <= float(one["epsilon_total"])
        assert reckoned(pool, run) == {one["party"]: one["epsilon_with_reserved"] for one in open_["parties"]}
        word(pool, "stop", run, "b")
        go(asyncio.sleep(300))
        closed = budgets(pool)
        for before, after in zip(open_["parties"], closed["parties"], strict=True):
            assert after["epsilon_spent"] == after["epsilon_with_reserved"] == before["epsilon_spent"]
        (after,) = [one for one in closed["recipes"] if one["rounds_used"]]
        assert after["runs_left"] >= recipe["runs_left"]


def test_a_paused_run_can_be_stopped_and_a_second_pause_changes_nothing():
    with running() as (pool, go):
        pool.nodes["iber"].lies.append(pausing(pool, 1))
        run = go(pool.open_run())
        go(asyncio.sleep(600))
        before = len(pool.entries(EntryType.CONSOLE_ACTION))
        word(pool, "pause", run, "b")
        assert len(pool.entries(EntryType.CONSOLE_ACTION)) == before
        word(pool, "stop", run, "f")
        with pytest.raises(RunClosedError):
            word(pool, "pause", run, "c")
        go(asyncio.sleep(600))
        assert pool.row(run).outcome == "stopped"
        assert len(pool.rounds(run)) == 1
        with pytest.raises(RunNotPausedError):
            word(pool, "resume", run, "d")


def test_a_run_that_nobody_paused_is_not_resumed():
    with running() as (pool, go):
        pool.nodes["iber"].lies.append(pausing(pool, 1))
        run = go(pool.open_run())
        go(asyncio.sleep(600))
        word(pool, "resume", run, "b")
        with pytest.raises(RunNotPausedError):
            word(pool, "resume", run, "c")
