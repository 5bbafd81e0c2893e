# SPDX-License-Identifier: Apache-2.0
"""Runs that members refuse: how many attempts the others pay for, when it is asked again, what is shown meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from policies.encoding import digest
from policies.limits import REFUSED_PATIENCE_S, REFUSED_WAIT_S
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


def says(pool: Pool, code: str, *names: str, kind: str = "train.contribute", after: int = 0) -> None:
    """Nodes refuse what is asked of them with a code, from a round on; an empty one mends them."""
    for name in names:
        node = pool.nodes[name]
        honest = type(node).ask

        def ask(*request: Any, node: Any = node, honest: Any = honest) -> Any:
            _, _, asked, slot, _ = request
            if code and asked == kind and slot[0] > after:
                return code
            return honest(node, *request)

        node.ask = ask


def spent(pool: Pool, run: str, *names: str) -> list[int]:
    return [sum(pool.nodes[name].spends(run).values()) for name in names]


def test_what_owners_can_mend_is_waited_for_at_nobodys_cost_and_the_run_goes_on():
    with running() as (pool, go):
        says(pool, "budget.unknown", "kita", after=1)
        says(pool, "budget.diverged", "nord", after=1)
        run = go(pool.open_run())
        go(asyncio.sleep(4 * 3_600))
        lost = [one for one in attempts(pool, run) if not one[2]]
        assert len(lost) > 8
        assert {number for number, _, _ in lost} == {2}  # no round of the contract is used up
        assert spent(pool, run, *NAMES) == [
            2,
            2,
            1,
            1,
        ]  # one attempt, in which they were asked for the first time
        line = shown(pool, go, run)
        assert (line["state"], line["outcome"], line["ended"]) == ("suspended", None, None)
        assert line["waiting"]["codes"] == {"kita": "budget.unknown", "nord": "budget.diverged"}
        assert "budget reconcile" in line["waiting"]["remedy"]
        (listed,) = go(pool.house.alice.get("/operator/runs")).json()["runs"]
        assert listed["waiting"]["codes"] == line["waiting"]["codes"]
        own = go(pool.nodes["iber"].owner().get(f"/runs/{run}")).json()
        assert {"codes", "parties", "remedy"}.isdisjoint(own["waiting"])
        assert "kita" not in own["waiting"]["reason"]
        says(pool, "", "kita", "nord")
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert spent(pool, run, *NAMES) == [ROUNDS + 1, ROUNDS + 1, ROUNDS, ROUNDS]
        assert list(pool.candidates().values()) == ["released"]
        pool.check_books(run)
        pool.check_audit()


def test_a_run_that_waited_in_vain_is_stopped_not_completed_and_keeps_its_candidate():
    with running() as (pool, go):
        says(pool, "budget.unknown", "kita", "nord", after=1)
        run = go(pool.open_run())
        go(asyncio.sleep(REFUSED_PATIENCE_S))
        assert pool.row(run).outcome is None
        go(pool.idle())
        assert (pool.row(run).outcome, pool.row(run).round) == ("stopped", 1)
        assert spent(pool, run, "hanbit", "iber") == [2, 2]
        assert [one.pub["outcome"] for one in pool.entries(EntryType.RUN_CLOSED, run)] == ["stopped"]
        assert list(pool.candidates().values()) == ["released"]
        ended = shown(pool, go, run)["ended"]
        assert ended["code"] == "run.declined"
        assert "kita (budget.unknown), nord (budget.unknown) said no in round 2" in ended["reason"]
        assert "budget reconcile" in ended["remedy"]
        pool.check_audit()


def test_what_nobody_can_mend_within_the_run_ends_it_and_the_others_pay_once():
    with running() as (pool, go):
        says(pool, "contract.refused", "kita", "nord")
        run = go(pool.run())
        assert pool.row(run).outcome == "stopped"
        assert attempts(pool, run) == [(1, 1, False), (1, 2, False)]
        assert spent(pool, run, *NAMES) == [1, 1, 0, 0]
        pool.check_audit()


def test_only_those_who_said_no_count_as_refused():
    with running() as (pool, go):
        says(pool, "contract.refused", "kita", "nord")
        run = go(pool.run())
        names = ("accepted", "unused", "refused", "silent", "unasked")
        counts = [tuple(one[name] for name in names) for one in shown(pool, go, run)["rounds"]]
        assert counts == [(0, 2, 2, 0, 0), (0, 0, 2, 0, 2)]


@pytest.mark.parametrize("killed", [False, True])
def test_an_operator_stops_a_run_that_waits_and_what_was_trained_is_a_candidate(killed):
    with running() as (pool, go):
        says(pool, "budget.unknown", "kita", "nord", after=1)
        run = go(pool.open_run())
        go(asyncio.sleep(3_600))
        asked = len(pool.rounds(run))
        answer = go(pool.house.alice.post(f"/operator/runs/{run}/stop", {}))
        assert (answer.status_code, answer.json()["stopping"]) == (202, True)
        line = shown(pool, go, run)
        assert (line["state"], line["stopping"], line["waiting"]) == ("running", True, None)
        if killed:
            go(pool.kill())
            go(pool.open())
        go(pool.idle())
        assert (pool.row(run).outcome, len(pool.rounds(run))) == ("stopped", asked)
        assert list(pool.candidates().values()) == ["released"]
        assert shown(pool, go, run)["ended"]["reason"] == "an operator stopped it after round 1"
        actions = [(one.pub["action"], one.pub["subject"]) for one in pool.entries(EntryType.CONSOLE_ACTION)]
        assert ("run.stop", digest(run.encode())) in actions
        again = go(pool.house.alice.post(f"/operator/runs/{run}/stop", {}))
        assert (again.status_code, again.json()["code"]) == (409, "run.closed")
        pool.check_books(run)
        pool.check_audit()


def test_a_run_that_waits_for_nodes_is_stopped_before_its_first_round():
    with running() as (pool, go):
        pool.fleet.offline |= {pool.nodes[name].id for name in ("kita", "nord")}
        run = go(pool.open_run())
        go(asyncio.sleep(60))
        go(pool.house.alice.post(f"/operator/runs/{run}/stop", {}))
        go(pool.idle())
        assert (pool.row(run).outcome, pool.rounds(run), pool.candidates()) == ("stopped", [], {})
        pool.check_audit()


def test_no_member_stops_a_run():
    with running() as (pool, go):
        pause(pool, "kita", "nord")
        run = go(pool.open_run())
        answer = go(pool.nodes["kita"].owner().post(f"/operator/runs/{run}/stop", {}))
        assert answer.status_code == 403
        assert pool.row(run).stop_ms is None


def test_sites_without_the_data_set_keep_a_run_waiting_before_its_first_round():
    with running() as (pool, go):
        says(pool, "data.dataset-unknown", "hanbit", "kita", "nord", kind="query.ping", after=-1)
        run = go(pool.open_run())
        go(asyncio.sleep(60))
        line = shown(pool, go, run)
        assert (line["state"], line["rounds"]) == ("suspended", [])
        assert set(line["waiting"]["codes"].values()) == {"data.dataset-unknown"}
        assert "iriai-node data add" in line["waiting"]["remedy"]
        says(pool, "", "hanbit", "kita", "nord")
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert spent(pool, run, *NAMES) == [ROUNDS] * 4
        pool.check_audit()


def test_a_start_that_nobody_can_mend_fails_with_the_codes_and_their_remedy():
    with running() as (pool, go):
        says(pool, "contract.refused", "kita", "nord", kind="query.ping", after=-1)
        run = go(pool.run())
        assert pool.row(run).outcome == "failed"
        ended = shown(pool, go, run)["ended"]
        assert ended["code"] == "run.refused"
        assert "kita (contract.refused), nord (contract.refused) said no" in ended["reason"]
        assert ended["remedy"] == f"its owner: iriai-node guard explain {run}"
        own = go(pool.nodes["iber"].owner().get(f"/runs/{run}")).json()["ended"]
        assert "kita" not in own["reason"]


def test_a_run_that_the_caps_cannot_hold_is_not_opened():
    caps = {"privacy.epsilon_per_release": "1.5", "privacy.epsilon_total": "1.5"}
    with running(recipe={"steps": ROUNDS}, **caps) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        asked = {"contract": pool.contract.digest, "recipe": pool.contract.recipes[0].id}
        answer = go(pool.house.alice.post("/operator/runs", asked))
        assert answer.status_code == 409, answer.text
        problem = answer.json()
        assert (problem["code"], problem["clause"]) == ("budget.exhausted", "dp-1")
        assert "epsilon-total <= 1.5" in problem["need"]
        assert "hanbit, iber, kita, nord" in problem["found"]
        assert problem["remedy"]
        assert len(pool.entries(EntryType.RUN_OPENED)) == 1


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
        assert "kita (local.refused), nord (local.refused)" in str(waiting["found"])
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
        assert attempts(pool, run)[2:] == [(1, 3, True), (2, 1, True), (3, 1, True)]
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
