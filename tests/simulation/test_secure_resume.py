# SPDX-License-Identifier: Apache-2.0
"""The broker is killed anywhere in a secure round: the sum is the same to the bit, and no slot masks two vectors."""

from __future__ import annotations

import functools
from collections import defaultdict

import pytest

from tests.federationsim import NAMES, SECURE, Killed, Pool, Said, running

ROUNDS = 2
OPTIONS = {"private": False, "recipe": {"rounds": ROUNDS}, **SECURE}
SETUP, FIRST, SECOND = range(10, 34, 8), range(34, 64, 3), range(64, 92, 9)


def recorded(pool: Pool) -> dict[tuple[str, int, int], set[str]]:
    """Digests of all vectors that each node sends, by node and slot."""
    found: dict[tuple[str, int, int], set[str]] = defaultdict(set)

    def record(said: Said) -> Said:
        header = said.header
        if said.contributes and header.tensor is not None:
            found[said.node.name, header.round, header.attempt].add(header.tensor.digest)
        return said

    for one in pool.nodes.values():
        one.lies.append(record)
    return found


@functools.cache
def undisturbed() -> tuple[str, tuple[str, ...]]:
    """Model and step names of a run in which nothing goes wrong."""
    with running(**OPTIONS) as (pool, go):
        run = go(pool.run())
        return pool.row(run).model_digest, tuple(pool.steps.names)


async def through_kills(pool: Pool, *, nodes: bool = False) -> str:
    """Opens a run and starts the broker, and the nodes too, whenever the broker was killed."""
    run = await pool.open_run()
    while True:
        try:
            await pool.idle()
        except Killed:
            await pool.kill()
            for one in pool.nodes.values() if nodes else ():
                one.restart()
            await pool.open()
        else:
            return run


def check_no_slot_twice(sent: dict[tuple[str, int, int], set[str]]) -> None:
    assert sent
    assert all(len(vectors) == 1 for vectors in sent.values())
    assert len({one for vectors in sent.values() for one in vectors}) == len(sent)


def test_the_steps_are_still_those():
    names = undisturbed()[1]
    assert names[SETUP.start] == "before hanbit query.sa_advertise"
    assert names[FIRST.start] == "before hanbit train.sa_contribute"
    assert names[SECOND.start - 2 : SECOND.start] == ("before commit", "after commit")
    assert names[SECOND.start] == "before hanbit train.sa_contribute"


@pytest.mark.parametrize("step", [*SETUP, *FIRST, *SECOND])
def test_a_broker_killed_at_any_step_opens_the_same_sum(step: int):
    with running(**OPTIONS) as (pool, go):
        sent, pool.steps.at = recorded(pool), step
        run = go(through_kills(pool))
        assert pool._opened == 2
        assert pool.row(run).model_digest == undisturbed()[0]
        assert pool.verdicts(run) == [dict.fromkeys(NAMES, "accepted")] * ROUNDS
        assert pool.check_sums(run) == ROUNDS
        assert all(len(one.learner.trained) == ROUNDS for one in pool.nodes.values())
        check_no_slot_twice(sent)
        pool.check_audit()


@pytest.mark.parametrize("step", [66, 76, 84, 91])
def test_a_killed_broker_shows_the_same_opened_sum_to_members_that_check_it(step: int):
    """Killed in the second round, whose requests carry the first one's sum."""
    with running(**OPTIONS, **{"aggregation.group_mac": "on"}) as (pool, go):
        sent, pool.steps.at = recorded(pool), step
        run = go(through_kills(pool))
        assert pool.verdicts(run) == [dict.fromkeys(NAMES, "accepted")] * ROUNDS
        assert pool.check_sums(run) == ROUNDS
        check_no_slot_twice(sent)


@pytest.mark.parametrize("step", [20, 38, 46, 50, 55, 60, 63])
def test_broker_and_nodes_killed_at_once_end_an_attempt_cleanly_and_open_exact_sums(step: int):
    with running(**OPTIONS) as (pool, go):
        sent, pool.steps.at = recorded(pool), step
        run = go(through_kills(pool, nodes=True))
        assert pool.row(run).state == "completed"
        assert pool.check_sums(run) == ROUNDS
        check_no_slot_twice(sent)
        pool.check_audit()


def test_a_broker_killed_while_members_unmask_does_not_ask_the_round_again_without_one_of_them():
    def story_of(pool: Pool):
        async def story() -> str:
            run = await pool.open_run()
            with pytest.raises(Killed):
                await pool.idle()
            await pool.kill()
            pool.nodes["kita"].away = True  # its vector is in the set that was shown
            await pool.open()
            await pool.idle()
            return run

        return story()

    with running(**OPTIONS) as (pool, go):
        sent, pool.steps.at = recorded(pool), undisturbed()[1].index("after iber query.sa_unmask")
        run = go(story_of(pool))
        rows = [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]
        assert rows == [(1, 1, False), (2, 1, True), (3, 1, True)]
        assert pool.check_sums(run) == ROUNDS
        check_no_slot_twice(sent)
        pool.check_audit()
