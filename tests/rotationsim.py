# SPDX-License-Identifier: Apache-2.0
"""A change of a node's key against the broker's own application, in virtual time: ``rotated(pool, go, "kita")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from client.answers import Answer
from client.membership import open_member
from client.outbox import Outbox
from client.rotating import rotate_key
from client.settings import Home
from tests import documented
from tests.brokersim import SeedEntropy
from tests.federationsim import Killed, Pool
from tests.nodeworld import YES

Go = Callable[[Any], Any]


class Gate(httpx.BaseTransport):
    """Carries requests into the loop in which the broker lives; the process ends around the nth write, if asked."""

    def __init__(self, pool: Pool, go: Go, *, dies_before: int = 0, dies_after: int = 0) -> None:
        self._pool, self._go = pool, go
        self._before, self._after = dies_before, dies_after
        self.writes = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.writes += request.method == "POST"
        if request.method == "POST" and self.writes == self._before:
            raise Killed
        answer = self._go(self._send(request))
        if request.method == "POST" and self.writes == self._after:
            raise Killed
        return answer

    async def _send(self, request: httpx.Request) -> httpx.Response:
        copied = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        inner = httpx.ASGITransport(app=self._pool.house.port, raise_app_exceptions=False)
        answer = await inner.handle_async_request(copied)
        content = await answer.aread()
        documented.hold(copied, answer, content)
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


_turns = iter(range(1_000_000))


def rotated(
    pool: Pool,
    go: Go,
    name: str,
    *,
    gate: Gate | None = None,
    confirm: Callable[[str], bool] = YES,
) -> Answer:
    """The command of a node's owner; its worker does not run meanwhile."""
    node = pool.nodes[name]
    node.close()
    seed = f"rotate {name} {next(_turns)}".encode()
    return rotate_key(
        node.home,
        clock=pool.clock,
        entropy=SeedEntropy(seed),
        code="key.age",
        confirm=confirm,
        transport=gate or Gate(pool, go),
    )


def member_of(pool: Pool, go: Go, home: Home, seed: str) -> Any:
    """The owner's own way to the broker."""
    entropy = SeedEntropy(seed.encode())
    return open_member(home, clock=pool.clock, entropy=entropy, transport=Gate(pool, go))


def outbox_of(member: Any) -> Outbox:
    """The node's outbox, as a command opens it."""
    return Outbox(
        member.home.outbox,
        key=member.identity.key,
        origin=member.broker.origin,
        clock=member.clock,
        entropy=SeedEntropy(b"outbox of a command"),
        former=member.identity.former,
    )
