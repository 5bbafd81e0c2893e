# SPDX-License-Identifier: Apache-2.0
"""Who is out of a run, by the incidents that the log declares in it, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from broker.store.tables import log_entry, statement
from policies.log.entries import EntryType
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["Incident", "incidents_of"]


class Incident(NamedTuple):
    """One declared incident: whose reply is its evidence, what kind it is, and in which round."""

    node: str
    kind: str
    round: int | None
    evidence: str


def incidents_of(session: Session, run_id: str) -> tuple[Incident, ...]:
    """Incidents of a run whose evidence is a node's reply, in the order of the log."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.INCIDENT_DECLARED.value)
    rows = session.execute(select(log_entry.c.body, log_entry.c.round).where(of).order_by(log_entry.c.idx))
    declared = [(json.loads(row.body)["pub"], row.round) for row in rows]
    named = [pub["evidence"] for pub, _ in declared]
    kept = session.execute(
        select(statement.c.digest, statement.c.bytes).where(statement.c.digest.in_(named))
    ).all()
    nodes = {row.digest: str(json.loads(Envelope.from_bytes(row.bytes).payload)["node"]) for row in kept}
    return tuple(
        Incident(nodes[pub["evidence"]], pub["kind"], number, pub["evidence"])
        for pub, number in declared
        if pub["evidence"] in nodes
    )
