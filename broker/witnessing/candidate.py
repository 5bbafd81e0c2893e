# SPDX-License-Identifier: Apache-2.0
"""The one head that witnesses are asked to cosign now.

A log that takes a hundred heads a second would never see one cosigned by enough witnesses, if each of them
took the newest at its own moment. So one *candidate* is offered at a time. It makes room for the newest head
once it reached its quorum, or `WITNESS_CANDIDATE_S` after it was offered.

    offered = candidates.offered()                         None while the log is empty
    await candidates.news(is_news=larger, wait_s=20.0)     returns once that holds, or the time is over

- `changed` may be called from any thread: after a head was signed, and after a quorum was reached.
- At most `WITNESS_WAITERS` questions are held. Further ones are answered at once: whoever holds all places
  makes the others ask more often, and stops nobody.
- After `drain`, nobody is held any more: a server that stops does not wait for questions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

from policies.limits import WITNESS_CANDIDATE_S, WITNESS_CANDIDATES, WITNESS_WAITERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.log import Head
    from policies.ports import Clock

__all__ = ["Candidates"]

_CANDIDATE_MS = WITNESS_CANDIDATE_S * 1000


class Candidates:
    """See the module. All but `changed` belongs to one thread."""

    def __init__(
        self,
        *,
        head: Callable[[], Head],
        reached: Callable[[], int],
        clock: Clock,
        waiters: int = WITNESS_WAITERS,
    ) -> None:
        """Offers nothing yet.

        Args:
            head: The newest signed head.
            reached: Size of the newest head with a quorum, or of the newest one if nobody witnesses.
            clock: Of the broker.
            waiters: Questions that are held at a time.
        """
        self._head = head
        self._reached = reached
        self._clock = clock
        self._room = waiters
        self._now: Head | None = None
        self._since_ms = 0
        self._recent: OrderedDict[int, Head] = OrderedDict()
        self._event: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def offered(self) -> Head | None:
        """The head that is to be cosigned now."""
        newest, now_ms = self._head(), self._clock.now_ms()
        if newest.size and (self._now is None or (newest.size != self._now.size and self._is_over(now_ms))):
            self._now, self._since_ms = newest, now_ms
            self._recent[newest.size] = newest
            while len(self._recent) > WITNESS_CANDIDATES:
                self._recent.popitem(last=False)
        return self._now

    def recent(self, size: int) -> Head | None:
        """A head of this size that was offered not long ago."""
        return self._recent.get(size)

    def _is_over(self, now_ms: int) -> bool:
        """Whether the candidate may be replaced; also after the clock was set back."""
        if self._now is None or self._reached() >= self._now.size:
            return True
        return not 0 <= now_ms - self._since_ms < _CANDIDATE_MS

    async def news(self, *, is_news: Callable[[], bool], wait_s: float) -> None:
        """Returns once something is new for the caller, when the time is over, or at once without room."""
        if is_news() or wait_s <= 0 or self._closed or self._room <= 0:
            return
        loop = self._loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        self._room -= 1
        try:
            while not is_news() and not self._closed and (left_s := until_s - loop.time()) > 0:
                await self._heard(min(left_s, self._patience_s()))
        finally:
            self._room += 1

    def _patience_s(self) -> float:
        """After how long the rule of time may give another candidate."""
        waits = self._now is not None and self._head().size != self._now.size
        return WITNESS_CANDIDATE_S / 4 if waits else float("inf")

    async def _heard(self, wait_s: float) -> None:
        self._event = self._event or asyncio.Event()
        try:
            async with asyncio.timeout(wait_s):
                await self._event.wait()
        except TimeoutError:
            return

    def changed(self) -> None:
        """Wakes everybody who waits; never raises, also while the server stops."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def drain(self) -> None:
        """Sends everybody home, now and from now on."""
        self._closed = True
        self._ring()
