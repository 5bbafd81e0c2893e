# SPDX-License-Identifier: Apache-2.0
"""Whether an operator paused a run: read from the log, as everything about a run is.

- ``run.pause`` and ``run.continue`` are actions of operators about a run; the newest of the two counts.
- A paused run closes its open round, then asks nobody. Nothing that nodes reserved or spent changes.
- To continue is not to trust again: rejected models are counted on (``run.resume``, `broker.runs.course`).

    held_since(session, "run_…")        when the pause began, in milliseconds; None if there is none
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from broker.store.tables import log_entry, run
from policies.encoding import digest
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["CONTINUE", "PAUSE", "held_since"]

PAUSE: Final = "run.pause"
CONTINUE: Final = "run.continue"


def held_since(session: Session, run_id: str) -> int | None:
    """When an operator paused a run that nobody let go on or ended since; None for every other run."""
    if session.scalar(select(run.c.stop_ms).where(run.c.run_id == run_id)) is not None:
        return None
    of_run = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.RUN_OPENED.value)
    opened = session.scalar(select(func.max(log_entry.c.idx)).where(of_run))
    actions = (log_entry.c.type == EntryType.CONSOLE_ACTION.value) & (log_entry.c.idx > opened)
    query = select(log_entry.c.body, log_entry.c.ts_ms).where(actions).order_by(log_entry.c.idx.desc())
    about = digest(run_id.encode())
    for row in session.execute(query):
        if about.encode() not in row.body:  # few of thousands are about this run, and need be read
            continue
        pub = json.loads(row.body)["pub"]
        if pub["subject"] == about and pub["action"] in {PAUSE, CONTINUE} and pub["result"] == "done":
            return row.ts_ms if pub["action"] == PAUSE else None
    return None
