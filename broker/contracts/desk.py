# SPDX-License-Identifier: Apache-2.0
"""Negotiations as the API serves them: what is read is up to date, polls are held, deadlines are kept.

- Whoever reads finds no lane that should have ended: what is overdue ends before the answer.
- One task sleeps until the nearest deadline and ends what is late. It looks again every
  `DEADLINE_CHECK_S`, because the clock may jump, and after each change.
- A successor takes effect when its term begins, by the same task, and before any answer that is asked later.
- A negotiation or a successor that cannot be brought up to date stops no other one. A frozen log takes no
  change at all: then reads show what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from broker.contracts.pools import find_pool, nearest_deadline_ms, overdue
from broker.contracts.views import view_of
from broker.log.errors import LogFrozenError, LogUnavailableError
from policies.contract.negotiation.pool import OPEN
from policies.errors import IriaiError
from policies.limits import DEADLINE_CHECK_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.contracts.amendments import Amendments
    from broker.contracts.bell import Bell
    from broker.contracts.negotiations import Negotiations
    from broker.contracts.service import Contracts
    from broker.log import LogTx, Writer
    from broker.membership.directory import Member, Operator
    from broker.store import Session, Store
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.ports import Clock

__all__ = ["NegotiationDesk"]

_log = logging.getLogger("iriai.broker")


class NegotiationDesk:
    """See the module."""

    def __init__(
        self,
        *,
        negotiations: Negotiations,
        amendments: Amendments,
        contracts: Contracts,
        store: Store,
        writer: Writer,
        clock: Clock,
        bell: Bell,
    ) -> None:
        self.amended: Callable[[Contract, Contract], None] = _nobody_asks
        self._negotiations = negotiations
        self._amendments = amendments
        self._contracts = contracts
        self._store = store
        self._writer = writer
        self._clock = clock
        self._bell = bell
        self._changed: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to keep deadlines; on the event loop."""
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_deadlines(self._changed))

    def drain(self) -> None:
        """Ends held polls; none is held from now on."""
        self._bell.close()

    async def stop(self) -> None:
        """Ends held polls and the task."""
        self.drain()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def changed(self, name: str) -> None:
        """A negotiation was changed and the change is committed. Repeatable."""
        self._bell.ring(name)
        self.stir()

    def stir(self) -> None:
        """Something new may be due: looks again when the next is. Repeatable."""
        if self._changed is not None:
            self._changed.set()

    async def poll(self, name: str, caller: Member | Operator, *, after: int, wait_s: int) -> dict[str, Json]:
        """The negotiation as the caller sees it, once a message follows ``after`` or the time is over.

        Raises:
            NotPartyError: None, or the caller is no party: the two look the same.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while True:
            await self.bring_up_to_date(name)
            with self._store.read() as session:
                pool = find_pool(session, name)
                view = view_of(session, self._contracts, pool, caller, after=after)
            left_s = until_s - loop.time()
            if view["messages"] or view["state"] != OPEN or left_s <= 0:
                return view
            if not await self._bell.heard(name, caller.key_id, left_s):
                until_s = loop.time()

    async def bring_up_to_date(self, *names: str) -> bool:
        """Ends what is overdue, in these negotiations and in all others.

        Each by itself: one that cannot be brought up to date does not keep the others waiting.

        Returns:
            False if something could not be written.

        Raises:
            NotPartyError: No such negotiation.
        """
        now_ms = self._clock.now_ms()
        with self._store.read() as session:
            late = set(overdue(session, now_ms))
            late |= {
                one for one in names if self._negotiations.stale(session, find_pool(session, one), now_ms)
            }
            due = self._amendments.due(session, now_ms)
        done = True
        try:
            for name in sorted(late):
                done &= await _alone(name, self._look(name))
            for name in due:
                done &= await _alone(name, self._take_effect(name))
        except (LogFrozenError, LogUnavailableError):
            return False
        return done

    async def _look(self, name: str) -> None:
        def work(session: Session, tx: LogTx) -> None:
            self._negotiations.look(session, tx, name)

        await self._writer.run(work)
        self.changed(name)

    async def _take_effect(self, name: str) -> None:
        done, _ = await self._writer.run(lambda session, tx: self._amendments.take_effect(session, tx, name))
        if done is not None:
            self.amended(*done)

    async def _keep_deadlines(self, changed: asyncio.Event) -> None:
        done = True
        while True:
            changed.clear()
            wait_s = self._sleep_s() if done else float(DEADLINE_CHECK_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            try:
                done = await self.bring_up_to_date()
            except IriaiError as error:  # a bug of ours must not end the keeping of deadlines
                _log.error("deadlines: %s", error, exc_info=error)
                done = False

    def _sleep_s(self) -> float | None:
        with self._store.read() as session:
            times = (nearest_deadline_ms(session), self._amendments.nearest_ms(session))
        nearest_ms = min((one for one in times if one is not None), default=None)
        if nearest_ms is None:
            return None
        return min(float(DEADLINE_CHECK_S), max(0, nearest_ms - self._clock.now_ms()) / 1000)


async def _alone(name: str, step: Awaitable[None]) -> bool:
    """Whether a step was done; one that fails is told to the operators and stays undone.

    Raises:
        LogFrozenError, LogUnavailableError: Nothing can be written now, whatever it is about.
    """
    try:
        await step
    except (LogFrozenError, LogUnavailableError):
        raise
    except Exception as error:  # noqa: BLE001  a bug of ours about one must not stop the deadlines of all
        _log.error("deadlines: %s: %s", name, error, exc_info=error)
        return False
    return True


def _nobody_asks(_old: Contract, _new: Contract) -> None:
    """Nobody else has to know."""
