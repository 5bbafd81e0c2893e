# SPDX-License-Identifier: Apache-2.0
"""The files of a bundle, one after the other in the order of their names, read from one snapshot.

- Nothing is held for longer than one tile of 256 entries takes; what `broker.log.survey` found is the rest.
- Entries, envelopes, proofs, tiles, cosignatures and time stamps are those of the bundle's head; whatever was
  committed after it is left out.
- Business documents (contracts, recipes, decisions, statements, notices) are in it if an entry names them;
  attestations and admissions, which have no entry, if one names their contract.
- So is what two people of the broker approved, if entries name it: it says which entry they meant. Who adds
  people to this broker, and under which names elsewhere, stays out.
- So are the donors' consents that a seed clause of such a contract names. Seed sets and start models, which
  are large and public, stay out.
- So is the transcript of each opened sum; masked vectors are not (``iriai-broker audit vectors``).
- Receipts are of every entry about a member's contribution, at the bundle's own checkpoint.
- A member's view has its own envelopes, decisions, disclosures, receipts and alias key, the contracts that it
  is a party of with what belongs to them, approvals of these and of witnesses, and no transcript: the others
  show others.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Text, cast, select

from broker.log.commitments import erased_values, opened
from broker.log.envelopes import stored_envelope
from broker.log.survey import Survey, View, survey
from broker.store import tables
from policies.encoding import b64, canonical, digest, parse
from policies.identity import parse_key
from policies.log.bundle import DecisionRecord, join_tile
from policies.log.cosignature import line_time_s, merge_fitting, parse_line
from policies.log.entries import EntryType
from policies.log.tiles import TILE_WIDTH, entries_path, tiles_of
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from broker.log.receipts import Head, Receipts
    from broker.store import Session, Store

__all__ = ["File", "Sections"]

_ALIAS_KEY_BYTES: Final = 32
_OPEN_DATA: Final = "open:"
"""Before the digest, in the name of an annex that is a seed set, a consent or a start model."""
_UNLOGGED: Final = frozenset({"admit", "attest"})
"""Kinds of notices that have no entry."""
_RECEIPTED: Final = (
    EntryType.SUBMISSION_RECEIVED,
    EntryType.CONTRIBUTION_ACCEPTED,
    EntryType.CONTRIBUTION_REFUSED,
)
_APPROVED: Final = frozenset(
    {"contract.activate", "org.remove", "org.restore", "witness.add", "witness.remove"}
)
"""What two people approve and an entry then says; its subject goes along."""
_APPROVED_OF_ALL: Final = ("witness.add", "witness.remove")
_CHUNK: Final = 1_000
_LONG: Final = 2_000
_ENTRY = tables.log_entry


class File(NamedTuple):
    """A file of a bundle: its name, and its bytes in pieces."""

    name: str
    pieces: Iterable[bytes]


def _file(name: str, data: bytes) -> File:
    return File(name, (data,))


def _hex(data: bytes) -> str:
    return digest(data).removeprefix("sha256:")


class Sections:
    """One bundle's files; `files` gives them all but BUNDLE and MANIFEST."""

    def __init__(
        self,
        store: Store,
        session: Session,
        receipts: Receipts,
        *,
        head: Head,
        view: View,
        policies: Sequence[str],
        contracts: Iterable[tuple[bytes, Envelope]],
        transcript: Callable[[str], bytes | None],
    ) -> None:
        self._store = store
        self._session = session
        self._receipts = receipts
        self._head = head
        self._view = view
        self._transcript = transcript
        self._contracts = {digest(text): (text, signatures) for text, signatures in contracts}
        notices = list(self._notice_names())
        named = {digest(one.encode("utf-8")): one for one in policies}
        self._approved = dict(self._approval_names())
        documents = {*self._contracts, *(name for _, name, _ in notices), *self._statement_names(), *named}
        documents |= set(self._approved)
        self._seen: Survey = survey(
            session, head.size, view, documents=documents, contracts=set(self._contracts)
        )
        self._named = sorted(name for name in self._contracts if name in self._seen.named)
        self._notices = {of: name for of, name, unlogged in notices if unlogged or name in self._seen.named}
        self._policy = next((text for name, text in named.items() if name in self._seen.named), policies[0])
        self._erased = erased_values(session)

    @property
    def grade(self) -> str:
        """Of the view."""
        return self._view.grade

    def files(self) -> Iterator[File]:
        """Every file but BUNDLE and MANIFEST, by name."""
        yield from self._annexes()
        yield from self._approvals()
        yield _file("checkpoint", self._head.note.encode("utf-8"))
        yield File("checkpoints.log", self._notes())
        yield from self._consents()
        for name in self._named:
            text, signatures = self._contracts[name]
            stem = name.removeprefix("sha256:")
            yield _file(f"contracts/{stem}.dsse", signatures.to_bytes())
            yield _file(f"contracts/{stem}.json", text)
        yield from self._packs("decisions", self._decisions)
        yield from self._packs("disclosures", self._disclosures)
        yield from self._packs("envelopes", self._envelopes)
        yield _file("keys/aliases.json", canonical(self._aliases()))
        yield from self._notice_files()
        yield _file("policy", self._policy.encode("utf-8"))
        yield from self._receipt_files()
        yield from self._statements()
        yield from self._tiles()
        yield from self._entries()
        yield from self._timestamps()
        yield from self._transcripts()
        yield from self._witnesses()

    # --- documents ---

    def _annexes(self) -> Iterator[File]:
        table = tables.contract_annex
        query = select(table.c.contract, table.c.sha256).where(
            table.c.sha256.startswith("sha256:")  # recipes, not the text for people
        )
        found = {
            row.sha256: row.contract for row in self._session.execute(query) if row.contract in self._named
        }
        for name, contract in sorted(found.items()):
            data = self._annex(contract, name)
            yield _file(f"annexes/{_hex(data)}.json", data)

    def _annex(self, contract: str, name: str) -> bytes:
        table = tables.contract_annex
        where = (table.c.contract == contract) & (table.c.sha256 == name)
        return bytes(self._session.scalars(select(table.c.bytes).where(where)).one())

    def _approval_names(self) -> Iterator[tuple[str, str]]:
        """Digest of the subject, and id, of each approved proposal that the view may see."""
        table = tables.proposal
        query = select(table.c.id, table.c.kind, table.c.digest, table.c.payload).where(
            table.c.state == "approved", table.c.kind.in_(_APPROVED)
        )
        for row in self._session.execute(query, execution_options={"yield_per": _CHUNK}):
            of = parse(bytes(row.payload)).get("contract")
            if self._view.whole or row.kind in _APPROVED_OF_ALL or of in self._contracts:
                yield row.digest, row.id

    def _approvals(self) -> Iterator[File]:
        table = tables.proposal
        for name in sorted(set(self._approved) & self._seen.named):
            where = table.c.id == self._approved[name]
            subject = bytes(self._session.scalars(select(table.c.subject).where(where)).one())
            yield _file(f"approvals/{_hex(subject)}.json", subject)

    def _consents(self) -> Iterator[File]:
        """Consents that the seed clauses of the contracts name, as far as they came with them."""
        table = tables.contract_annex
        found: dict[str, str] = {}
        for contract in self._named:
            clauses = parse(self._contracts[contract][0]).get("seed_sets", [])
            wanted = {_OPEN_DATA + one["consent"] for clause in clauses for one in clause["donations"]}
            where = (table.c.contract == contract) & table.c.sha256.in_(wanted)
            found |= dict.fromkeys(self._session.scalars(select(table.c.sha256).where(where)), contract)
        for name, contract in sorted(found.items()):
            data = self._annex(contract, name)
            yield _file(f"consents/{_hex(data)}.json", data)

    def _notice_names(self) -> Iterator[tuple[str, str, bool]]:
        """Digest of each notice about a contract of the view, what its entry names, whether it has none."""
        table = tables.contract_notice
        query = select(table.c.digest, table.c.contract, table.c.kind, table.c.bytes)
        for row in self._session.execute(query, execution_options={"yield_per": _CHUNK}):
            if row.contract not in self._contracts:
                continue
            name = row.digest
            if row.kind == "rotate":  # its entry names the keys
                name = digest(parse_key(parse(Envelope.from_bytes(bytes(row.bytes)).payload)["subject"]))
            yield row.digest, name, row.kind in _UNLOGGED

    def _notice_files(self) -> Iterator[File]:
        """Statements whose entry is below the head; those that never have one, with their contract."""
        table = tables.contract_notice
        for of in sorted(self._notices):
            row = self._session.execute(
                select(table.c.contract, table.c.bytes).where(table.c.digest == of)
            ).one()
            if row.contract in self._named:
                envelope = Envelope.from_bytes(bytes(row.bytes))
                yield _file(f"notices/{_hex(envelope.payload)}.json", envelope.to_bytes())

    def _statement_names(self) -> Iterable[str]:
        return self._session.scalars(select(tables.statement.c.digest))

    def _statements(self) -> Iterator[File]:
        table = tables.statement
        for name in sorted(set(self._statement_names()) & self._seen.stated):
            data = bytes(self._session.scalars(select(table.c.bytes).where(table.c.digest == name)).one())
            yield _file(f"statements/{_hex(data)}.json", data)

    def _transcripts(self) -> Iterator[File]:
        for name in sorted(self._seen.summed) if self._view.whole else ():
            data = self._transcript(name)
            if data is not None:
                yield _file(f"transcripts/{_hex(data)}", data)

    def _witnesses(self) -> Iterator[File]:
        """Statements by which owners' keys name their witness keys, those of former witnesses too."""
        voted = tables.witness.c.state != "waiting"  # for two people who give it a vote
        stored = self._session.scalars(select(tables.witness.c.statement).where(voted))
        found = [Envelope.from_bytes(bytes(one)) for one in stored]
        for name, one in sorted((_hex(one.payload), one) for one in found):
            yield _file(f"witnesses/{name}.json", one.to_bytes())

    def _aliases(self) -> dict[str, str]:
        table = tables.organisation
        rows = self._session.execute(select(table.c.org_id, table.c.alias_key).order_by(table.c.org_id))
        return {
            row.org_id: b64(bytes(row.alias_key))
            for row in rows
            if len(row.alias_key) == _ALIAS_KEY_BYTES and self._view.org in {None, row.org_id}
        }

    # --- by entries ---

    def _packs(self, folder: str, lines: Callable[[int, int], Iterator[Any]]) -> Iterator[File]:
        """Lines about entries, as packs that are aligned with the entry tiles; empty ones are left out."""
        for number in self._numbers():
            start = number * TILE_WIDTH
            end = min(start + TILE_WIDTH, self._head.size)
            data = b"".join(canonical(line) + b"\n" for line in lines(start, end))
            if data:
                path = entries_path(number).removeprefix("tile/entries/")
                yield _file(f"{folder}/{path}.jsonl", data)

    def _numbers(self) -> list[int]:
        """Numbers of the entry tiles, in the order of their names."""
        return sorted(range(-(-self._head.size // TILE_WIDTH)), key=entries_path)

    def _decisions(self, start: int, end: int) -> Iterator[Any]:
        """One record for each ``decision.recorded`` whose decision is stored."""
        kind = _ENTRY.c.type == EntryType.DECISION_RECORDED.value
        query = select(_ENTRY.c.idx, _ENTRY.c.body).where(kind, *_within(_ENTRY.c.idx, start, end))
        rows = self._session.execute(query.order_by(_ENTRY.c.idx))
        decided = {
            row.idx: parse(bytes(row.body))["pub"]["decision"] for row in rows if self._seen.is_own(row.idx)
        }
        if not decided:
            return
        table = tables.decision
        query = select(table.c.digest, table.c.request, table.c.salt, table.c.state)
        found = {
            row.digest: row
            for row in self._session.execute(query.where(table.c.digest.in_(set(decided.values()))))
        }
        for index, name in decided.items():
            if name in found:
                row = found[name]
                record = DecisionRecord(
                    index=index,
                    decision=name,
                    request=parse(bytes(row.request)),
                    state=parse(bytes(row.state)),
                    salt=bytes(row.salt),
                )
                yield record.to_json()

    def _disclosures(self, start: int, end: int) -> Iterator[Any]:
        if self._view.grants == ():
            return
        for one in opened(self._store, self._session, start=start, end=end, erased=self._erased):
            if self._seen.is_own(one.index) and self._view.opens(one.index, one.field):
                yield one.to_json()

    def _envelopes(self, start: int, end: int) -> Iterator[Any]:
        table = tables.log_envelope
        query = (
            select(table.c.idx, table.c.dsse).where(*_within(table.c.idx, start, end)).order_by(table.c.idx)
        )
        for row in self._session.execute(query):
            if self._seen.is_own(row.idx):
                yield {"envelope": stored_envelope(row.idx, row.dsse).to_json(), "index": row.idx}

    def _receipt_files(self) -> Iterator[File]:
        query = select(_ENTRY.c.idx).where(_ENTRY.c.idx < self._head.size, _ENTRY.c.type.in_(_RECEIPTED))
        ordered = query.order_by(cast(_ENTRY.c.idx, Text))  # as names are
        for index in self._session.scalars(ordered, execution_options={"yield_per": _CHUNK}):
            if self._seen.is_own(index):
                text = self._receipts.receipt(index, self._head).to_text()
                yield _file(f"receipts/{index}.tlog-proof", text.encode("utf-8"))

    # --- the log ---

    def _tiles(self) -> Iterator[File]:
        for path, name in sorted((one.path(), one) for one in tiles_of(self._head.size)):
            yield _file(path, self._receipts.tile(name.level or 0, name.n, name.width))

    def _entries(self) -> Iterator[File]:
        for number in self._numbers():
            start = number * TILE_WIDTH
            end = min(start + TILE_WIDTH, self._head.size)
            query = select(_ENTRY.c.body).where(*_within(_ENTRY.c.idx, start, end)).order_by(_ENTRY.c.idx)
            bodies = [bytes(body) for body in self._session.scalars(query)]
            yield _file(entries_path(number, end - start), join_tile(bodies))

    def _notes(self) -> Iterator[bytes]:
        """Every published note with its cosignatures, oldest first, one line each; the head's is the last."""
        table, lines = tables.log_checkpoint, tables.log_cosignature
        spoilt = self._spoilt_lines()
        query = (
            select(table.c.size, table.c.note, lines.c.witness, lines.c.line)
            .outerjoin(lines, lines.c.size == table.c.size)
            .where(table.c.size < self._head.size)
            .order_by(table.c.size, lines.c.witness)
        )
        rows = self._session.execute(query, execution_options={"yield_per": _CHUNK})
        for _, same in groupby(rows, key=lambda row: row.size):
            rows_of = list(same)
            kept = [one.line for one in rows_of if (one.size, one.witness) not in spoilt]
            yield _line(rows_of[0].note, kept)
        own = select(lines.c.line).where(lines.c.size == self._head.size).order_by(lines.c.witness)
        yield _line(self._head.note, self._session.scalars(own))

    def _spoilt_lines(self) -> frozenset[tuple[int, str]]:
        """Sizes and witnesses of lines that are later than one of the same key at a larger size.

        None is taken any more. One that is stored says nothing but that this witness is not to be relied on,
        and would end every audit of everybody else.
        """
        lines = tables.log_cosignature
        query = (
            select(lines.c.size, lines.c.witness, lines.c.line)
            .where(lines.c.size <= self._head.size)
            .order_by(lines.c.size.desc())
        )
        earliest: dict[tuple[str, bytes], int] = {}
        spoilt = set()
        for row in self._session.execute(query, execution_options={"yield_per": _CHUNK}):
            key = (row.witness, parse_line(row.line).hash4)
            time_s = line_time_s(row.line)
            if time_s > earliest.setdefault(key, time_s):
                spoilt.add((row.size, row.witness))
            else:
                earliest[key] = time_s
        return frozenset(spoilt)

    def _timestamps(self) -> Iterator[File]:
        table = tables.log_timestamp
        query = select(table.c.size, table.c.token).where(table.c.size <= self._head.size)
        for row in self._session.execute(query.order_by(cast(table.c.size, Text))):
            yield _file(f"timestamps/{row.size}.tsr", bytes(row.token))


def _is_long(line: str) -> bool:
    """Whether it is of ML-DSA-44; these come last, where a note has no room for all."""
    return len(line) > _LONG


def _line(note: str, cosignatures: Iterable[str | None]) -> bytes:
    found = [one for one in cosignatures if one is not None]
    merged = merge_fitting(note, sorted(found, key=_is_long))
    return canonical({"note": merged}) + b"\n"


def _within(column: Any, start: int, end: int) -> tuple[Any, Any]:  # noqa: ANN401  a column of integers
    return column >= start, column < end
