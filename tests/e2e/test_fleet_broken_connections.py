# SPDX-License-Identifier: Apache-2.0
"""A large model over a connection that breaks: it goes on from the chunk where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from policies.exchange import tensor_spec
from policies.limits import FLEET_CHUNK_BYTES
from sandbox.bench_exchange import CONTRACT, RECIPE, LoopbackFleet
from sandbox.processes import free_port
from tests.fleetsim import digests, ran

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]

CHUNKS = 5
MODEL = np.arange(CHUNKS * FLEET_CHUNK_BYTES // 4, dtype=np.float32)
SLACK = 200_000  # heads of requests, handshakes


@dataclass
class Door:
    """Passes on what comes between nodes and broker; cuts a connection once, after so many bytes one way."""

    broker: int
    port: int = field(default_factory=free_port)
    cut_after: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    cuts: int = 0

    async def meet(self, node: asyncio.StreamReader, to_node: asyncio.StreamWriter) -> None:
        broker, to_broker = await asyncio.open_connection("127.0.0.1", self.broker)
        ways = [self._pass("up", node, to_broker), self._pass("down", broker, to_node)]
        with contextlib.suppress(OSError):
            await asyncio.wait([asyncio.ensure_future(one) for one in ways], return_when="FIRST_COMPLETED")
        for writer in (to_node, to_broker):
            writer.transport.abort()

    async def _pass(self, way: str, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                self.passed[way] += len(data)
                if self.passed[way] >= self.cut_after.get(way, sys.maxsize):
                    del self.cut_after[way]
                    self.cuts += 1
                    return
                target.write(data)
                await target.drain()


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_cut_connection_costs_one_chunk(tmp_path: Path, way: str) -> None:
    async def body() -> None:
        door = Door(broker=0)
        fleet = LoopbackFleet(
            folder=tmp_path / "fleet",
            nodes=1,
            door=door.port,
            command=(sys.executable, "-m", "tests.fleetsim"),
        )
        fleet.prepare()
        door.broker = fleet.port
        server = await asyncio.start_server(door.meet, "127.0.0.1", door.port)
        try:
            async with fleet.serving() as engine:
                fleet.start(0, "ok")
                await fleet.all_online()
                opened = await engine.open_run(run="run_e2eaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
                door.passed = {"up": 0, "down": 0}
                door.cut_after[way] = 3 * FLEET_CHUNK_BYTES + FLEET_CHUNK_BYTES // 2  # within the fourth
                found = await fleet.ask(opened, [fleet.request(opened, fleet.names[0], 1, MODEL)])
                assert digests(found) == {fleet.names[0]: tensor_spec(MODEL + 1).digest}
                await engine.close_run(opened, ok=True)
        finally:
            fleet.stop()
            server.close()
        assert door.cuts == 1
        assert ran(fleet.folder / "node0") == ["1.0"]
        other = "up" if way == "down" else "down"
        assert door.passed[other] < MODEL.nbytes * 1.01 + SLACK
        assert door.passed[way] < MODEL.nbytes * 1.01 + FLEET_CHUNK_BYTES + SLACK

    asyncio.run(body())
