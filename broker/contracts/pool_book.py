# SPDX-License-Identifier: Apache-2.0
"""What follows from an event of a negotiation, written: lanes, messages, texts, signatures, log entries.

`PoolBook.write` runs inside one unit of work: all of it is there, or nothing. FINALIZED is no exception:
it is effects like all others.

- Messages are kept as they were signed. The broker's own are sealed here, with its key.
- Entries: ``contract.proposed`` for each text that is put to the contributors, ``contract.finalized``,
  ``contract.terminated``, ``incident.declared``. A member's own ``contract.signed`` is the caller's to
  log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from broker.contracts.service import COUNTERED, FINALIZED, SIGNED, TERMINATED
from broker.store.tables import (
    contract_document,
    contract_signature,
    lane,
    lane_message,
    log_entry,
    negotiation,
    statement,
)
from broker.store.upserts import insert_or_ignore, insert_or_update
from policies.contract import CONTRACT_TYPE, Contract, executed
from policies.contract.negotiation import (
    Agreed,
    Closed,
    Countered,
    Finalized,
    Heard,
    Incident,
    Opened,
    Said,
    Verified,
)
from policies.contract.negotiation.lanes import read_message, seal_message
from policies.encoding import b64, digest
from policies.errors import invariant
from policies.log.entries import EntryType, Event
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract.negotiation import Effect
    from policies.contract.negotiation.lanes import LaneMessage
    from policies.contract.negotiation.pool import Lane, Pool
    from policies.identity import SigningKey

__all__ = ["PoolBook", "Write"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One event's place in the database: unit of work, pool before and after, what was received."""

    session: Session
    tx: LogTx
    before: Pool | None
    after: Pool
    received: Envelope | None = None


class PoolBook:
    """Writes pools; see the module.

    Attributes:
        on_finalized: Called in the transaction that makes a contract final, once it is.
        on_countered: Called in the transaction in which a text takes another one's place: old and new digest.
        on_closed: Called in the transaction in which a round ends without a contract: its text's digest.
    """

    def __init__(self, *, contracts: Contracts, broker_key: SigningKey) -> None:
        self._contracts = contracts
        self._key = broker_key
        self.on_finalized: Callable[[Session, LogTx, Contract], None] = _nothing_more
        self.on_countered: Callable[[Session, LogTx, str, str], None] = _nobody_asks
        self.on_closed: Callable[[Session, LogTx, str], None] = _nothing_more
        self._apply: Final[dict[type, Callable[[Write, Any], None]]] = {
            Heard: self._heard,
            Said: self._said,
            Opened: self._opened,
            Countered: self._countered,
            Agreed: self._agreed,
            Verified: self._verified,
            Finalized: self._finalized,
            Closed: self._closed,
            Incident: self._incident,
        }

    def write(self, write: Write, effects: Iterable[Effect]) -> None:
        """Stores the pool, its lanes, and each effect in its order. Texts are stored already."""
        if write.before != write.after:
            _write_pool(write.session, write.after, write.tx.now_ms)
            known = (
                {one.pid: one for one in (*write.before.past, *write.before.lanes)} if write.before else {}
            )
            for one in (*write.after.past, *write.after.lanes):
                if known.get(one.pid) != one:
                    _write_lane(write.session, write.after.id, one)
        for effect in effects:
            step = self._apply.get(type(effect))
            if step is not None:
                step(write, effect)

    # --- messages ---

    def _heard(self, write: Write, effect: Heard) -> None:
        invariant(write.received is not None, "a message that was heard was received")
        if write.received is not None:
            _write_message(write, effect.message, effect.seq, write.received)

    def _said(self, write: Write, effect: Said) -> None:
        _write_message(write, effect.message, effect.seq, seal_message(effect.message, self._key))

    def _incident(self, write: Write, effect: Incident) -> None:
        invariant(write.received is not None, "an incident of a message that was received")
        if _declared(write, effect.kind):
            return
        evidence = write.received.to_bytes() if write.received is not None else b""
        named = digest(evidence)
        insert_or_ignore(write.session, statement, {"digest": named, "bytes": evidence})
        write.tx.add(
            Event(
                type=EntryType.INCIDENT_DECLARED,
                scope=write.after.draft.digest,
                pub={"kind": effect.kind, "evidence": named},
            )
        )

    # --- texts ---

    def _opened(self, write: Write, effect: Opened) -> None:
        self._propose(write, effect.digest)

    def _countered(self, write: Write, effect: Countered) -> None:
        _set_state(write.session, effect.old, COUNTERED, write.tx.now_ms)
        self._propose(write, effect.new)
        self.on_countered(write.session, write.tx, effect.old, effect.new)

    def _propose(self, write: Write, name: str) -> None:
        write.tx.add(
            Event(
                type=EntryType.CONTRACT_PROPOSED,
                scope=name,
                pub={
                    "contract": name,
                    "version": write.after.version,
                    "supersedes": write.after.supersedes,
                },
            )
        )

    def _closed(self, write: Write, effect: Closed) -> None:
        _set_state(write.session, effect.digest, TERMINATED, write.tx.now_ms)
        write.tx.add(
            Event(
                type=EntryType.CONTRACT_TERMINATED,
                scope=effect.digest,
                pub={
                    "contract": effect.digest,
                    "clause": effect.ended.clause,
                    "reason": effect.ended.code,
                },
            )
        )
        self.on_closed(write.session, write.tx, effect.digest)

    # --- signatures ---

    def _agreed(self, write: Write, effect: Agreed) -> None:
        contract = self._contracts.read_in(write.session, effect.digest)
        own = Envelope.seal(contract.canonical, CONTRACT_TYPE, self._key).signatures[0][1]
        _write_signature(write.session, contract.digest, contract.broker.party, b64(own))

    def _verified(self, write: Write, effect: Verified) -> None:
        _write_signature(write.session, effect.digest, effect.party, effect.signature)

    def _finalized(self, write: Write, effect: Finalized) -> None:
        contract = self._contracts.read_in(write.session, effect.digest)
        envelope = self._contracts.envelope(write.session, contract)
        executed(contract, envelope)
        _set_state(write.session, contract.digest, FINALIZED, write.tx.now_ms)
        write.tx.add(
            Event(
                type=EntryType.CONTRACT_FINALIZED,
                scope=contract.digest,
                pub={
                    "contract": contract.digest,
                    "signatures": digest(envelope.to_bytes()),
                    "prose": None if contract.prose is None else f"sha256:{contract.prose.sha256}",
                },
            )
        )
        self.on_finalized(write.session, write.tx, contract)


def _declared(write: Write, kind: str) -> bool:
    """Whether an incident of this kind is on record about a message of the same id: one is enough."""
    wanted = None if write.received is None else read_message(write.received.payload).id
    of = log_entry.c.type == EntryType.INCIDENT_DECLARED.value
    pubs = [json.loads(body)["pub"] for body in write.session.scalars(select(log_entry.c.body).where(of))]
    named = [one["evidence"] for one in pubs if one["kind"] == kind]
    kept = write.session.scalars(select(statement.c.bytes).where(statement.c.digest.in_(named)))
    return any(read_message(Envelope.from_bytes(data).payload).id == wanted for data in kept)


def _nothing_more(_session: Session, _tx: LogTx, _contract: object) -> None:
    """Nobody else has to know."""


def _nobody_asks(_session: Session, _tx: LogTx, _old: str, _new: str) -> None:
    """Likewise."""


def _write_pool(session: Session, pool: Pool, at_ms: int) -> None:
    row = {
        "id": pool.id,
        "contract_id": pool.contract_id,
        "version": pool.version,
        "round": pool.round,
        "state": pool.state,
        "digest": pool.draft.digest,
        "pool": pool.to_bytes(),
        "at_ms": at_ms,
    }
    insert_or_update(session, negotiation, row)


def _write_lane(session: Session, name: str, one: Lane) -> None:
    row = {
        "pid": one.pid,
        "negotiation": name,
        "party": one.party,
        "round": one.round,
        "state": one.state.value,
        "digest": one.digest,
        "deadline_ms": one.deadline_ms,
        "last_hash": one.last_hash,
    }
    insert_or_update(session, lane, row)


def _write_message(write: Write, message: LaneMessage, seq: int, envelope: Envelope) -> None:
    write.session.execute(
        insert(lane_message),
        {
            "id": message.id,
            "pid": message.pid,
            "seq": seq,
            "sender": message.sender,
            "type": message.type,
            "bytes": envelope.to_bytes(),
            "at_ms": write.tx.now_ms,
        },
    )


def _write_signature(session: Session, contract: str, party: str, signature: str) -> None:
    row = {"digest": contract, "party": party, "kind": SIGNED, "signature_b64": signature}
    insert_or_update(session, contract_signature, row)


def _set_state(session: Session, contract: str, state: str, at_ms: int) -> None:
    session.execute(
        update(contract_document)
        .where(contract_document.c.digest == contract)
        .values(state=state, at_ms=at_ms)
    )
