# SPDX-License-Identifier: Apache-2.0
"""What has happened to a contract, read from its notices in the order of the log's entries.

The same order and the same code as an auditor's (`policies.contract.lifecycle`), so that broker and auditor
cannot come to two lives. Attestations and admissions have no entry: each is taken before the first later
number of its party, and what is left at the end. A tightening goes on with the life that its predecessor had
when it took effect. A life is kept, and reading goes on where it stopped: a notice costs the same however
many came before it.

    histories = Histories()
    histories.life(session, contract)             # sees what this transaction has committed, or written
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, func, or_, select

from broker.store.prepared import Prepared
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
    from collections.abc import Iterable, Iterator

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
_CONTRACT: Final[Any] = bindparam("contract")
_NEWEST: Final = Prepared(
    select(log_entry.c.idx, log_entry.c.event_id)
    .where((log_entry.c.scope == _CONTRACT) & or_(*(log_entry.c.type == one for one in _FOLLOWED)))
    .order_by(log_entry.c.idx.desc())
)
_NOTICES: Final = Prepared(
    select(func.count()).select_from(contract_notice).where(contract_notice.c.contract == _CONTRACT)
)
_ROW: Final = Prepared(
    select(contract_document.c.supersedes, contract_document.c.state, contract_document.c.at_ms).where(
        contract_document.c.digest == _CONTRACT
    )
)
Mark = tuple[tuple[int, bytes] | None, int, str | None, tuple[int, bytes] | None]
Tip = tuple[int, bytes]
"""Index and event id of an entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A history as far as it was read.

    Attributes:
        mark: What it was read from, see `_mark`.
        tip: The last entry that was followed, or None.
        life: What it made.
        done: Digests of the notices that were taken.
    """

    mark: Mark
    tip: Tip | None
    life: Life
    done: frozenset[str]


class Histories:
    """Reads lives; keeps each with the mark of what it was read from, and goes on from there."""

    def __init__(self) -> None:
        self._kept: dict[str, _Reading] = {}

    def life(self, session: Session, contract: Contract) -> Life:
        """The life of a contract as this session sees it.

        Raises:
            InvariantError: An entry has no notice, or a notice does not follow: the database was changed.
        """
        mark = _mark(session, contract.digest)
        known = self._kept.get(contract.digest)
        if known is None or known.mark != mark:
            known = self._kept[contract.digest] = _gone_on(session, contract, mark, known)
        return known.life


def _mark(session: Session, contract: str) -> Mark:
    """Changes with everything that a life is read from."""
    named = {"contract": contract}
    newest = _NEWEST.first(session, named)
    notices = _NOTICES.first(session, named)
    entered = _entered(session, contract)
    return (
        None if newest is None else (int(newest[0]), bytes(newest[1])),
        0 if notices is None else int(notices[0]),
        _finalized_at(session, contract),
        None if entered is None else (entered.idx, entered.event_id),
    )


class _Entered(NamedTuple):
    """The entry by which a successor took effect."""

    idx: int
    event_id: bytes
    pub: dict[str, str]


def _entered(session: Session, contract: str) -> _Entered | None:
    """The entry by which a successor took effect; None for a first version, and before."""
    mine = _ROW.first(session, {"contract": contract})
    old = None if mine is None else mine[0]
    if old is None:
        return None
    kind = log_entry.c.type == EntryType.CONTRACT_AMENDED.value
    rows = session.execute(
        select(log_entry.c.idx, log_entry.c.event_id, log_entry.c.body).where(
            (log_entry.c.scope == old) & kind
        )
    )
    found = (_Entered(row.idx, row.event_id, json.loads(row.body)["pub"]) for row in rows)
    return next((one for one in found if one.pub["new"] == contract), None)


def _finalized_at(session: Session, contract: str) -> str | None:
    row = _ROW.first(session, {"contract": contract})
    return iso_s(row[2]) if row is not None and row[1] == FINALIZED else None


def _begin(session: Session, contract: Contract) -> Life:
    """The life before any notice of its own."""
    life = begin(contract, finalized_at=_finalized_at(session, contract.digest))
    entered = _entered(session, contract.digest)
    if life.finalized_at is None or entered is None:
        return life
    pub = entered.pub
    if pub["kind"] != TIGHTEN:
        return life
    data = session.scalar(select(contract_document.c.bytes).where(contract_document.c.digest == pub["old"]))
    before = _read(session, parse(data or b""), until=entered.idx)
    return inherited(before, contract, finalized_at=life.finalized_at)


def _read(session: Session, contract: Contract, *, until: int | None = None) -> Life:
    """The life by everything that the log has, or by its entries below an index."""
    return _whole(session, contract, until=until)[1]


def _whole(
    session: Session, contract: Contract, *, until: int | None = None
) -> tuple[Tip | None, Life, frozenset[str]]:
    life = _begin(session, contract)
    if life.finalized_at is None:
        return None, life, frozenset()
    notices = _Notices(session, contract, frozenset())
    tip, life = notices.follow(life, _entries(session, contract.digest, after=None, until=until))
    return tip, notices.rest(life), frozenset(notices.done)


def _gone_on(session: Session, contract: Contract, mark: Mark, known: _Reading | None) -> _Reading:
    """What was read before, and what has come since; everything anew where that is not its beginning.

    An attestation or admission that was taken here before an entry came is taken after it by who reads the
    whole history. Nothing tells the two apart but an end of the contract, which no admission survives.
    """
    if known is not None and known.mark[2:] == mark[2:] and mark[2] is not None:
        notices = _Notices(session, contract, known.done)
        if notices.begins_with(known.done) and _is_there(session, contract.digest, known.tip):
            after = None if known.tip is None else known.tip[0]
            tip, life = notices.follow(
                known.life, _entries(session, contract.digest, after=after, until=None)
            )
            if life.ended == known.life.ended:
                life = notices.rest(life)
                return _Reading(mark=mark, tip=tip or known.tip, life=life, done=frozenset(notices.done))
    tip, life, done = _whole(session, contract)
    return _Reading(mark=mark, tip=tip, life=life, done=done)


def _is_there(session: Session, contract: str, tip: Tip | None) -> bool:
    """Whether this session sees the entry, at its place."""
    if tip is None:
        return True
    of = (log_entry.c.idx == tip[0]) & (log_entry.c.event_id == tip[1]) & (log_entry.c.scope == contract)
    return session.scalar(select(log_entry.c.idx).where(of)) is not None


def _entries(session: Session, contract: str, *, after: int | None, until: int | None) -> Iterator[Any]:
    of = (log_entry.c.scope == contract) & log_entry.c.type.in_(_FOLLOWED)
    of = of if after is None else of & (log_entry.c.idx > after)
    of = of if until is None else of & (log_entry.c.idx < until)
    columns = (log_entry.c.idx, log_entry.c.event_id, log_entry.c.type, log_entry.c.body, log_entry.c.ts_ms)
    yield from session.execute(select(*columns).where(of).order_by(log_entry.c.idx)).all()


class _Said(NamedTuple):
    """What a notice's row tells without its bytes."""

    digest: str
    kind: str
    party: str
    seq: int


class _Notices:
    """The notices of one contract, each taken once; their bytes are read when it is their turn."""

    def __init__(self, session: Session, contract: Contract, done: frozenset[str]) -> None:
        self._session = session
        self._contract = contract
        self.done = set(done)
        table = contract_notice.c
        rows = session.execute(
            select(table.digest, table.kind, table.party, table.seq)
            .where(table.contract == contract.digest)
            .order_by(table.at_ms, table.party, table.seq)
        )
        self._rows = [_Said(*row) for row in rows]
        self._by_digest = {row.digest: row for row in self._rows}
        self._unlogged = {
            (row.party, row.seq): row
            for row in self._rows
            if row.kind not in ENTRY_OF and row.digest not in self.done
        }

    def begins_with(self, done: frozenset[str]) -> bool:
        """Whether all of these are here: what was read in a transaction that failed is not."""
        return done <= self._by_digest.keys()

    def follow(self, life: Life, entries: Iterable[Any]) -> tuple[Tip | None, Life]:
        """The last of these entries, and the life after them."""
        tip = None
        for row in entries:
            tip, pub = (row.idx, row.event_id), json.loads(row.body)["pub"]
            if row.type != EntryType.CONTRACT_AMENDED.value:
                life = self._take(life, pub)
            elif pub["old"] == self._contract.digest:
                life = superseded(life, pub["new"], iso_s(row.ts_ms))
        return tip, life

    def _take(self, life: Life, pub: dict[str, str]) -> Life:
        """The life after the notice that an entry names."""
        row = self._by_digest.get(pub["notice"]) if "notice" in pub else self._rotation(pub["new"])
        invariant(row is not None, "an entry about a notice that is kept")
        if row is None or row.digest in self.done:
            return life
        for earlier in self._before(life, row.party, row.seq):
            life = self._absorb(life, earlier)
        return self._absorb(life, row)

    def rest(self, life: Life) -> Life:
        """The life after what no later notice of its party shows to have come before."""
        for party in sorted({party for party, _ in self._unlogged}):
            while (row := self._unlogged.pop((party, life.next_seq(party)), None)) is not None:
                life = self._absorb(life, row)
        return life

    def _before(self, life: Life, party: str, seq: int) -> Iterator[_Said]:
        for number in range(life.next_seq(party), seq):
            row = self._unlogged.pop((party, number), None)
            if row is not None:
                yield row

    def _rotation(self, new: str) -> _Said | None:
        rotations = [row for row in self._rows if row.kind == "rotate"]
        rotations.sort(key=lambda row: row.digest in self.done)  # what was not taken yet is looked at first
        return next((row for row in rotations if new == _kid(self._bytes(row))), None)

    def _bytes(self, row: _Said) -> bytes:
        data: bytes | None = self._session.scalar(
            select(contract_notice.c.bytes).where(contract_notice.c.digest == row.digest)
        )
        return data or b""

    def _absorb(self, life: Life, row: _Said) -> Life:
        self.done.add(row.digest)
        after, _, _ = absorb(self._contract, life, Envelope.from_bytes(self._bytes(row)))
        return after


def _kid(data: bytes) -> str:
    """Digest of the new key of a rotation, as its entry names it."""
    key = json.loads(Envelope.from_bytes(data).payload)["subject"]
    return digest(parse_key(key))
