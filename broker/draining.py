# SPDX-License-Identifier: Apache-2.0
"""Whether the broker is being stopped: whoever waits is told at once, so that nobody keeps the server up.

    draining = Draining()
    while not await draining.within(1.0):       # a second went by, and the broker goes on
        ...
    draining.begin()                            # everybody who waits goes home, now and from now on

`Services.drain` begins it; event streams wait between two looks with it.
"""

from __future__ import annotations

import asyncio

__all__ = ["Draining"]


class Draining:
    """See the module. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._begun = False

    def begin(self) -> None:
        """The broker is being stopped."""
        self._begun = True
        for event in self._waiting:
            event.set()

    async def within(self, seconds: float) -> bool:
        """Waits so long; True, at once, if the broker is being stopped."""
        if self._begun:
            return True
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return self._begun
        finally:
            self._waiting.discard(event)
        return True
