# SPDX-License-Identifier: Apache-2.0
"""Incidents as operators see them: what the log declares, and that somebody dealt with it.

- An incident is what ``incident.declared`` says: kind and evidence, in one contract and run. Nodes, witnesses
  and the broker declare; here nothing is declared.
- It is closed by an entry ``incident.closed`` of the same words, which refers to it, with the operator's name
  beside it and the reason as the action's subject. It is closed once; nothing opens it again.
- Closing changes no other rule: whose reply is the evidence stays out of that run (`broker.runs.incidents`).
- The broker declares each piece of evidence once, so the id of the entry that closes an incident is known
  before it is written (`policies.log.entries.event_id`), and is looked up by it.
- `Incidents` keeps which are open and reads on in the log where it stopped: screens look at a page, never at
  all of them. It is for reads alone; what a transaction adds may still be taken back.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.auditing.errors import IncidentClosedError, IncidentUnknownError
from broker.membership.records import console_action
from broker.store.tables import log_entry
from policies.encoding import Json, canonical, digest
from policies.log.entries import EntryType, Event, event_id
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping

    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session

__all__ = ["Incidents", "close_incident", "since"]

_DECLARED: Final = log_entry.c.type == EntryType.INCIDENT_DECLARED.value
_CLOSED: Final = log_entry.c.type == EntryType.INCIDENT_CLOSED.value
_LOOKED: Final = 10_000


class Incidents:
    """What is open, and pages of what there was; for one event loop."""

    def __init__(self) -> None:
        self._upto = 0
        self._open: list[int] = []

    def open(self, session: Session) -> Sequence[int]:
        """Entries that declare an incident which nobody closed, oldest first."""
        self._read_on(session)
        return self._open

    def page(
        self, session: Session, *, limit: int, after: int | None = None, closed: bool | None = None
    ) -> tuple[list[dict[str, Json]], int | None]:
        """Incidents, newest first, and the index after which the next page begins.

        Args:
            session: To read with.
            limit: Incidents of a page.
            after: Last index of the page before.
            closed: Only those that are closed, or only those that are not. Closed ones are looked for among
                so many incidents that a page may have fewer, and the next one goes on.
        """
        self._read_on(session)
        if closed is False:
            shown, more = self._newest_open(limit, after)
        elif closed:
            shown, more = _newest(session, limit, after, but=frozenset(self._open), looked=_LOOKED)
        else:
            shown, more = _newest(session, limit, after)
        return _told(session, shown), more

    def _read_on(self, session: Session) -> None:
        new = list(
            session.scalars(select(log_entry.c.idx).where(_DECLARED & (log_entry.c.idx >= self._upto)))
        )
        bodies = select(log_entry.c.idx, log_entry.c.body).where(_CLOSED & (log_entry.c.idx >= self._upto))
        over, newest = set(), max(new, default=self._upto - 1)
        for row in session.execute(bodies):
            over.update(json.loads(row.body)["refs"][:1])
            newest = max(newest, row.idx)
        if new or over:
            self._open = [one for one in self._open + sorted(new) if one not in over]
        self._upto = newest + 1

    def _newest_open(self, limit: int, after: int | None) -> tuple[list[int], int | None]:
        end = len(self._open) if after is None else bisect_left(self._open, after)
        fits = self._open[max(end - limit - 1, 0) : end][::-1]
        return fits[:limit], fits[limit - 1] if len(fits) > limit else None


def _newest(
    session: Session,
    limit: int,
    after: int | None,
    *,
    but: frozenset[int] = frozenset(),
    looked: int | None = None,
) -> tuple[list[int], int | None]:
    """Indices of incidents, newest first, without some of them, and where to go on."""
    most = looked or limit + 1
    wanted = _DECLARED if after is None else _DECLARED & (log_entry.c.idx < after)
    newest = select(log_entry.c.idx).where(wanted).order_by(log_entry.c.idx.desc()).limit(most)
    found = list(session.scalars(newest))
    fits = [one for one in found if one not in but]
    further = found[-1] if looked is not None and len(found) == most else None
    return fits[:limit], fits[limit - 1] if len(fits) > limit else further


def since(session: Session, *, limit: int, after: int | None = None) -> tuple[list[dict[str, Json]], bool]:
    """Incidents that were declared after an entry, oldest first, and whether there are more.

    ``closed`` is the index of the entry that closed one, or null.
    """
    wanted = _DECLARED if after is None else _DECLARED & (log_entry.c.idx > after)
    query = select(log_entry.c.idx).where(wanted).order_by(log_entry.c.idx).limit(limit + 1)
    found = list(session.scalars(query))
    return _told(session, found[:limit])[::-1], len(found) > limit


def _told(session: Session, indices: Sequence[int]) -> list[dict[str, Json]]:
    of = log_entry.c.idx.in_(indices)
    rows = session.execute(select(log_entry).where(of).order_by(log_entry.c.idx.desc())).mappings().all()
    told = [_as_json(row) for row in rows]
    closings = {event_id(_closing(one)): one for one in told}
    over = select(log_entry.c.idx, log_entry.c.event_id).where(log_entry.c.event_id.in_(list(closings)))
    for row in session.execute(over):
        closings[row.event_id]["closed"] = row.idx
    return told


def _as_json(row: RowMapping) -> dict[str, Any]:
    """An incident as it was declared."""
    pub = json.loads(row["body"])["pub"]
    return {
        "index": row["idx"],
        "kind": pub["kind"],
        "evidence": pub["evidence"],
        "contract": row["scope"],
        "run": row["run"],
        "round": row["round"],
        "at": iso_s(row["ts_ms"]),
        "closed": None,
    }


def _closing(one: dict[str, Any]) -> Event:
    """The one entry that closes an incident."""
    return Event(
        type=EntryType.INCIDENT_CLOSED,
        scope=one["contract"],
        run=one["run"],
        round=one["round"],
        refs=(one["index"],),
        pub={"kind": one["kind"], "evidence": one["evidence"]},
    )


def close_incident(
    session: Session, tx: LogTx, *, index: int, reason: str, operator: Operator, request: str
) -> dict[str, Json]:
    """Writes down that an incident is dealt with.

    Args:
        session: Of the transaction.
        tx: Of the transaction.
        index: Of the entry ``incident.declared``.
        reason: How, as a reason code.
        operator: Who says so.
        request: Digest of the request.

    Raises:
        IncidentUnknownError: That entry declares none.
        IncidentClosedError: It is closed already.
    """
    of = (log_entry.c.idx == index) & _DECLARED
    row = session.execute(select(log_entry).where(of)).mappings().one_or_none()
    if row is None:
        raise IncidentUnknownError(
            need="the index of an entry incident.declared",
            found=str(index),
            remedy="iriai-broker incident list",
        )
    one = _as_json(row)
    closing = _closing(one)
    known = tx.known(closing)
    if known is not None:
        raise IncidentClosedError(
            need="an incident that is open",
            found=f"closed by entry {known}",
            remedy="nothing is left to do",
        )
    subject = digest(canonical([index, one["kind"], one["evidence"], reason]))
    tx.add(console_action(operator, "incident.close", subject=subject, request=request))
    return {**one, "closed": tx.add(closing), "reason": reason}
