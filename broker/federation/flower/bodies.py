# SPDX-License-Identifier: Apache-2.0
"""Room for large bodies: so much of one node, so much of all nodes together; who finds none waits, unread.

    async with bodies.room(node.fleet_id, size): read the body, work on it

- A body of at most `FLEET_SMALL_BYTES` needs no room: how many of them a node may send at a time is bounded.
- Room is given in the order in which it was asked for. Who waits for their own node does not hold up others.
- Whoever stops waiting leaves nothing behind. One event loop owns it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from policies.limits import FLEET_BODIES_BYTES, FLEET_NODE_BODIES_BYTES, FLEET_SMALL_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Bodies"]


class Bodies:
    """See the module."""

    def __init__(self, *, of_all: int = FLEET_BODIES_BYTES, of_one: int = FLEET_NODE_BODIES_BYTES) -> None:
        self._of_all, self._of_one = of_all, of_one
        self._held: Counter[int] = Counter()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def held(self) -> int:
        """Bytes that room was given for."""
        return self._held.total()

    @asynccontextmanager
    async def room(self, who: int, size: int) -> AsyncIterator[None]:
        """Room for so many bytes of a node, once there is some; given back at the end of the block."""
        if size <= FLEET_SMALL_BYTES:
            yield
            return
        await self._take(who, size)
        try:
            yield
        finally:
            self._give(who, size)

    async def _take(self, who: int, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = (who, size, turn)
        self._waiting.append(asked)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if asked in self._waiting:
                self._waiting.remove(asked)
                self._next()
            else:
                self._give(who, size)
            raise

    def _give(self, who: int, size: int) -> None:
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]
        self._next()

    def _next(self) -> None:
        """Lets in whoever has room now."""
        left = self._of_all - self.held
        for asked in tuple(self._waiting):
            who, size, turn = asked
            if turn.done() or self._held[who] + size > self._of_one:
                continue
            if size > left:
                return
            self._waiting.remove(asked)
            self._held[who] += size
            left -= size
            turn.set_result(None)
