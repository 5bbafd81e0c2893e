# SPDX-License-Identifier: Apache-2.0
"""What the log shows: the signed head, proofs against it, receipts.

All of it comes from what was committed *and* signed.

Readers of any thread; nothing here touches the disk except looking up an entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, select

from broker.log.errors import LogFrozenError, NotInLogError
from broker.log.tiles import TILE, Tiles
from broker.store import tables
from broker.store.prepared import Prepared
from policies.log.errors import ProofError
from policies.log.proofs import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.log.tree import GrowingTree
    from broker.store import Store

__all__ = ["Head", "Receipts"]

_ENTRY = tables.log_entry
_BODY: Final = Prepared(select(_ENTRY.c.body).where(_ENTRY.c.idx == bindparam("index")))


class Head(NamedTuple):
    """A signed head: number of entries, root (32 bytes), and the note (empty for the empty log)."""

    size: int
    root: bytes
    note: str


class Receipts:
    """Proofs at the newest published head."""

    def __init__(self, store: Store, tree: GrowingTree, head: Head | None) -> None:
        self._store = store
        self._tree = tree
        self._head = head
        self._tiles = Tiles(tree)
        self._heard: Callable[[], None] = _nobody

    def publish(self, head: Head) -> None:
        """Shows a head from now on; only the writer calls it, after signing."""
        self._head = head
        self._heard()

    def listen(self, heard: Callable[[], None]) -> None:
        """Calls this after each new head, on the writer's thread; it must not block, and not raise."""
        self._heard = heard

    def head(self) -> Head:
        """The newest head that may be shown.

        Raises:
            LogFrozenError: The log is frozen, and no checkpoint fits what is left in the database.
        """
        if self._head is None:
            raise LogFrozenError(
                need="a checkpoint that fits the stored entries",
                found="none",
                remedy="keep all files as they are; compare checkpoints with the members",
            )
        return self._head

    def proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Inclusion proof of an entry in the tree of ``size`` entries (the head's, if None).

        Raises:
            ProofError: The size was not published, or the index is not below it.
        """
        return self._tree.inclusion(index, self._published(size))

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Proof that the tree of ``old`` entries is a prefix of the one of ``new`` (the head's, if None).

        Raises:
            ProofError: ``old`` is 0 or above ``new``, or the size was not published.
        """
        return self._tree.consistency(old, self._published(new))

    def root(self, size: int) -> bytes:
        """Root of the tree when it had ``size`` entries.

        Raises:
            ProofError: The size was not published.
        """
        return self._tree.root(self._published(size))

    def tile(self, level: int, n: int, width: int = TILE) -> bytes:
        """Hash tile of a published size: ``width`` nodes of 32 bytes (C2SP tlog-tiles).

        Raises:
            NotInLogError: The head has no such tile, or a narrower one.
        """
        return self._tiles.data(self.head().size, level, n, width)

    def leaf(self, index: int) -> bytes:
        """Leaf hash of an entry.

        Raises:
            NotInLogError: The index is not below the head's size.
        """
        self._covered(index)
        return self._tree.leaf(index)

    def receipt(self, index: int, head: Head | None = None) -> Receipt:
        """Receipt of an entry; ``to_text()`` gives the file.

        Args:
            index: Of the entry.
            head: A head that was published; the newest, if None.

        Raises:
            NotInLogError: The index is not below the head's size.
        """
        newest = self._covered(index)
        at = newest if head is None else head
        if index >= at.size:
            raise _unknown(str(index))
        return Receipt(index, tuple(self._tree.inclusion(index, at.size)), at.note)

    def receipt_of(self, event_id: bytes) -> Receipt:
        """Receipt of an event by its id (16 bytes) at the head.

        Raises:
            NotInLogError: No such event, or no checkpoint covers it yet.
        """
        with self._store.read() as session:
            index: int | None = session.scalar(select(_ENTRY.c.idx).where(_ENTRY.c.event_id == event_id))
        if index is None:
            raise _unknown(event_id.hex())
        return self.receipt(index)

    def body(self, index: int) -> bytes:
        """Stored bytes of an entry.

        Raises:
            NotInLogError: The index is not below the head's size.
        """
        self._covered(index)
        with self._store.read() as session:
            row = _BODY.first(session, {"index": index})
        if row is None:
            raise _unknown(str(index))
        body: bytes = row[0]
        return body

    def _covered(self, index: int) -> Head:
        head = self.head()
        if not 0 <= index < head.size:
            raise _unknown(str(index))
        return head

    def _published(self, size: int | None) -> int:
        head = self.head()
        if size is not None and not 0 <= size <= head.size:
            raise ProofError(
                need=f"a size of at most {head.size}", found=str(size), remedy="ask for a published size"
            )
        return head.size if size is None else size


def _nobody() -> None:
    """Nobody listens."""


def _unknown(what: str) -> NotInLogError:
    return NotInLogError(
        need="an entry that a checkpoint covers", found=what, remedy="send the envelope again, then ask again"
    )
