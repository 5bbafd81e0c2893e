# SPDX-License-Identifier: Apache-2.0
"""Closed rounds and who acknowledged them: what a node is shown, and what its acknowledgement must say.

A node that gave something to an attempt is shown, with a later request, how the attempt was closed: the entry
and its proof. It answers with ``round.ack``, one for each, oldest first. So a broker that tells one member
another history of a round than it logged has signed, or lacks a signature (AUD-055).

An acknowledgement that the log would have to call wrong for good is refused, and its reply is the evidence of
an incident: of another entry, with another leaf hash or number, a second one, or one before an older one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.store.tables import log_entry
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.federation.participants import Participant
    from broker.store import Session

__all__ = ["Closings", "unfit"]

_KINDS = (EntryType.ROUND_CLOSED.value, EntryType.ROUND_ACK.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closed:
    scope: str
    round: int
    leaf: str
    received: Mapping[str, int]


class Closings:
    """Closed rounds of one run by their indexes, and the acknowledgements; `read` goes on where it was."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._upto = -1
        self._closed: dict[int, _Closed] = {}
        self._acked: set[tuple[int, str]] = set()

    def read(self, session: Session) -> None:
        """Reads what is new in the log."""
        where = (log_entry.c.run == self._run) & log_entry.c.type.in_(_KINDS) & (log_entry.c.idx > self._upto)
        query = select(log_entry).where(where).order_by(log_entry.c.idx)
        for row in session.execute(query).mappings():
            pub = json.loads(row["body"])["pub"]
            self._upto = row["idx"]
            if row["type"] == EntryType.ROUND_ACK.value:
                self._acked.add((pub["closed"], row["actor"]))
                continue
            received = {name: one["received"] for name, one in pub["parties"].items()}
            leaf = "sha256:" + row["leaf_hash"].hex()
            self._closed[row["idx"]] = _Closed(
                scope=row["scope"], round=row["round"], leaf=leaf, received=received
            )

    def owed(self, to: Participant) -> list[int]:
        """Closed rounds that a node gave something to and has not acknowledged, oldest first."""
        return [
            index
            for index, one in sorted(self._closed.items())
            if one.received.get(name := to.alias(one.scope, self._run, one.round))
            and (index, name) not in self._acked
        ]

    def at(self, index: int) -> _Closed | None:
        """The closed round of an index."""
        return self._closed.get(index)


def unfit(closings: Closings, sender: Participant, payload: Mapping[str, Any], before: set[int]) -> str:
    """What is wrong with an acknowledgement that is not in the log yet; "" if nothing is.

    Args:
        closings: Of its run, as the log stands.
        sender: Who signed it.
        payload: Of its envelope.
        before: Closed rounds that the same reply has acknowledged so far.
    """
    body = payload["body"]
    index, said = body["closed"], (payload["scope"], payload["round"], body["leaf"])
    closed = closings.at(index)
    if closed is None or said != (closed.scope, closed.round, closed.leaf):
        return "another entry"
    name = sender.alias(payload["scope"], payload["run"], payload["round"])
    if body["count"] != closed.received.get(name, 0):
        return f"{body['count']} of its own"
    owed = [one for one in closings.owed(sender) if one not in before]
    if index not in owed:
        return "a second one, or one of a round that it gave nothing to"
    return "" if owed[0] == index else "one before an older one"
