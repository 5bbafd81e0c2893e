# SPDX-License-Identifier: Apache-2.0
"""The signer: what it signed last, in a database of its own, and the rule that it never signs two histories.

- It signs a head only if the tree that it extends *itself*, from the bodies as they were read back, ends in
  exactly that head.
- What it signed is replaced by compare-and-swap on (origin, size, root), durably, before the note leaves it.
  Who loses the race looks again, and takes the newer checkpoint if it extends its own history.
- Frozen, it signs nothing. Only `thaw` opens it again, and only for a history that has all it ever signed:
  what it signed is never taken back, by nobody.
- Its file is not part of the broker's backups: a restored main database is then older than the signer, and
  that is found.
- Any thread may call it; several processes may share its database.

Order of calls: `Signer.begin` once at boot; then for each commit `extend`, and if that lost a race `look`; on
a contradiction `freeze`.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from broker.log.errors import LogFrozenError, LogRolledBackError
from broker.log.failpoints import Moment, nobody
from broker.store import tables
from broker.store.prepared import Prepared
from policies.log.checkpoint import Checkpoint, Note, VerifierKey, checkpoint_text
from policies.log.merkle import EMPTY_ROOT, Frontier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Engine

    from broker.log.failpoints import Reached
    from broker.store import Session
    from policies.identity import SigningKey
    from policies.ports import Clock

__all__ = ["Freeze", "FreezeReason", "LogKey", "SignedHead", "Signer"]

_LAST = tables.last_signed
_STATE = tables.signer_state
_OPEN, _FROZEN = "open", "frozen"
_LOOK: Final = Prepared(
    select(_LAST.c.size, _LAST.c.root, _LAST.c.frontier, _LAST.c.note).where(
        _LAST.c.origin == bindparam("origin")
    )
)
_STANDS: Final = Prepared(
    select(_STATE.c.state, _STATE.c.reason, _STATE.c.evidence).where(_STATE.c.origin == bindparam("origin"))
)
_SWAP: Final = update(_LAST).where(
    _LAST.c.origin == bindparam("of"),
    _LAST.c.size == bindparam("old_size"),
    _LAST.c.root == bindparam("old_root"),
    exists().where(_STATE.c.origin == bindparam("of"), _STATE.c.state == _OPEN),
)


class FreezeReason(StrEnum):
    """Why nothing is signed any more."""

    CORRUPT = "corrupt"  # the bodies do not hash to the stored head, or a tile is another
    ROLLED_BACK = "rolled-back"  # the head is smaller than what was signed
    FORK = "fork"  # the root at the signed size is another one
    AMNESIA = "amnesia"  # somebody holds a note of ours that is not of this history, or is larger
    ORDERED = "ordered"  # an operator said so
    SUCCEEDED = "succeeded"  # it ended in good order: another log goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A frozen state: the reason, a sentence of evidence (sizes and roots), and the note that proves it."""

    reason: FreezeReason
    evidence: str
    note: str = ""

    def error(self) -> LogFrozenError:
        """What every caller is told."""
        kind = LogRolledBackError if self.reason is FreezeReason.ROLLED_BACK else LogFrozenError
        return kind(
            need="one history",
            found=f"{self.reason.value}: {self.evidence}",
            remedy="keep all files, compare checkpoints with the members, and let two people decide "
            "(iriai-broker log repair, or log succeed); keep what you wanted to send, it will be accepted "
            "after the repair",
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


class LogKey(NamedTuple):
    """A key of the log, and when it stops signing; None for the one that is to stay."""

    key: SigningKey
    until_ms: int | None


def sign_with(keys: Sequence[SigningKey], checkpoint: Checkpoint) -> str:
    """The note of a checkpoint with a signature by each of these keys."""
    text = checkpoint_text(checkpoint)
    signatures = []
    for key in keys:
        named = VerifierKey(checkpoint.origin, key.public)
        signatures.append((named.name, named.hash4, key.sign(text.encode("utf-8"))))
    return Note(text, tuple(signatures)).to_text()


class Signer:
    """Signs checkpoints of one origin, with one key, or with two while the one takes the other's place."""

    def __init__(
        self,
        engine: Engine,
        *,
        origin: str,
        key: SigningKey,
        clock: Clock,
        reached: Reached = nobody,
    ) -> None:
        self._engine = engine
        self._origin = origin
        self._keys: tuple[LogKey, ...] = (LogKey(key, None),)
        self._clock = clock
        self._reached = reached
        self._lock = threading.Lock()  # one connection for all threads

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        """Keys that sign now, the one that is to stay first."""
        return tuple(VerifierKey(self._origin, key.public) for key in self._signing())

    @property
    def known_vkeys(self) -> tuple[VerifierKey, ...]:
        """`vkeys`, and those that have signed before."""
        return tuple(VerifierKey(self._origin, one.key.public) for one in self._keys)

    def use(self, keys: Sequence[LogKey]) -> None:
        """Signs with these keys from now on, each as long as it may; the one that is to stay first."""
        self._keys = tuple(keys)

    def _signing(self) -> list[SigningKey]:
        now_ms = self._clock.now_ms()
        return [one.key for one in self._keys if one.until_ms is None or now_ms < one.until_ms]

    def begin(self, *, entries: int) -> Freeze | None:
        """Looks at the state at boot; makes the row of the empty log on the very first one.

        Args:
            entries: Size of the head in the main database. Entries without any memory of having signed freeze
                the log.
        """
        if self._stands() is None and entries == 0:
            try:
                with self._writing() as session:
                    session.execute(insert(_STATE).values(origin=self._origin, state=_OPEN))
                    session.execute(insert(_LAST).values(origin=self._origin, **self._empty()))
            except IntegrityError:  # another process was faster
                pass
        if self._stands() is None:
            return self.freeze(FreezeReason.AMNESIA, f"{entries} entries, and no memory of a checkpoint")
        return self.frozen()

    def _empty(self) -> dict[str, object]:
        return {
            "size": 0,
            "root": EMPTY_ROOT,
            "frontier": b"",
            "note": "",
            "signed_ms": self._clock.now_ms(),
        }

    def frozen(self) -> Freeze | None:
        """Why nothing is signed any more; None while it is open."""
        row = self._stands()
        if row is None or row[0] == _OPEN:
            return None
        _, reason, stored = row
        evidence, _, note = (stored or "").partition("\n")
        return Freeze(reason=FreezeReason(reason or ""), evidence=evidence, note=note)

    def last(self) -> SignedHead:
        """What was signed last.

        Raises:
            LogFrozenError: The signer remembers nothing.
        """
        found = self.remembered()
        if found is None:
            raise Freeze(reason=FreezeReason.AMNESIA, evidence="no memory of a checkpoint").error()
        return found

    def remembered(self) -> SignedHead | None:
        """`last`; None if the signer remembers nothing."""
        with self._reading() as session:
            row = _LOOK.first(session, {"origin": self._origin})
        if row is None:
            return None
        size, root, frontier, note = row
        return SignedHead(frontier=Frontier.from_bytes(size, bytes(frontier)), root=bytes(root), note=note)

    def look(self) -> SignedHead | Freeze:
        """What another process may have done meanwhile: the newest signed head, or the end of signing."""
        return self.frozen() or self.last()

    def extend(
        self, last: SignedHead, leaf_hashes: Iterable[bytes], head: Frontier
    ) -> SignedHead | Freeze | None:
        """Signs the head that follows ``last``.

        Args:
            last: From `last`.
            leaf_hashes: Of the bodies after it, hashed again from what the database holds.
            head: What the database says is the head.

        Returns:
            The new signed head, durable; None if somebody else signed, or froze the log, in between; `Freeze`
            if the bodies do not lead to the head.
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
        note = sign_with(self._signing(), Checkpoint(self._origin, frontier.size, root))
        self._reached(Moment.NOTED)
        new = SignedHead(frontier=frontier, root=root, note=note)
        swapped = self._swap(last, new)
        self._reached(Moment.SWAPPED)
        return new if swapped else None

    def _swap(self, last: SignedHead, new: SignedHead) -> bool:
        row = {
            "of": self._origin,
            "old_size": last.size,
            "old_root": last.root,
            "size": new.size,
            "root": new.root,
            "frontier": new.frontier.to_bytes(),
            "note": new.note,
            "signed_ms": self._clock.now_ms(),
        }
        with self._writing() as session:
            return session.execute(_SWAP, row).rowcount == 1

    def freeze(self, reason: FreezeReason, evidence: str, note: str = "") -> Freeze:
        """Stops signing; the first reason stays."""
        stored = f"{evidence}\n{note}" if note else evidence
        row = {"state": _FROZEN, "reason": reason.value, "evidence": stored}
        with self._writing() as session:
            found = session.execute(select(_STATE.c.state).where(_STATE.c.origin == self._origin)).first()
            if found is None:
                session.execute(insert(_STATE).values(origin=self._origin, **row))
            elif found[0] == _OPEN:
                session.execute(update(_STATE).where(_STATE.c.origin == self._origin).values(row))
        return self.frozen() or Freeze(reason=reason, evidence=evidence, note=note)

    def thaw(self, before: SignedHead, after: SignedHead) -> bool:
        """Opens a frozen log whose whole history is back; see `broker.log.repair`, the only caller.

        Args:
            before: From `last`; it must still be so.
            after: The head of what was repaired: ``before``, or a larger one that extends it and that this
                log's own key signed. It is what is remembered from here on.

        Returns:
            Whether it is open now; False if somebody else signed meanwhile.
        """
        row = {
            "size": after.size,
            "root": after.root,
            "frontier": after.frontier.to_bytes(),
            "note": after.note,
            "signed_ms": self._clock.now_ms(),
        }
        same = (_LAST.c.origin == self._origin, _LAST.c.size == before.size, _LAST.c.root == before.root)
        if after.size < before.size:
            return False
        with self._writing() as session:
            if session.execute(update(_LAST).where(*same).values(row)).rowcount != 1:
                return False
            opened = {"state": _OPEN, "reason": None, "evidence": None}
            session.execute(update(_STATE).where(_STATE.c.origin == self._origin).values(opened))
        return True

    def _stands(self) -> tuple[str, str | None, str | None] | None:
        with self._reading() as session:
            row = _STANDS.first(session, {"origin": self._origin})
        return None if row is None else (row[0], row[1], row[2])

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._lock, self._engine.begin() as session:
            yield session

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """For one `Prepared` query: no transaction is begun."""
        with self._lock, self._engine.connect() as session:
            yield session
