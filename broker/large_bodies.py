# SPDX-License-Identifier: Apache-2.0
"""Large bodies: one of each key at a time, so that no key makes the broker hold several of them.

    async with large_bodies.turn(key_id):
        body = await read_raw(request, most=most)

Whoever comes meanwhile waits unread, `BODY_READ_S` at most. Only keys whose signature held get here.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from broker.errors import BodyTooSlowError
from policies.limits import BODY_READ_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["LargeBodies"]


class LargeBodies:
    """Whose large body is being read. For one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, asyncio.Lock] = {}
        self._there: dict[str, int] = {}

    @property
    def there(self) -> dict[str, int]:
        """Key id → how many of its requests have a large body that is being read or waits."""
        return dict(self._there)

    @asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Waits until no other large body of this key is being read.

        Raises:
            BodyTooSlowError: The other one took too long.
        """
        lock = self._turns.setdefault(key_id, asyncio.Lock())
        self._there[key_id] = self._there.get(key_id, 0) + 1
        try:
            await self._acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            self._there[key_id] -= 1
            if not self._there[key_id]:
                del self._there[key_id], self._turns[key_id]

    @staticmethod
    async def _acquire(lock: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(BODY_READ_S):
                await lock.acquire()
        except TimeoutError as error:
            raise BodyTooSlowError(
                need="one large body of a key at a time",
                found="another that still arrives",
                remedy="wait for it to end, then send this one again",
            ) from error
