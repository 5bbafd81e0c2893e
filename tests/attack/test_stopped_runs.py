# SPDX-License-Identifier: Apache-2.0
"""A broker that wants the update of a run that the node's owner stopped: it asks again, waits, and asks later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from client.errors import LocalRefusedError
from client.owner_runs import resume, stop
from policies.exchange import ExchangeType, open_reply, tensor_bytes
from policies.limits import FLEET_INLINE_BYTES
from tests.fleetsim import CONTRACT, RECIPE, header_of, make_desk, node_key
from tests.nodeworld import RUN, World, ready_world

if TYPE_CHECKING:
    from client.federation.handlers import Answer

REFUSED = ("refused", LocalRefusedError.code, None)


def said(answer: Answer) -> tuple[str, str | None, bytes | None]:
    return answer.status, answer.code, answer.tensor


class PausingClock:
    """The node's clock; the owner acts while a reply waits for its slot."""

    def __init__(self, clock: Any, meanwhile: Any) -> None:
        self._clock = clock
        self._meanwhile = meanwhile
        self.paused: list[int] = []

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def pause_ms(self, ms: int) -> None:
        self.paused.append(ms)
        self._meanwhile()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def test_a_round_that_was_answered_is_not_answered_again_with_its_update(world: World) -> None:
    first, _ = world.ask()
    assert first.status == "ok"
    assert first.tensor
    stop(world.home, RUN)
    again, reply = world.ask()
    assert said(again) == REFUSED
    assert (reply.tensor, reply.body) == (None, {})
    assert first.tensor not in again.header
    assert said(world.ask(attempt=2)[0]) == REFUSED
    assert said(world.ask(round=2)[0]) == REFUSED


def test_nor_after_the_node_was_restarted(world: World) -> None:
    world.ask()
    stop(world.home, RUN)
    world.restart()
    assert said(world.ask()[0]) == REFUSED
    world.restart()
    assert said(world.ask()[0]) == REFUSED


def test_nor_where_the_file_of_stopped_runs_is_damaged(world: World) -> None:
    world.ask()
    world.home.stopped.write_bytes(b'{"schema": "iriai-stopped-runs/1", "runs": [')
    assert said(world.ask()[0]) == REFUSED


def test_the_judgement_of_a_candidate_does_not_leave_again_either(world: World) -> None:
    world.ask()
    assert world.ask(ExchangeType.JUDGE, round=2)[0].status == "ok"
    stop(world.home, RUN)
    again, reply = world.ask(ExchangeType.JUDGE, round=2)
    assert (*said(again), reply.body) == (*REFUSED, {})


def test_an_update_that_waits_for_its_slot_stays_where_the_run_is_stopped_meanwhile(world: World) -> None:
    desk, admit = world.worker.desk, world.worker.admit
    world.worker.admit = lambda config: replace(admit(config), reply_slot_ms=600_000)  # type: ignore[method-assign]
    clock = PausingClock(desk._clock, lambda: stop(world.home, RUN))
    desk._clock = clock
    answer, _ = world.ask()
    assert clock.paused
    assert said(answer) == REFUSED
    kinds = [one.kind for one in world.worker.outbox.envelopes(run=RUN)]
    assert "epsilon.spent" in kinds  # what was spent is told all the same
    assert said(world.ask()[0]) == REFUSED


def test_an_owner_who_lets_the_run_go_on_lets_the_same_update_leave(world: World) -> None:
    first, _ = world.ask()
    stop(world.home, RUN)
    world.ask()
    resume(world.home, RUN)
    again, _ = world.ask()
    assert (again.status, again.repeated, again.tensor) == ("ok", True, first.tensor)


def test_other_runs_and_messages_that_others_wait_for_are_answered(world: World) -> None:
    world.ask()
    stop(world.home, RUN)
    assert world.ask(ExchangeType.PING, round=0)[0].status == "ok"


def test_a_large_update_that_lies_in_a_file_stays_as_well(tmp_path: Path) -> None:
    values = np.zeros(FLEET_INLINE_BYTES, dtype=np.float32)
    desk, stopped = make_desk(tmp_path), False
    desk._stopped = lambda _run: LocalRefusedError.code if stopped else None

    def asked() -> Any:
        header = header_of(tensor=values)
        config = {"iriai": 1, "run": "run_simaaaaaaaaaaaaa", "contract": CONTRACT, "recipe": RECIPE}
        return desk.local(config, header, "train.contribute", (1, 0), tensor_bytes(values))

    assert asked()[1] is not None
    assert list((tmp_path / "fleet-replies").iterdir())
    stopped = True
    header, tensor = asked()
    assert tensor is None
    assert open_reply(header, node_key(0).public).code == LocalRefusedError.code
