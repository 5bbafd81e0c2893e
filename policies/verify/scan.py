# SPDX-License-Identifier: Apache-2.0
"""Step 3 and the first half of step 6, tile by tile: everything that can be said of an entry by itself.

For each tile of 256 entries, in any order and by any process:

1. framing (AUD-022), leaf hashes; in format 2 the hash tile is these (AUD-021);
2. each body is canonical and of the closed schema, of this log, genesis first and only there (AUD-030 to
   033), and refers back (AUD-034);
3. the packs of the tile: disclosures open their commitments (AUD-082), records of decisions are about
   decisions (AUD-059), envelopes are in their one spelling (AUD-040);
4. an entry of a member has its envelope, whose payload has the digest ``env`` (AUD-040); it is signed by
   one of the keys that contracts and notices name, or left to `policies.verify.members`; payload and entry
   agree (AUD-041, AUD-042). Whether the key was in force there is seen once all entries are known.

The result is a row for each entry (`policies.verify.ledger`), the hashes, and findings. References from
one part to types of another are kept in `Part.refs`.
"""

from __future__ import annotations

import datetime as dt
from base64 import b64decode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from policies.errors import EncodingError
from policies.log.bundle import TILE, split_tile
from policies.log.entries import EntryType, check_entry
from policies.log.errors import BodyTooLargeError, BundleError, EntryError, MemberEnvelopeError
from policies.log.merkle import leaf_hash
from policies.log.schema import MEMBER_SET
from policies.log.tiles import entries_path, tile_path
from policies.verify.incidents import subject_of
from policies.verify.ledger import (
    ALLOWED,
    AUDITOR,
    CLOSES,
    CODES,
    ENVELOPED,
    KEPT_BACK,
    KINDS,
    LOOKED_AT,
    MEMBER,
    NOBODY,
    SCOPED,
    SIGNED,
    UNTRIED,
    Ledger,
    Row,
)
from policies.verify.packs import pack_name, read_decisions, read_envelopes, read_opened
from policies.verify.report import Report
from policies.verify.store import BROKEN
from policies.verify.tree_rules import REFS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.log.bundle import DecisionRecord
    from policies.log.entries import Entry
    from policies.signing import Envelope
    from policies.verify.keyring import Keyring
    from policies.verify.source import Files
    from policies.verify.spill import SpillTree

__all__ = ["QUERY", "TRAIN", "Part", "Scan", "agreement", "envelope_row"]

Json = Any
TRAIN, QUERY = 1, 2
_SUBMITTED: Final = EntryType.SUBMISSION_RECEIVED
_REQUESTS: Final = {"TrainRound": TRAIN, "Query": QUERY}
_ACTIONS: Final = {name: number for number, name in enumerate(LOOKED_AT, 1)}
_CLOSE: Final = "incident.close"
_INCIDENTS: Final = (EntryType.INCIDENT_DECLARED, EntryType.INCIDENT_CLOSED)
_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_EPOCH_DAY = 719_163


@lru_cache(maxsize=1024)
def _day_ms(text: str) -> int:
    return (dt.date.fromisoformat(text).toordinal() - _EPOCH_DAY) * _DAY_MS


def _ms(text: str) -> int:
    """`policies.ports.to_ms` of a time whose form was checked; four times as fast."""
    seconds = int(text[11:13]) * 3600 + int(text[14:16]) * 60 + int(text[17:19])
    return _day_ms(text[:10]) + seconds * 1000 + (int(text[20:23]) if text[19] == "." else 0)


@lru_cache(maxsize=64)  # entries follow each other in time
def _minute(text: str) -> int:
    return _ms(text) // _MINUTE_MS


@dataclass(slots=True, kw_only=True)
class Part:
    """What a scan of some tiles found, beside rows and hashes.

    Attributes:
        start: Of its first entry.
        codes: Type of each entry, as in `Ledger.codes`.
        broken: Of each tile, as in `policies.verify.store.Store.broken`.
        refs: References to entries before this part: index, reference.
        fatal: A tile could not be taken apart.
        report: Findings.
    """

    start: int
    codes: bytearray = field(default_factory=bytearray)
    broken: bytearray = field(default_factory=bytearray)
    refs: list[tuple[int, int]] = field(default_factory=list)
    fatal: bool = False
    report: Report = field(default_factory=Report)


@dataclass(slots=True, kw_only=True)
class Scan:
    """What the scan of a tile needs; `tiles` does a part of the log.

    Attributes:
        files: Of the bundle.
        ledger: Gets the rows.
        tree: Gets the hashes.
        keyring: Who may have signed.
        origin: Of the log.
        grade: What is asked for.
        hashed: Whether the bundle has hash tiles.
    """

    files: Files
    ledger: Ledger
    tree: SpillTree
    keyring: Keyring
    origin: str
    grade: str
    hashed: bool

    def tiles(self, numbers: range) -> Part:
        """Scans these tiles, in order."""
        part = Part(start=numbers.start * TILE, report=Report(grade=self.grade))
        for tile in numbers:
            bodies = self._bodies(tile, part)
            if bodies is None:
                part.fatal = True
                return part
            self._tile(tile, bodies, part)
        return part

    def _bodies(self, tile: int, part: Part) -> list[bytes] | None:
        """1."""
        width = min(TILE, self.ledger.size - tile * TILE)
        name = entries_path(tile, width)
        try:
            bodies = split_tile(self.files[name], width)
        except BundleError as error:
            part.report.add("AUD-022", f"{name}: needs {error.need}; found {error.found}")
            return None
        leaves = [leaf_hash(body) for body in bodies]
        self.tree.fill(tile, leaves)
        if self.hashed and self.files.get(tile_path(0, tile, width)) != b"".join(leaves):
            part.report.add("AUD-021", f"{tile_path(0, tile, width)} is not of the entries")
        return bodies

    def _tile(self, tile: int, bodies: Sequence[bytes], part: Part) -> None:
        start = tile * TILE
        entries = {}
        for index, body in enumerate(bodies, start):
            entry = self._entry(index, body, part.report)
            part.codes.append(0 if entry is None else CODES[entry.type])
            if entry is not None:
                entries[index] = entry
                self._check_refs(index, entry, part)
        opened, envelopes, decisions = self._packs(tile, entries, part)
        rows = []
        for index in range(start, start + len(bodies)):
            one = entries.get(index)
            if one is None:
                rows.append(Row(0))
                continue
            told = opened.get(index, {})
            row = self._row(one, told, decisions.get(index))
            rows.append(self._member(index, one, envelopes.get(index), row, told, report=part.report))
        self.ledger.write(start, rows)

    def _entry(self, index: int, body: bytes, report: Report) -> Entry | None:
        """2."""
        try:
            entry = check_entry(body)
        except (EncodingError, BodyTooLargeError) as error:
            report.add("AUD-030", f"needs {error.need}; found {error.found}", index=index)
            return None
        except EntryError as error:
            report.add("AUD-031", f"needs {error.need}; found {error.found}", index=index)
            return None
        if entry.log != self.origin:
            report.add("AUD-032", f"log {entry.log}", index=index)
        if (entry.type is EntryType.LOG_GENESIS) != (index == 0):
            report.add("AUD-033", f"{entry.type} at index {index}", index=index)
        return entry

    def _check_refs(self, index: int, entry: Entry, part: Part) -> None:
        permitted = REFS.get(entry.type)
        for ref in entry.refs:
            if ref >= index:
                part.report.add("AUD-034", f"refers to {ref}", index=index)
            elif permitted is None:
                continue
            elif ref < part.start:
                part.refs.append((index, ref))
            elif (code := part.codes[ref - part.start]) and KINDS[code - 1] not in permitted:
                part.report.add("AUD-034", f"{entry.type} refers to {KINDS[code - 1]}", index=index)

    def _packs(
        self, tile: int, entries: Mapping[int, Entry], part: Part
    ) -> tuple[dict[int, dict[str, Json]], dict[int, Envelope], dict[int, DecisionRecord]]:
        """3."""
        size, report, broken = self.ledger.size, part.report, 0
        found: list[dict[int, Any]] = []
        for folder in ("disclosures", "envelopes", "decisions"):
            data, before = self.files.get(pack_name(folder, tile)), report.counts.total()
            if data is None:
                found.append({})
            elif folder == "disclosures":
                found.append(read_opened(data, tile, size, entries, report))
            elif folder == "envelopes":
                found.append(read_envelopes(data, tile, size, report))
            else:
                found.append(read_decisions(data, tile, size, report))
            broken |= BROKEN[folder] if report.counts.total() > before else 0
        part.broken.append(broken)
        for index in found[2]:
            if index in entries and entries[index].type is not EntryType.DECISION_RECORDED:
                report.add("AUD-059", "a record for an entry that is no decision", index=index)
        return found[0], found[1], found[2]

    def _row(self, entry: Entry, opened: Mapping[str, Json], decision: DecisionRecord | None) -> Row:
        named, about, mark = 0 if decision is None else _asked(decision), b"", b""
        if entry.type is EntryType.CONSOLE_ACTION:
            named = _acted(entry.pub)
        elif entry.type is _SUBMITTED:
            mark = bytes.fromhex(entry.pub["update"][7:23])
        elif entry.type in _INCIDENTS and entry.env is None:
            about = subject_of(entry)
        at = opened.get("at")
        member = entry.actor not in ("broker", "auditor")
        return Row(
            CODES[entry.type],
            _flags(entry, opened),
            0,
            self.keyring.org_at(entry) if member else NOBODY,
            named,
            _minute(entry.ts),
            _ms(at) if isinstance(at, str) else -1,
            -1 if entry.round is None else entry.round,
            actor=bytes.fromhex(entry.actor) if member else b"",
            env=about,
            id=entry.id,
            scope=b"" if entry.scope is None else bytes.fromhex(entry.scope[7:]),
            run=b"" if entry.run is None else entry.run.encode("ascii"),
            mark=mark,
        )

    def _member(
        self,
        index: int,
        entry: Entry,
        envelope: Envelope | None,
        row: Row,
        opened: Mapping[str, Json],
        *,
        report: Report,
    ) -> Row:
        """4."""
        if entry.env is None:
            if envelope is not None:
                report.add("AUD-040", "an envelope for an entry of the broker's own", index=index)
            return row
        if envelope is None:
            if self.grade == "auditor":
                report.add("AUD-040", "no envelope in the bundle", index=index)
            else:
                report.not_checked("AUD-040 to 046: envelopes of other members (this is a member's bundle)")
            return row
        if "sha256:" + sha256(envelope.payload).hexdigest() != entry.env:
            report.add("AUD-040", "the envelope's payload has another digest", index=index)
            return row
        row = row._replace(flags=row.flags | ENVELOPED)
        number = None if row.flags & AUDITOR else self.keyring.signer(envelope, row.wanted)
        if number is None:
            return row._replace(flags=row.flags | UNTRIED)
        try:
            payload = self.keyring.open(envelope, number)
        except (MemberEnvelopeError, EncodingError) as error:
            report.add("AUD-041", f"needs {error.need}; found {error.found}", index=index)
            return row
        different = agreement(entry, payload, opened)
        if different:
            report.add("AUD-042", " ".join(different), index=index)
        return envelope_row(row._replace(key=number), entry, payload)


def _flags(entry: Entry, opened: Mapping[str, Json]) -> int:
    flags = AUDITOR if entry.actor == "auditor" else 0
    if entry.env is not None:
        flags |= MEMBER
    if entry.scope is not None:
        flags |= SCOPED
    if not opened.keys() >= entry.sd.keys():
        flags |= KEPT_BACK
    if entry.pub.get("outcome") == "allow":
        flags |= ALLOWED
    return flags


def _asked(decision: DecisionRecord) -> int:
    request = decision.request
    named = request.get("type") if isinstance(request, dict) else None
    return _REQUESTS.get(named, 0) if isinstance(named, str) else 0


def _acted(pub: Mapping[str, Json]) -> int:
    if pub["action"] == _CLOSE:
        return CLOSES if pub["result"] == "done" else 0
    return _ACTIONS.get(pub["action"], 0)


def envelope_row(row: Row, entry: Entry, payload: Mapping[str, Json]) -> Row:
    """The row with what the payload says of its place in its chain."""
    return row._replace(
        flags=(row.flags | SIGNED) & ~UNTRIED,
        seq=payload["seq"],
        seen_size=payload["seen"]["size"],
        chain=bytes.fromhex(payload["chain"]),
        env=bytes.fromhex((entry.env or "")[7:]),
        prev=b"" if payload["prev"] is None else bytes.fromhex(payload["prev"][7:]),
        seen_root=b64decode(payload["seen"]["root"]),
    )


def agreement(entry: Entry, payload: Mapping[str, Json], opened: Mapping[str, Json]) -> list[str]:
    """AUD-042: names that differ, of log, type, scope, run, round, fields in clear and opened ones."""
    header = {
        "log": entry.log,
        "kind": entry.type.value,
        "scope": entry.scope,
        "run": entry.run,
        "round": entry.round,
    }
    different = [name for name, value in header.items() if payload[name] != value]
    body: Mapping[str, Json] = payload["body"]
    different += [f"pub.{name}" for name, value in entry.pub.items() if body.get(name) != value]
    stated = {name for name in body if name not in entry.schema.pub}
    committed = set(entry.sd) - {"at"} - _MEMBER_SET
    different += [f"sd.{name}" for name in stated ^ committed]
    for name, value in opened.items():
        if name != "at" and (payload[name] if name in _MEMBER_SET else body.get(name)) != value:
            different.append(f"sd.{name}")
    return sorted(set(different))


_MEMBER_SET = frozenset(MEMBER_SET)
