# SPDX-License-Identifier: Apache-2.0
"""Wakes polls that are held for a negotiation, in this process.

- `ring` is called after the commit, on the event loop: whoever waits looks again and finds what was
  written.
- One held poll per key and negotiation: a newer one sends the older one home.
- After `close`, nobody is held any more: a server that stops does not wait for polls.
"""

from __future__ import annotations

import asyncio

__all__ = ["Bell"]


class Bell:
    """See the module. Not for several threads."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}
        self._closed = False

    def ring(self, name: str) -> None:
        """Something changed in this negotiation."""
        for key in [one for one in self._waiting if one[0] == name]:
            self._waiting[key].set()

    def close(self) -> None:
        """Sends everybody home, now and from now on."""
        self._closed = True
        for event in self._waiting.values():
            event.set()

    async def heard(self, name: str, key_id: str, wait_s: float) -> bool:
        """Waits for the next `ring`; False when the time is over, or nobody is to wait."""
        place = (name, key_id)
        older = self._waiting.get(place)
        if older is not None:
            older.set()
        if self._closed:
            return False
        event = self._waiting[place] = asyncio.Event()
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            mine = self._waiting.get(place) is event
            if mine:
                del self._waiting[place]
        return mine and not self._closed
