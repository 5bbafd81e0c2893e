# SPDX-License-Identifier: Apache-2.0
"""What is looked after at every start and once a day: erasures that a crash cut short, orphans, old answers.

Answers of changes that are older than `IDEMPOTENCY_DAYS` are forgotten. Of a change that was signed its key
and Idempotency-Key stay, some hundred bytes beside the entry that it left in the log, so that it is refused
when it comes again (`broker.api.once`). Of a form of the console nothing stays: it belongs to one login, and
that has ended long ago.

`Upkeep.look` does it once; whatever cannot be done now is done the next time. From `Upkeep.start` to
`Upkeep.stop` it is done every `UPKEEP_H`, whatever the time before ended with: an error of any kind is a line
in the process's log, one that is not foreseen with its traceback. What a crash left of bundles is removed at
the start alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update

from broker.store.tables import idempotency
from policies.errors import IriaiError
from policies.limits import IDEMPOTENCY_DAYS, UPKEEP_H

if TYPE_CHECKING:
    from broker.auditing.erasure import Erasure
    from broker.auditing.exports import Exports
    from broker.log import LogTx, Writer
    from broker.store import Session

__all__ = ["Upkeep", "forget_answers"]

_ANSWERS: Final = 500  # of one unit of work
_DAY_MS: Final = 86_400_000
_PERSON: Final = "person:"  # key ids of forms
_FORGOTTEN: Final = {"body_digest": "", "status": 0, "response": b"", "at_ms": None}
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
            more = True
            while more:
                more, _ = await self._writer.run(forget_answers)
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
            try:
                await self.look()
            except Exception:  # noqa: BLE001  whatever it is, the task goes on
                _log.exception("upkeep: it was cut short, and is tried again in %d h", UPKEEP_H)

    async def stop(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def forget_answers(session: Session, tx: LogTx) -> bool:
    """Forgets answers that are too old to be given again, the oldest first; whether there may be more."""
    old = idempotency.c.at_ms < tx.now_ms - IDEMPOTENCY_DAYS * _DAY_MS
    query = select(idempotency.c.key_id, idempotency.c.idem).where(old)
    found = session.execute(query.order_by(idempotency.c.at_ms).limit(_ANSWERS)).all()
    for key_id, idem in found:
        one = (idempotency.c.key_id == key_id) & (idempotency.c.idem == idem)
        if key_id.startswith(_PERSON):
            session.execute(delete(idempotency).where(one))
        else:
            session.execute(update(idempotency).where(one).values(_FORGOTTEN))
    return len(found) == _ANSWERS
