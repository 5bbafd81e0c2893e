# SPDX-License-Identifier: Apache-2.0
"""What left this site, and the numbered chain of this node's signed envelopes, in one SQLite file.

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
from typing import TYPE_CHECKING, Any, Self, TypeVar

from client.errors import EquivocationError, KeyFileError, OutboxError, RotationOpenError, RotationWaitsError
from client.rows import SCHEMA, SELECT, Decided, Proven, Seen, Sent, Stored, WitnessedNote
from client.same_files import SameFiles
from client.settings import private_file
from policies.encoding import b64, canonical, digest, sha256
from policies.limits import OUTBOX_PENDING, WITNESS_ROWS
from policies.log.envelope import Seen as SeenMark
from policies.log.envelope import seal_envelope
from policies.log.schema import EntryType
from policies.log.witness import WitnessState
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["Letters", "Outbox"]

_T = TypeVar("_T")
_ALL = -1  # as a LIMIT: none
_BUSY_S = 20.0
_ROTATION = "rotation"
_FIRST = "chain first"
_LIVE = "envelope.seq >= coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'chain first'), 0)"
_PENDING = (
    "SELECT count(*) FROM envelope WHERE receipt IS NULL"
    " AND seq >= coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'chain first'), 0)"
)


class Letters:
    """What may be done inside one transaction of the outbox; from `Outbox.writing` only."""

    def __init__(self, outbox: Outbox, connection: sqlite3.Connection) -> None:
        self._outbox = outbox
        self._db = connection
        self._first: int | None = None
        self._last: int | None = None

    def seal(
        self,
        kind: str,
        *,
        body: Mapping[str, Any],
        slot: str | None = None,
        scope: str | None = None,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the envelope's own word
    ) -> Envelope:
        """The next envelope of the chain, or the one that the slot has already."""
        if slot is not None:
            known = self._db.execute("SELECT seq, dsse FROM envelope WHERE slot = ?", (slot,)).fetchone()
            if known is not None:
                self._span(known[0])
                return Envelope.from_bytes(known[1])
        self._outbox.check_signer(kind)
        row, prev = self._head()
        chain, first = self._outbox.chain_and_first()
        now_ms = self._outbox.clock.now_ms()
        seen = self._outbox.seen()
        envelope = seal_envelope(
            self._outbox.key,
            log=self._outbox.origin,
            kind=EntryType(kind),
            chain=chain,
            seq=row - first,
            prev=prev,
            seen=SeenMark(seen.size, seen.root),
            time_ms=now_ms,
            nonce=self._outbox.entropy.token_bytes(16),
            scope=scope,
            run=run,
            round=round,
            ack=self._ack(),
            body=body,
        )
        self._db.execute(
            "INSERT INTO envelope VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
            (row, kind, scope, run, round, slot, digest(envelope.payload), envelope.to_bytes(), now_ms),
        )
        self._span(row)
        return envelope

    def note(
        self,
        *,
        kind: str,
        size_bytes: int,
        digest: str,
        clause: str | None = None,
        contract: str | None = None,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the envelope's own word
        attempt: int | None = None,
    ) -> None:
        """Writes down that something is about to leave, with the envelopes of this transaction."""
        self._db.execute(
            "INSERT INTO sent VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self._outbox.clock.now_ms(), kind, size_bytes, digest, clause, contract, run, round, attempt,
                self._first, self._last,
            ),
        )  # fmt: skip

    def decided(self, one: Decided) -> None:
        """Keeps a decision of the guard, for ``guard log`` and ``guard explain``."""
        self._db.execute(
            "INSERT INTO decision VALUES (NULL,?,?,?,?,?,?,?,?,?,?)",
            (
                one.at_ms,
                one.contract,
                one.recipe,
                one.run,
                one.round,
                one.attempt,
                one.kind,
                int(one.allow),
                " ".join(one.clauses),
                json.dumps(one.document, sort_keys=True),
            ),
        )

    def keep(self, name: str, value: str) -> None:
        """Keeps a value of this node's own under a name, with this transaction's envelopes; only once."""
        self._db.execute("INSERT INTO meta VALUES (?, ?)", (name, value))

    def pending(self) -> tuple[Envelope, ...]:
        """Envelopes of earlier transactions that have no receipt yet, oldest first."""
        before = self._first if self._first is not None else 2**62
        return tuple(one.envelope for one in self._outbox.pending() if one.seq < before)

    def take_back(self, envelope: Envelope, payload: Mapping[str, Any], slot: str | None) -> bool:
        """Puts an envelope of this node's in the file that the log has and the file lost.

        Its receipt has to follow before `begin_chain`. A slot that it has is taken from whatever has it here:
        the log knows this one. Gives whether it was not in the file.
        """
        env = digest(envelope.payload)
        known = self._db.execute("SELECT 1 FROM envelope WHERE env = ?", (env,)).fetchone()
        if known is not None:
            return False
        if slot is not None:
            self._db.execute("UPDATE envelope SET slot = NULL WHERE slot = ?", (slot,))
        place = (payload["scope"], payload["run"], payload["round"])
        at_ms = to_ms(payload["time"])
        self._db.execute(
            "INSERT INTO envelope VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
            (self._rows(), payload["kind"], *place, slot, env, envelope.to_bytes(), at_ms),
        )
        return True

    def begin_chain(self) -> None:
        """Everything that is sealed from here on is of a new chain, with numbers from 0."""
        first = self._rows()
        self._db.execute("UPDATE envelope SET slot = NULL WHERE receipt IS NULL")
        for name, value in (("chain", self._outbox.entropy.token_bytes(8).hex()), (_FIRST, str(first))):
            self._db.execute(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = ?2", (name, value)
            )

    def _rows(self) -> int:
        """The next free row."""
        return int(self._db.execute("SELECT coalesce(max(seq) + 1, 0) FROM envelope").fetchone()[0])

    def _head(self) -> tuple[int, str | None]:
        """The next row, and what the newest envelope of the chain is called."""
        _, first = self._outbox.chain_and_first()
        row = self._db.execute(
            "SELECT env FROM envelope WHERE seq >= ? ORDER BY seq DESC LIMIT 1", (first,)
        ).fetchone()
        return (self._rows(), None) if row is None else (self._rows(), row[0])

    def _ack(self) -> dict[str, Any] | None:
        """The last own entry that is known to be in the log."""
        row = self._db.execute(
            "SELECT log_index, leaf FROM envelope WHERE receipt IS NOT NULL ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return None if row is None else {"index": row[0], "leaf_hash": b64(row[1])}

    def _span(self, seq: int) -> None:
        self._first = seq if self._first is None else min(self._first, seq)
        self._last = seq if self._last is None else max(self._last, seq)


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
        self._learned: list[tuple[tuple[Seen, ...], dict[str, Proven]]] = []
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
        self.taken_over = owner != self._owner
        if self.taken_over:
            with self._transaction():
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'owner'", (self._owner,))
                self._db.execute("DELETE FROM meta WHERE name = ?", (_ROTATION,))

    def synchronous(self) -> int:
        """How SQLite waits for the disk on this connection: 2 is FULL, which a power cut does not undo."""
        return int(self._db.execute("PRAGMA synchronous").fetchone()[0])

    @property
    def chain(self) -> str:
        """Name of the chain that is sealed on."""
        return self.chain_and_first()[0]

    def chain_and_first(self) -> tuple[str, int]:
        """Name of the chain that is sealed on, and the row of its first envelope."""
        rows = self._db.execute("SELECT name, value FROM meta WHERE name IN ('chain', ?)", (_FIRST,))
        found = dict(rows.fetchall())
        return str(found["chain"]), int(found.get(_FIRST, 0))

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
                    remedy="iriai-node receipts fetch; what never arrived goes out with the next round",
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
                remedy="iriai-node contract rotate-key goes on with it",
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
            self._write_learned()
            yield Letters(self, self._db)
        self._learned.clear()

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

    def sent(self, limit: int | None = 1000, *, run: str | None = None) -> tuple[Sent, ...]:
        """What left this site, newest first, of one run if asked; all of it without a limit."""
        rows = self._db.execute(
            "SELECT at_ms, kind, size_bytes, digest, clause, contract, run, round, attempt, first_seq,"
            " last_seq,"
            " (SELECT count(*) FROM envelope WHERE seq BETWEEN first_seq AND last_seq),"
            " (SELECT count(receipt) FROM envelope WHERE seq BETWEEN first_seq AND last_seq)"
            " FROM sent WHERE ?1 IS NULL OR run = ?1 ORDER BY id DESC LIMIT ?2",
            (run, _ALL if limit is None else limit),
        ).fetchall()
        return tuple(
            Sent(
                at_ms=row[0], kind=row[1], size_bytes=row[2], digest=row[3], clause=row[4], contract=row[5],
                run=row[6], round=row[7], attempt=row[8],
                receipts="-" if row[9] is None else f"{row[12]} of {row[11]}",
                first=row[9], last=row[10],
            )
            for row in rows
        )  # fmt: skip

    def sent_count(self, run: str | None = None) -> int:
        """How many transmissions left, of one run if asked."""
        return self._count("SELECT count(*) FROM sent WHERE ?1 IS NULL OR run = ?1", run)

    def decisions(self, *, run: str | None = None, limit: int | None = 1000) -> tuple[Decided, ...]:
        """Decisions of the guard, newest first, of one run if asked; all of them without a limit."""
        rows = self._db.execute(
            "SELECT at_ms, contract, recipe, run, round, attempt, kind, allow, clauses, document"
            " FROM decision WHERE ?1 IS NULL OR run = ?1 ORDER BY id DESC LIMIT ?2",
            (run, _ALL if limit is None else limit),
        ).fetchall()
        return tuple(
            Decided(
                at_ms=row[0], contract=row[1], recipe=row[2], run=row[3], round=row[4], attempt=row[5],
                kind=row[6], allow=bool(row[7]), clauses=tuple(row[8].split()), document=json.loads(row[9]),
            )
            for row in rows
        )  # fmt: skip

    def decisions_count(self, run: str | None = None) -> int:
        """How many decisions of the guard are kept, of one run if asked."""
        return self._count("SELECT count(*) FROM decision WHERE ?1 IS NULL OR run = ?1", run)

    def decided_runs(self) -> frozenset[str]:
        """Runs about which the guard decided something."""
        return frozenset(row[0] for row in self._db.execute("SELECT DISTINCT run FROM decision").fetchall())

    def rounds_elsewhere(self, contracts: tuple[str, ...], recipe: str, run: str) -> int:
        """Rounds of a recipe under these contracts in which this node took part, not counting one run."""
        row = self._db.execute(
            "SELECT count(*) FROM (SELECT DISTINCT run, round FROM decision"
            " WHERE contract IN (SELECT value FROM json_each(?)) AND recipe = ? AND run <> ?"
            " AND allow = 1 AND kind IN ('train.contribute', 'train.sa_contribute'))",
            (json.dumps(contracts), recipe, run),
        ).fetchone()
        return int(row[0])

    def newest_round(self, kind: str, *, run: str) -> int:
        """The newest round of a run about which something of a kind left this site; 0 if nothing did.

        Under whatever contract: rounds of a run count on under a successor.
        """
        row = self._db.execute(
            "SELECT coalesce(max(round), 0) FROM sent WHERE kind = ? AND run = ?",
            (kind, run),
        ).fetchone()
        return int(row[0])

    def charged(self, lineage: str) -> bool:
        """Whether a budget entry about this lineage was ever sealed."""
        row = self._db.execute(
            "SELECT 1 FROM envelope WHERE substr(slot, 1, length(?1)) = ?1 LIMIT 1",
            (f"budget.opened {lineage} ",),
        ).fetchone()
        return row is not None

    def sent_bytes(self, run: str | None = None, *, contract: str | None = None) -> int:
        """Sum of all bytes that left, of one run or under one contract if asked."""
        of = "(?1 IS NULL OR run = ?1) AND (?2 IS NULL OR contract = ?2)"
        query = f"SELECT coalesce(sum(size_bytes), 0) FROM sent WHERE {of}"  # noqa: S608  constants only
        return int(self._db.execute(query, (run, contract)).fetchone()[0])

    def _count(self, query: str, run: str | None) -> int:
        return int(self._db.execute(query, (run,)).fetchone()[0])

    # --- what the log showed; policies decide in client/receipts.py ---

    def seen(self) -> Seen:
        """The newest checkpoint that was verified; the empty tree at first."""
        fresh = [one for seen, _ in self._learned for one in seen]
        row = self._db.execute("SELECT size, root, note FROM seen ORDER BY size DESC LIMIT 1").fetchone()
        if row is not None:
            fresh.append(Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2]))
        return max(fresh, key=lambda one: one.size, default=Seen(size=0, root=sha256(b""), note=""))

    def seen_at(self, size: int) -> Seen | None:
        """The checkpoint of exactly this size, if it was verified once."""
        for seen, _ in self._learned:
            for one in seen:
                if one.size == size:
                    return one
        row = self._db.execute("SELECT size, root, note FROM seen WHERE size = ?", (size,)).fetchone()
        return None if row is None else Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2])

    def learn(self, seen: tuple[Seen, ...], receipts: Mapping[str, Proven], *, later: bool = False) -> None:
        """Stores what was verified: checkpoints, and receipts by the digest of the envelope.

        Args:
            seen: Checkpoints that are consistent with all that are stored.
            receipts: By payload digest.
            later: Write it with the next transaction of this object, whatever that is: an envelope never says
                that it saw what is not on disk with it.
        """
        self._learned.append((seen, dict(receipts)))
        if not later:
            with self._transaction():
                self._write_learned()
            self._learned.clear()

    def _write_learned(self) -> None:
        now_ms = self.clock.now_ms()
        for seen, receipts in self._learned:
            self._db.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?,?,?,?)",
                [(one.size, one.root.hex(), one.note, now_ms) for one in seen],
            )
            self._db.executemany(
                "UPDATE envelope SET log_index = ?, leaf = ?, receipt = ? WHERE env = ? AND receipt IS NULL",
                [(one.index, one.leaf, one.text, env) for env, one in receipts.items()],
            )

    # --- what this node cosigned, and what enough witnesses did; client/witnessing decides ---

    def seen_since(self, size: int, limit: int = WITNESS_ROWS) -> tuple[Seen, ...]:
        """The newest verified checkpoints that are larger than a size, largest first."""
        rows = self._db.execute(
            "SELECT size, root, note FROM seen WHERE size > ? ORDER BY size DESC LIMIT ?", (size, limit)
        )
        return tuple(Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2]) for row in rows.fetchall())

    def cosigned(self) -> WitnessState | None:
        """What this node's witness cosigned last."""
        row = self._db.execute("SELECT size, root, time_s, note FROM cosigned").fetchone()
        if row is None:
            return None
        return WitnessState(size=row[0], root=bytes.fromhex(row[1]), time_s=row[2], note=row[3])

    def cosign(self, decide: Callable[[WitnessState | None], tuple[WitnessState | None, _T]]) -> _T:
        """Check and persist in one transaction: durable when it returns, and only then a line may leave.

        Args:
            decide: Given what was cosigned last, what is cosigned now (None: nothing changes), and an answer.

        Raises:
            EquivocationError: The node was stopped.
        """
        with self._transaction():
            self.check_open()
            state, answer = decide(self.cosigned())
            if state is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO cosigned VALUES (1,?,?,?,?)",
                    (state.size, state.root.hex(), state.time_s, state.note),
                )
        return answer

    def keep_witnessed(self, size: int, note: str) -> None:
        """Keeps a checkpoint with a quorum, and forgets the oldest ones."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO witnessed VALUES (?,?,?) ON CONFLICT(size) DO UPDATE"
                " SET note = excluded.note, at_ms = excluded.at_ms",
                (size, note, self.clock.now_ms()),
            )
            self._db.execute(
                "DELETE FROM witnessed WHERE size NOT IN"
                " (SELECT size FROM witnessed ORDER BY size DESC LIMIT ?)",
                (WITNESS_ROWS,),
            )

    def witnessed(self) -> tuple[WitnessedNote, ...]:
        """The checkpoints that were kept, largest first."""
        rows = self._db.execute("SELECT size, note, at_ms FROM witnessed ORDER BY size DESC").fetchall()
        return tuple(WitnessedNote(size=row[0], note=row[1], at_ms=row[2]) for row in rows)

    def unwitnessed(self, scopes: Iterable[str], limit: int = WITNESS_ROWS) -> tuple[Stored, ...]:
        """Envelopes of these contracts ("" for none) without a witnessed receipt, oldest first."""
        where = (
            "WHERE w.receipt IS NULL AND coalesce(scope, '') IN (SELECT value FROM json_each(?))"
            " ORDER BY seq LIMIT ?"
        )
        return tuple(self._stored(where, (json.dumps(sorted(scopes)), limit)))

    def upgrade(self, receipts: Mapping[str, tuple[int, str]]) -> None:
        """Keeps receipts of grade witnessed by the digest of the envelope: size of the checkpoint, text."""
        now_ms = self.clock.now_ms()
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO witnessed_receipt VALUES (?,?,?,?)",
                [(env, size, text, now_ms) for env, (size, text) in receipts.items()],
            )

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
        remedy="send the evidence (iriai-node receipts verify --json) to all members and the auditor",
    )


def _damaged(found: str) -> OutboxError:
    return OutboxError(
        need="the outbox of this node",
        found=found,
        remedy="restore outbox.db from the newest backup; never start a chain anew unseen",
    )
