# SPDX-License-Identifier: Apache-2.0
"""Runs that members refuse: how many attempts the others pay for, when it is asked again, what is shown meanwhile."""

from __future__ import annotations

import asyncio

from policies.limits import REFUSED_WAIT_S
from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, Pool, running

ALL = dict.fromkeys(NAMES, "accepted")


def pause(pool: Pool, *names: str, paused: bool = True) -> None:
    for name in names:
        pool.nodes[name].rules(paused=paused)


def attempts(pool: Pool, run: str) -> list[tuple[int, int, bool]]:
    return [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]


def shown(pool: Pool, go, run: str) -> dict:
    return go(pool.house.alice.get(f"/operator/runs/{run}")).json()


def test_a_refusal_that_repeats_ends_the_run_after_two_attempts_not_six():
    with running() as (pool, go):
        pause(pool, "kita", "nord")
        run = go(pool.run())
        assert pool.row(run).outcome == "stopped"
        assert attempts(pool, run) == [(1, 1, False), (1, 2, False)]
        assert all(sum(pool.nodes[name].spends(run).values()) == 2 for name in ("hanbit", "iber"))
        assert [one["parties"] for one in pool.journal.of("run.declined")] == [["kita", "nord"]]
        ended = shown(pool, go, run)["ended"]
        assert "kita, nord said no in 2 attempts" in ended["reason"]
        pool.check_books(run)
        pool.check_audit()


def test_the_run_pauses_after_one_refused_attempt_and_says_so():
    with running() as (pool, go):
        pause(pool, "kita", "nord")
        run = go(pool.open_run())
        go(asyncio.sleep(REFUSED_WAIT_S - 10))
        assert attempts(pool, run) == [(1, 1, False)]
        assert len(pool.entries(EntryType.ROUND_OPENED, run)) == 1
        line = shown(pool, go, run)
        assert (line["state"], line["outcome"], line["ended"]) == ("suspended", None, None)
        assert line["waiting"]["parties"] == ["kita", "nord"]
        assert "guard explain" in line["waiting"]["reason"]
        (waiting,) = [one for one in pool.journal.of("run.waiting") if one.get("code") == "run.declined"]
        assert "kita, nord" in str(waiting["found"])
        own = go(pool.nodes["iber"].owner().get(f"/runs/{run}")).json()
        assert "parties" not in own["waiting"]
        pause(pool, "kita", "nord", paused=False)
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert attempts(pool, run)[1:] == [(1, 2, True), (2, 1, True), (3, 1, True)]
        assert shown(pool, go, run)["waiting"] is None
        pool.check_books(run)
        pool.check_audit()


def test_a_broker_that_is_started_in_the_pause_goes_on_waiting():
    with running() as (pool, go):
        pause(pool, "kita", "nord")
        run = go(pool.open_run())
        go(asyncio.sleep(REFUSED_WAIT_S / 2))
        go(pool.kill())
        go(pool.open())
        go(asyncio.sleep(REFUSED_WAIT_S / 2 - 10))
        assert attempts(pool, run) == [(1, 1, False)]
        pause(pool, "kita", "nord", paused=False)
        go(pool.idle())
        assert pool.row(run).state == "completed"
        pool.check_audit()


def test_other_members_who_refuse_the_next_time_are_waited_for_twice_as_long():
    with running() as (pool, go):
        pause(pool, "kita", "nord")
        run = go(pool.open_run())
        go(asyncio.sleep(REFUSED_WAIT_S / 2))
        pause(pool, "kita", "nord", paused=False)
        pause(pool, "hanbit", "iber")
        go(asyncio.sleep(REFUSED_WAIT_S))
        assert attempts(pool, run) == [(1, 1, False), (1, 2, False)]
        go(asyncio.sleep(REFUSED_WAIT_S))
        assert len(attempts(pool, run)) == 2
        pause(pool, "hanbit", "iber", paused=False)
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert attempts(pool, run)[2:] == [(2, 1, True), (3, 1, True), (4, 1, True)]
        pool.check_audit()


def test_a_refusal_that_leaves_enough_groups_delays_nothing():
    with running() as (pool, go):
        pause(pool, "kita")
        before = pool.clock.ms
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert pool.clock.ms - before < REFUSED_WAIT_S * 1000


def test_members_that_were_away_and_come_back_end_the_pause():
    with running() as (pool, go):
        away = {pool.nodes["hanbit"].id}
        pool.fleet.offline |= away
        pause(pool, "kita")
        run = go(pool.open_run())
        go(asyncio.sleep(15))
        assert attempts(pool, run) == [(1, 1, False)]
        pool.fleet.offline -= away
        go(asyncio.sleep(10))  # below the pause: hanbit makes the third group without kita
        assert attempts(pool, run)[1] == (1, 2, True)
        go(pool.idle())
        assert pool.row(run).state == "completed"
        pool.check_audit()
