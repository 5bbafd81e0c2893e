# SPDX-License-Identifier: Apache-2.0
"""The file of the outbox: what left this site, and the numbered chain of this node's signed envelopes.

- **Durable before it leaves.** An envelope is committed with ``synchronous=FULL`` before anybody gets its
  bytes, and the same bytes are sent again until a receipt for them is here. A number is never used twice.
- **One chain at a time.** Rows are counted through the whole file; an envelope's own number counts from the
  first row of its chain. After `begin_chain` (`client.chains`) what the old chain never got a receipt for is
  void: kept as evidence, never sent, and not counted as told.
- **No gap.** ``seq`` follows ``seq``, ``prev`` is the digest of the payload before. All envelopes of one
  reply, and the note of what left with them, are one transaction: one fsync.
- **Once.** A *slot* (``epsilon.spent run_…/3/1``) belongs to one envelope; asking again gives the one that is
  there.
- **What left** has one row per transmission: when, how many bytes, which kind, their digest, and the clause
  that allowed it.
- **Notes without fsync** (`Outbox.noting`) are for messages that seal nothing and spend nothing. The row is
  committed before the reply leaves and outlives the process; only a machine that loses its power may lose the
  last of them. The next durable transaction makes them durable too: the file is written in order.
- **Stopped for good.** Once the log contradicted itself nothing is sealed any more, in any process, until a
  person acts.
- **One chain, many processes.** Every number is read inside the transaction that uses it, nothing of the file
  is kept in memory, and a transaction that would write where others do not look is refused
  (`client.same_files`).
- **One signer.** While the node's key changes (`client.rotating`), only the envelopes that say so are sealed,
  in whatever process. The chain goes on under the new key; a process that still holds the old one seals
  nothing any more.

    with outbox.writing() as letters:            # BEGIN IMMEDIATE
        one = letters.seal("vote.cast", body=…, scope=…, run=…, slot=f"vote.cast {candidate}")
        letters.note(kind="vote.cast", size_bytes=…, digest=…, clause="release-1")
    outbox.pending()                             # what has no receipt yet, in order
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any, Self

from client.errors import EquivocationError, KeyFileError, OutboxError, RotationOpenError, RotationWaitsError
from client.outbox.cosigning import Cosigning
from client.outbox.left import Left
from client.outbox.letters import FIRST, Letters
from client.outbox.rows import SCHEMA, SELECT, Stored
from client.outbox.shown import Shown
from client.same_files import SameFiles
from client.settings import private_file
from policies.encoding import canonical, digest
from policies.limits import OUTBOX_PENDING, WITNESS_ROWS
from policies.log.schema import EntryType
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["Outbox"]

_BUSY_S = 20.0
_ROTATION = "rotation"
_LIVE = "envelope.seq >= coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'chain first'), 0)"
_PENDING = (
    "SELECT count(*) FROM envelope WHERE receipt IS NULL"
    " AND seq >= coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'chain first'), 0)"
)


class Outbox:
    """The file ``outbox.db`` of a node. Several processes may open it; writing is one at a time."""

    @classmethod
    def of(cls, home: Home, identity: NodeIdentity, *, origin: str, clock: Clock, entropy: Entropy) -> Self:
        """A node's own outbox, under the key that it has now and those that it had.

        Raises:
            OutboxError, KeyFileError: As from the constructor.
        """
        return cls(
            home.outbox,
            key=identity.key,
            origin=origin,
            clock=clock,
            entropy=entropy,
            former=identity.former,
        )

    def __init__(
        self,
        path: Path,
        *,
        key: SigningKey,
        origin: str,
        clock: Clock,
        entropy: Entropy,
        former: tuple[bytes, ...] = (),
    ) -> None:
        """Opens or makes the file.

        Args:
            path: Of the file.
            key: The node's key.
            origin: Of the log.
            clock: Of the envelopes.
            entropy: Of nonces and of the chain's name.
            former: Public keys that the node had before, by its verified history: the file of such a key is
                this key's from now on.

        Raises:
            OutboxError: The file is damaged, or is another node's or another log's.
        """
        self.key = key
        self._owner = _owner(key.public, origin)
        self.origin = origin
        self.clock = clock
        self.entropy = entropy
        self._path = path
        self._witness: SameFiles | None = None
        private_file(path)
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
            self._named("chain", lambda: entropy.token_bytes(8).hex())
            owner = self._named("owner", lambda: self._owner)
        except sqlite3.DatabaseError as error:
            raise _damaged(type(error).__name__) from error
        if owner not in {self._owner, *(_owner(one, origin) for one in former)}:
            self._db.close()
            raise _damaged("the outbox of another key or log")
        self._compose()
        self.taken_over = owner != self._owner
        if self.taken_over:
            with self._transaction():
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'owner'", (self._owner,))
                self._db.execute("DELETE FROM meta WHERE name = ?", (_ROTATION,))

    def _compose(self) -> None:
        """What is read and kept beside the chain, each under its own name, on the one connection."""
        self.left = Left(self._db)
        self.shown = Shown(self._db, transaction=self._transaction, clock=self.clock)
        self.cosigning = Cosigning(
            self._db, transaction=self._transaction, check_open=self.check_open, clock=self.clock
        )

    def synchronous(self) -> int:
        """How SQLite waits for the disk on this connection: 2 is FULL, which a power cut does not undo."""
        return int(self._db.execute("PRAGMA synchronous").fetchone()[0])

    @property
    def chain(self) -> str:
        """Name of the chain that is sealed on."""
        return self.chain_and_first()[0]

    def chain_and_first(self) -> tuple[str, int]:
        """Name of the chain that is sealed on, and the row of its first envelope."""
        rows = self._db.execute("SELECT name, value FROM meta WHERE name IN ('chain', ?)", (FIRST,))
        found = dict(rows.fetchall())
        return str(found["chain"]), int(found.get(FIRST, 0))

    @property
    def rotation(self) -> str | None:
        """The key that is about to follow, as text, while the node's key changes; else None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (_ROTATION,)).fetchone()
        return None if row is None else str(row[0])

    def begin_rotation(self, new: str) -> None:
        """From now on nothing is sealed but what tells of the change to this key; durable, and repeatable.

        Raises:
            RotationWaitsError: An envelope of the present key waits for its receipt.
            RotationOpenError: A change to another key was begun.
        """
        with self._transaction():
            self.check_open()
            if self.rotation not in (None, new):
                raise RotationOpenError(
                    need="the new key with which the change of key was begun",
                    found="another one",
                    remedy="restore keys/next.key from the backup; the broker may know that key already",
                )
            if self.rotation is None and self.pending(1):
                raise RotationWaitsError(
                    need="a receipt for every envelope of the present key",
                    found=f"{len(self.pending())} that wait for one",
                    remedy="iriai-node receipt fetch; what never arrived goes out with the next round",
                )
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (_ROTATION, new))

    def check_signer(self, kind: str) -> None:
        """Returns if this key may seal an envelope of a kind now; call it inside a transaction.

        Raises:
            KeyFileError: The node has another key by now.
            RotationOpenError: The node's key is about to change.
        """
        (owner,) = self._db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()
        if owner != self._owner:
            raise KeyFileError(
                need="the node's present key", found="one that it gave up", remedy="repeat the command"
            )
        if kind != EntryType.KEY_ROTATED.value:
            self.check_settled()

    def check_settled(self) -> None:
        """Returns unless a change of the node's key was begun and is not done.

        Raises:
            RotationOpenError: It is not.
        """
        if self.rotation is not None:
            raise RotationOpenError(
                need="a node whose key does not change just now",
                found="a change of key that was begun",
                remedy="iriai-node key rotate goes on with it",
            )

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _named(self, name: str, make: Any) -> str:  # noqa: ANN401  a function without arguments
        with self._transaction():
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = (make(),)
                self._db.execute("INSERT INTO meta VALUES (?, ?)", (name, row[0]))
        return str(row[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if self._witness is None:
                self._witness = SameFiles(self._path)
            self._witness.check()
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Letters]:
        """One transaction: durable when the block ends, and nothing of it if the block raises.

        Raises:
            EquivocationError: The node was stopped.
        """
        with self._transaction():
            self.check_open()
            self.shown.write()
            yield Letters(self, self._db)
        self.shown.forget()

    @contextlib.contextmanager
    def noting(self) -> Iterator[Letters]:
        """One transaction that is there for every process when the block ends, but not yet through an fsync.

        For `Letters.note` of what carries no envelope, and for nothing else.

        Raises:
            EquivocationError: The node was stopped.
        """
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            with self.writing() as letters:
                yield letters
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def pending(self, limit: int = OUTBOX_PENDING) -> tuple[Stored, ...]:
        """Envelopes without a receipt on disk, oldest first."""
        where = f"WHERE envelope.receipt IS NULL AND {_LIVE} ORDER BY seq LIMIT ?"
        return tuple(self._stored(where, (limit,)))

    def pending_count(self) -> int:
        """How many envelopes have no receipt on disk."""
        return int(self._db.execute(_PENDING).fetchone()[0])

    def kept(self, name: str) -> str | None:
        """The value that was kept under a name (`Letters.keep`), or None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def listed(self, prefix: str) -> tuple[str, ...]:
        """The values that were kept under names of this beginning and one more word."""
        rows = self._db.execute(
            "SELECT value FROM meta WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name", (f"{prefix} ",)
        )
        return tuple(str(value) for (value,) in rows.fetchall())

    def find(self, slot: str) -> Stored | None:
        """The envelope of a slot, if there is one."""
        return next(iter(self._stored("WHERE slot = ?", (slot,))), None)

    def by_env(self, env: str) -> Stored | None:
        """The envelope whose payload has this digest, if it is one of this node's."""
        return next(iter(self._stored("WHERE envelope.env = ?", (env,))), None)

    def envelopes(self, *, run: str | None = None, kind: str | None = None) -> tuple[Stored, ...]:
        """All envelopes but void ones, oldest first, of one run or kind if asked."""
        where = f"WHERE (envelope.receipt IS NOT NULL OR {_LIVE}) AND (?1 IS NULL OR run = ?1)"
        return tuple(self._stored(f"{where} AND (?2 IS NULL OR kind = ?2) ORDER BY seq", (run, kind)))

    def _stored(self, where: str, values: tuple[object, ...]) -> Iterator[Stored]:
        rows = self._db.execute(SELECT + where, values).fetchall()  # constants only; values are bound
        for row in rows:
            yield Stored(
                seq=row[0], kind=row[1], scope=row[2], run=row[3], round=row[4], slot=row[5], env=row[6],
                envelope=Envelope.from_bytes(row[7]), at_ms=row[8], log_index=row[9], receipt=row[10],
                witnessed=row[11],
            )  # fmt: skip

    def charged(self, lineage: str) -> bool:
        """Whether a budget entry about this lineage was ever sealed."""
        row = self._db.execute(
            "SELECT 1 FROM envelope WHERE substr(slot, 1, length(?1)) = ?1 LIMIT 1",
            (f"budget.opened {lineage} ",),
        ).fetchone()
        return row is not None

    def unwitnessed(self, scopes: Iterable[str], limit: int = WITNESS_ROWS) -> tuple[Stored, ...]:
        """Envelopes of these contracts ("" for none) without a witnessed receipt, oldest first."""
        where = (
            "WHERE w.receipt IS NULL AND coalesce(scope, '') IN (SELECT value FROM json_each(?))"
            " ORDER BY seq LIMIT ?"
        )
        return tuple(self._stored(where, (json.dumps(sorted(scopes)), limit)))

    def stop(self, reason: str, evidence: str) -> EquivocationError:
        """Stops the node for good and gives the error to raise; the evidence is durable first."""
        with self._transaction():
            self._db.execute("INSERT INTO stop VALUES (?,?,?)", (self.clock.now_ms(), reason, evidence))
        return _stopped(reason)

    def check_open(self) -> None:
        """Returns if the node may sign.

        Raises:
            EquivocationError: It was stopped.
        """
        row = self._db.execute("SELECT reason FROM stop LIMIT 1").fetchone()
        if row is not None:
            raise _stopped(str(row[0]))

    def evidence(self) -> tuple[tuple[int, str, str], ...]:
        """Why the node was stopped: time, reason, evidence as JSON text."""
        return tuple(self._db.execute("SELECT at_ms, reason, evidence FROM stop ORDER BY at_ms"))

    def resume(self) -> None:
        """Lets the node go on, after a person looked at the evidence; keep a copy of it first."""
        with self._transaction():
            self._db.execute("DELETE FROM stop")


def _owner(key: bytes, origin: str) -> str:
    return digest(canonical({"key": key.hex(), "log": origin}))


def _stopped(reason: str) -> EquivocationError:
    return EquivocationError(
        need="one history of the log",
        found=reason,
        remedy="send the evidence (iriai-node receipt verify --json) to all members and the auditor",
    )


def _damaged(found: str) -> OutboxError:
    return OutboxError(
        need="the outbox of this node",
        found=found,
        remedy="restore outbox.db from the newest backup; never start a chain anew unseen",
    )
