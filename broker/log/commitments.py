# SPDX-License-Identifier: Apache-2.0
"""Opened commitments: salts and values of a range of entries, as the private database has them now.

What the log says is erased is never given, even if its row is still there: it is deleted after the entry.

    for one in opened(store, session, start=0, end=256): ...      ordered by entry and field
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.store import tables
from policies.encoding import parse
from policies.log.bundle import Disclosure
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.store import Session, Store

__all__ = ["erased_values", "opened"]

_ENTRY = tables.log_entry
_PRIVATE = tables.log_private


def opened(
    store: Store, session: Session, *, start: int, end: int, erased: frozenset[tuple[int, str]]
) -> Iterator[Disclosure]:
    """Values of the entries ``[start, end)``, at most a few hundred, by entry and field.

    Args:
        store: The databases.
        session: Of the main database.
        start: First entry.
        end: Behind the last.
        erased: From `erased_values`.
    """
    query = select(_ENTRY.c.event_id, _ENTRY.c.idx).where(_ENTRY.c.idx >= start, _ENTRY.c.idx < end)
    indexes = {bytes(row.event_id): row.idx for row in session.execute(query)}
    with store.read_private() as private:  # for a moment: an erasure waits for it
        rows = private.execute(select(_PRIVATE).where(_PRIVATE.c.event_id.in_(list(indexes)))).all()
    found = [(indexes[bytes(row.event_id)], row.field, row) for row in rows]
    for index, name, row in sorted(found, key=lambda one: one[:2]):
        if (index, name) not in erased:
            value = parse(bytes(row.value))
            yield Disclosure(index=index, field=name, salt=bytes(row.salt), value=value)


def erased_values(session: Session) -> frozenset[tuple[int, str]]:
    """Entries and fields that the log says are erased."""
    kind = _ENTRY.c.type == EntryType.ERASURE_PERFORMED.value
    pubs = [parse(bytes(body))["pub"] for body in session.scalars(select(_ENTRY.c.body).where(kind))]
    return frozenset((index, name) for one in pubs for index in one["indexes"] for name in one["fields"])
