# SPDX-License-Identifier: Apache-2.0
"""`LocalGrid`: the engine without sockets, threads or Flower, for tests and simulations in one process.

A node is a function from a request to an answer; `client.federation.handlers.Desk.local` is one. Nodes are
asked one after the other,
in the order of the requests, so a run is the same every time. Headers, checks, outcomes and the rules of
deadline, ``need`` and
``grace_s`` are those of `FlowerEngine`; time is the clock's, which a node may move.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.federation.acceptance import accept
from broker.federation.engine import EngineRun, Failure
from broker.federation.errors import NotRunningError, RunLimitError
from policies.exchange import is_code, peek_request
from policies.frames import split
from policies.limits import MAX_ACTIVE_RUNS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from broker.federation.engine import NodeId, Reply, Request
    from policies.ports import Clock

    Answer = tuple[bytes, bytes | None] | str | None
    Ask = Callable[[Mapping[str, object], bytes, str, tuple[int, int], bytes | None], Answer]

__all__ = ["LocalGrid", "LocalNode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """A node of this process.

    Attributes:
        public_key: Ed25519 key that signs its replies.
        ask: Called with run configuration, header, type, (round, attempt) and the tensor's bytes. Returns
            header and tensor of the
            reply, the code of a refusal without header, or None for no answer.
    """

    public_key: bytes
    ask: Ask


class LocalGrid:
    """Implements `broker.federation.engine.Engine`; ``offline`` holds the nodes that do not answer now."""

    def __init__(self, *, clock: Clock, nodes: Mapping[NodeId, LocalNode]) -> None:
        self._clock = clock
        self._nodes = dict(nodes)
        self._runs: dict[int, EngineRun] = {}
        self._counter = itertools.count(1)
        self.offline: set[NodeId] = set()
        self._seen_ms: dict[NodeId, int] = {}

    def online(self) -> frozenset[NodeId]:
        """Nodes that would answer now."""
        return frozenset(self._nodes) - self.offline

    def seen_ms(self) -> Mapping[NodeId, int]:
        """When each node answered last."""
        return dict(self._seen_ms)

    async def open_run(self, *, run: str, contract: str, recipe: str) -> EngineRun:
        """Opens a run.

        Raises:
            RunLimitError: `MAX_ACTIVE_RUNS` are open.
        """
        if len(self._runs) >= MAX_ACTIVE_RUNS:
            raise RunLimitError(
                need=f"fewer than {MAX_ACTIVE_RUNS} active runs",
                found=f"{len(self._runs)}",
                remedy="wait until one has ended",
            )
        opened = EngineRun(run=run, contract=contract, recipe=recipe, handle=next(self._counter))
        self._runs[opened.handle] = opened
        return opened

    async def close_run(self, run: EngineRun, *, ok: bool) -> None:  # noqa: ARG002  the outcome matters to Flower only
        """Forgets a run."""
        self._runs.pop(run.handle, None)

    async def exchange(
        self,
        run: EngineRun,
        requests: Sequence[Request],
        *,
        deadline: dt.datetime,
        need: int = 0,
        grace_s: float = 0.0,
    ) -> AsyncIterator[Reply | Failure]:
        """Asks the nodes in order and yields one outcome per request."""
        if run.handle not in self._runs:
            raise NotRunningError(need="an open run", found="a closed one", remedy="open the run again")
        end_ms = round(deadline.timestamp() * 1000)
        good = 0
        for request in requests:
            outcome = self._ask(run, request, end_ms=end_ms)
            if not isinstance(outcome, Failure):
                good += outcome.ok
                if need and good == need and outcome.ok:
                    end_ms = min(end_ms, self._clock.now_ms() + round(grace_s * 1000))
            yield outcome

    def _ask(self, run: EngineRun, request: Request, *, end_ms: int) -> Reply | Failure:
        node = self._nodes.get(request.node)
        if node is None:
            return Failure(node=request.node, code="engine.unreachable")
        if request.node in self.offline or self._clock.now_ms() >= end_ms:
            return Failure(node=request.node, code="engine.late")
        config = {"iriai": 1, "run": run.run, "contract": run.contract, "recipe": run.recipe}
        tensor = request.tensor if isinstance(request.tensor, bytes | None) else request.tensor.read_bytes()
        slot = request.round, request.attempt
        answer = node.ask(config, request.header, request.type.value, slot, tensor)
        if answer is None or self._clock.now_ms() > end_ms:
            return Failure(node=request.node, code="engine.late")
        self._seen_ms[request.node] = self._clock.now_ms()
        if isinstance(answer, str):
            return Failure(node=request.node, code=answer if is_code(answer) else "engine.refused")
        raw, data = answer
        return accept(
            request,
            peek_request(request.header),
            raw=raw,
            parts=[] if data is None else list(split(memoryview(data))),
            node_key=node.public_key,
        )
