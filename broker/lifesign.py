# SPDX-License-Identifier: Apache-2.0
"""What a broker tells systemd: that it is ready, that it still lives, that it is being stopped.

- The protocol of ``sd_notify``: a datagram to the socket that ``NOTIFY_SOCKET`` names; ``WATCHDOG_USEC`` says
  within which time it has to say ``WATCHDOG=1`` again, or it is ended and started anew (broker/unit.py).
- It says so from the event loop, each time that the database and the writer of the log have answered. A loop
  that does not turn, a writer or a database that keep silent for longer than that time: nothing is said.
- A refusal is an answer: callers are told of a log that is frozen and of a database server that is away, and
  another start would mend neither. No free connection is none: readers may keep them all for good.
- A look that fails, by whatever, is one of which nothing is said; the next one may say it again.
- Without the variable nobody listens, and nothing is done. Whoever listens no longer is no reason to end.

    life = Lifesign.of(os.environ)
    life.tell("READY=1")
    life.begin(lambda: answered(services))        in a running event loop
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from broker.store.tables import log_head
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from broker.services import Services

__all__ = ["Lifesign", "answered"]

_log = logging.getLogger("iriai.broker")
_TURNS: Final = 4  # within the time that systemd waits: two to be answered, one to pause, one to spare


class Lifesign:
    """One process and the socket on which somebody may listen; ``period_s`` is None if nobody waits."""

    def __init__(self, address: str | None, period_s: float | None) -> None:
        self._address = address
        self.period_s = period_s
        self._feeding: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], *, pid: int | None = None) -> Lifesign:
        """As the environment says; times that are meant for another process are not ours."""
        named = environ.get("NOTIFY_SOCKET", "")
        usec, waited = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = waited in {"", str(os.getpid() if pid is None else pid)}
        return cls(
            named if named.startswith(("/", "@")) else None,
            int(usec) / 1e6 if ours and usec.isdecimal() and int(usec) else None,
        )

    def tell(self, *lines: str) -> None:
        """One datagram with these lines."""
        if self._address is None:
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # noqa: FBT003  the library's
            sock.sendto("\n".join(lines).encode("utf-8"), address)

    def begin(self, look: Callable[[], Awaitable[None]]) -> None:
        """Says that it lives, for as long as this event loop turns and ``look`` comes to an end in time."""
        if self.period_s is not None and self._feeding is None:
            self._feeding = asyncio.get_running_loop().create_task(self._feed(look, self.period_s / _TURNS))

    async def _feed(self, look: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            try:
                await asyncio.wait_for(look(), 2 * every_s)
                self.tell("WATCHDOG=1")
            except Exception as error:  # noqa: BLE001  whatever it is, the task goes on
                _log.warning("no sign of life this time: %s", type(error).__name__)
            await asyncio.sleep(every_s)


async def answered(services: Services) -> None:
    """Returns once the database and the writer of the log have answered, with whatever.

    Raises:
        StoreBusyError: All connections are with readers that keep them.
    """
    await asyncio.to_thread(_read, services)
    with contextlib.suppress(IriaiError):  # frozen, or the database is away: it says so
        await services.writer.run(lambda _session, _log: None)


def _read(services: Services) -> None:
    try:
        with services.store.read() as session:
            session.execute(select(log_head.c.size)).first()
    except (SQLAlchemyError, OSError):
        return
