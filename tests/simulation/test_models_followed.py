# SPDX-License-Identifier: Apache-2.0
"""Every node follows what the sums of a run make of its model, whatever setups are made and whoever is away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from broker.federation.secure.setups import Setups
from policies.exchange import ExchangeType
from policies.limits import SECAGG_REJOIN_ROUNDS
from tests.federationsim import NAMES, SECURE, Pool, running

MAC = {**SECURE, "aggregation.group_mac": "on"}
EVERYBODY = dict.fromkeys(NAMES, "accepted")


def of(rounds: int) -> dict[str, Any]:
    return {"private": False, **MAC, "recipe": {"rounds": rounds}}


def said(capfd: pytest.CaptureFixture[str]) -> list[tuple[str, int]]:
    """What workers said about the models that they trained on, with the round."""
    lines = [json.loads(one) for one in capfd.readouterr().err.splitlines() if one.startswith("{")]
    return [(one["event"], one["round"]) for one in lines if one["event"].startswith("model-")]


def reasons(pool: Pool, run: str) -> list[dict[str, str]]:
    return [json.loads(row.reasons) for row in pool.rounds(run)]


async def closed(pool: Pool, times: int) -> None:
    while len(pool.journal.of("round.closed")) < times:  # noqa: ASYNC110  a simulation: the loop turns
        await asyncio.sleep(0)


def test_new_setups_a_missed_round_and_a_second_attempt_lose_nobody(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = Setups._serves

    def for_two_rounds(self: Setups, number: int, asked: Any) -> bool:
        setup = self._setup
        return setup is not None and number < setup.frame.first_round + 2 and serves(self, number, asked)

    monkeypatch.setattr(Setups, "_serves", for_two_rounds)
    with running(**of(7)) as (pool, go):
        pool.nodes["kita"].deaf = lambda kind, slot: kind == ExchangeType.SA_CONTRIBUTE and slot[0] == 2
        for name in ("iber", "nord"):
            pool.nodes[name].mute = lambda kind, slot: kind == ExchangeType.SA_CONTRIBUTE and slot == (4, 1)
        run = go(pool.run())
        assert len(pool.journal.of("secagg.setup")) >= 4
        assert pool.check_sums(run) == 7
        verdicts = pool.verdicts(run)
        assert (len(verdicts), verdicts[1]) == (8, EVERYBODY | {"kita": "silent"})
        assert verdicts[:1] + verdicts[2:3] + verdicts[4:] == [EVERYBODY] * 6
        pool.check_audit()
    assert said(capfd) == []


def test_a_node_that_starts_again_trains_one_round_on_what_others_signed_and_follows_from_then_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        await closed(pool, 1)
        pool.nodes["kita"].restart()
        await pool.idle()
        return run

    with running(**of(5)) as (pool, go):
        run = go(story(pool))
        gone = [one.get("kita") for one in reasons(pool, run)]
        assert gone == [None, "secagg.setup-gone", None, None, None]
    assert said(capfd) == [("model-not-followed", 3), ("model-followed", 4)]


def test_where_the_broker_was_started_since_the_node_says_that_it_is_behind(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        await closed(pool, 1)
        pool.nodes["kita"].restart()
        await closed(pool, 3)
        await pool.kill()
        await pool.open()
        await pool.idle()
        return run

    with running(**of(6)) as (pool, go):
        run = go(story(pool))
        gone = [one.get("kita") for one in reasons(pool, run)]
        assert gone == [None, "secagg.setup-gone", None, "secagg.behind", None, None]
        assert pool.check_sums(run) == 6
    assert said(capfd) == [("model-not-followed", 3), ("model-followed", 5)]


def test_who_was_in_no_setup_for_a_while_is_back_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(pool: Pool) -> str:
        pool.nodes["kita"].away = True
        run = await pool.open_run()
        await closed(pool, 2)
        pool.nodes["kita"].away = False
        await pool.idle()
        return run

    with running(**of(SECAGG_REJOIN_ROUNDS + 3)) as (pool, go):
        run = go(story(pool))
        there = [one["kita"] for one in pool.verdicts(run)]
        assert there == ["silent"] * SECAGG_REJOIN_ROUNDS + ["accepted"] * 3
    back = SECAGG_REJOIN_ROUNDS + 1
    assert said(capfd) == [("model-not-followed", back), ("model-followed", back + 1)]
