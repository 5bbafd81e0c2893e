# SPDX-License-Identifier: Apache-2.0
"""The auditor's bundle, read from the databases.

The same state always gives the same bytes.

- Entries, envelopes and proofs are those of the newest signed head; whatever was committed after it
  is left out.
- Business documents (contracts, recipes, decisions, statements, notices) are in it if an entry names them;
  attestations and admissions, which have no entry, if one names their contract.
- So are the donors' consents that a seed clause of such a contract names. Seed sets and start models, which
  are large and public, stay out.
- So is the transcript of each opened sum; masked vectors are not (``iriai-broker audit vectors``).
- Receipts are written for every entry about a member's contribution.
- Confidential values that were erased are absent, and nothing else in the bundle changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from broker.keyfiles import PRIVATE, replace_file
from broker.store import tables
from policies.encoding import digest, parse
from policies.identity import parse_key
from policies.log.bundle import Contents, DecisionRecord, Disclosure, files_of, pack
from policies.log.entries import EntryType
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from broker.log.append import Writer
    from broker.log.receipts import Head
    from broker.store import Session, Store

__all__ = ["Exported", "contents_of", "export"]

_ALIAS_KEY_BYTES = 32
_OPEN_DATA = "open:"
"""Before the digest, in the name of an annex that is a seed set, a consent or a start model."""
_UNLOGGED = frozenset({"admit", "attest"})
"""Kinds of notices that have no entry."""
_RECEIPTED = (
    EntryType.SUBMISSION_RECEIVED,
    EntryType.CONTRIBUTION_ACCEPTED,
    EntryType.CONTRIBUTION_REFUSED,
)


class Exported(NamedTuple):
    """A bundle that was written: its size in entries and bytes, and its digest."""

    entries: int
    size_bytes: int
    digest: str


def export(
    store: Store,
    writer: Writer,
    path: Path,
    *,
    policy: str,
    software: str,
    contracts: Iterable[tuple[bytes, Envelope]] = (),
    transcript: Callable[[str], bytes | None] = lambda _: None,
) -> Exported:
    """Writes the auditor's bundle of the newest signed head to a file that only the owner may read.

    Args:
        store: The databases.
        writer: For the head and the receipts.
        path: Replaced if it exists.
        policy: Text of the broker's copy of the policy file, as named by the genesis entry.
        software: Version of this program.
        contracts: Canonical bytes and signatures of every contract; those that no entry names are left out.
        transcript: Reads one by its digest.

    Raises:
        BundleError: More than a bundle may hold.
        LogFrozenError: The log has no head that it can show.
        OSError: The disk or the folder does not allow it.
    """
    contents = contents_of(
        store, writer, policy=policy, software=software, contracts=contracts, transcript=transcript
    )
    data = pack(files_of(contents))
    replace_file(path, data, mode=PRIVATE)
    return Exported(len(contents.bodies), len(data), digest(data))


def contents_of(
    store: Store,
    writer: Writer,
    *,
    policy: str,
    software: str,
    contracts: Iterable[tuple[bytes, Envelope]] = (),
    transcript: Callable[[str], bytes | None] = lambda _: None,
) -> Contents:
    """What `export` packs.

    Raises:
        LogFrozenError: The log has no head that it can show.
    """
    head = writer.head()
    with store.read() as session:
        reader = _Reader(session, head)
        named = [one for one in contracts if digest(one[0]) in reader.named]
        return Contents(
            origin=writer.origin,
            note=head.note,
            notes=reader.notes(),
            policy=policy,
            software=software,
            bodies=reader.bodies,
            envelopes=reader.envelopes(),
            aliases=reader.aliases(),
            contracts=named,
            annexes=reader.annexes(),
            consents=[data for text, _ in named for data in reader.consents(text)],
            notices=reader.notices(),
            decisions=list(reader.decisions()),
            disclosures=_disclosures(store, reader.indexes),
            receipts={at: writer.receipts.receipt(at, head).to_text() for at in reader.receipted},
            statements=reader.statements(),
            transcripts=[data for name in reader.summed if (data := transcript(name)) is not None],
        )


class _Reader:
    """One snapshot of the main database, up to a head."""

    def __init__(self, session: Session, head: Head) -> None:
        self._session = session
        self._head = head
        self.bodies: list[bytes] = []
        self.indexes: dict[bytes, int] = {}
        self.receipted: list[int] = []
        self.named: set[str] = set()
        self.summed: list[str] = []
        self._decided: list[tuple[int, str]] = []
        table = tables.log_entry
        columns = (table.c.idx, table.c.event_id, table.c.type, table.c.body)
        for row in session.execute(select(*columns).where(table.c.idx < head.size).order_by(table.c.idx)):
            self._take(row.idx, row.event_id, row.type, row.body)

    def _take(self, index: int, event_id: bytes, kind: str, body: bytes) -> None:
        self.bodies.append(body)
        self.indexes[event_id] = index
        if kind in _RECEIPTED:
            self.receipted.append(index)
        pub = parse(body)["pub"]
        self.named |= {value for value in pub.values() if isinstance(value, str)}
        summed = kind in {EntryType.AGGREGATE_RELEASED, EntryType.ROUND_CHOSEN}
        if summed and pub["transcript"] not in {None, *self.summed}:
            self.summed.append(pub["transcript"])
        if kind == EntryType.DECISION_RECORDED:
            self._decided.append((index, pub["decision"]))

    def notes(self) -> list[str]:
        table = tables.log_checkpoint
        query = select(table.c.note).where(table.c.size < self._head.size).order_by(table.c.size)
        return [*self._session.scalars(query), self._head.note]

    def envelopes(self) -> dict[int, Envelope]:
        table = tables.log_envelope
        query = select(table.c.idx, table.c.dsse).where(table.c.idx < self._head.size).order_by(table.c.idx)
        return {row.idx: Envelope.from_bytes(row.dsse) for row in self._session.execute(query)}

    def aliases(self) -> dict[str, bytes]:
        table = tables.organisation
        query = select(table.c.org_id, table.c.alias_key).order_by(table.c.org_id)
        rows = self._session.execute(query)
        return {row.org_id: row.alias_key for row in rows if len(row.alias_key) == _ALIAS_KEY_BYTES}

    def annexes(self) -> list[bytes]:
        table = tables.contract_annex
        query = (
            select(table.c.contract, table.c.bytes)
            .where(table.c.sha256.startswith("sha256:"))  # recipes, not the text for people
            .order_by(table.c.contract, table.c.sha256)
        )
        return [row.bytes for row in self._session.execute(query) if row.contract in self.named]

    def consents(self, contract: bytes) -> list[bytes]:
        """Consents that the seed clauses of a contract name, as far as they came with it."""
        clauses = parse(contract).get("seed_sets", [])
        wanted = {_OPEN_DATA + one["consent"] for clause in clauses for one in clause["donations"]}
        table = tables.contract_annex
        where = (table.c.contract == digest(contract)) & table.c.sha256.in_(wanted)
        query = select(table.c.bytes).where(where).order_by(table.c.sha256)
        return list(self._session.scalars(query)) if wanted else []

    def notices(self) -> list[Envelope]:
        """Statements whose entry is below the head; those that never have one, with their contract."""
        table = tables.contract_notice
        query = select(table.c.digest, table.c.contract, table.c.kind, table.c.bytes).order_by(table.c.digest)
        found = []
        for row in self._session.execute(query):
            envelope, name = Envelope.from_bytes(row.bytes), row.digest
            if row.kind == "rotate":  # its entry names the keys
                name = digest(parse_key(parse(envelope.payload)["subject"]))
            if row.contract in self.named and (row.kind in _UNLOGGED or name in self.named):
                found.append(envelope)
        return found

    def statements(self) -> list[bytes]:
        table = tables.statement
        query = select(table.c.digest, table.c.bytes).order_by(table.c.digest)
        return [row.bytes for row in self._session.execute(query) if row.digest in self.named]

    def decisions(self) -> Iterator[DecisionRecord]:
        """One record for each ``decision.recorded`` whose decision is stored."""
        table = tables.decision
        query = select(table.c.digest, table.c.request, table.c.salt, table.c.state)
        rows = {row.digest: row for row in self._session.execute(query)}
        for index, decided in self._decided:
            row = rows.get(decided)
            if row is not None:
                yield DecisionRecord(
                    index=index,
                    decision=decided,
                    request=parse(row.request),
                    state=parse(row.state),
                    salt=row.salt,
                )


def _disclosures(store: Store, indexes: dict[bytes, int]) -> list[Disclosure]:
    with store.read_private() as session:
        rows = session.execute(select(tables.log_private)).all()
    return [
        Disclosure(index=indexes[row.event_id], field=row.field, salt=row.salt, value=parse(row.value))
        for row in rows
        if row.event_id in indexes
    ]
