# SPDX-License-Identifier: Apache-2.0
"""What is looked after at every start and once a day: erasures that a crash cut short, and orphans.

`Upkeep.look` does it once; whatever cannot be done now is done the next time. From `Upkeep.start` to
`Upkeep.stop` it is done every `UPKEEP_H`. What a crash left of bundles is removed at the start alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from policies.errors import IriaiError
from policies.limits import UPKEEP_H

if TYPE_CHECKING:
    from broker.auditing.erasure import Erasure
    from broker.auditing.exports import Exports
    from broker.log import LogTx, Writer
    from broker.store import Session

__all__ = ["Upkeep"]

_log = logging.getLogger("iriai.broker")


class Upkeep:
    """The task; for one event loop."""

    def __init__(self, *, writer: Writer, erasure: Erasure, exports: Exports) -> None:
        self._writer = writer
        self._erasure = erasure
        self._exports = exports
        self._task: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Does what is due. A frozen log, a full disk or a busy database leave it for the next time."""
        if self._writer.frozen is not None:
            return
        try:
            await self._writer.run(self._erasure.finish)
            after: bytes | None = b""
            while after is not None:
                found, after = self._erasure.orphans(after)
                if found:
                    await self._writer.run(partial(self._sweep, found))
                await asyncio.sleep(0)
        except IriaiError as error:
            _log.warning("upkeep: %s", error)

    def _sweep(self, found: list[bytes], session: Session, tx: LogTx) -> None:
        count = self._erasure.sweep(session, tx, found)
        _log.info("upkeep: %d confidential values of events that never were", count)

    def start(self) -> None:
        """Begins; on the event loop, before anybody is served."""
        self._exports.clear()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_H * 3600)
            await self.look()

    async def stop(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
