# SPDX-License-Identifier: Apache-2.0
"""What the broker's people did, as the log has it: every ``console.action``, newest first.

    page(session, after=None, limit=50, name="alice")

An action names who, what, the digest of the subject and the result. Entries of this type have an index; who
asks for one person looks at a bounded number of them, and the next page goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.store.tables import log_entry
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["Did", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """One action."""

    index: int
    at_ms: int
    name: str
    action: str
    subject: str | None
    result: str


def page(
    session: Session,
    *,
    after: int | None = None,
    limit: int,
    name: str | None = None,
    action: str | None = None,
    result: str | None = None,
    looked: int = 2_000,
) -> tuple[list[Did], int | None]:
    """Actions, newest first, and the index after which the next page begins.

    Args:
        session: To read with.
        after: Last index of the page before.
        limit: Actions of a page.
        name: Only of this person.
        action: Only actions that begin with this word.
        result: Only ``done`` or ``refused``.
        looked: At most so many actions are looked at; a page may then have fewer, and the next one goes on.
    """
    query = select(log_entry.c.idx, log_entry.c.ts_ms, log_entry.c.body).where(
        log_entry.c.type == EntryType.CONSOLE_ACTION.value
    )
    if after is not None:
        query = query.where(log_entry.c.idx < after)
    filtered = name is not None or action is not None or result is not None
    rows = session.execute(
        query.order_by(log_entry.c.idx.desc()).limit(looked if filtered else limit + 1)
    ).all()
    kept: list[Did] = []
    for row in rows:
        one = _did(row.idx, row.ts_ms, json.loads(row.body)["pub"])
        fits = name in {None, one.name} and result in {None, one.result}
        if fits and one.action.startswith(action or ""):
            kept.append(one)
        if len(kept) > limit:
            return kept[:limit], kept[limit - 1].index
    return kept, rows[-1].idx if filtered and len(rows) == looked else None


def _did(index: int, at_ms: int, pub: dict[str, str | None]) -> Did:
    return Did(
        index=index,
        at_ms=at_ms,
        name=str(pub["operator"]),
        action=str(pub["action"]),
        subject=pub["subject"],
        result=str(pub["result"]),
    )
