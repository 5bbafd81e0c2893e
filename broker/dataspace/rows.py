# SPDX-License-Identifier: Apache-2.0
"""Negotiations of connectors as they are stored: a row, its messages in order, the agreement that came of it.

A message is kept as the bytes that came, or that are told. Agreements are never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, insert, select, update

from broker.contracts.errors import NotPartyError
from broker.store.tables import dsp_agreement, dsp_message, dsp_negotiation
from broker.store.upserts import insert_or_ignore
from policies.contract.negotiation.pool import ENDED, LaneState
from policies.contract.odrl.dsp_messages import read_json
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.store import Session
    from policies.encoding import Json

__all__ = [
    "CONSUMER",
    "PROVIDER",
    "NegotiationRow",
    "agreement_of",
    "first_message",
    "last_of_consumer",
    "negotiation_of",
    "negotiation_of_consumer",
    "recent_count",
    "record_agreement",
    "recorded",
    "store_message",
    "store_negotiation",
    "store_state",
]

NegotiationRow = Any  # a row of `dsp_negotiation`

CONSUMER: Final = "consumer"
PROVIDER: Final = "provider"
_DAY_MS: Final = 86_400_000
_OPEN_STATES: Final = tuple(one.value for one in LaneState if one not in ENDED)


def negotiation_of(session: Session, counterparty: str, pid: str) -> NegotiationRow:
    """A connector's own negotiation.

    Raises:
        NotPartyError: There is none, or it is another's: the two look the same.
    """
    here = dsp_negotiation.c
    mine = (here.provider_pid == pid) & (here.counterparty == counterparty)
    row = session.execute(select(dsp_negotiation).where(mine)).first()
    if row is None:
        raise NotPartyError(need="a negotiation of your own", found=ascii(pid)[1:-1][:80], remedy="begin one")
    return row


def negotiation_of_consumer(session: Session, counterparty: str, consumer_pid: str) -> NegotiationRow | None:
    """A connector's negotiation by the pid that it gave, or None."""
    here = dsp_negotiation.c
    mine = (here.counterparty == counterparty) & (here.consumer_pid == consumer_pid)
    return session.execute(select(dsp_negotiation).where(mine)).first()


def recent_count(session: Session, counterparty: str, now_ms: int) -> int:
    """How many negotiations of a connector are open, or changed within a day."""
    here = dsp_negotiation.c
    waits = here.state.in_(_OPEN_STATES) & (here.deadline_ms.is_(None) | (here.deadline_ms > now_ms))
    counted = (here.counterparty == counterparty) & (waits | (here.at_ms > now_ms - _DAY_MS))
    return session.scalar(select(func.count()).select_from(dsp_negotiation).where(counted)) or 0


def store_negotiation(session: Session, **fields: object) -> None:
    """A new row."""
    session.execute(insert(dsp_negotiation).values(**fields))


def store_state(
    session: Session, pid: str, state: LaneState, *, rounds: int, deadline_ms: int | None, at_ms: int
) -> None:
    """Where it stands from now on."""
    session.execute(
        update(dsp_negotiation)
        .where(dsp_negotiation.c.provider_pid == pid)
        .values(state=state.value, rounds=rounds, deadline_ms=deadline_ms, at_ms=at_ms)
    )


def store_message(session: Session, pid: str, *, sender: str, kind: str, data: bytes, at_ms: int) -> None:
    """The next message of a negotiation; one of the provider waits to be told."""
    mine = dsp_message.c.provider_pid == pid
    seq = (session.scalar(select(func.max(dsp_message.c.seq)).where(mine)) or 0) + 1
    session.execute(
        insert(dsp_message).values(
            provider_pid=pid,
            seq=seq,
            sender=sender,
            type=kind,
            bytes=data,
            at_ms=at_ms,
            tried_ms=None,
            answer=None,
        )
    )


def first_message(session: Session, pid: str) -> bytes | None:
    """The request that began a negotiation."""
    mine = (dsp_message.c.provider_pid == pid) & (dsp_message.c.seq == 1)
    found: bytes | None = session.scalar(select(dsp_message.c.bytes).where(mine))
    return found


def last_of_consumer(session: Session, pid: str) -> bytes | None:
    """What the consumer said last."""
    return _last(session, (dsp_message.c.provider_pid == pid) & (dsp_message.c.sender == CONSUMER))


def agreement_of(session: Session, pid: str) -> dict[str, Json]:
    """The agreement that was sent in a negotiation."""
    kind = dsp_message.c.type == "ContractAgreementMessage"
    sent = _last(session, (dsp_message.c.provider_pid == pid) & (dsp_message.c.sender == PROVIDER) & kind)
    found: dict[str, Json] = read_json(sent or b"")["agreement"]
    return found


def _last(session: Session, where: Any) -> bytes | None:  # noqa: ANN401  a condition of SQLAlchemy
    found: bytes | None = session.scalar(
        select(dsp_message.c.bytes).where(where).order_by(dsp_message.c.seq.desc()).limit(1)
    )
    return found


def recorded(session: Session, name: str) -> dict[str, Json] | None:
    """The agreement of an id, once it is final."""
    stored = session.scalar(select(dsp_agreement.c.bytes).where(dsp_agreement.c.id == name))
    return None if stored is None else read_json(stored)


def record_agreement(session: Session, row: NegotiationRow, said: Mapping[str, Json], *, at_ms: int) -> None:
    """Keeps an agreement for good; the same one again changes nothing."""
    insert_or_ignore(
        session,
        dsp_agreement,
        {
            "id": said["@id"],
            "provider_pid": row.provider_pid,
            "contract": row.contract,
            "counterparty": row.counterparty,
            "bytes": canonical(said),
            "at_ms": at_ms,
        },
    )
