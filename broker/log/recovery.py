# SPDX-License-Identifier: Apache-2.0
"""What happens to the log when the broker starts: all is hashed again and compared with what was signed.

Checks, in this order; the first that fails freezes the log:
1. the signer is not frozen already, and remembers something if there are entries (`amnesia`);
2. the head is not smaller than what was signed (`rolled-back`);
3. every body hashes to its stored leaf hash, indices have no gap, all of it leads to the stored head and
   to the stored tiles, and every envelope is the one that its entry names (`corrupt`);
4. the root at the signed size is the signed one (`fork`).

A head larger than what was signed is the trace of a crash between commit and signature: the writer signs it
next. A log from before there were tiles has none; they are made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, select

from broker.log.envelopes import damaged_envelope
from broker.log.known import KnownIds
from broker.log.receipts import Head
from broker.log.signer import Freeze, FreezeReason, SignedHead
from broker.log.tiles import differing, edge_differs, write
from broker.log.tree import GrowingTree
from broker.store import tables
from broker.store.prepared import Prepared
from policies.log.errors import ProofError
from policies.log.merkle import EMPTY_ROOT, Frontier, leaf_hash

if TYPE_CHECKING:
    from broker.log.signer import Signer
    from broker.store import Session, Store

__all__ = [
    "Opened",
    "Tail",
    "locked_head",
    "newest_fitting",
    "open_log",
    "read_head",
    "read_ids",
    "read_on",
    "read_tail",
]

_ENTRY = tables.log_entry
_HEAD = tables.log_head
_CHECKPOINT = tables.log_checkpoint
_CHUNK = 2_000
_HEAD_ROW = select(_HEAD.c.size, _HEAD.c.frontier).where(_HEAD.c.id == bindparam("head"))
_READ_HEAD: Final = Prepared(_HEAD_ROW)
_LOCK_HEAD: Final = Prepared(_HEAD_ROW.with_for_update())  # SQLite locks the whole file when it begins
_READ_BODIES: Final = Prepared(
    select(_ENTRY.c.body, _ENTRY.c.ts_ms)
    .where(_ENTRY.c.idx >= bindparam("start"), _ENTRY.c.idx < bindparam("end"))
    .order_by(_ENTRY.c.idx)
)
_READ_IDS: Final = Prepared(
    select(_ENTRY.c.event_id).where(_ENTRY.c.idx >= bindparam("start"), _ENTRY.c.idx < bindparam("end"))
)


class Opened(NamedTuple):
    """The log as found: tree, ids, what was signed last (None if frozen), freeze, time of its last entry."""

    tree: GrowingTree
    known: KnownIds
    last: SignedHead | None
    freeze: Freeze | None
    last_ms: int


class Tail(NamedTuple):
    """What the database holds from an index on: the head, leaf hashes of the bodies, and the damage."""

    head: Frontier
    leaves: list[bytes]
    damage: str | None


def read_head(session: Session) -> Frontier:
    """The head row.

    Raises:
        ProofError: There is none, or it is not one that a tree can have.
    """
    return _frontier(_READ_HEAD.first(session, {"head": 1}))


def locked_head(session: Session) -> Frontier:
    """The head row, which no other transaction changes before this one ends.

    Raises:
        ProofError: As from `read_head`.
    """
    return _frontier(_LOCK_HEAD.first(session, {"head": 1}))


def _frontier(row: tuple[Any, ...] | None) -> Frontier:
    if row is None:
        raise ProofError(need="a head row", found="none", remedy="keep all files as they are")
    return Frontier.from_bytes(*row)


def read_on(session: Session, start: int, end: int) -> tuple[list[bytes], int]:
    """Leaf hashes ``[start, end)`` from the stored bodies, and the newest time among them."""
    rows = _READ_BODIES.all(session, {"start": start, "end": end})
    return [leaf_hash(body) for body, _ in rows], max((ts for _, ts in rows), default=0)


def read_ids(session: Session, start: int, end: int) -> list[bytes]:
    """Event ids of the entries ``[start, end)``."""
    return [event_id for (event_id,) in _READ_IDS.all(session, {"start": start, "end": end})]


def read_tail(store: Store, tree: GrowingTree, start: int) -> Tail:
    """The bodies from an index on, as any reader sees them now, hashed and compared with tree and tiles.

    Args:
        store: The databases.
        tree: What this process believes; what another process wrote since is added to it.
        start: At most the size of the tree.
    """
    with store.read() as session:
        head = read_head(session)
        leaves, _ = read_on(session, start, head.size)
        if b"".join(leaves[: tree.size - start]) != tree.run(0, start, tree.size):
            return Tail(head, leaves, f"bodies from {start} on are not those that were written")
        tree.extend(leaves[tree.size - start :])
        damage = edge_differs(session, tree, start, tree.size) if leaves else None
        return Tail(head, leaves, damage)


def open_log(store: Store, signer: Signer) -> Opened:
    """Runs the checks of the module docstring."""
    unreadable = None
    signed = signer.remembered()  # before the snapshot: what another process signs meanwhile is not in it
    with store.read() as session, session.begin():  # one snapshot: another process may write on
        try:
            head = read_head(session)
        except ProofError as error:
            head, unreadable = Frontier(), f"the head row has {error.found} where {error.need} is needed"
        known = KnownIds()
        tree, damage, last_ms = _hash_again(session, head, known)
        tiles_damage, no_tiles = differing(session, tree)
        damage = damage or damaged_envelope(session)
    freeze = signer.begin(entries=max(head.size, tree.size))  # 1.
    if freeze is not None:
        return Opened(tree, known, None, freeze, last_ms)
    last = signed or SignedHead(frontier=Frontier(), root=EMPTY_ROOT, note="")
    if unreadable is None and head.size < last.size:  # 2.
        freeze = signer.freeze(
            FreezeReason.ROLLED_BACK, f"{head.size} entries where a checkpoint of {last.size} was signed"
        )
    elif unreadable or damage or tiles_damage:  # 3.
        freeze = signer.freeze(FreezeReason.CORRUPT, unreadable or damage or str(tiles_damage))
    elif tree.root(last.size) != last.root:  # 4.
        freeze = signer.freeze(
            FreezeReason.FORK,
            f"root {tree.root(last.size).hex()} at size {last.size} where {last.root.hex()} was signed",
        )
    elif no_tiles:
        with store.main.begin() as session:
            write(session, tree, 0)
    return Opened(tree, known, None if freeze else last, freeze, last_ms)


def newest_fitting(store: Store, tree: GrowingTree) -> Head | None:
    """The newest published checkpoint that the tree still has; what a frozen log shows."""
    with store.read() as session:
        rows = session.execute(
            select(_CHECKPOINT).where(_CHECKPOINT.c.size <= tree.size).order_by(_CHECKPOINT.c.size.desc())
        )
        for row in rows:
            if tree.root(row.size) == row.root:
                return Head(row.size, row.root, row.note)
    return Head(0, EMPTY_ROOT, "") if tree.size == 0 else None


def _hash_again(session: Session, head: Frontier, known: KnownIds) -> tuple[GrowingTree, str | None, int]:
    tree, damage, last_ms = GrowingTree(), None, 0
    columns = (_ENTRY.c.idx, _ENTRY.c.body, _ENTRY.c.leaf_hash, _ENTRY.c.ts_ms, _ENTRY.c.event_id)
    rows = session.execution_options(yield_per=_CHUNK).execute(select(*columns).order_by(_ENTRY.c.idx))
    for part in rows.partitions():
        leaves, start = [], tree.size
        for at, (index, body, stored, ts_ms, _) in enumerate(part, start):
            leaf = leaf_hash(body)
            if index != at:
                damage = damage or f"entry {at} is missing"
            elif leaf != stored:
                damage = damage or f"entry {index} does not hash to its stored leaf hash"
            leaves.append(leaf)
            last_ms = max(last_ms, ts_ms)
        tree.extend(leaves)
        known.add(row[-1] for row in part)
        known.size = tree.size
    if tree.frontier() != head:
        damage = damage or f"{tree.size} bodies do not hash to the head of {head.size} entries"
    return tree, damage, last_ms
