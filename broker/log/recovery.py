# SPDX-License-Identifier: Apache-2.0
"""What happens to the log when the broker starts: all is hashed again and compared with what was signed.

Checks, in this order; the first that fails freezes the log:
1. the signer is not frozen already, and remembers something if there are entries (`amnesia`);
2. the head is not smaller than what was signed (`rolled-back`);
3. every body hashes to its stored leaf hash, indices have no gap, and all of it leads to the stored head
   (`corrupt`);
4. the root at the signed size is the signed one (`fork`).

A head larger than what was signed is the trace of a crash between commit and signature: the writer signs it
next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, select

from broker.log.receipts import Head
from broker.log.signer import Freeze, FreezeReason, SignedHead
from broker.log.tree import GrowingTree
from broker.store import tables
from broker.store.prepared import Prepared
from policies.errors import invariant
from policies.log.merkle import EMPTY_ROOT, Frontier, leaf_hash

if TYPE_CHECKING:
    from broker.log.signer import Signer
    from broker.store import Session, Store

__all__ = ["Opened", "open_log", "read_head", "read_tail"]

_ENTRY = tables.log_entry
_HEAD = tables.log_head
_CHECKPOINT = tables.log_checkpoint
_CHUNK = 2_000
_READ_HEAD: Final = Prepared(select(_HEAD.c.size, _HEAD.c.frontier).where(_HEAD.c.id == bindparam("head")))
_READ_BODIES: Final = Prepared(
    select(_ENTRY.c.body)
    .where(_ENTRY.c.idx >= bindparam("start"), _ENTRY.c.idx < bindparam("end"))
    .order_by(_ENTRY.c.idx)
)


class Opened(NamedTuple):
    """The log as found: tree, what was signed last (None if frozen), why frozen, time of its last entry."""

    tree: GrowingTree
    last: SignedHead | None
    freeze: Freeze | None
    last_ms: int


def read_head(session: Session) -> Frontier:
    """The head row."""
    row = _READ_HEAD.first(session, {"head": 1})
    invariant(row is not None, "a head row in log_head")
    return Frontier.from_bytes(*row) if row else Frontier()


def read_tail(store: Store, start: int) -> tuple[Frontier, list[bytes]]:
    """The head and the bodies from an index on, as any reader sees them now."""
    with store.read() as session:
        head = read_head(session)
        rows = _READ_BODIES.all(session, {"start": start, "end": head.size})
        return head, [body for (body,) in rows]


def open_log(store: Store, signer: Signer) -> Opened:
    """Runs the checks of the module docstring."""
    with store.read() as session:
        head = read_head(session)
        tree, damage, last_ms = _hash_again(session, head)
    freeze = signer.begin(entries=head.size)  # 1.
    if freeze is not None:
        return Opened(tree, None, freeze, last_ms)
    last = signer.last()
    if head.size < last.size:  # 2.
        freeze = signer.freeze(
            FreezeReason.ROLLED_BACK, f"{head.size} entries where a checkpoint of {last.size} was signed"
        )
    elif damage is not None:  # 3.
        freeze = signer.freeze(FreezeReason.CORRUPT, damage)
    elif tree.root(last.size) != last.root:  # 4.
        freeze = signer.freeze(
            FreezeReason.FORK,
            f"root {tree.root(last.size).hex()} at size {last.size} where {last.root.hex()} was signed",
        )
    return Opened(tree, None if freeze else last, freeze, last_ms)


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


def _hash_again(session: Session, head: Frontier) -> tuple[GrowingTree, str | None, int]:
    tree, damage, last_ms = GrowingTree(), None, 0
    columns = (_ENTRY.c.idx, _ENTRY.c.body, _ENTRY.c.leaf_hash, _ENTRY.c.ts_ms)
    rows = session.execution_options(yield_per=_CHUNK).execute(select(*columns).order_by(_ENTRY.c.idx))
    for index, body, stored, ts_ms in rows:
        leaf = leaf_hash(body)
        if index != tree.size:
            damage = damage or f"entry {tree.size} is missing"
        elif leaf != stored:
            damage = damage or f"entry {index} does not hash to its stored leaf hash"
        tree.append(leaf)
        last_ms = max(last_ms, ts_ms)
    if tree.frontier() != head:
        damage = damage or f"{tree.size} bodies do not hash to the head of {head.size} entries"
    return tree, damage, last_ms
