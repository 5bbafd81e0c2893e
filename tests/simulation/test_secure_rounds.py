# SPDX-License-Identifier: Apache-2.0
"""Rounds under secure aggregation: every opened sum is exact to the bit, whoever is away, and whenever."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import Counter
from typing import Any

import pytest

from broker.errors import UsageError
from broker.federation import progress
from broker.federation.secure.vectors import export, sweep
from policies.encoding import digest
from policies.exchange import ExchangeType, peek_request
from policies.limits import SECAGG_MESSAGE_S, SECAGG_REJOIN_ROUNDS, SECAGG_RETURN_S
from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, SECURE, Pool, Said, running

PLAIN = {"private": False, **SECURE}
LONG = SECAGG_REJOIN_ROUNDS + 2
EVERYBODY = dict.fromkeys(NAMES, "accepted")
SETUP = (ExchangeType.SA_ADVERTISE, ExchangeType.SA_SHARE, ExchangeType.SA_OPEN)
ROUND = (ExchangeType.SA_CONTRIBUTE, ExchangeType.SA_CONFIRM, ExchangeType.SA_UNMASK)


def few(rounds: int = 4) -> dict[str, object]:
    """Options of a pool whose recipe has so many rounds, trained without noise."""
    return {**PLAIN, "recipe": {"rounds": rounds}}


def setups(pool: Pool) -> list[tuple[object, object]]:
    """Number and members of every setup that was made."""
    return [(one["number"], one["members"]) for one in pool.journal.of("secagg.setup")]


async def noted(pool: Pool, event: str, *, times: int = 1) -> None:
    """Waits for a line of the broker's own output."""
    while len(pool.journal.of(event)) < times:  # noqa: ASYNC110  a simulation: the loop turns, no time passes
        await asyncio.sleep(0)


def attempts(pool: Pool, run: str) -> list[tuple[int, int, bool]]:
    """Round, attempt and whether it gave a model, of every settled attempt."""
    return [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]


@pytest.mark.parametrize("mac", ["off", "on"])
@pytest.mark.parametrize("private", [False, True])
def test_a_run_opens_sums_that_are_exact_to_the_bit(private: bool, mac: str):
    with running(private=private, **SECURE, **{"aggregation.group_mac": mac}) as (pool, go):
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert pool.verdicts(run) == [EVERYBODY] * ROUNDS
        assert pool.check_sums(run) == ROUNDS
        assert setups(pool) == [(1, 4)]
        if private:
            pool.check_books(run)
        pool.check_audit()


def test_a_round_takes_three_exchanges_and_its_line_says_how_long_each_took():
    with running(**few()) as (pool, go):
        go(pool.run())
        first, second, *_ = pool.journal.of("round.closed")
        assert (first["requests"], second["requests"]) == (24, 12)
        phases = ("setup", "contribute", "confirm", "unmask", "aggregate", "checkpoint", "commit")
        assert {f"{one}_ms" for one in phases} <= set(second)
        kinds = Counter(kind for _, kind, *_ in pool.fleet.asked)
        assert kinds == dict.fromkeys(SETUP, 4) | dict.fromkeys(ROUND, 16) | {
            ExchangeType.PING: 4,
            ExchangeType.JUDGE: 4,
        }


def test_the_protocols_own_messages_carry_no_news_and_no_receipts():
    asked: dict[ExchangeType, set[str]] = {}

    def overheard(said: Said) -> Said:
        header = peek_request(said.request)
        asked.setdefault(header.type, set()).update(header.body)
        return said

    with running(**few()) as (pool, go):
        pool.nodes["kita"].lies.append(overheard)
        go(pool.run())
        in_body = {ExchangeType.SA_ADVERTISE, ExchangeType.SA_CONFIRM, ExchangeType.SA_UNMASK}
        for kind in (*SETUP, ExchangeType.SA_CONFIRM, ExchangeType.SA_UNMASK):
            assert asked[kind] == ({"ask"} if kind in in_body else set())
        news = {"log", "receipts", "closed"}
        assert asked[ExchangeType.SA_CONTRIBUTE] == {"ask", "plan", "base_model", "purpose"} | news


def test_each_opened_sum_has_a_transcript_in_the_audit_bundle():
    with running(**few()) as (pool, go):
        run = go(pool.run())
        named = [one.pub["transcript"] for one in pool.entries(EntryType.AGGREGATE_RELEASED, run)]
        assert len(set(named)) == 4
        pool.check_audit()
        data = (pool.folder / "bundle.zip").read_bytes()
        for one in named:
            assert f"transcripts/{one.removeprefix('sha256:')}".encode() in data


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("step", ROUND)
def test_one_member_less_in_each_step_of_a_round_changes_no_bit_of_the_others_sum(
    step: ExchangeType, lost: str
):
    with running(**few()) as (pool, go):
        for at, name in enumerate(NAMES, start=1):
            setattr(
                pool.nodes[name],
                "deaf" if lost == "request" else "mute",
                lambda kind, slot, at=at: kind == step and slot[0] == at,
            )
        run = go(pool.run())
        away = "silent" if step is ExchangeType.SA_CONTRIBUTE else "accepted"
        assert pool.verdicts(run) == [EVERYBODY | {name: away} for name in NAMES]
        assert pool.check_sums(run) == 4
        assert setups(pool) == [(1, 4)]
        pool.check_audit()


@pytest.mark.parametrize("lost", ["deaf", "mute"])
@pytest.mark.parametrize("step", SETUP)
@pytest.mark.parametrize("name", NAMES)
def test_one_member_less_in_each_step_of_a_setup_leaves_it_out_of_the_sums(
    name: str, step: ExchangeType, lost: str
):
    with running(**few()) as (pool, go):
        setattr(pool.nodes[name], lost, lambda kind, _slot: kind == step)
        run = go(pool.run())
        assert pool.verdicts(run) == [EVERYBODY | {name: "silent"}] * 4
        assert pool.check_sums(run) == 4
        assert setups(pool) == [(1, 3)]


def test_too_few_vectors_abandon_the_attempt_and_the_next_one_sends_the_same_update():
    with running(**SECURE) as (pool, go):
        for name in ("iber", "kita"):
            pool.nodes[name].mute = lambda kind, slot: kind == ExchangeType.SA_CONTRIBUTE and slot == (1, 1)
        run = go(pool.run())
        assert attempts(pool, run) == [(1, 1, False), (1, 2, True), (2, 1, True), (3, 1, True)]
        assert pool.check_sums(run) == ROUNDS
        for one in pool.nodes.values():
            assert one.learner.trained == [(run, number, 1) for number in (1, 2, 3)]
            assert one.spends(run) == {(number, 1): 1 for number in (1, 2, 3)}
        assert pool.row(run).steps == ROUNDS
        pool.check_books(run)
        pool.check_audit()


def test_too_few_confirmations_abandon_the_attempt_and_the_next_one_has_keys_of_its_own():
    with running(**SECURE) as (pool, go):
        for name in ("iber", "kita"):
            pool.nodes[name].deaf = lambda kind, slot: kind == ExchangeType.SA_CONFIRM and slot == (2, 1)
        run = go(pool.run())
        assert attempts(pool, run) == [(1, 1, True), (2, 1, False), (2, 2, True), (3, 1, True)]
        assert pool.check_sums(run) == ROUNDS
        submissions = pool.entries(EntryType.SUBMISSION_RECEIVED, run)
        masked = [one.pub["update"] for one in submissions if one.round == 2]
        assert len(set(masked)) == 8  # the same four updates, under other masks
        assert all(len(one.learner.trained) == ROUNDS for one in pool.nodes.values())
        pool.check_books(run)
        pool.check_audit()


def test_too_few_shares_lose_the_round_and_it_is_not_asked_again():
    with running(**SECURE) as (pool, go):
        for name in ("iber", "kita"):
            pool.nodes[name].mute = lambda kind, slot: kind == ExchangeType.SA_UNMASK and slot == (2, 1)
        run = go(pool.run())
        assert attempts(pool, run) == [(1, 1, True), (2, 1, False), (3, 1, True), (4, 1, True)]
        assert [row.unmasked for row in pool.rounds(run)] == [1, 1, 1, 1]
        assert pool.check_sums(run) == ROUNDS
        pool.check_books(run)
        pool.check_audit()


def test_a_node_that_starts_again_has_no_keys_and_is_back_with_the_next_attempt():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        await noted(pool, "round.closed")
        pool.nodes["kita"].restart()
        await pool.idle()
        return run

    with running(**few()) as (pool, go):
        run = go(story(pool))
        silent = [json.loads(row.reasons).get("kita") for row in pool.rounds(run)]
        assert silent == [None, "secagg.setup-gone", None, None]
        assert setups(pool) == [(1, 4), (2, 4)]
        assert pool.check_sums(run) == 4
        pool.check_audit()


def test_nodes_that_start_again_in_the_middle_of_a_round_get_a_second_attempt():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        await noted(pool, "round.closed")
        for name in ("iber", "kita"):
            pool.nodes[name].restart()
        await pool.idle()
        return run

    with running(**SECURE) as (pool, go):
        run = go(story(pool))
        assert attempts(pool, run) == [(1, 1, True), (2, 1, False), (2, 2, True), (3, 1, True)]
        assert setups(pool) == [(1, 4), (2, 4)]
        trained = {name: one.learner.trained for name, one in pool.nodes.items()}
        assert [one[1:] for one in trained["nord"]] == [(1, 1), (2, 1), (3, 1)]
        assert [one[1:] for one in trained["kita"]] == [(1, 1), (2, 2), (3, 1)]
        assert pool.check_sums(run) == ROUNDS
        pool.check_books(run)
        pool.check_audit()


def test_a_member_that_stays_away_is_left_out_and_is_back_a_few_rounds_after_it_returned():
    async def story(pool: Pool) -> str:
        pool.nodes["kita"].away = True
        run = await pool.open_run()
        await noted(pool, "round.closed", times=2)
        pool.nodes["kita"].away = False
        await pool.idle()
        return run

    with running(**few(LONG)) as (pool, go):
        run = go(story(pool))
        there = [one["kita"] for one in pool.verdicts(run)]
        assert there == ["silent"] * SECAGG_REJOIN_ROUNDS + ["accepted"] * 2
        assert setups(pool) == [(1, 3), (2, 4)]
        assert pool.check_sums(run) == LONG


def test_a_member_of_the_setup_that_is_away_for_rounds_is_not_a_member_of_the_next():
    with running(**few(LONG)) as (pool, go):
        pool.nodes["kita"].deaf = lambda kind, _slot: kind == ExchangeType.SA_CONTRIBUTE
        run = go(pool.run())
        assert setups(pool) == [(1, 4), (2, 3)]
        assert pool.check_sums(run) == LONG
        assert all(one["kita"] == "silent" for one in pool.verdicts(run))


def test_a_round_that_owners_hold_up_twice_goes_on_under_the_next_number_and_costs_nobody_a_round():
    """Keys of a setup are for so many attempts of a round; a third one would find none, for ever."""

    async def story(pool: Pool) -> str:
        for name in ("iber", "kita"):
            pool.nodes[name].rules(paused=True)
        run = await pool.open_run()
        await held_up(pool, run, 3)
        for name in ("iber", "kita"):
            pool.nodes[name].rules()
        await pool.idle()
        return run

    with running(**few()) as (pool, go):
        run = go(story(pool))
        assert pool.row(run).state == "completed"
        held = [(1, 1, False), (1, 2, False), (2, 1, False)]
        assert attempts(pool, run) == [*held, (2, 2, True), *((number, 1, True) for number in (3, 4, 5))]
        assert pool.check_sums(run) == 4
        pool.check_audit()


async def held_up(pool: Pool, run: str, times: int) -> None:
    while len(pool.rounds(run)) < times:  # noqa: ASYNC110  virtual time
        await asyncio.sleep(10)


def test_an_attempt_that_no_setup_has_keys_for_comes_to_nothing_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
):
    def once_more(settled: Any, *, masked: bool) -> tuple[int, int]:  # a third attempt, as plain rounds have
        del masked
        return following(settled, masked=False)

    async def story(pool: Pool) -> str:
        for name in ("iber", "kita"):
            pool.nodes[name].rules(paused=True)
        run = await pool.open_run()
        await held_up(pool, run, 2)
        for name in ("iber", "kita"):
            pool.nodes[name].rules()
        await pool.idle()
        return run

    following = progress._next
    monkeypatch.setattr(progress, "_next", once_more)
    with running(**few()) as (pool, go):
        run = go(story(pool))
        assert attempts(pool, run)[:5] == [*((1, attempt, False) for attempt in (1, 2, 3, 4)), (2, 1, True)]
        assert pool.row(run).state == "completed"


def test_a_run_of_too_few_members_waits_and_opens_nothing():
    async def story(pool: Pool) -> str:
        pool.fleet.offline |= {pool.nodes[name].id for name in ("iber", "kita")}
        run = await pool.open_run()
        await noted(pool, "run.waiting")
        assert not pool.entries(EntryType.ROUND_OPENED, run)
        pool.fleet.offline.clear()
        await pool.idle()
        return run

    with running(**few()) as (pool, go):
        assert pool.check_sums(go(story(pool))) == 4


def test_vectors_are_kept_for_the_auditor_as_long_as_the_contract_says(tmp_path):
    with running(**few()) as (pool, go):
        run, broker = go(pool.run()), pool.folder / "broker"
        hours, now_ms = pool.contract.retention.updates_hours, pool.clock.ms
        submitted = {one.pub["update"] for one in pool.entries(EntryType.SUBMISSION_RECEIVED, run)}
        assert {f"sha256:{one}" for one in export(broker, run, tmp_path / "out", now_ms)} == submitted
        for path in (tmp_path / "out").iterdir():
            assert digest(path.read_bytes()) == f"sha256:{path.name}"
        vectors = {f"sha256:{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()}
        report = pool.audit(vectors)
        assert [str(one) for one in report.findings if one.severity == "error"] == []
        assert report.facts["sums"] == {"opened": 4, "redone": 4}
        assert sweep(broker, now_ms + hours * 3_600_000 - 60_000) == len(submitted) == 16
        assert sweep(broker, now_ms + hours * 3_600_000) == 0
        with pytest.raises(UsageError, match="within the contract's retention"):
            export(broker, run, tmp_path / "late", now_ms)


def patient(pool: Pool) -> None:
    """From now on an exchange waits for those that give no answer: to its end, or a grace after enough did."""
    ask = pool.fleet.exchange

    async def exchange(
        run: Any, requests: Any, *, deadline: dt.datetime, need: int = 0, grace_s: float = 0.0
    ):
        outcomes = [one async for one in ask(run, requests, deadline=deadline, need=need, grace_s=grace_s)]
        late = [one for one in outcomes if getattr(one, "code", None) == "engine.late"]
        for one in outcomes:
            if one not in late:
                yield one
        if late:
            left_s = deadline.timestamp() - pool.clock.now_ms() / 1000
            await asyncio.sleep(grace_s if 0 < need <= len(outcomes) - len(late) else left_s)
        for one in late:
            yield one

    pool.fleet.exchange = exchange  # type: ignore[method-assign]


@pytest.mark.parametrize(("deadline_s", "wait_s"), [(3_600, SECAGG_MESSAGE_S), (20, 20)])
@pytest.mark.parametrize("step", SETUP)
def test_a_member_that_hangs_in_a_setup_costs_half_a_minute_once_and_never_more_than_a_round(
    step: ExchangeType, deadline_s: int, wait_s: int
):
    with running(**{**PLAIN, "recipe": {"rounds": 4, "deadline_s": deadline_s}}) as (pool, go):
        patient(pool)
        pool.nodes["kita"].deaf = lambda kind, _slot: kind == step
        before = pool.clock.now_ms()
        run = go(pool.run())
        assert pool.verdicts(run) == [EVERYBODY | {"kita": "silent"}] * 4
        assert setups(pool) == [(1, 3)]
        assert wait_s * 1000 <= pool.clock.now_ms() - before < (wait_s + 10) * 1000


@pytest.mark.parametrize("late", [False, True])
def test_a_member_that_was_silent_in_the_last_round_is_waited_for_only_a_few_seconds_at_the_next_setup(
    late: bool,
):
    """The others that are late are asked again, and have their half minute."""
    with running(**{**PLAIN, "recipe": {"rounds": 4, "deadline_s": 60}}) as (pool, go):
        patient(pool)
        asked_ms: dict[ExchangeType, list[int]] = {}

        def hears(kind: str, slot: tuple[int, int]) -> bool:
            at, number = ExchangeType(kind), slot[1]
            times = asked_ms.setdefault(at, [])
            if at in SETUP and number == 2:
                times.append(pool.clock.now_ms())
            return late and at == ExchangeType.SA_ADVERTISE and len(times) == 1 and number == 2

        def restarts(kind: str, slot: tuple[int, int]) -> bool:
            if kind == ExchangeType.SA_CONTRIBUTE and slot == (2, 1):
                pool.nodes["iber"].restart()
            return False

        pool.nodes["hanbit"].deaf = hears
        pool.nodes["iber"].deaf = restarts
        pool.nodes["kita"].deaf = lambda kind, slot: (
            (kind == ExchangeType.SA_CONTRIBUTE and slot[0] == 2)
            or (kind == ExchangeType.SA_ADVERTISE and slot[1] == 2)
        )
        run = go(pool.run())
        assert setups(pool) == [(1, 4), (2, 3)]
        waited_ms = asked_ms[ExchangeType.SA_SHARE][0] - asked_ms[ExchangeType.SA_ADVERTISE][0]
        assert SECAGG_RETURN_S * 1000 <= waited_ms < (SECAGG_RETURN_S + 5) * 1000
        assert len(asked_ms[ExchangeType.SA_ADVERTISE]) == 1 + late
        assert pool.row(run).state == "completed"


@pytest.mark.parametrize("step", [ExchangeType.SA_CONFIRM, ExchangeType.SA_UNMASK])
def test_members_that_hang_behind_the_vectors_cost_half_a_minute_and_not_the_deadline_of_a_round(
    step: ExchangeType,
):
    with running(**{**PLAIN, "recipe": {"rounds": 4, "deadline_s": 3_600}}) as (pool, go):
        patient(pool)
        for name in NAMES[:2]:  # two of four are left, three open a sum
            pool.nodes[name].deaf = lambda kind, slot: kind == step and slot == (1, 1)
        before = pool.clock.now_ms()
        run = go(pool.run())
        (_, _, first), (*_, second) = attempts(pool, run)[:2]  # once unmasking began, a round is burned
        assert (first, second) == (False, True)
        assert SECAGG_MESSAGE_S * 1000 <= pool.clock.now_ms() - before < 2 * SECAGG_MESSAGE_S * 1000
