# SPDX-License-Identifier: Apache-2.0
"""Repair: a frozen log gets back what was signed and is missing, from a bundle that somebody kept.

`Repair.plan`, in this order; nothing is changed by it:
1. the log is frozen, and not because it ended in good order;
2. the bundle is of this log, its checkpoint is signed by a key of this log, and it is of the grade that has
   all envelopes;
3. its bodies hash to its checkpoint, at the signer's size to the root that the signer remembers, and at the
   size of a note that froze the log to that note's root: nothing that was ever signed is left out;
4. what is stored is the beginning of it, entry by entry, and its envelopes are whole;
5. each envelope that comes back is signed by a key that was in force (`broker.log.repair_keys`): what nobody
   can check is not restored.

Two operators sign `Repair.subject`. `Repair.apply` then writes the missing entries and envelopes, what the
bundle discloses, tiles, head and checkpoints in one transaction, and opens the signer for exactly this
history. An entry that is stored and differs is never changed: restore an older backup of the main database
first, and repeat.

Business rows cannot be made again from entries, which hold digests and no content. `Repair.lost` counts what
came back by type: for each of these, whatever the entry speaks of (a contract, a run, a member) has to be
looked at by people, and enrolled or sent anew. `Repair.undisclosed` counts confidential values that the
bundle does not open, though nobody erased them: lost, unless the private database still has them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from broker.log.bundle_source import BundleSource
from broker.log.envelopes import damaged_envelope
from broker.log.errors import LogRepairError
from broker.log.recovery import read_on
from broker.log.repair_rows import keys_of, packs
from broker.log.signer import Freeze, FreezeReason, SignedHead
from broker.log.tiles import write
from broker.log.tree import GrowingTree
from broker.store import tables
from broker.store.prepared import Prepared
from broker.store.upserts import insert_or_ignore, updating
from policies.encoding import canonical
from policies.errors import IriaiError
from policies.log.checkpoint import Note, open_checkpoint, parse_checkpoint, parse_note
from policies.log.entries import Entry, EntryType, check_entry
from policies.log.errors import LogError
from policies.log.merkle import Frontier, leaf_hash

if TYPE_CHECKING:
    from pathlib import Path

    from broker.log.signer import Signer
    from broker.store import Session, Store
    from policies.log.checkpoint import Checkpoint

__all__ = ["Repair"]

_PACK: Final = 256
_ENTRY = tables.log_entry
_ADD_ENTRIES: Final = Prepared(insert(_ENTRY))
_ADD_ENVELOPES: Final = Prepared(insert(tables.log_envelope))
_ADD_PRIVATE: Final = Prepared(updating(tables.log_private))
_HEAD: Final = (
    update(tables.log_head)
    .where(tables.log_head.c.id == 1)
    .values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
)


@dataclass(slots=True, kw_only=True)
class Repair:
    """A repair that can be done; see the module.

    Attributes:
        origin: Of the log.
        reason: Why it is frozen.
        start: Entries that are stored.
        size: Entries that there will be.
        note: Checkpoint of the log's key on that size or a smaller one, the newest there is.
        bundle: Digest of the bundle.
        lost: How many entries come back, by type.
        undisclosed: How many confidential values of these entries do not.
        operators: Digests of operators' keys that the restored entries name and do not revoke.
    """

    origin: str
    reason: FreezeReason
    start: int
    size: int
    note: str
    bundle: str
    lost: Counter[str] = field(default_factory=Counter)
    undisclosed: int = 0
    operators: frozenset[str] = frozenset()
    _path: Path
    _before: SignedHead
    _after: SignedHead
    _tree: GrowingTree
    _newest_ms: int = 0

    @classmethod
    def plan(cls, store: Store, signer: Signer, origin: str, path: Path) -> Repair:
        """Steps 1 to 5.

        Raises:
            LogRepairError: One of them does not hold.
        """
        freeze = signer.frozen()
        if freeze is None or freeze.reason is FreezeReason.SUCCEEDED:  # 1.
            found = "an open one" if freeze is None else f"one that ended: {freeze.evidence}"
            raise _refuse("a frozen log", found, "start the broker; it says whether something is wrong")
        before = signer.last()
        with BundleSource(path) as bundle, store.read() as session, session.begin():
            checkpoint = _opened(bundle, signer, origin)  # 2.
            reader = _Reader(bundle, session)
            reader.read(_roots(before, checkpoint, freeze))  # 3. 4.
            keys = keys_of(bundle, store, session)
            undisclosed = sum(rows.undisclosed for rows in packs(bundle, keys, reader.stored))  # 5.
            kept = checkpoint.size >= before.size
            after = SignedHead(
                frontier=reader.frontiers[checkpoint.size] if kept else before.frontier,
                root=checkpoint.root if kept else before.root,
                note=_own_lines(bundle.note, signer) if kept else before.note,
            )
            return cls(
                origin=origin,
                reason=freeze.reason,
                start=reader.stored,
                size=reader.tree.size,
                note=after.note,
                bundle=bundle.digest(),
                lost=reader.lost,
                undisclosed=undisclosed,
                operators=frozenset(reader.operators),
                _path=path,
                _before=before,
                _after=after,
                _tree=reader.tree,
            )

    def subject(self) -> bytes:
        """Canonical bytes that two operators sign."""
        return canonical(
            {
                "v": 1,
                "action": "log.repair",
                "log": self.origin,
                "reason": self.reason.value,
                "from": self.start,
                "to": self.size,
                "root": f"sha256:{self._tree.root().hex()}",
                "bundle": self.bundle,
                "undisclosed": self.undisclosed,
            }
        )

    def apply(self, store: Store, signer: Signer) -> None:
        """Writes what is missing and opens the signer. Safe to repeat after a crash.

        Raises:
            LogRepairError: Somebody wrote or signed meanwhile.
            DBAPIError: The database does not take it; nothing was changed.
        """
        with BundleSource(self._path) as bundle, store.main.begin() as session:
            self._write(session, store, bundle)
            for note in bundle.notes():
                self._write_checkpoint(session, signer, note)
        if not signer.thaw(self._before, self._after):
            raise _refuse("nobody else who signs", "a newer checkpoint", "stop every broker, and repeat")

    def _write(self, session: Session, store: Store, bundle: BundleSource) -> None:
        for rows in packs(bundle, keys_of(bundle, store, session), self.start):
            with store.private.begin() as private:
                _ADD_PRIVATE.many(private, rows.private)
            _ADD_ENTRIES.many(session, rows.entries)
            _ADD_ENVELOPES.many(session, rows.envelopes)
            self._newest_ms = max(self._newest_ms, *(row["ts_ms"] for row in rows.entries))
        session.execute(delete(tables.log_tile))
        write(session, self._tree, 0)
        frontier = self._tree.frontier()
        session.execute(_HEAD, {"new_size": frontier.size, "new_frontier": frontier.to_bytes()})

    def _write_checkpoint(self, session: Session, signer: Signer, note: str) -> None:
        """A note that was published once, if it is of this history; its cosignatures stay in the bundle."""
        try:
            shown = open_checkpoint(note, signer.known_vkeys)
        except LogError:
            return
        if 0 < shown.size <= self.size and self._tree.root(shown.size) == shown.root:
            own = _own_lines(note, signer)
            row = {"size": shown.size, "root": shown.root, "note": own, "published_ms": self._newest_ms}
            insert_or_ignore(session, tables.log_checkpoint, row)


def _opened(bundle: BundleSource, signer: Signer, origin: str) -> Checkpoint:
    try:
        checkpoint = open_checkpoint(bundle.note, signer.known_vkeys)
    except LogError as error:
        raise _refuse(error.need, error.found, "take a bundle of this log") from error
    if (bundle.origin, checkpoint.origin, checkpoint.size) != (origin, origin, bundle.size):
        found = f"{bundle.origin} with {bundle.size} entries, a checkpoint of {checkpoint.size}"
        raise _refuse(f"a bundle of {origin}", found, "take a bundle of this log")
    if bundle.grade != "auditor":
        raise _refuse("a bundle with all envelopes", bundle.grade, "take one of the grade auditor")
    return checkpoint


def _roots(before: SignedHead, checkpoint: Checkpoint, freeze: Freeze) -> dict[int, bytes]:
    """Roots that the history must have, by size."""
    wanted = {checkpoint.size: checkpoint.root}
    notes = [(before.size, before.root)]
    if freeze.note:
        shown = parse_checkpoint(parse_note(freeze.note).text)
        notes.append((shown.size, shown.root))
    for size, root in notes:
        if size and wanted.setdefault(size, root) != root:
            raise _fork(size)
    return wanted


def _fork(size: int) -> LogRepairError:
    return _refuse(
        f"one root at size {size}", "two", "the log signed two histories: only log succeed goes on"
    )


class _Reader:
    """Reads a bundle once: hashes it, and compares it with what is stored."""

    def __init__(self, bundle: BundleSource, session: Session) -> None:
        self._bundle = bundle
        self._session = session
        self.tree = GrowingTree()
        self.frontiers: dict[int, Frontier] = {}
        self.lost: Counter[str] = Counter()
        self.operators: set[str] = set()
        self.stored = session.scalar(select(func.count()).select_from(_ENTRY)) or 0
        if (damage := damaged_envelope(session)) is not None:
            raise _refuse("stored envelopes that are whole", damage, "restore an older backup, and repeat")

    def read(self, roots: dict[int, bytes]) -> None:
        """Raises unless the history has these roots and begins with what is stored."""
        for bodies in self._bundle.bodies():
            self._take(bodies)
        size = self.tree.size
        if self.stored > size:
            leaves, _ = read_on(self._session, size, self.stored)
            self.tree.extend(leaves)  # written and perhaps never signed; the next start signs it
            if self.tree.size != self.stored:
                raise _differs(size)
        for at, root in sorted(roots.items()):
            if at > self.tree.size:
                raise _refuse(f"{at} entries, which were signed", f"{self.tree.size}", "take a newer bundle")
            if (found := self.tree.root(at)) != root:
                raise _refuse(f"root {root.hex()} at size {at}", found.hex(), "take another bundle")
        self.frontiers = {size: self._frontier(size)}

    def _frontier(self, size: int) -> Frontier:
        shorter = GrowingTree()
        shorter.extend(self.tree.leaf(at) for at in range(size))
        return shorter.frontier()

    def _take(self, bodies: list[bytes]) -> None:
        first = self.tree.size
        leaves = [leaf_hash(body) for body in bodies]
        here, _ = read_on(self._session, first, min(first + len(bodies), self.stored))
        if here != leaves[: len(here)] or len(here) < min(len(bodies), max(0, self.stored - first)):
            raise _differs(next((first + at for at, leaf in enumerate(here) if leaf != leaves[at]), first))
        self.tree.extend(leaves)
        for at, body in enumerate(bodies, start=first):
            try:
                entry = check_entry(body)
            except IriaiError as error:
                raise _refuse(f"an entry at {at}", error.found, "take another bundle") from error
            self._key(entry)
            if at >= self.stored:
                self.lost[entry.type.value] += 1

    def _key(self, entry: Entry) -> None:
        if entry.type is EntryType.KEY_ADDED and entry.pub["role"] == "operator":
            self.operators.add(entry.pub["kid"])
        elif entry.type is EntryType.KEY_REVOKED:
            self.operators.discard(entry.pub["kid"])


def _own_lines(note: str, signer: Signer) -> str:
    """A note without the signatures of others."""
    parsed = parse_note(note)
    own = {(key.name, key.hash4) for key in signer.known_vkeys}
    return Note(parsed.text, tuple(one for one in parsed.signatures if (one[0], one[1]) in own)).to_text()


def _differs(index: int) -> LogRepairError:
    return _refuse(
        f"stored entries that are the beginning of the bundle, entry {index} too",
        "another entry",
        "restore an older backup of the main database, or remove the file, and repeat",
    )


def _refuse(need: str, found: str, remedy: str) -> LogRepairError:
    return LogRepairError(need=need, found=found, remedy=f"{remedy}; nothing was changed")
