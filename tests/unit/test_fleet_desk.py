# SPDX-License-Identifier: Apache-2.0
"""The node's desk and its ledger: what is decided before a tensor is pulled, and what happens when a request
comes twice."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.federation.errors import (
    DeadlinePassedError,
    RequestInvalidError,
    RunHasCodeError,
    RunRefusedError,
)
from client.federation.handlers import Admission, Answer, Desk, HandlerReply, Refusal, RunConfig, read_run
from client.federation.ledger import FleetLedger
from policies.errors import IriaiError
from policies.exchange import ExchangeType, TensorSpec, open_reply, open_request, tensor_bytes
from policies.limits import FLEET_INLINE_BYTES
from tests.fleetsim import (
    BROKER,
    CONTRACT,
    RECIPE,
    START_MS,
    AddOne,
    HandClock,
    header_of,
    make_desk,
    name_of,
    node_key,
)

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = RunConfig(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
ADMISSION = Admission(broker_key=BROKER.public, tensor_bytes=4_000_000)
VECTOR = np.arange(4, dtype=np.float32)


class Pull:
    """A tensor on the far side that counts how often it is pulled."""

    def __init__(self, tensor: np.ndarray | None) -> None:
        self.data = b"" if tensor is None else tensor_bytes(tensor)
        self.calls = 0
        self.confirmed = 0

    def __call__(self, _spec: TensorSpec) -> bytes:
        self.calls += 1
        return self.data

    def confirm(self) -> None:
        self.confirmed += 1


def ask(desk: Desk, tensor: np.ndarray | None = VECTOR, *, pull: Pull | None = None, **named: Any) -> Answer:
    pull = pull or Pull(tensor)
    slot = named.get("round_", 1), named.get("attempt", 0)
    return desk.answer(
        CONFIG,
        ADMISSION,
        header_of(tensor=tensor, **named),
        kind=named.get("kind", ExchangeType.CONTRIBUTE).value,
        slot=slot,
        pull=pull,
        confirm=pull.confirm,
    )


def test_a_request_is_decided_pulled_confirmed_worked_and_signed(tmp_path: Path) -> None:
    handler, pull = AddOne(), Pull(VECTOR)
    answer = ask(make_desk(tmp_path, handler=handler), pull=pull)
    reply = open_reply(answer.header, node_key(0).public)
    assert reply.ok
    assert reply.request == open_request(header_of(tensor=VECTOR), BROKER.public).digest
    assert answer.tensor == tensor_bytes(VECTOR + 1)
    assert (handler.decided, handler.ran, pull.calls, pull.confirmed) == (1, 1, 1, 1)


def test_a_refusal_is_signed_before_one_byte_is_pulled(tmp_path: Path) -> None:
    handler = AddOne(refusal=Refusal(code="contract.refused", body={"decision": {"salt": "C5"}}))
    pull = Pull(VECTOR)
    answer = ask(make_desk(tmp_path, handler=handler), pull=pull)
    reply = open_reply(answer.header, node_key(0).public)
    assert (reply.status, reply.code, reply.body) == (
        "refused",
        "contract.refused",
        {"decision": {"salt": "C5"}},
    )
    assert (handler.ran, pull.calls) == (0, 0)


@pytest.mark.parametrize(
    "named",
    [
        {"key": node_key(3)},
        {"run": "run_otheraaaaaaaaaaa"},
        {"recipe": CONTRACT},
        {"node": "node_simbbbbbbbbbbbbb"},
    ],
)
def test_a_header_of_another_key_run_recipe_or_node_gets_no_signed_answer(
    tmp_path: Path, named: dict[str, Any]
) -> None:
    handler, pull = AddOne(), Pull(VECTOR)
    with pytest.raises(RequestInvalidError):
        ask(make_desk(tmp_path, handler=handler), pull=pull, **named)
    assert (handler.decided, pull.calls) == (0, 0)


def test_a_carrier_that_claims_another_slot_or_type_is_refused(tmp_path: Path) -> None:
    desk, pull = make_desk(tmp_path), Pull(None)
    for kind, slot in (
        ("evaluate.judge", (1, 0)),
        ("train.contribute", (2, 0)),
        ("train.contribute", (1, 1)),
    ):
        with pytest.raises(RequestInvalidError):
            desk.answer(CONFIG, ADMISSION, header_of(), kind=kind, slot=slot, pull=pull, confirm=pull.confirm)


def test_a_passed_deadline_is_dropped_before_the_handler(tmp_path: Path) -> None:
    handler, clock = AddOne(), HandClock()
    clock.ms = START_MS + 60_000
    with pytest.raises(DeadlinePassedError):
        ask(make_desk(tmp_path, handler=handler, clock=clock))
    assert handler.decided == 0


def test_a_handler_that_raises_leaves_only_a_code(tmp_path: Path) -> None:
    def boom(_header: object) -> None:
        raise RuntimeError("row 17: serial=SECRET-42")

    answer = ask(make_desk(tmp_path, handler=AddOne(before=boom)))
    assert (answer.status, answer.code, answer.tensor) == ("refused", "engine.handler-failed", None)
    assert open_reply(answer.header, node_key(0).public).body == {}


def test_a_refusal_of_our_own_tree_keeps_its_code_and_loses_its_text(tmp_path: Path) -> None:
    class SpentError(IriaiError):
        code = "budget.exhausted"

    def spent(_header: object) -> None:
        raise SpentError(need="SECRET", found="SECRET", remedy="SECRET")

    answer = ask(make_desk(tmp_path, handler=AddOne(before=spent)))
    assert answer.code == "budget.exhausted"
    assert open_reply(answer.header, node_key(0).public).body == {}


def test_too_large_and_other_bytes_are_refused(tmp_path: Path) -> None:
    handler = AddOne()
    desk = make_desk(tmp_path, handler=handler)
    assert ask(desk, np.zeros(1_000_001, np.float32)).code == "engine.too-large"
    assert ask(desk, pull=Pull(VECTOR + 1)).code == "engine.request-invalid"
    assert handler.ran == 0


def test_a_type_outside_the_table_is_refused(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    desk._handlers = {ExchangeType.PING: AddOne()}
    assert ask(desk).code == "engine.unknown-type"


def test_the_same_request_has_one_effect_and_the_same_bytes(tmp_path: Path) -> None:
    handler = AddOne()
    desk = make_desk(tmp_path, handler=handler)
    first = ask(desk)
    pull = Pull(VECTOR)
    again = ask(desk, pull=pull)
    assert (again.header, again.tensor, again.repeated) == (first.header, first.tensor, True)
    assert (handler.decided, handler.ran, pull.calls) == (1, 1, 0)


def test_the_same_work_under_a_new_deadline_gets_the_same_content_for_the_new_request(tmp_path: Path) -> None:
    handler = AddOne()
    desk = make_desk(tmp_path, handler=handler)
    first = ask(desk)
    later = header_of(tensor=VECTOR, deadline_ms=START_MS + 90_000)
    again = ask(desk, deadline_ms=START_MS + 90_000)
    reply = open_reply(again.header, node_key(0).public)
    assert reply.request == open_request(later, BROKER.public).digest
    assert (again.tensor, handler.ran) == (first.tensor, 1)


def test_the_ledger_survives_the_process(tmp_path: Path) -> None:
    large = np.arange(FLEET_INLINE_BYTES, dtype=np.float32)
    first = ask(make_desk(tmp_path), large)
    handler = AddOne()
    again = ask(make_desk(tmp_path, handler=handler), large)
    assert (again.header, again.tensor, handler.ran) == (first.header, first.tensor, 0)


def test_other_work_in_the_slot_is_refused(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    ask(desk)
    assert ask(desk, VECTOR + 1).code == "engine.request-differs"
    assert ask(desk, VECTOR + 1, attempt=1).status == "ok"


def test_work_whose_process_died_is_refused_and_a_new_attempt_is_not(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(_header: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        ask(make_desk(tmp_path, handler=AddOne(before=die)))
    desk = make_desk(tmp_path)
    assert ask(desk).code == "engine.interrupted"
    assert ask(desk, attempt=1).status == "ok"


def test_admitted_work_whose_process_died_is_run(tmp_path: Path) -> None:
    ledger = FleetLedger(tmp_path / "fleet0.db")
    ledger.admit(open_request(header_of(tensor=VECTOR), BROKER.public))
    ledger.close()
    assert ask(make_desk(tmp_path)).status == "ok"


def test_a_later_round_closes_the_earlier_ones(tmp_path: Path) -> None:
    large = np.arange(FLEET_INLINE_BYTES, dtype=np.float32)
    desk = make_desk(tmp_path)
    ask(desk, large)
    assert len(list((tmp_path / "fleet-replies").iterdir())) == 1
    assert ask(desk, large, round_=3).status == "ok"
    assert ask(desk, large).code == "engine.round-closed"
    assert ask(desk, large, round_=2).code == "engine.round-closed"
    assert ask(desk, large, round_=2, kind=ExchangeType.JUDGE).status == "ok"
    assert len(list((tmp_path / "fleet-replies").iterdir())) == 2


def test_pings_leave_no_trace(tmp_path: Path) -> None:
    handler = AddOne()
    desk = make_desk(tmp_path, handler=handler)
    for _ in range(2):
        assert ask(desk, None, kind=ExchangeType.PING).status == "ok"
    assert handler.ran == 2


def test_the_ledger_is_durable(tmp_path: Path) -> None:
    ledger = FleetLedger(tmp_path / "fleet.db")
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(sqlite3.IntegrityError):
        ledger._db.execute("INSERT INTO slot (contract) VALUES ('x')")


GOOD = {"iriai": 1, "run": "run_simaaaaaaaaaaaaa", "contract": CONTRACT, "recipe": RECIPE}


def test_a_run_is_read_from_exactly_four_keys() -> None:
    assert read_run(fab_hash="", fab_id="", config=GOOD) == CONFIG


@pytest.mark.parametrize(
    "config",
    [
        {},
        GOOD | {"lr": 1},
        GOOD | {"iriai": 2},
        GOOD | {"contract": "x"},
        GOOD | {"run": "run_ABC-0189"},
        {k: v for k, v in GOOD.items() if k != "run"},
    ],
)
def test_a_run_with_other_keys_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(RunRefusedError):
        read_run(fab_hash="", fab_id="", config=config)


def test_a_run_with_code_is_refused() -> None:
    for named in ({"fab_hash": "abc", "fab_id": ""}, {"fab_hash": "", "fab_id": "flwr/app"}):
        with pytest.raises(RunHasCodeError):
            read_run(config=GOOD, **named)


def test_local_answers_like_the_wire(tmp_path: Path) -> None:
    clock = HandClock()

    def admit(config: RunConfig) -> Admission:
        if config.run == "run_badaaaaaaaaaaaaa":
            raise RunRefusedError(need="a", found="b", remedy="c")
        return ADMISSION

    desk = make_desk(tmp_path, clock=clock, admit=admit)
    header = header_of(tensor=VECTOR)
    asked = (header, "train.contribute", (1, 0), tensor_bytes(VECTOR))
    assert desk.local(GOOD | {"run": "run_badaaaaaaaaaaaaa"}, *asked) == "engine.run-refused"
    assert desk.local(GOOD | {"x": 1}, *asked) == "engine.run-refused"
    answer = desk.local(GOOD, *asked)
    assert isinstance(answer, tuple)
    assert answer[1] == tensor_bytes(VECTOR + 1)
    clock.ms += 60_000
    assert desk.local(GOOD, *asked) is None


def test_a_handler_reply_has_a_form() -> None:
    assert HandlerReply() == HandlerReply(status="ok", code=None, body={}, tensor=None)
    assert name_of(3) == "node_simddddddddddddd"
