# SPDX-License-Identifier: Apache-2.0
"""Negotiations as they are stored: found by id, by text or by name, and what is overdue among them.

The pool is one document (`negotiation.pool`); it is checked against its row when it is read. Lanes and
messages are rows besides, for questions that the pool alone does not answer. `broker.contracts.pool_book`
writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.contracts.errors import NotPartyError
from broker.store.tables import lane, lane_message, negotiation
from policies.contract.negotiation.pool import OPEN, Pool
from policies.errors import invariant
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.store import Session

__all__ = [
    "find_pool",
    "lane_messages",
    "nearest_deadline_ms",
    "no_negotiation",
    "open_pool_of",
    "overdue",
    "pool_of_text",
]


def find_pool(session: Session, name: str) -> Pool:
    """The negotiation of an id.

    Raises:
        NotPartyError: There is none.
    """
    found = _first(session, negotiation.c.id == name)
    if found is None:
        raise no_negotiation(name)
    return found


def pool_of_text(session: Session, contract: str) -> Pool | None:
    """The newest negotiation whose open text this is, or was when it ended."""
    return _first(session, negotiation.c.digest == contract)


def open_pool_of(session: Session, contract_id: str) -> Pool | None:
    """The open negotiation of a contract's name."""
    return _first(session, (negotiation.c.contract_id == contract_id) & (negotiation.c.state == OPEN))


def _first(session: Session, where: Any) -> Pool | None:  # noqa: ANN401  a condition of SQLAlchemy
    order = (negotiation.c.at_ms.desc(), negotiation.c.id)
    row = session.execute(select(negotiation).where(where).order_by(*order)).first()
    if row is None:
        return None
    pool = Pool.from_bytes(row.pool)
    here = (row.id, row.contract_id, row.version, row.round, row.state, row.digest)
    stored = (pool.id, pool.contract_id, pool.version, pool.round, pool.state, pool.draft.digest)
    invariant(here == stored, "a negotiation is the one of its row")
    return pool


def no_negotiation(name: str) -> NotPartyError:
    """The answer to who is no party, and to who asks for what is not there."""
    return NotPartyError(
        need="a negotiation that you are a party to",
        found=ascii(name)[1:-1][:80],
        remedy="contract list shows yours",
    )


def overdue(session: Session, now_ms: int) -> list[str]:
    """Open negotiations in which something should have ended by itself."""
    rows = session.scalars(
        select(negotiation.c.id)
        .join(lane, lane.c.negotiation == negotiation.c.id)
        .where((negotiation.c.state == OPEN) & (lane.c.deadline_ms <= now_ms))
        .distinct()
        .order_by(negotiation.c.id)
    )
    return list(rows)


def nearest_deadline_ms(session: Session) -> int | None:
    """When something ends by itself next."""
    found: int | None = session.scalar(
        select(lane.c.deadline_ms)
        .join(negotiation, lane.c.negotiation == negotiation.c.id)
        .where((negotiation.c.state == OPEN) & lane.c.deadline_ms.is_not(None))
        .order_by(lane.c.deadline_ms)
        .limit(1)
    )
    return found


def lane_messages(session: Session, pids: Iterable[str]) -> list[tuple[int, Envelope]]:
    """Messages of these lanes with their numbers, in order."""
    rows = session.execute(
        select(lane_message.c.seq, lane_message.c.bytes)
        .where(lane_message.c.pid.in_(tuple(pids)))
        .order_by(lane_message.c.seq)
    )
    return [(row.seq, Envelope.from_bytes(row.bytes)) for row in rows]
