# SPDX-License-Identifier: Apache-2.0
"""What has happened to a contract, read from its notices in the order of the log's entries.

The same order and the same code as an auditor's (`policies.contract.lifecycle`), so that broker and auditor
cannot come to two lives. Attestations and admissions have no entry: each is taken before the first later
number of its party, and what is left at the end. A tightening goes on with the life that its predecessor had
when it took effect. A life is kept as long as nothing was added to its history.

    histories = Histories()
    histories.life(session, contract)             # sees what this transaction has committed, or written
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from broker.store.tables import contract_document, contract_notice, log_entry
from policies.contract import parse
from policies.contract.entering import TIGHTEN, inherited
from policies.contract.lifecycle import Life, absorb, begin, superseded
from policies.encoding import digest
from policies.errors import invariant
from policies.identity import parse_key
from policies.log.entries import EntryType
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

    from broker.store import Session
    from policies.contract import Contract

__all__ = ["ENTRY_OF", "FINALIZED", "Histories"]

FINALIZED: Final = "finalized"
ENTRY_OF: Final = {
    "halt": EntryType.CONTRACT_HALTED,
    "resume": EntryType.CONTRACT_RESUMED,
    "exit": EntryType.CONTRACT_EXITED,
    "rotate": EntryType.KEY_ROTATED,
}
"""Type of the entry behind each kind of notice that has one."""
_FOLLOWED: Final = [one.value for one in (*ENTRY_OF.values(), EntryType.CONTRACT_AMENDED)]
_NAMED = ("halt", "resume", "exit")

Mark = tuple[tuple[int, bytes] | None, int, str | None, tuple[int, bytes] | None]


class Histories:
    """Reads lives; keeps each with the mark of what it was read from."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Mark, Life]] = {}

    def life(self, session: Session, contract: Contract) -> Life:
        """The life of a contract as this session sees it.

        Raises:
            InvariantError: An entry has no notice, or a notice does not follow: the database was changed.
        """
        mark = _mark(session, contract.digest)
        known = self._kept.get(contract.digest)
        if known is None or known[0] != mark:
            known = self._kept[contract.digest] = mark, _read(session, contract)
        return known[1]


def _mark(session: Session, contract: str) -> Mark:
    """Changes with everything that a life is read from."""
    newest = session.execute(
        select(log_entry.c.idx, log_entry.c.event_id)
        .where((log_entry.c.scope == contract) & log_entry.c.type.in_(_FOLLOWED))
        .order_by(log_entry.c.idx.desc())
        .limit(1)
    ).first()
    count = session.scalar(
        select(func.count()).select_from(contract_notice).where(contract_notice.c.contract == contract)
    )
    entered = _entered(session, contract)
    return (
        None if newest is None else tuple(newest),
        count or 0,
        _finalized_at(session, contract),
        None if entered is None else (entered.idx, entered.event_id),
    )


def _entered(session: Session, contract: str) -> Row[Any] | None:
    """The entry by which a successor took effect; None for a first version, and before."""
    old = session.scalar(select(contract_document.c.supersedes).where(contract_document.c.digest == contract))
    if old is None:
        return None
    kind = log_entry.c.type == EntryType.CONTRACT_AMENDED.value
    rows = session.execute(
        select(log_entry.c.idx, log_entry.c.event_id, log_entry.c.body).where(
            (log_entry.c.scope == old) & kind
        )
    )
    return next((row for row in rows if json.loads(row.body)["pub"]["new"] == contract), None)


def _finalized_at(session: Session, contract: str) -> str | None:
    row = session.execute(
        select(contract_document.c.state, contract_document.c.at_ms).where(
            contract_document.c.digest == contract
        )
    ).first()
    return iso_s(row.at_ms) if row is not None and row.state == FINALIZED else None


def _begin(session: Session, contract: Contract) -> Life:
    """The life before any notice of its own."""
    life = begin(contract, finalized_at=_finalized_at(session, contract.digest))
    entered = _entered(session, contract.digest)
    if life.finalized_at is None or entered is None:
        return life
    pub = json.loads(entered.body)["pub"]
    if pub["kind"] != TIGHTEN:
        return life
    data = session.scalar(select(contract_document.c.bytes).where(contract_document.c.digest == pub["old"]))
    before = _read(session, parse(data or b""), until=entered.idx)
    return inherited(before, contract, finalized_at=life.finalized_at)


def _read(session: Session, contract: Contract, *, until: int | None = None) -> Life:
    """The life by everything that the log has, or by its entries below an index."""
    life = _begin(session, contract)
    if life.finalized_at is None:
        return life
    notices = _Notices(session, contract)
    of = (log_entry.c.scope == contract.digest) & log_entry.c.type.in_(_FOLLOWED)
    entries = session.execute(
        select(log_entry.c.type, log_entry.c.body, log_entry.c.ts_ms)
        .where(of if until is None else of & (log_entry.c.idx < until))
        .order_by(log_entry.c.idx)
    )
    for row in entries:
        pub = json.loads(row.body)["pub"]
        if row.type != EntryType.CONTRACT_AMENDED.value:
            life = notices.take(life, pub)
        elif pub["old"] == contract.digest:
            life = superseded(life, pub["new"], iso_s(row.ts_ms))
    return notices.rest(life)


class _Notices:
    """The notices of one contract, each taken once."""

    def __init__(self, session: Session, contract: Contract) -> None:
        self._contract = contract
        rows = session.execute(
            select(contract_notice)
            .where(contract_notice.c.contract == contract.digest)
            .order_by(contract_notice.c.at_ms, contract_notice.c.party, contract_notice.c.seq)
        ).all()
        self._named = {row.digest: row for row in rows if row.kind in _NAMED}
        self._rotations = [row for row in rows if row.kind == "rotate"]
        self._unlogged = {(row.party, row.seq): row for row in rows if row.kind not in ENTRY_OF}
        self._done: set[str] = set()

    def take(self, life: Life, pub: dict[str, str]) -> Life:
        """The life after the notice that an entry names; naming it again changes nothing."""
        row = self._named.get(pub["notice"]) if "notice" in pub else self._rotation(pub["new"])
        invariant(row is not None, "an entry about a notice that is kept")
        if row is None or row.digest in self._done:
            return life
        self._done.add(row.digest)
        for earlier in self._before(life, row.party, row.seq):
            life = self._absorb(life, earlier)
        return self._absorb(life, row.bytes)

    def rest(self, life: Life) -> Life:
        """The life after what no later notice of its party shows to have come before."""
        for party in sorted({party for party, _ in self._unlogged}):
            while (row := self._unlogged.pop((party, life.next_seq(party)), None)) is not None:
                life = self._absorb(life, row.bytes)
        return life

    def _before(self, life: Life, party: str, seq: int) -> Iterator[bytes]:
        for number in range(life.next_seq(party), seq):
            row = self._unlogged.pop((party, number), None)
            if row is not None:
                yield row.bytes

    def _rotation(self, new: str) -> Row[Any] | None:
        return next((row for row in self._rotations if new == _kid(row.bytes)), None)

    def _absorb(self, life: Life, data: bytes) -> Life:
        after, _, _ = absorb(self._contract, life, Envelope.from_bytes(data))
        return after


def _kid(data: bytes) -> str:
    """Digest of the new key of a rotation, as its entry names it."""
    key = json.loads(Envelope.from_bytes(data).payload)["subject"]
    return digest(parse_key(key))
