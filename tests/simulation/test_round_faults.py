# SPDX-License-Identifier: Apache-2.0
"""Rounds in which something goes wrong at one node or at several: what is planted, and what must happen."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pytest

from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, Pool, Said, running
from tests.nodeworld import IN_TERM_MS

ALL = dict.fromkeys(NAMES, "accepted")
OTHERS = ("hanbit", "iber", "nord")


def lost(*rounds: tuple[int, int]):
    """The node did everything; its answers in these rounds and attempts never arrive."""

    def lie(said: Said) -> Said | None:
        header = said.header
        gone = said.contributes and (header.round, header.attempt) in rounds
        return None if gone else said

    return lie


def end_of_term(pool: Pool) -> int:
    return int(dt.datetime.fromisoformat(pool.contract.term.expires).timestamp()) * 1000


def check_whole(pool: Pool, run: str) -> None:
    """What holds after every run, whatever was planted."""
    pool.check_books(run)
    pool.check_audit()
    if pool.row(run).model_digest is not None:
        assert pool.expected_model(run) == pool.row(run).model_digest


def test_a_run_of_four_honest_nodes():
    with running() as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert pool.verdicts(run) == [ALL] * ROUNDS
        assert list(pool.candidates().values()) == ["released"]
        check_whole(pool, run)
        for one in pool.nodes.values():
            assert one.learner.trained == [(run, number, 1) for number in range(1, ROUNDS + 1)]
            assert [row.size_bytes for row in one.worker.outbox.left.sent()]  # what left is written down
        assert pool.mirror(run)["kita"] == {(number, 1): 1 for number in range(1, ROUNDS + 1)}


def test_real_training_through_the_same_code():
    with running(torch=True) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert pool.verdicts(run) == [ALL] * ROUNDS
        pool.check_audit()
        assert all(set(one.spends(run).values()) == {1} for one in pool.nodes.values())


def test_a_run_without_privacy_says_so_and_spends_nothing():
    with running(private=False) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert pool.check_audit().facts["privacy"] == "NOT PRIVATE"
        assert pool.entries(EntryType.EPSILON_SPENT) == []
        assert pool.expected_model(run) == pool.row(run).model_digest


def test_a_silent_node_costs_itself_and_the_round_closes_by_quorum():
    with running() as (pool, go):
        pool.nodes["kita"].away = True
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert pool.verdicts(run) == [ALL | {"kita": "silent"}] * ROUNDS
        assert pool.journal.of("reply.failed")[0]["code"] == "engine.late"
        assert list(pool.candidates().values()) == ["released"]
        check_whole(pool, run)


def test_a_node_whose_answer_was_lost_takes_part_again_and_its_late_update_is_refused():
    with running() as (pool, go):
        pool.nodes["kita"].lies.append(lost((1, 1)))
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "silent"}, ALL, ALL]
        assert pool.refusals(run) == [("kita", 1, "round-closed")]
        assert pool.mirror(run)["kita"] == {(1, 1): 1, (2, 1): 1, (3, 1): 1}
        check_whole(pool, run)


def test_what_was_lost_in_the_last_round_comes_with_the_vote():
    with running() as (pool, go):
        pool.nodes["kita"].lies.append(lost((ROUNDS, 1)))
        run = go(pool.run())
        assert pool.verdicts(run)[-1] == ALL | {"kita": "silent"}
        assert pool.refusals(run) == [("kita", ROUNDS, "round-closed")]
        assert pool.mirror(run)["kita"][(ROUNDS, 1)] == 1
        assert len(pool.entries(EntryType.VOTE_CAST, run)) == 4
        assert list(pool.candidates().values()) == ["released"]
        check_whole(pool, run)


def test_below_min_parties_the_round_is_asked_again_under_the_next_attempt():
    with running() as (pool, go):
        pool.nodes["kita"].lies.append(lost((2, 1)))
        pool.nodes["nord"].lies.append(lost((2, 1)))
        run = go(pool.run())
        settled = [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]
        assert settled == [(1, 1, True), (2, 1, False), (2, 2, True), (3, 1, True)]
        assert sorted(pool.refusals(run)) == [
            ("hanbit", 2, "attempt-abandoned"),
            ("iber", 2, "attempt-abandoned"),
            ("kita", 2, "round-closed"),
            ("nord", 2, "round-closed"),
        ]
        assert pool.row(run).state == "completed"
        check_whole(pool, run)


def test_rounds_that_are_lost_again_and_again_stop_the_run():
    with running() as (pool, go):
        for name in ("kita", "nord"):
            pool.nodes[name].lies.append(lambda said: None if said.contributes else said)
        run = go(pool.run())
        assert pool.row(run).state == "stopped"
        settled = [(row.round, row.attempt, row.model) for row in pool.rounds(run)]
        assert settled == [(number, attempt, None) for number in (1, 2, 3) for attempt in (1, 2)]
        assert [entry.pub["outcome"] for entry in pool.entries(EntryType.ROUND_CLOSED, run)] == [
            "abandoned"
        ] * 6
        assert [entry.pub["outcome"] for entry in pool.entries(EntryType.RUN_CLOSED, run)] == ["stopped"]
        assert pool.candidates() == {}
        check_whole(pool, run)


def test_a_run_whose_models_stop_coming_judges_the_last_one():
    with running() as (pool, go):
        for name in ("kita", "nord"):
            one = pool.nodes[name]
            one.lies.append(lambda said: None if said.contributes and said.header.round > 1 else said)
        run = go(pool.run())
        assert (pool.row(run).state, pool.row(run).round) == ("stopped", 1)
        assert len(pool.rounds(run)) == 7
        assert len(pool.entries(EntryType.CANDIDATE_EVALUATED, run)) == 1
        check_whole(pool, run)


def test_attempts_end_with_the_steps_of_the_plan():
    with running(recipe={"steps": 4}) as (pool, go):
        for name in ("kita", "nord"):
            pool.nodes[name].lies.append(lost((2, 1), (2, 2)))
        run = go(pool.run())
        settled = [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]
        assert settled == [(1, 1, True), (2, 1, False), (2, 2, False), (3, 1, True)]
        assert all(sum(one.spends(run).values()) == 4 for one in pool.nodes.values())
        check_whole(pool, run)


def test_a_run_waits_for_enough_groups_and_takes_in_whoever_comes_back():
    async def story(pool: Pool) -> str:
        away = {pool.nodes[name].id for name in ("kita", "nord")}
        pool.fleet.offline |= away
        run = await pool.open_run()
        await asyncio.sleep(12)
        assert pool.rounds(run) == []
        assert [one["groups"] for one in pool.journal.of("run.waiting")] == [2, 2, 2]
        pool.nodes["kita"].lies.append(back)
        pool.fleet.offline -= {pool.nodes["kita"].id}
        await pool.idle()
        return run

    def back(said: Said) -> Said:
        if said.contributes:
            pool.fleet.offline.clear()
        return said

    with running() as (pool, go):
        run = go(story(pool))
        seen = pool.verdicts(run)
        assert seen == [{name: "accepted" for name in NAMES if name != "nord"}, ALL, ALL]
        check_whole(pool, run)


def test_a_slow_node_is_not_waited_for_once_enough_have_answered():
    with running() as (pool, go):
        slow = pool.nodes["nord"]  # asked last
        honest = slow.ask

        def ask(config, header, kind, slot, tensor):
            if kind == "train.contribute":
                pool.clock.ms += 5_000
            return honest(config, header, kind, slot, tensor)

        slow.ask = ask  # type: ignore[method-assign]
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"nord": "silent"}] * ROUNDS
        check_whole(pool, run)


def test_a_bad_reply_does_not_count_for_the_quorum_that_ends_an_exchange():
    with running() as (pool, go):
        pool.nodes["hanbit"].learner.spoil = lambda update: update * float("nan")
        slow = pool.nodes["nord"]
        honest = slow.ask
        first: set[tuple[int, int]] = set()

        def ask(config, header, kind, slot, tensor):
            if kind == "train.contribute" and slot not in first:
                first.add(slot)
                pool.clock.ms += 5_000  # past the grace that three replies, one of them bad, have begun
            return honest(config, header, kind, slot, tensor)

        slow.ask = ask  # type: ignore[method-assign]
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"hanbit": "refused"}] * ROUNDS
        assert slow.learner.trained == [(run, number, 1) for number in range(1, ROUNDS + 1)]
        check_whole(pool, run)


# --- guards that say no ---


def test_a_paused_node_declines_and_the_others_go_on():
    with running() as (pool, go):
        pool.nodes["kita"].rules(paused=True)
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert pool.journal.of("reply.declined")[0]["code"] == "local.refused"
        assert pool.nodes["kita"].learner.trained == []
        check_whole(pool, run)


def test_a_node_whose_own_cap_is_spent_declines():
    with running() as (pool, go):
        pool.nodes["kita"].rules(epsilon_total="1.9")
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert {one["code"] for one in pool.journal.of("reply.declined")} == {"local.refused"}
        assert pool.nodes["kita"].spends(run) == {}
        check_whole(pool, run)


def test_a_spent_budget_is_declined_with_the_contracts_clause_in_the_log():
    with running() as (pool, go):
        first, second = go(pool.run()), go(pool.run())
        for name in OTHERS:  # they free what the two runs held and did not spend; kita has not come to it yet
            pool.nodes[name].worker.budgets.settle(lambda run: run in (first, second))
        third = go(pool.run())
        assert pool.verdicts(second) == [ALL] * ROUNDS
        assert pool.verdicts(third) == [ALL | {"kita": "declined"}] * ROUNDS
        refused = [
            entry
            for entry in pool.entries(EntryType.DECISION_RECORDED, third)
            if entry.pub["outcome"] == "refuse"
        ]
        assert [(entry.pub["point"], entry.pub["clauses"]) for entry in refused] == [
            ("node", ["dp-1"])
        ] * ROUNDS
        assert {entry.actor for entry in refused} == {pool.alias("kita", third, n) for n in (1, 2, 3)}
        assert pool.journal.of("reply.declined")[0]["clauses"] == ["dp-1"]
        for run in (first, second, third):
            check_whole(pool, run)


def test_a_lost_ledger_is_no_fresh_budget():
    with running() as (pool, go):
        go(pool.run())
        kita = pool.nodes["kita"]
        kita.close()
        for path in kita.home.budget.iterdir():
            path.unlink()
        with pytest.raises(Exception, match=r"budget\.unknown"):
            _ = kita.worker
        for path in kita.home.budget.parent.glob("outbox.db*"):
            assert path.exists()


def test_a_recipe_that_was_altered_on_one_site_is_not_trained_there():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        path = next(kita.home.contracts.glob("*/recipe-*.json"))
        path.write_bytes(path.read_bytes().replace(b'"clip":"5"', b'"clip":"6"'))
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert {one["code"] for one in pool.journal.of("reply.failed")} == {"engine.run-refused"}
        assert kita.learner.trained == []
        check_whole(pool, run)


def test_a_contract_whose_signatures_are_not_here_is_not_worked_for():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        next(kita.home.contracts.glob("*/envelope.json")).unlink()
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert kita.learner.trained == []
        check_whole(pool, run)


def test_a_site_whose_clock_is_past_the_term_declines_with_the_clause():
    with running() as (pool, go):
        pool.clock.ms = end_of_term(pool) - 20_000
        kita = pool.nodes["kita"]
        honest = kita.ask

        def ask(*asked):
            pool.clock.ms += 30_000  # its clock is ahead; the deadline of the request is not over
            answer = honest(*asked)
            pool.clock.ms -= 30_000
            return answer

        kita.ask = ask  # type: ignore[method-assign]
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {"kita": "declined"}] * ROUNDS
        assert pool.journal.of("reply.declined")[0]["clauses"] == ["term-1"]
        refused = [
            one for one in pool.entries(EntryType.DECISION_RECORDED, run) if one.pub["outcome"] == "refuse"
        ]
        assert [(one.actor, one.pub["clauses"]) for one in refused] == [
            (pool.alias("kita", run, number), ["term-1"]) for number in (1, 2, 3)
        ]
        check_whole(pool, run)


def test_a_term_that_ends_in_mid_run_ends_the_rounds_and_no_model_is_released():
    with running() as (pool, go):
        end, kita = end_of_term(pool), pool.nodes["kita"]

        def last_second(said: Said) -> Said:
            if said.contributes and (said.header.round, said.header.attempt) == (2, 1):
                pool.clock.ms = end + 1_000
            return said

        kita.lies.append(last_second)
        run = go(pool.run())
        assert [row.model is not None for row in pool.rounds(run)] == [True, False]
        assert {one["clause"] for one in pool.journal.of("run.over")} == {"term-1"}
        assert pool.row(run).outcome == "stopped"
        assert pool.candidates() == {}
        assert pool.entries(EntryType.MODEL_RELEASED) == []
        check_whole(pool, run)


def test_initial_weights_that_one_node_derives_differently_are_left_aside():
    with running() as (pool, go):
        pool.nodes["kita"].learner.first = lambda weights: weights + 1
        run = go(pool.run())
        assert pool.journal.of("initial-weights.differ") == [{"run": run, "nodes": [pool.nodes["kita"].id]}]
        assert pool.row(run).state == "completed"
        check_whole(pool, run)


def test_initial_weights_on_which_too_few_agree_fail_the_run():
    with running() as (pool, go):
        pool.nodes["kita"].learner.first = lambda weights: weights + 1
        pool.nodes["nord"].learner.first = lambda weights: weights + 2
        run = go(pool.run())
        assert (pool.row(run).state, pool.rounds(run)) == ("failed", [])
        assert pool.journal.of("run.failed")[0]["code"] == "run.refused"
        pool.check_audit()


def test_initial_weights_are_never_those_of_a_few():
    with running() as (pool, go):
        for name in OTHERS:
            pool.nodes[name].away = True
        pool.nodes["kita"].learner.first = lambda weights: weights + 1
        run = go(pool.run())
        assert pool.row(run).state == "failed"
        assert pool.rounds(run) == []


# --- several runs ---


@pytest.mark.parametrize("slow", [0, 1])
def test_two_runs_at_once_on_the_same_nodes_do_not_meet(slow: int):
    """What a node owes to the log comes with its next reply, also one of the other run, whose attempt ends first."""

    async def story(pool: Pool) -> tuple[str, str]:
        runs = await pool.open_run(), await pool.open_run()
        pool.fleet.turns[runs[slow]] = 16
        await pool.idle()
        return runs

    with running() as (pool, go):
        pool.nodes["kita"].lies.append(lost((1, 1)))
        runs = go(story(pool))
        for run in runs:
            assert pool.row(run).state == "completed", pool.journal.lines
            seen = pool.verdicts(run)
            assert {"kita": seen[0].pop("kita")} in ({"kita": "silent"}, {"kita": "refused"})
            assert seen == [dict.fromkeys(OTHERS, "accepted"), ALL, ALL]
            assert pool.refusals(run) == [("kita", 1, "round-closed")]
            pool.check_books(run)
            assert pool.expected_model(run) == pool.row(run).model_digest
        # kita's update of the slow run came with a reply of the fast one, before its own attempt was settled
        assert pool.verdicts(runs[slow])[0]["kita"] == "refused"
        pool.check_audit()


def test_a_revoked_member_is_asked_no_more_and_the_release_still_names_it():
    async def story(pool: Pool) -> str:
        org = pool.nodes["kita"].worker.member.identity.org

        run = await pool.open_run()
        while not pool.rounds(run):  # noqa: ASYNC110  one turn of the loop, in virtual time
            await asyncio.sleep(0)
        answer = await pool.house.remove(org, reason="left")
        assert answer.status_code == 200, answer.text
        await pool.idle()
        return run

    with running() as (pool, go):
        run = go(story(pool))
        assert "kita" not in pool.verdicts(run)[-1]
        assert pool.verdicts(run)[0] == ALL
        assert pool.row(run).state == "completed"
        evaluated = [json.loads(row.verdicts) for row in pool.rounds(run)]
        assert evaluated[0]["kita"] == "accepted"
        pool.check_audit()


def test_the_clock_of_the_pool_only_moves_when_everybody_waits():
    with running() as (pool, go):
        go(pool.run())
        assert pool.clock.ms == IN_TERM_MS


def test_operators_see_whose_nodes_a_run_waits_for_and_since_when():
    async def story(pool: Pool) -> tuple[dict[str, Any], ...]:
        away = {pool.nodes[name].id for name in ("kita", "nord")}
        pool.fleet.offline |= away
        run = await pool.open_run()
        await asyncio.sleep(2)
        seen = [(await pool.house.alice.get(f"/operator/runs/{run}")).json()]
        pool.nodes["hanbit"].lies.append(gone)
        pool.fleet.offline.clear()
        for _ in range(60):
            await asyncio.sleep(1)
            if pool.fleet.offline:
                break
        seen.append((await pool.house.alice.get("/operator/runs")).json()["runs"][0])
        pool.fleet.offline.clear()
        await pool.idle()
        seen.append((await pool.house.alice.get(f"/operator/runs/{run}")).json())
        seen.append((await pool.house.alice.get("/operator/organisations")).json())
        return tuple(seen)

    def gone(said: Said) -> Said:
        if said.contributes and (said.header.round, said.header.attempt) == (2, 1):
            pool.fleet.offline |= {pool.nodes[name].id for name in ("kita", "nord")}
        return said

    with running() as (pool, go):
        before, during, after, listed = go(story(pool))
        assert [(one["party"], one["online"], one["since_ms"]) for one in before["away"]] == [
            ("kita", False, None),
            ("nord", False, None),
        ]
        assert (before["short"]["groups"], before["short"]["groups_needed"]) == (2, 3)
        assert before["short"]["names"] == [one["name"] for one in before["away"]]
        assert "iriai-node run" in before["short"]["remedy"]
        assert {one["party"] for one in during["away"]} == {"kita", "nord"}
        assert all(one["since_ms"] for one in during["away"])  # they answered once
        assert (after["away"], after["short"]) == ([], None)  # a run that is over waits for nobody
        assert all(one["online"] and one["seen_ms"] for one in listed["organisations"])
