# SPDX-License-Identifier: Apache-2.0
"""An engine with enrolled nodes that speak the fleet protocol by hand, all in one process, without sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from broker.federation.flower.grid import FlowerEngine
from tests.fleetsim import (
    CONTRACT,
    RECIPE,
    RawNode,
    WallClock,
    collect,
    deadline,
    name_of,
    node_key,
    public_pem,
    request_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import numpy as np

    from broker.federation.engine import EngineRun, Failure, Reply

CLOCK = WallClock()


class Fleet:
    """An engine with enrolled nodes, all in this process."""

    def __init__(self, engine: FlowerEngine, nodes: list[RawNode], opened: EngineRun) -> None:
        self.engine, self.nodes, self.opened = engine, nodes, opened

    def ask(
        self, tensor: np.ndarray | None, *nodes: int, seconds: float = 10.0, need: int = 0, **named: Any
    ) -> asyncio.Task[list[Reply | Failure]]:
        """An exchange on its way, with the given nodes."""
        end_ms = CLOCK.now_ms() + int(seconds * 1000)
        requests = [
            request_of(tensor, node=name_of(index), deadline_ms=end_ms, **named) for index in nodes or (0,)
        ]
        found = self.engine.exchange(self.opened, requests, deadline=deadline(CLOCK, seconds), need=need)
        return asyncio.create_task(collect(found))

    def empty(self) -> bool:
        """Nothing of a finished exchange is left."""
        state, store = self.engine._state, self.engine._store
        rows = state.num_message_ins() + state.num_message_res()
        return (rows, len(store), store.total_bytes, len(self.engine._tables.instructions)) == (0, 0, 0, 0)


@asynccontextmanager
async def fleet(tmp_path: Path, nodes: int = 2, **named: Any) -> AsyncIterator[Fleet]:
    engine = FlowerEngine(state_dir=tmp_path / "broker", clock=CLOCK, **({"hold_s": 0.3} | named))
    raw = [RawNode(engine.endpoint, index) for index in range(nodes)]
    for node in raw:
        engine.enrol(name_of(node.index), public_pem(node.key), node_key(node.index).public)
    await engine.start()
    for node in raw:
        assert (await node.call("activate-node"))[0] == 200
    opened = await engine.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
    try:
        yield Fleet(engine, raw, opened)
    finally:
        await engine.stop()


def run(tmp_path: Path, body: Callable[[Fleet], Awaitable[None]], nodes: int = 2, **named: Any) -> None:
    async def serve() -> None:
        async with fleet(tmp_path, nodes, **named) as found:
            await asyncio.sleep(0)
            await body(found)

    asyncio.run(serve())
