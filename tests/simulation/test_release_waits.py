# SPDX-License-Identifier: Apache-2.0
"""A candidate that is too fresh waits for its time, through restarts; views that members read are on record. All of it audits."""

from __future__ import annotations

from policies.log.entries import EntryType
from tests.federationsim import ROUNDS, Pool, running

HOUR_MS = 3_600_000
QUERIES = {"clause": "query-1", "allow": ["own-budget", "run-status"], "min_groups": 3}


def gate(pool: Pool) -> list[tuple[str, list[str]]]:
    """Decisions of the gate on record: outcome and clauses."""
    found = [one for one in pool.entries(EntryType.DECISION_RECORDED) if one.pub["point"] == "gate"]
    return [(one.pub["outcome"], list(one.pub["clauses"])) for one in found]


def test_a_fresh_candidate_is_released_when_the_delay_is_over():
    with running(**{"aggregation.delay_hours": 24}) as (pool, go):
        before = pool.clock.ms
        go(pool.run())
        ((_, state),) = pool.candidates().items()
        assert state == "released"
        assert pool.clock.ms - before >= 24 * HOUR_MS
        assert gate(pool) == [("refuse", ["k-1"]), ("allow", [])]
        assert [one["state"] for one in pool.journal.of("candidate.waits")] == ["waiting"]
        pool.check_audit()


def test_a_restart_within_the_delay_changes_nothing():
    async def story(pool: Pool) -> None:
        await pool.open_run()
        while not pool.journal.of("candidate.waits"):
            tasks = list(pool.runner._tasks.values())
            assert tasks
            import asyncio

            await asyncio.sleep(1)
        await pool.kill()
        await pool.open()
        await pool.idle()
        ((_, state),) = pool.candidates().items()
        assert state == "released"

    with running(**{"aggregation.delay_hours": 2}) as (pool, go):
        go(story(pool))
        assert gate(pool) == [("refuse", ["k-1"]), ("allow", [])]
        pool.check_audit()


def test_views_that_members_read_are_on_record_and_audit():
    async def story(pool: Pool) -> None:
        run_id = await pool.run()
        for name in ("kita", "nord", "kita"):
            answer = await pool.nodes[name].owner().get(f"/runs/{run_id}")
            assert answer.status_code == 200, answer.text
        asked = [
            one
            for one in pool.entries(EntryType.DECISION_RECORDED, run_id)
            if one.round is None and one.env is None
        ]
        views = [one for one in asked if one.pub["point"] == "broker"]
        assert [one.pub["outcome"] for one in views] == ["allow", "allow"]

    with running(queries=QUERIES) as (pool, go):
        go(story(pool))
        pool.check_audit()


def test_a_validation_clause_without_numbers_asks_for_no_votes_on_rounds_and_holds_at_the_gate():
    clause = {"clause": "validate-1", "quorum": "0.67", "max_rejected_rounds": 3}
    with running(validation=clause) as (pool, go):
        run_id = go(pool.run())
        assert len(pool.entries(EntryType.AGGREGATE_RELEASED)) == ROUNDS
        assert pool.entries(EntryType.ROUND_VOTED) == pool.entries(EntryType.ROUND_JUDGED) == []
        assert pool.row(run_id).outcome == "completed"
        pool.check_audit()
