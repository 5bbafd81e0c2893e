# SPDX-License-Identifier: Apache-2.0
"""Votes of silos on the model of a round: what a rejection takes back, what pauses a run, what an audit says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, SECURE, Pool, Said, running

GOOD, BAD = 5_000_000, -40_000_000
VALIDATION = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 3,
    "judge_episodes": 20,
    "gain_clip": "0.05",
    "max_judgings": 8,
    "epsilon": "0.5",
}


def gains(pool: Pool, *rows: list[int]) -> None:
    """What each silo finds in each round that is judged."""
    for number, name in enumerate(NAMES):
        pool.nodes[name].learner.found = [row[number] for row in rows]


def judged(pool: Pool, run_id: str) -> list[tuple[int, str, int, int, int]]:
    return [
        (one.round, one.pub["verdict"], one.pub["accepting"], one.pub["voting"], one.pub["rejected_rounds"])
        for one in pool.entries(EntryType.ROUND_JUDGED, run_id)
    ]


def models(pool: Pool, run_id: str) -> list[str]:
    return [one.model for one in pool.rounds(run_id) if one.model is not None]


def bases(pool: Pool, run_id: str) -> list[str]:
    return [one.pub["base_model"] for one in pool.entries(EntryType.ROUND_OPENED, run_id)]


def test_a_clean_run_rejects_nothing_and_every_vote_is_in_the_log() -> None:
    with running(validation=VALIDATION) as (pool, go):
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert judged(pool, run_id) == [(number, "accepted", 4, 4, 0) for number in range(1, ROUNDS + 1)]
        votes = pool.entries(EntryType.ROUND_VOTED, run_id)
        assert len(votes) == ROUNDS * len(NAMES)
        assert {one.pub["vote"] for one in votes} == {"accept"}
        assert pool.audit().facts["rejected_rounds"] == 0
        pool.check_audit()
        pool.check_books(run_id)


def test_a_quorum_of_rejections_goes_back_to_the_accepted_model_and_the_run_ends_with_its_rounds() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, [GOOD] * 4, [BAD, BAD, GOOD, GOOD], [GOOD] * 4, [GOOD] * 4)
        run_id = go(pool.run())
        made = models(pool, run_id)
        assert judged(pool, run_id)[1] == (2, "rejected", 2, 4, 1)
        assert bases(pool, run_id) == [bases(pool, run_id)[0], made[0], made[0], made[2]]
        assert pool.row(run_id).outcome == "completed"
        assert len(made) == ROUNDS + 1
        assert pool.row(run_id).model_digest == made[-1]
        assert pool.audit().facts["rejected_rounds"] == 1
        pool.check_audit()
        pool.check_books(run_id)


def test_one_silo_alone_rejects_nothing() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, *[[BAD, GOOD, GOOD, GOOD]] * 3)
        run_id = go(pool.run())
        assert [one[1] for one in judged(pool, run_id)] == ["accepted"] * 3
        pool.check_audit()


def test_each_model_is_judged_beside_the_last_accepted_one() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, [BAD] * 4, [GOOD] * 4, [GOOD] * 4, [GOOD] * 4)
        run_id = go(pool.run())
        start, made = bases(pool, run_id)[0], models(pool, run_id)
        beside = [start, start, made[1], made[2]]
        for name in NAMES:
            assert pool.nodes[name].learner.weighed == list(zip(made, beside, strict=True))
        assert bases(pool, run_id)[1] == start


def test_three_rejections_in_a_row_pause_the_run_until_a_human_lets_it_go_on() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, [GOOD] * 4, *[[BAD] * 4] * 3)

        async def paused() -> str:
            run_id = await pool.open_run()
            await asyncio.sleep(3600)
            return run_id

        run_id = go(paused())
        assert [one[4] for one in judged(pool, run_id)] == [0, 1, 2, 3]
        assert len(bases(pool, run_id)) == 4
        shown = go(pool.house.alice.get(f"/operator/runs/{run_id}")).json()
        assert (shown["state"], shown["rejected"]["rounds"], shown["rejected"]["stands"]) == (
            "suspended",
            3,
            1,
        )
        assert pool.row(run_id).model_digest == models(pool, run_id)[0]

        async def resumed() -> Any:
            answer = await pool.house.alice.post(f"/operator/runs/{run_id}/resume", {})
            again = await pool.house.alice.post(f"/operator/runs/{run_id}/resume", {"again": True})
            await pool.idle()
            return answer, again

        answer, again = go(resumed())
        assert answer.status_code == 202, answer.text
        assert again.json()["code"] == "run.not-paused"
        assert pool.row(run_id).outcome == "completed"
        assert bases(pool, run_id)[4] == models(pool, run_id)[0]
        pool.check_audit()


def test_one_word_lets_a_run_go_on_that_was_paused_and_rejected_both() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, [GOOD] * 4, *[[BAD] * 4] * 3)

        async def both() -> tuple[str, Any, Any]:
            run_id = await pool.open_run()
            await asyncio.sleep(3600)
            paused = await pool.house.alice.post(f"/operator/runs/{run_id}/pause", {})
            resumed = await pool.house.alice.post(f"/operator/runs/{run_id}/resume", {})
            await pool.idle()
            return run_id, paused, resumed

        run_id, paused, resumed = go(both())
        assert paused.is_success, paused.text
        assert resumed.status_code == 202, resumed.text
        assert pool.row(run_id).outcome == "completed"
        said = [one.pub for one in pool.entries(EntryType.CONSOLE_ACTION)]
        words = [one for one in said if one["action"] in {"run.pause", "run.continue", "run.resume"}]
        assert [one["action"] for one in words] == ["run.pause", "run.continue", "run.resume"]
        assert len({one["request"] for one in words}) == 3


def test_a_run_that_waits_for_a_human_can_be_stopped_and_its_accepted_model_is_the_candidate() -> None:
    with running(validation=VALIDATION) as (pool, go):
        gains(pool, [GOOD] * 4, *[[BAD] * 4] * 3)

        async def stopped() -> str:
            run_id = await pool.open_run()
            await asyncio.sleep(600)
            assert (await pool.house.alice.post(f"/operator/runs/{run_id}/stop", {})).status_code == 202
            await pool.idle()
            return run_id

        run_id = go(stopped())
        assert pool.row(run_id).outcome == "stopped"
        assert len(pool.candidates()) == 1
        pool.check_audit()


def test_too_few_votes_are_no_consent() -> None:
    def silent(said: Said) -> Said | str | None:
        return None if said.header.type == "evaluate.sa_judge" and said.header.round == 1 else said

    with running(validation=VALIDATION) as (pool, go):
        for name in NAMES[:2]:
            pool.nodes[name].lies.append(silent)
        run_id = go(pool.run())
        assert judged(pool, run_id)[0] == (1, "rejected", 2, 2, 1)
        assert pool.row(run_id).outcome == "completed"
        pool.check_audit()


def test_no_more_rounds_are_judged_than_the_contract_pays_for() -> None:
    with running(validation=VALIDATION | {"max_judgings": 1}) as (pool, go):
        run_id = go(pool.run())
        assert len(judged(pool, run_id)) == 1
        assert len(pool.entries(EntryType.ROUND_VOTED, run_id)) == len(NAMES)
        pool.check_audit()


def test_a_clause_without_the_numbers_of_judging_asks_for_no_votes_and_averages_all_the_same() -> None:
    part = {name: VALIDATION[name] for name in ("clause", "quorum", "max_rejected_rounds")}
    with running(validation=part) as (pool, go):
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert judged(pool, run_id) == []
        pool.check_audit()


@pytest.mark.parametrize("step", ["before hanbit evaluate.sa_judge", "after nord evaluate.sa_judge"])
def test_a_broker_that_dies_while_silos_vote_asks_again_and_nobody_pays_twice(step: str) -> None:
    with running(validation=VALIDATION) as (pool, go):
        run_id = go(killed_at(pool, lambda names: step in names))
        go(pool.open())
        go(pool.idle())
        assert [one[:2] for one in judged(pool, run_id)] == [
            (one, "accepted") for one in range(1, ROUNDS + 1)
        ]
        votes = pool.entries(EntryType.ROUND_VOTED, run_id)
        assert len(votes) == ROUNDS * len(NAMES)
        paid = [
            one for one in pool.entries(EntryType.EPSILON_SPENT, run_id) if "/eval/" in one.pub["mechanism"]
        ]
        assert len(paid) == (ROUNDS + 1) * len(NAMES)  # and one query about the candidate
        assert {one.learner.weighed.__len__() for one in pool.nodes.values()} == {ROUNDS}
        pool.check_audit()


async def killed_at(pool: Pool, when: Callable[[list[str]], bool]) -> str:
    """A run whose broker ends as soon as a step was made."""
    run_id = await pool.open_run()
    while not when(pool.steps.names):  # noqa: ASYNC110  the loop's own steps are what is waited for
        await asyncio.sleep(0)
    await pool.kill()
    return run_id


# --- under secure aggregation: only sums are seen ---


def test_masked_rounds_are_voted_on_and_taken_back_like_others() -> None:
    with running(validation=VALIDATION, **SECURE) as (pool, go):
        gains(pool, [GOOD] * 4, [BAD] * 4, [GOOD] * 4, [GOOD] * 4)
        run_id = go(pool.run())
        made = models(pool, run_id)
        assert [one[1] for one in judged(pool, run_id)] == ["accepted", "rejected", "accepted", "accepted"]
        assert bases(pool, run_id)[2] == made[0]
        assert pool.row(run_id).outcome == "completed"
        pool.check_audit()
        pool.check_books(run_id)


def test_a_poisoned_sum_beyond_the_norm_is_not_applied_and_the_next_round_begins_with_the_same_model() -> (
    None
):
    with running(**SECURE) as (pool, go):
        honest = pool.nodes["iber"].learner.spoil
        rounds: list[int] = []

        def modified(update: np.ndarray) -> np.ndarray:
            """Values that were never clipped, straight on the grid: what only another program can send."""
            rounds.append(len(rounds))
            return np.full(len(update), 2**28, np.int64) if len(rounds) == 2 else honest(update)

        pool.nodes["iber"].learner.spoil = modified
        run_id = go(pool.run())
        opened = bases(pool, run_id)
        first = models(pool, run_id)[0]
        assert opened[1] == opened[2] == first  # round 2 was lost, round 3 begins where it began
        assert [one.model is None for one in pool.rounds(run_id)][:3] == [False, True, False]
        noted = [one["code"] for one in pool.journal.of("secagg.not-opened")]
        assert noted == ["secagg.sum-wrong"]
        pool.check_audit()
