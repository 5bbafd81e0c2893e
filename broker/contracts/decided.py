# SPDX-License-Identifier: Apache-2.0
"""Decisions on record, as those read them whom they are about.

A party sees the decisions whose request is its own or about it (`Request.party`), the broker's and its node's
alike; operators see all. Each comes with everything that somebody needs to take it again. What the log
answers is the index: pages go on after the last index that was looked at.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.contracts.errors import NotPartyError
from broker.store.tables import decision as decision_table
from broker.store.tables import log_entry
from policies.limits import LIST_ROWS
from policies.log.entries import EntryType, check_entry

if TYPE_CHECKING:
    from sqlalchemy import Row

    from broker.store import Session
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.log.entries import Entry

__all__ = ["decisions_of", "one_decision"]


def decisions_of(
    session: Session, contract: Contract, party: str | None, *, after: int, limit: int = LIST_ROWS
) -> dict[str, Json]:
    """Decisions under a contract, oldest first.

    Args:
        session: Of the main database.
        contract: Under which they were made.
        party: Whom they must be about; None for all.
        after: Index of the log that the caller has seen; -1 for none.
        limit: How many entries of the log one page looks at.

    Returns:
        ``decisions``, and ``next``: the index to go on after, or None at the end of the log.
    """
    rows = _entries(session, contract, (log_entry.c.idx > after), limit=limit)
    shown = [line for index, entry, row in rows if (line := _line(index, entry, row, party)) is not None]
    return {"decisions": shown, "next": rows[-1][0] if len(rows) == limit else None}


def one_decision(session: Session, contract: Contract, party: str | None, name: str) -> dict[str, Json]:
    """A decision by the digest of its record, with or without its prefix: its findings and what it was about.

    Raises:
        NotPartyError: None under this contract that is about the party.
    """
    wanted = name if name.startswith("sha256:") else f"sha256:{name}"
    row = session.execute(select(decision_table).where(decision_table.c.digest == wanted)).first()
    found = [] if row is None or row.contract != contract.digest else _named(session, contract, row)
    for index, entry in found:
        line = _line(index, entry, row, party)
        if line is not None and row is not None:
            return {
                **line,
                "record": json.loads(row.bytes),
                "request": json.loads(row.request),
                "state": json.loads(row.state),
                "salt": row.salt.hex(),
            }
    raise NotPartyError(
        need="a decision about you under one of your contracts",
        found=ascii(name)[1:-1][:80],
        remedy="contract decisions lists yours",
    )


def _named(session: Session, contract: Contract, row: Row[Json]) -> list[tuple[int, Entry]]:
    """The entry that logs a decision."""
    of = (log_entry.c.scope == contract.digest) & (log_entry.c.type == EntryType.DECISION_RECORDED.value)
    found = session.execute(select(log_entry.c.idx, log_entry.c.body).where(of).order_by(log_entry.c.idx))
    entries = ((one.idx, check_entry(one.body)) for one in found)
    return [(index, entry) for index, entry in entries if entry.pub["decision"] == row.digest][:1]


def _entries(
    session: Session, contract: Contract, where: Json, *, limit: int
) -> list[tuple[int, Entry, Row[Json] | None]]:
    of = (log_entry.c.scope == contract.digest) & (log_entry.c.type == EntryType.DECISION_RECORDED.value)
    found = session.execute(
        select(log_entry.c.idx, log_entry.c.body).where(of & where).order_by(log_entry.c.idx).limit(limit)
    )
    entries = [(one.idx, check_entry(one.body)) for one in found]
    names = [entry.pub["decision"] for _, entry in entries]
    rows = {
        row.digest: row
        for row in session.execute(select(decision_table).where(decision_table.c.digest.in_(names)))
    }
    return [(index, entry, rows.get(entry.pub["decision"])) for index, entry in entries]


def _line(index: int, entry: Entry, row: Row[Json] | None, party: str | None) -> dict[str, Json] | None:
    """One decision; None if it is about somebody else, or nobody disclosed what it was about."""
    asked = None if row is None else json.loads(row.request)
    if party is not None and (asked is None or asked.get("party") != party):
        return None
    return {
        "index": index,
        "decision": entry.pub["decision"],
        "point": entry.pub["point"],
        "type": None if asked is None else asked["type"],
        "party": None if asked is None else asked.get("party"),
        "outcome": entry.pub["outcome"],
        "clauses": list(entry.pub["clauses"]),
        "run": entry.run,
        "round": entry.round,
        "at": entry.ts,
    }
