# SPDX-License-Identifier: Apache-2.0
"""A broker that begins a recipe's rounds anew with each run, against the auditor who counts them all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.federation import affording, session
from tests.federationsim import ROUNDS, Pool, running


async def story(pool: Pool) -> tuple[str, str]:
    runs = []
    for _ in range(2):
        runs.append(await pool.open_run())
        await pool.idle()
    return runs[0], runs[1]


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's count leaves out every other run, also where one is opened."""
    monkeypatch.setattr(affording, "rounds_before", _none)
    real = session.progress
    monkeypatch.setattr(session, "progress", lambda *terms: replace(real(*terms), before=0))


def evidence(pool: Pool) -> str:
    return "\n".join(str(one) for one in pool.audit().findings if one.severity == "error")


@pytest.mark.parametrize("most", [2 * ROUNDS, 2 * ROUNDS - 1])
def test_rounds_of_two_runs_are_counted_together(most: int) -> None:
    with running(private=False, **{"recipes.0.max_rounds": most}) as (pool, go):
        runs = go(story(pool))
        assert [len(pool.rounds(one)) for one in runs] == [ROUNDS, most - ROUNDS]
        pool.check_audit()


def test_a_broker_that_counts_each_run_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful(monkeypatch)
    with running(private=False, **{"recipes.0.max_rounds": 2 * ROUNDS}) as (pool, go):
        runs = go(story(pool))
        assert len(pool.rounds(runs[1])) == ROUNDS
        found = evidence(pool)
    assert "facts differ from the log: round" in found


def test_rounds_beyond_the_bound_are_found_even_if_every_node_forgot_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgetful(monkeypatch)
    with running(private=False, **{"recipes.0.max_rounds": ROUNDS}) as (pool, go):
        for one in pool.nodes.values():
            monkeypatch.setattr(one.worker.guard._outbox.left, "rounds_elsewhere", _none)
        runs = go(story(pool))
        assert len(pool.rounds(runs[1])) == ROUNDS
        found = evidence(pool)
    assert f"max_rounds {ROUNDS}" in found


def _none(*_terms: Any) -> int:
    return 0
