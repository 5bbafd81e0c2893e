# SPDX-License-Identifier: Apache-2.0
"""Whoever gave something to a round signs how it was closed; a wrong or missing signature is found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, SECURE, Pool, Said, running

LIAR = "kita"


def acks(pool: Pool) -> list[Any]:
    return pool.house.entries(EntryType.ROUND_ACK)


def unacked(pool: Pool) -> list[str]:
    return [one for one in pool.check_audit().unchecked if one.startswith("AUD-055")]


@pytest.mark.parametrize("changes", [{}, SECURE])
def test_every_round_is_acknowledged_by_everybody_whom_it_counts(changes: dict[str, Any]):
    with running(**changes) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        found = acks(pool)
        closed = pool.house.entries(EntryType.ROUND_CLOSED)
        assert len(found) == len(NAMES) * ROUNDS == sum(one.pub["received"] for one in closed)
        assert {one.pub["count"] for one in found} == {1}
        assert unacked(pool) == []


def test_a_run_leaves_these_types_of_entries():
    with running() as (pool, go):
        pool.nodes[LIAR].mute = lambda kind, slot: kind == "train.contribute" and slot[0] == 1
        go(pool.run())
        assert set(pool.house.kinds()) >= {
            *("aggregate.released", "budget.opened", "candidate.evaluated", "contribution.accepted"),
            *("contribution.refused", "epsilon.spent", "evaluation.received", "model.released"),
            *("round.ack", "round.closed", "round.opened", "run.closed", "submission.received"),
        }


def test_an_acknowledgement_rides_on_a_reply_that_is_made_anyway():
    with running() as (pool, go):
        run = go(pool.run())
        for node in pool.nodes.values():
            sent = [one for one in node.worker.outbox.left.sent(None) if one.run == run]
            assert sorted(one.kind for one in sent) == sorted(
                ["query.ping", *["train.contribute"] * ROUNDS, "evaluate.judge"]
            ) or sorted({one.kind for one in sent}) == ["evaluate.judge", "train.contribute"]
            assert len(sent) <= ROUNDS + 2


def test_a_member_that_was_away_acknowledges_what_it_gave_when_it_is_back():
    with running() as (pool, go):
        away = {2}
        pool.nodes[LIAR].deaf = lambda _kind, slot: slot[0] in away
        go(pool.run())
        rounds = [one.round for one in acks(pool)]
        assert sorted(rounds) == sorted([1] * 4 + [2] * 3 + [3] * 4)
        assert unacked(pool) == []


def test_a_late_answer_is_not_counted_as_given_before_the_round_was_closed():
    with running() as (pool, go):
        pool.nodes[LIAR].mute = lambda kind, slot: kind == "train.contribute" and slot[0] == 1
        go(pool.run())
        assert len(pool.house.entries(EntryType.CONTRIBUTION_REFUSED)) == 1
        report = pool.check_audit()
        assert [one.evidence for one in report.findings if one.id == "AUD-055"] == []


def changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Said], Said]:
    """A lie about every acknowledgement."""

    def lie(said: Said) -> Said:
        if "envelopes" not in said.header.body:
            return said
        return said.envelopes(
            lambda one: one | {"body": change(one["body"])} if one["kind"] == "round.ack" else one
        )

    return lie


LIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another number": lambda body: body | {"count": 7},
    "another leaf": lambda body: body | {"leaf": "sha256:" + "0" * 64},
    "an entry that closes nothing": lambda body: body | {"closed": 0},
    "an entry to come": lambda body: body | {"closed": 9_999},
}


@pytest.mark.parametrize("name", LIES)
def test_an_acknowledgement_of_something_else_is_no_entry_and_puts_its_node_out_of_the_run(name: str):
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(changed(LIES[name]))
        run = go(pool.run())
        assert [one[LIAR] for one in pool.verdicts(run)] == ["accepted", "refused", "refused"]
        (incident,) = pool.house.entries(EntryType.INCIDENT_DECLARED)
        assert incident.pub["kind"] == "submission-differs"
        assert len(unacked(pool)) == 1
