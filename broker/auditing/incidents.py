# SPDX-License-Identifier: Apache-2.0
"""Incidents as operators see them: what the log declares, and that somebody dealt with it.

- An incident is what ``incident.declared`` says: kind and evidence, in one contract and run. Nodes, witnesses
  and the broker declare; here nothing is declared.
- It is closed by an entry ``incident.closed`` of the same words, which refers to it, with the operator's name
  beside it and the reason as the action's subject. It is closed once; nothing opens it again.
- Closing changes no other rule: whose reply is the evidence stays out of that run (`broker.runs.incidents`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.auditing.errors import IncidentClosedError, IncidentUnknownError
from broker.membership.records import console_action
from broker.store.tables import log_entry
from policies.encoding import Json, canonical, digest
from policies.log.entries import EntryType, Event
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session

__all__ = ["close_incident", "list_incidents"]

_ABOUT = (EntryType.INCIDENT_DECLARED.value, EntryType.INCIDENT_CLOSED.value)
_Key = tuple[str | None, str | None, str, str]


def list_incidents(session: Session) -> list[dict[str, Json]]:
    """Every incident, oldest first; ``closed`` is the index of the entry that closed it, or null."""
    found: dict[_Key, dict[str, Json]] = {}
    query = select(log_entry).where(log_entry.c.type.in_(_ABOUT)).order_by(log_entry.c.idx)
    for row in session.execute(query).mappings():
        pub = json.loads(row["body"])["pub"]
        key = (row["scope"], row["run"], pub["kind"], pub["evidence"])
        if row["type"] == EntryType.INCIDENT_CLOSED.value:
            if key in found:
                found[key]["closed"] = row["idx"]
            continue
        found.setdefault(
            key,
            {
                "index": row["idx"],
                "kind": pub["kind"],
                "evidence": pub["evidence"],
                "contract": row["scope"],
                "run": row["run"],
                "round": row["round"],
                "at": iso_s(row["ts_ms"]),
                "closed": None,
            },
        )
    return list(found.values())


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
    one: dict[str, Any] | None = next(
        (each for each in list_incidents(session) if each["index"] == index), None
    )
    if one is None:
        raise IncidentUnknownError(
            need="the index of an entry incident.declared",
            found=str(index),
            remedy="iriai-broker incident list",
        )
    if one["closed"] is not None:
        raise IncidentClosedError(
            need="an incident that is open",
            found=f"closed by entry {one['closed']}",
            remedy="nothing is left to do",
        )
    subject = digest(canonical([index, one["kind"], one["evidence"], reason]))
    tx.add(console_action(operator, "incident.close", subject=subject, request=request))
    closed = tx.add(
        Event(
            type=EntryType.INCIDENT_CLOSED,
            scope=one["contract"],
            run=one["run"],
            round=one["round"],
            refs=(index,),
            pub={"kind": one["kind"], "evidence": one["evidence"]},
        )
    )
    return {**one, "closed": closed, "reason": reason}
