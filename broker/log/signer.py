# SPDX-License-Identifier: Apache-2.0
"""The signer: what it signed last, in a database of its own, and the rule that it never signs two histories.

- It signs a head only if the tree that it extends *itself*, from the bodies as they were read back, ends in
  exactly that head.
- What it signed is replaced by compare-and-swap on (origin, size, root), durably, before the note leaves it.
  Who loses the race looks again.
- Its state goes from open to frozen and no program brings it back. Frozen, it signs nothing.
- Its file is not part of the broker's backups: a restored main database is then older than the signer, and
  that is found.

Order of calls: `Signer.begin` once at boot; then for each commit `last`, `extend`, and on a contradiction
`freeze`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import sqlite

from broker.log.errors import LogFrozenError, LogRolledBackError
from broker.store import tables
from policies.log.checkpoint import Checkpoint, sign_checkpoint
from policies.log.merkle import EMPTY_ROOT, Frontier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from policies.identity import SigningKey
    from policies.ports import Clock

__all__ = ["Freeze", "FreezeReason", "SignedHead", "Signer"]

_LAST = tables.last_signed
_STATE = tables.signer_state
_SWAP: Final = update(_LAST).where(
    _LAST.c.origin == bindparam("of"),
    _LAST.c.size == bindparam("old_size"),
    _LAST.c.root == bindparam("old_root"),
)


class FreezeReason(StrEnum):
    """Why nothing is signed any more."""

    CORRUPT = "corrupt"  # the bodies do not hash to the stored head
    ROLLED_BACK = "rolled-back"  # the head is smaller than what was signed
    FORK = "fork"  # the root at the signed size is another one
    AMNESIA = "amnesia"  # there are entries, and the signer remembers nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A frozen state: the reason, and a sentence of evidence (sizes and roots)."""

    reason: FreezeReason
    evidence: str

    def error(self) -> LogFrozenError:
        """What every caller is told."""
        kind = LogRolledBackError if self.reason is FreezeReason.ROLLED_BACK else LogFrozenError
        return kind(
            need="one history",
            found=f"{self.reason.value}: {self.evidence}",
            remedy="keep all files, compare checkpoints with the members, and let two people decide; "
            "keep what you wanted to send, it will be accepted after the repair",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A head that was signed. ``note`` is the checkpoint, empty only for the empty log."""

    frontier: Frontier
    root: bytes
    note: str

    @property
    def size(self) -> int:
        """Number of entries that the checkpoint covers."""
        return self.frontier.size


class Signer:
    """Signs checkpoints of one origin."""

    def __init__(self, engine: Engine, *, origin: str, key: SigningKey, clock: Clock) -> None:
        self._engine = engine
        self._origin = origin
        self._key = key
        self._clock = clock

    def begin(self, *, entries: int) -> Freeze | None:
        """Looks at the state at boot; makes the row of the empty log on the very first one.

        Args:
            entries: Size of the head in the main database. Entries without any memory of having signed freeze
                the log.
        """
        with self._engine.begin() as session:
            row = session.execute(select(_STATE).where(_STATE.c.origin == self._origin)).one_or_none()
            if row is None and entries == 0:
                session.execute(insert(_STATE).values(origin=self._origin, state="open"))
                session.execute(
                    insert(_LAST).values(
                        origin=self._origin,
                        size=0,
                        root=EMPTY_ROOT,
                        frontier=b"",
                        note="",
                        signed_ms=self._clock.now_ms(),
                    )
                )
        if row is None:
            if entries == 0:
                return None
            return self.freeze(FreezeReason.AMNESIA, f"{entries} entries, and no memory of a checkpoint")
        if row.state == "open":
            return None
        return Freeze(reason=FreezeReason(row.reason), evidence=row.evidence)

    def last(self) -> SignedHead:
        """What was signed last.

        Raises:
            LogFrozenError: The signer remembers nothing.
        """
        with self._engine.begin() as session:
            row = session.execute(select(_LAST).where(_LAST.c.origin == self._origin)).one_or_none()
        if row is None:
            raise Freeze(reason=FreezeReason.AMNESIA, evidence="no memory of a checkpoint").error()
        return SignedHead(frontier=Frontier.from_bytes(row.size, row.frontier), root=row.root, note=row.note)

    def extend(
        self, last: SignedHead, leaf_hashes: Iterable[bytes], head: Frontier
    ) -> SignedHead | Freeze | None:
        """Signs the head that follows ``last``.

        Args:
            last: From `last`.
            leaf_hashes: Of the bodies after it, hashed again from what the database holds.
            head: What the database says is the head.

        Returns:
            The new signed head, durable; None if somebody else signed in between; `Freeze` if the bodies do
            not lead to the head.
        """
        frontier = last.frontier.append(*leaf_hashes)
        if frontier != head:
            return self.freeze(
                FreezeReason.CORRUPT,
                f"bodies hash to size {frontier.size} root {frontier.root().hex()}, "
                f"head says size {head.size} root {head.root().hex()}",
            )
        if head.size == last.size:
            return last
        root = frontier.root()
        note = sign_checkpoint(self._key, Checkpoint(self._origin, frontier.size, root))
        row = {
            "of": self._origin,
            "old_size": last.size,
            "old_root": last.root,
            "size": frontier.size,
            "root": root,
            "frontier": frontier.to_bytes(),
            "note": note,
            "signed_ms": self._clock.now_ms(),
        }
        with self._engine.begin() as session:
            swapped = session.execute(_SWAP, row).rowcount == 1
        return SignedHead(frontier=frontier, root=root, note=note) if swapped else None

    def freeze(self, reason: FreezeReason, evidence: str) -> Freeze:
        """Stops signing for good; the first reason stays."""
        row = {"origin": self._origin, "state": "frozen", "reason": reason.value, "evidence": evidence}
        with self._engine.begin() as session:
            session.execute(
                sqlite.insert(_STATE)
                .values(row)
                .on_conflict_do_update(
                    index_elements=[_STATE.c.origin], set_=row, where=_STATE.c.state == "open"
                )
            )
        return Freeze(reason=reason, evidence=evidence)
