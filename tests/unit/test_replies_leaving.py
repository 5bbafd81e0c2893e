# SPDX-License-Identifier: Apache-2.0
"""What a reply says and when it goes out: nothing beside the update, and at slots where the contract asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.federation.errors import RequestInvalidError
from client.federation.handlers import Admission, Answer, HandlerReply, Refusal, RunConfig
from client.federation.slots import wait_ms
from policies.exchange import ExchangeType, open_reply, tensor_bytes
from policies.privacy.errors import BudgetExhaustedError, ReplyFieldError
from policies.reply_body import REPLY_KEYS, check_reply_body
from tests.fleetsim import (
    BROKER,
    CONTRACT,
    RECIPE,
    START_MS,
    AddOne,
    HandClock,
    header_of,
    make_desk,
    node_key,
)
from tests.nodeworld import World, kinds, ready_world

if TYPE_CHECKING:
    from pathlib import Path

    from client.federation.handlers import Desk

SLOT = 250
CONFIG = RunConfig(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
VECTOR = np.arange(4, dtype=np.float32)


def ask(desk: Desk, *, slot_ms: int = 0, tensor: np.ndarray | None = VECTOR, **named: Any) -> Answer:
    return desk.answer(
        CONFIG,
        Admission(broker_key=BROKER.public, tensor_bytes=4_000, reply_slot_ms=slot_ms),
        header_of(tensor=tensor, **named),
        kind=named.get("kind", ExchangeType.CONTRIBUTE).value,
        slot=(named.get("round_", 1), named.get("attempt", 0)),
        pull=lambda _spec: tensor_bytes(VECTOR),
        confirm=lambda: None,
    )


# --- what it says ---

TELLING = (
    "num_examples",
    "loss",
    "metric",
    "metrics",
    "duration",
    "duration_ms",
    "norm",
    "weights",
    "surprise",
)


@pytest.mark.parametrize("kind", list(ExchangeType))
@pytest.mark.parametrize("key", TELLING)
def test_a_key_beside_the_closed_list_is_refused_by_its_name(kind: ExchangeType, key: str) -> None:
    said = dict.fromkeys(REPLY_KEYS[kind] - {"decision"}, "")
    assert check_reply_body(kind, said) is None
    with pytest.raises(ReplyFieldError, match=rf"privacy\.reply-field.*{key}"):
        check_reply_body(kind, {**said, key: 250})


def test_nothing_hides_in_the_decision_or_behind_a_point() -> None:
    with pytest.raises(ReplyFieldError, match="decision"):
        check_reply_body(ExchangeType.CONTRIBUTE, {"decision": {"request": {}, "loss": 1}})
    with pytest.raises(ReplyFieldError, match="a number with a point"):
        check_reply_body(ExchangeType.CONTRIBUTE, {"decision": {"request": {"round": 0.5}}})


@pytest.mark.parametrize("key", TELLING)
def test_the_node_stops_its_own_reply_that_says_more(tmp_path: Path, key: str) -> None:
    handler = AddOne(reply=HandlerReply(body={key: 250}, tensor=VECTOR))
    answer = ask(make_desk(tmp_path, handler=handler))
    assert (answer.status, answer.code, answer.tensor) == ("refused", "privacy.reply-field", None)
    assert open_reply(answer.header, node_key(0).public).body == {}
    again = ask(make_desk(tmp_path, handler=AddOne()))
    assert (again.code, again.repeated) == ("privacy.reply-field", True)  # and it is not asked for again


def test_a_refusal_that_says_more_leaves_its_code_only(tmp_path: Path) -> None:
    handler = AddOne(refusal=Refusal(code="contract.refused", body={"num_examples": 250}))
    answer = ask(make_desk(tmp_path, handler=handler))
    assert (answer.code, open_reply(answer.header, node_key(0).public).body) == ("privacy.reply-field", {})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def test_a_duty_that_says_more_notes_nothing_and_its_spend_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    duty = world.worker.desk._handlers[ExchangeType.CONTRIBUTE]
    top = duty._top
    before = len(world.worker.outbox.left.sent())

    def chatty(letters: Any, header: Any, reply: HandlerReply, sealed: Any, *, clause: Any) -> HandlerReply:
        told = HandlerReply(
            status=reply.status, code=reply.code, body={**reply.body, "loss": 1}, tensor=reply.tensor
        )
        return type(top).finish(top, letters, header, told, sealed, clause=clause)

    class Chatty:
        def __getattr__(self, name: str) -> Any:
            return chatty if name == "finish" else getattr(top, name)

    duty._top = Chatty()
    _, reply = world.ask()
    assert (reply.status, reply.code, reply.body) == ("refused", "privacy.reply-field", {})
    assert len(world.worker.outbox.left.sent()) == before
    assert world.worker.outbox.envelopes(kind="submission.received") == ()
    world.restart()
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 1  # spent, and told


def test_honest_replies_keep_to_the_list(world: World) -> None:
    for kind in (ExchangeType.PING, ExchangeType.CONTRIBUTE, ExchangeType.JUDGE):
        _, reply = world.ask(kind)
        assert reply.status == "ok", reply.code
        assert set(reply.body) <= REPLY_KEYS[kind]


# --- when it goes out ---


@given(st.integers(-(10**6), 10**9), st.integers(1, 600_000))
def test_a_reply_goes_out_at_the_first_boundary_by_which_it_is_ready(worked: int, slot: int) -> None:
    wait = wait_ms(arrived_ms=START_MS, now_ms=START_MS + worked, slot_ms=slot)
    assert 0 <= wait <= slot
    assert (worked + wait) % slot == 0
    assert (wait == slot) == (worked == 0)
    assert wait_ms(arrived_ms=START_MS, now_ms=START_MS + worked, slot_ms=0) == 0


def working(clock: HandClock, ms: int) -> Any:
    def work(_header: object) -> None:
        clock.ms += ms

    return work


@pytest.mark.parametrize(
    ("worked", "out"), [(0, 250), (1, 250), (249, 250), (250, 250), (251, 500), (1700, 1750)]
)
def test_training_is_answered_at_whole_multiples_of_the_slot(tmp_path: Path, worked: int, out: int) -> None:
    clock = HandClock()
    desk = make_desk(tmp_path, handler=AddOne(before=working(clock, worked)), clock=clock)
    assert ask(desk, slot_ms=SLOT).status == "ok"
    assert clock.ms - START_MS == out


def _raises(_header: object) -> None:
    raise BudgetExhaustedError(need="", found="", remedy="")


@pytest.mark.parametrize(
    "handler",
    [
        AddOne(refusal=Refusal(code="contract.refused")),
        AddOne(before=_raises),
        AddOne(reply=HandlerReply(body={"num_examples": 1})),
        AddOne(reply=HandlerReply(tensor=np.zeros(4, np.float32))),
    ],
    ids=["refused by the guard", "budget", "says too much", "empty batch"],
)
def test_every_answer_to_a_training_request_waits_for_the_same_slot(tmp_path: Path, handler: AddOne) -> None:
    clock = HandClock()
    desk = make_desk(tmp_path, handler=handler, clock=clock)
    first = ask(desk, slot_ms=SLOT)
    assert clock.ms - START_MS == SLOT
    again = ask(desk, slot_ms=SLOT)
    assert clock.ms - START_MS == 2 * SLOT
    assert (first.status, first.code) == (again.status, again.code)


def test_only_training_waits_and_only_where_the_contract_says_so(tmp_path: Path) -> None:
    clock = HandClock()
    desk = make_desk(tmp_path, clock=clock)
    ask(desk, slot_ms=SLOT, kind=ExchangeType.JUDGE)
    ask(desk, slot_ms=SLOT, kind=ExchangeType.PING, tensor=None)
    ask(desk, slot_ms=0, round_=2)
    assert clock.ms == START_MS
    with pytest.raises(RequestInvalidError):  # nothing signed to answer to: no data are behind it
        ask(desk, slot_ms=SLOT, key=node_key(3))
    assert clock.ms == START_MS


def test_a_node_keeps_the_slots_of_its_contract_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, changes={"privacy.reply_slot_ms": SLOT}).ready()
    for number, paused in ((1, False), (2, True)):
        world.rules(paused=paused)
        before = world.clock.ms
        _, reply = world.ask(round=number)
        assert world.clock.ms - before == SLOT
        assert (reply.status == "refused") == paused, reply.code
        if not paused:
            assert "submission.received" in kinds(reply)
            assert reply.body["decision"]["request"]["reply_slot_ms"] == SLOT
