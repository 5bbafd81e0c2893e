# SPDX-License-Identifier: Apache-2.0
"""Many connections with huge bodies at the fleet door: strangers' are never read, those of nodes are bounded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from broker.federation.flower.bodies import Bodies
from policies.exchange import tensor_bytes, tensor_spec
from policies.limits import (
    FLEET_BODIES_BYTES,
    FLEET_BODY_BYTES,
    FLEET_NODE_BODIES_BYTES,
    FLEET_READING,
    FLEET_SMALL_BYTES,
)
from tests.enginesim import CLOCK, Fleet, run
from tests.fleetsim import RawNode, digests, make_desk, name_of, public_pem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1024 * 1024
SMALL = np.arange(6, dtype=np.float32)


class Held:
    """A connection that sends all of its body but the end, and how much of that was read."""

    def __init__(self, fleet: Fleet, headers: Mapping[str, str], operation: str = "push-object") -> None:
        self.read = 0
        self.status: int | None = None
        self._size = FLEET_BODY_BYTES
        self._gone = asyncio.Event()
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": f"/v1/fleet/{operation}"}
        scope["headers"] = [*raw, (b"content-length", b"%d" % self._size)]
        self.task = asyncio.ensure_future(fleet.engine.endpoint(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self.read < self._size - MIB:
            self.read += MIB
            return {"type": "http.request", "body": bytes(MIB), "more_body": True}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)

    async def leave(self) -> None:
        """Ends it as a caller does that goes away."""
        self._gone.set()
        await self.task


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def works(fleet: Fleet, folder: Path, index: int, round_: int) -> None:
    """An honest node answers a whole exchange."""
    asked = fleet.ask(SMALL, index, round_=round_)
    await asyncio.sleep(0)
    desk = make_desk(folder, index=index, clock=CLOCK)
    assert await fleet.nodes[index].answer(desk, tensor_bytes(SMALL)) == 200
    assert digests(await asked) == {name_of(index): tensor_spec(SMALL + 1).digest}


@pytest.mark.parametrize("operation", ["push-object", "pull-messages", "activate-node"])
def test_strangers_bodies_are_not_read_and_an_honest_node_goes_on(tmp_path, operation):
    async def body(fleet: Fleet) -> None:
        node, stranger = fleet.nodes[0], RawNode(fleet.engine.endpoint, 9)
        signed = node.headers()
        key, signature, *_ = signed
        forged = {**signed, signature: "AAAA"}
        borrowed = {**stranger.headers(), key: signed[key]}
        heads = [
            {"content-type": "application/protobuf"},
            {**signed, key: "not base64"},
            stranger.headers(),
            forged,
            borrowed,
            node.headers(age_s=400),
        ]
        held = [Held(fleet, heads[number % len(heads)], operation) for number in range(120)]
        await works(fleet, tmp_path, 0, 1)
        await asyncio.gather(*(one.task for one in held))
        assert {(one.status, one.read) for one in held} == {(401, 0)}
        assert fleet.engine.endpoint.bodies.held == 0

    run(tmp_path, body)


def test_a_node_that_holds_bodies_back_has_little_room_and_others_go_on(tmp_path):
    async def body(fleet: Fleet) -> None:
        bad = fleet.nodes[1]
        held = [Held(fleet, bad.headers()) for _ in range(60)]
        await settle()
        assert sum(one.read for one in held) <= FLEET_NODE_BODIES_BYTES
        assert fleet.engine.endpoint.bodies.held == FLEET_NODE_BODIES_BYTES
        refused = [one for one in held if one.status == 503]
        assert len(refused) == 60 - FLEET_READING
        assert not any(one.read for one in refused)
        await works(fleet, tmp_path, 0, 1)
        await asyncio.gather(*(one.leave() for one in held))
        assert {one.status for one in held} == {503, 408}
        assert fleet.engine.endpoint.bodies.held == 0
        assert fleet.engine._tables.by_node[name_of(1)].reading == 0
        await works(fleet, tmp_path, 1, 2)

    run(tmp_path, body)


def test_all_nodes_together_have_bounded_room_and_small_bodies_need_none(tmp_path):
    async def body(fleet: Fleet) -> None:
        fleet.engine.endpoint.bodies = Bodies(of_all=2 * FLEET_BODY_BYTES)
        held = [Held(fleet, node.headers()) for node in fleet.nodes[1:] for _ in range(2)]
        await settle()
        assert [one.read > 0 for one in held] == [True, True, False, False, False, False]
        await works(fleet, tmp_path, 0, 1)
        await asyncio.gather(*(one.leave() for one in held))
        assert fleet.engine.endpoint.bodies.held == 0

    run(tmp_path, body, nodes=4)


def test_who_finds_no_room_in_time_is_told_to_come_again(tmp_path, monkeypatch):
    async def body(fleet: Fleet) -> None:
        bodies = fleet.engine.endpoint.bodies = Bodies(of_all=FLEET_BODY_BYTES)
        with monkeypatch.context() as soon:
            soon.setattr("broker.federation.flower.endpoint.FLEET_BODY_S", 0.05)
            async with bodies.room(0, FLEET_BODY_BYTES):
                one = Held(fleet, fleet.nodes[0].headers())
                await one.task
                assert (one.status, one.read) == (503, 0)
        assert bodies.held == 0
        await works(fleet, tmp_path, 0, 1)

    run(tmp_path, body)


@pytest.mark.parametrize("operation", ["pull-messages", "send-node-heartbeat", "confirm-message-received"])
def test_only_replies_may_be_large(tmp_path, operation):
    async def body(fleet: Fleet) -> None:
        one = Held(fleet, fleet.nodes[0].headers(), operation)
        await one.task
        assert (one.status, one.read) == (413, 0)

    run(tmp_path, body)


def test_a_node_that_is_revoked_while_it_sends_is_not_served(tmp_path):
    async def body(fleet: Fleet) -> None:
        from broker.federation.flower.names import PROTOBUF_REQUEST_TYPES, fleet_id

        node = fleet.nodes[0]
        asked = PROTOBUF_REQUEST_TYPES["POST", "/v1/fleet/send-node-heartbeat"](
            node={"node_id": fleet_id(public_pem(node.key))}, heartbeat_interval=30.0
        ).SerializeToString()
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            fleet.engine.revoke(name_of(0))
            return {"type": "http.request", "body": asked, "more_body": False}

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        headers = [(name.lower().encode(), value.encode()) for name, value in node.headers().items()]
        path = "/v1/fleet/send-node-heartbeat"
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await fleet.engine.endpoint(scope, receive, send)
        assert statuses[0] == 401

    run(tmp_path, body)


def test_room_goes_round_and_nobody_who_waits_for_themselves_holds_up_others():
    async def body() -> None:
        size = FLEET_SMALL_BYTES * 2
        bodies, order, goes = Bodies(of_all=4 * size, of_one=size), [], asyncio.Event()

        async def one(who: int, name: str) -> None:
            async with bodies.room(who, size):
                order.append(name)
                assert bodies.held <= 4 * size
                await goes.wait()

        first = [asyncio.create_task(one(*asked)) for asked in ((1, "a"), (1, "b"), (1, "c"), (2, "d"))]
        await settle()
        assert order == ["a", "d"]
        first[1].cancel()  # who waited leaves nothing behind
        goes.set()
        await asyncio.gather(*first, return_exceptions=True)
        assert (order, bodies.held, bodies._waiting) == (["a", "d", "c"], 0, [])

    asyncio.run(body())


def test_the_bounds_let_sixteen_parties_send_at_once():
    assert 2 * FLEET_BODY_BYTES <= FLEET_NODE_BODIES_BYTES
    assert 16 * FLEET_NODE_BODIES_BYTES <= FLEET_BODIES_BYTES
