# SPDX-License-Identifier: Apache-2.0
"""The one writer: it runs, commits, signs and answers every change of the broker's state.

A unit of work is a short function ``work(session, log)`` without network calls. It changes business rows
through ``session`` and says what happened through ``log`` (`LogTx`). For each batch:

1. take what is waiting, at most `COMMIT_BATCH` units and `COMMIT_WAIT_MS`; begin; lock and read the head;
   take over what another process wrote and signed since;
2. run each unit in a savepoint; one that raises is rolled back alone and only its caller hears of it; if all
   do, the batch is rolled back and the disk is not waited for;
3. write entries, envelopes, tiles at the right edge and head; commit the private salts first, then the batch:
   one flush to disk for all;
4. read the new bodies back, hash them, compare them with the head and the level-0 tiles, sign, swap what was
   signed; who loses that race to another process takes its newer checkpoint, if it extends this history;
5. answer everybody, with receipts at the new checkpoint.

That is three commits for a batch of any size: private, main, signer. Several processes may write to one
database; the row of the head, or with SQLite the file, lets one batch in at a time.

Whoever got an answer has it for good. Whoever got `log.unavailable` may send the same again: events that are
in the log already are found, not added. A frozen log refuses every unit of work; reads go on.

    receipt_future = writer.submit(lambda session, log: log.add(event))
    index, receipts = receipt_future.result()
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import bindparam, update
from sqlalchemy.exc import DBAPIError

from broker.log.errors import LogFrozenError
from broker.log.failpoints import Moment, nobody
from broker.log.receipts import Head, Receipts
from broker.log.recovery import locked_head, newest_fitting, open_log, read_ids, read_on, read_tail
from broker.log.rotations import log_keys
from broker.log.savepoints import Savepoints, watch
from broker.log.signer import Freeze, FreezeReason, Signer
from broker.log.tiles import write
from broker.log.transaction import Batch
from broker.log.units import Unit, fail, refused, run_unit, unavailable
from broker.store import tables
from broker.store.prepared import Prepared
from broker.store.upserts import insert_or_ignore, updating
from policies.errors import IriaiError, invariant
from policies.limits import COMMIT_BATCH, COMMIT_WAIT_MS, WRITE_QUEUE
from policies.log.checkpoint import open_checkpoint
from policies.log.errors import ProofError
from policies.log.merkle import root_from_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.log.failpoints import Reached
    from broker.log.signer import SignedHead
    from broker.log.transaction import LogTx
    from broker.store import Session, Store
    from policies.identity import SigningKey
    from policies.log.checkpoint import Checkpoint
    from policies.log.proofs import Receipt
    from policies.log.vkeys import VerifierKey
    from policies.ports import Clock, Entropy

__all__ = ["Writer"]

T = TypeVar("T")

_HEAD: Final = (
    update(tables.log_head)
    .where(tables.log_head.c.id == 1)
    .values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_PRIVATE: Final = Prepared(updating(tables.log_private))  # an attempt that did not commit may have left some
_SIGN_ATTEMPTS = 32


class Writer:
    """The writer, and through `receipts` everything that the log shows. Make it with `Writer.open`."""

    def __init__(
        self,
        store: Store,
        signer: Signer,
        *,
        origin: str,
        clock: Clock,
        entropy: Entropy,
        threaded: bool,
        keys: Sequence[SigningKey] = (),
        reached: Reached = nobody,
    ) -> None:
        self._store = store
        self._signer = signer
        self._origin = origin
        self._clock = clock
        self._entropy = entropy
        self._reached = reached
        found = open_log(store, signer)
        self._keys = tuple(keys)
        with contextlib.suppress(*((ValueError, KeyError, TypeError, IriaiError) if found.freeze else ())):
            self._use_keys()  # of a frozen log as far as its entries can be read
        self._tree = found.tree
        self._known = found.known
        watch(store.main)
        self._last = found.last
        self._last_ms = found.last_ms
        self._freeze = found.freeze
        self._queue: queue.Queue[Unit | None] = queue.Queue(maxsize=WRITE_QUEUE)
        self._lock = threading.Lock()
        self._closed = False
        head = newest_fitting(store, found.tree) if found.last is None else _shown(found.last)
        self.receipts: Final = Receipts(store, found.tree, head)
        if found.last is not None:
            if found.tree.size > found.last.size:
                with contextlib.suppress(LogFrozenError):  # opens frozen, as after the checks of `open_log`
                    self._publish()
            self._record()
        self._thread = (
            threading.Thread(target=self._loop, name="iriai-writer", daemon=True) if threaded else None
        )
        if self._thread is not None:
            self._thread.start()

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        origin: str,
        key: SigningKey,
        clock: Clock,
        entropy: Entropy,
        threaded: bool = True,
        more_keys: Sequence[SigningKey] = (),
        reached: Reached = nobody,
    ) -> Writer:
        """Checks the whole log, signs what a crash left unsigned, and starts writing.

        A log that does not fit what was signed opens frozen: see `frozen`; reads work, changes do not.

        Args:
            store: Open databases; only writers of this class write to them.
            origin: Name of the log.
            key: The log's first key, which signs checkpoints.
            clock: Of the broker.
            entropy: For salts.
            threaded: False runs each unit of work inside `submit`, as a batch of one (simulation, commands).
            more_keys: Others; the entries ``key.rotated`` say which sign (`broker.log.rotations`).
            reached: Is told of each `Moment` (tests).

        Raises:
            LogKeyError: The key that the entries name is not there.
            LogUnavailableError: The signer's database does not answer.
        """
        signer = Signer(store.signer, origin=origin, key=key, clock=clock, reached=reached)
        try:
            return cls(
                store,
                signer,
                origin=origin,
                clock=clock,
                entropy=entropy,
                threaded=threaded,
                keys=(key, *more_keys),
                reached=reached,
            )
        except DBAPIError as error:
            raise unavailable(error) from error

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._origin

    @property
    def vkeys(self) -> tuple[VerifierKey, ...]:
        """The log's keys that sign now, the one that is to stay first."""
        return self._signer.vkeys

    @property
    def signer(self) -> Signer:
        """What signs, for the commands that repair or end a log."""
        return self._signer

    def use_key(self, key: SigningKey) -> None:
        """Takes a key in hand that an entry ``key.rotated`` names; both sign from the next checkpoint on.

        Raises:
            LogKeyError: The entries name another one.
        """
        self._keys = (*self._keys, key)
        self._use_keys()

    def _use_keys(self) -> None:
        with self._store.read() as session:
            if self._keys:
                self._signer.use(log_keys(session, self._keys))

    @property
    def frozen(self) -> LogFrozenError | None:
        """Why nothing is accepted any more; None for an open log."""
        return None if self._freeze is None else self._freeze.error()

    def submit(self, work: Callable[[Session, LogTx], T]) -> Future[tuple[T, tuple[Receipt, ...]]]:
        """Queues a unit of work.

        Returns:
            A future of what it returned and the receipts of every entry that it added or found, in that
            order, once the batch is on the disk and signed. It raises what the work raised, or
            `LogFrozenError`, or `LogUnavailableError`: then nothing was stored, or it was and nobody was
            told, and the same work may be sent again.
        """
        unit = Unit(work, Future())
        if self._thread is None:
            self._run_inline(unit)
            return unit.future
        with self._lock:  # nothing comes in behind the end of the queue
            if self._closed:
                unit.future.set_exception(refused("a running broker", "one that is shutting down"))
                return unit.future
            try:
                self._queue.put_nowait(unit)
            except queue.Full:
                unit.future.set_exception(refused("room in the queue", f"{WRITE_QUEUE} units waiting"))
        return unit.future

    def _run_inline(self, unit: Unit) -> None:
        invariant(self._lock.acquire(blocking=False), "no unit of work inside a unit of work")
        try:
            if self._closed:
                unit.future.set_exception(refused("an open log", "a closed one"))
            else:
                self._run([unit])
        finally:
            self._lock.release()

    async def run(self, work: Callable[[Session, LogTx], T]) -> tuple[T, tuple[Receipt, ...]]:
        """`submit` for coroutines."""
        future = self.submit(work)
        return future.result() if future.done() else await asyncio.wrap_future(future)

    def head(self) -> Head:
        """(size, root, note) of the newest signed head; see `Receipts.head`."""
        return self.receipts.head()

    def amnesia(self, note: str) -> bool:
        """Looks at a note of this log that somebody shows, a witness for example.

        1. one of the log's own keys signed it; 2. it is of this history: not larger than what was signed
        last, and with the root that the log has at its size. If 2. does not hold, the signer has forgotten
        something, or there are two of them, and the log is frozen.

        Args:
            note: A signed note; cosignatures in it do not matter.

        Returns:
            Whether the log is frozen now because of it.

        Raises:
            NoteError, QuorumError: Step 1.
            LogUnavailableError: The database does not answer.
        """
        shown = open_checkpoint(note, self._signer.known_vkeys)  # 1.
        try:
            if (freeze := self._freeze or self._signer.frozen()) is not None:
                return freeze.reason is FreezeReason.AMNESIA and freeze.note == note
            return self._contradicts(shown, note)  # 2.
        except DBAPIError as error:
            raise unavailable(error) from error

    def _contradicts(self, shown: Checkpoint, note: str) -> bool:
        signed = self._signer.last()
        ours = _root_at(self._store, self.receipts, shown.size) if shown.size <= signed.size else None
        if ours == shown.root:
            return False
        have = f"{signed.size} were signed" if ours is None else f"ours is {ours.hex()}"
        self._stop(FreezeReason.AMNESIA, f"a note of size {shown.size} root {shown.root.hex()}; {have}", note)
        return True

    def freeze(self, evidence: str) -> LogFrozenError:
        """Stops everything by an operator's order; gives what every caller is told from now on."""
        return self._stop(FreezeReason.ORDERED, evidence)

    def proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Inclusion proof; see `Receipts.proof`."""
        return self.receipts.proof(index, size)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Consistency proof; see `Receipts.consistency`."""
        return self.receipts.consistency(old, new)

    def close(self) -> None:
        """Finishes what is queued and stops; the store stays open."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        if self._freeze is None:
            with contextlib.suppress(DBAPIError):  # the signer has the note; the next start records it
                self._record()

    def _loop(self) -> None:
        stop = False
        while not stop:
            first = self._queue.get()
            if first is None:
                return
            units, until = [first], time.monotonic() + COMMIT_WAIT_MS / 1000
            while len(units) < COMMIT_BATCH and time.monotonic() < until:
                try:
                    unit = self._queue.get_nowait()
                except queue.Empty:
                    break
                if unit is None:
                    stop = True
                    break
                units.append(unit)
            self._run(units)

    def _run(self, units: list[Unit]) -> None:
        """One batch: steps 2 to 5 of the module docstring. Every future is answered, whatever happens."""
        units = [unit for unit in units if unit.future.set_running_or_notify_cancel()]
        if not units:
            return
        try:
            self._reached(Moment.TAKEN)
            self._check_open()
            if self._commit(units):
                self._publish()
        except DBAPIError as error:
            self._forget()
            fail(units, unavailable(error))
            return
        except ProofError as error:  # of the head row; what a unit raises stays in the unit
            fail(units, self._stop(FreezeReason.CORRUPT, f"the head row: {error.found}"))
            return
        except IriaiError as error:
            self._forget_unsigned()
            fail(units, error)
            return
        except Exception as error:  # noqa: BLE001  an unknown bug of ours must reach the callers and not stop the writer
            self._forget()
            fail(units, error)
            return
        for unit in units:
            if unit.error is not None:
                unit.future.set_exception(unit.error)
            else:
                receipts = tuple([self.receipts.receipt(index) for index in unit.touched])
                unit.future.set_result((unit.value, receipts))
            self._reached(Moment.ANSWERED)

    def _forget(self) -> None:
        """After a failure of the storage: new connections."""
        self._store.reset()
        self._forget_unsigned()

    def _forget_unsigned(self) -> None:
        """Whatever was not signed is read from the disk again."""
        if self._freeze is None:
            self._tree.truncate(self.receipts.head().size)

    def _check_open(self) -> None:
        freeze = self._freeze or self._signer.frozen()  # by this process, or by another
        if freeze is not None:
            self._freeze = freeze
            raise freeze.error()

    def _stop(self, reason: FreezeReason, evidence: str, note: str = "") -> LogFrozenError:
        self._freeze = self._signer.freeze(reason, evidence, note)
        return self._freeze.error()

    def _commit(self, units: list[Unit]) -> bool:
        """Steps 2 and 3. Returns whether there is something to sign."""
        with self._store.main.connect() as session, session.begin() as transaction:
            size = self._catch_up(session)
            self._reached(Moment.LOCKED)
            self._last_ms = max(self._last_ms, self._clock.now_ms())  # entries never go back in time
            batch = Batch(
                origin=self._origin,
                now_ms=self._last_ms,
                size=size,
                signed_size=self.receipts.head().size,
                tree=self._tree,
                entropy=self._entropy,
                known=self._known,
            )
            with Savepoints(session, lambda: batch.write_waiting(session)) as savepoints:
                for unit in units:
                    run_unit(session, batch, savepoints, unit)
            self._reached(Moment.RAN)
            if batch.leaves:
                self._known.add(batch.ids)
                batch.write_waiting(session)
                self._tree.extend(batch.leaves)
                self._write_edge(session, size, batch)
            if all(unit.error is not None for unit in units):
                transaction.rollback()
        if batch.leaves:
            self._known.size = batch.size
            self._reached(Moment.COMMITTED)
        return batch.size != batch.signed_size

    def _catch_up(self, session: Session) -> int:
        """Locks the head and takes over what other processes wrote and signed; its size."""
        head = locked_head(session)
        if head.size > self._tree.size:
            leaves, newest_ms = read_on(session, self._tree.size, head.size)
            self._tree.extend(leaves)
            self._last_ms = max(self._last_ms, newest_ms)
        if head.size > self._known.size:
            self._known.add(read_ids(session, self._known.size, head.size))
            self._known.size = head.size
        signed = self.receipts.head().size
        if head.size < signed:
            raise self._stop(
                FreezeReason.ROLLED_BACK, f"{head.size} entries where a checkpoint of {signed} was signed"
            )
        if head.size < self._tree.size:
            self._tree.truncate(head.size)
        if self._tree.frontier() != head:
            raise self._stop(FreezeReason.CORRUPT, f"bodies do not hash to the head of {head.size} entries")
        if head.size > signed:  # signed by another process, or by nobody yet
            self._take(self._signer.look())
        return head.size

    def _write_edge(self, session: Session, old: int, batch: Batch) -> None:
        head = self._tree.frontier()
        write(session, self._tree, old)
        session.execute(_HEAD, {"new_size": head.size, "new_frontier": head.to_bytes()})
        self._write_checkpoint(session, batch.now_ms)
        self._reached(Moment.WRITTEN)
        with self._store.private.begin() as private:  # before the entries: no entry without its salts
            _PRIVATE.many(private, batch.private_rows)
        self._reached(Moment.SALTED)

    def _write_checkpoint(self, session: Session, now_ms: int) -> None:
        """The row of the newest note, which the signer holds already."""
        last = self._last
        if last is not None and last.size:
            row = {"size": last.size, "root": last.root, "note": last.note, "published_ms": now_ms}
            insert_or_ignore(session, tables.log_checkpoint, row)

    def _record(self) -> None:
        with self._store.main.begin() as session:
            self._write_checkpoint(session, self._clock.now_ms())

    def _publish(self) -> None:
        """Step 4: from the disk, not from memory."""
        upto = self._tree.size
        last = self._last or self._signer.last()
        for _ in range(_SIGN_ATTEMPTS):
            tail = read_tail(self._store, self._tree, last.size)
            if tail.head.size < max(upto, last.size):
                evidence = f"{tail.head.size} entries where {max(upto, last.size)} were written"
                raise self._stop(FreezeReason.ROLLED_BACK, evidence)
            if tail.damage is not None:
                raise self._stop(FreezeReason.CORRUPT, tail.damage)
            self._reached(Moment.COMPARED)
            signed = self._signer.extend(last, tail.leaves, tail.head)
            if signed is not None:
                self._take(signed)
                return
            found = self._signer.look()  # another process was faster
            self._take(found)
            if self.receipts.head().size >= upto:
                return
            last = self._last or self._signer.last()
        raise refused("the signer", "other processes that sign all the time")

    def _take(self, signed: SignedHead | Freeze) -> None:
        """Shows a checkpoint that this process or another one signed, once it fits the bodies.

        Raises:
            LogFrozenError: It does not, or somebody froze the log.
        """
        if isinstance(signed, Freeze):
            self._freeze = signed
            raise signed.error()
        if signed.size > self._tree.size:
            read_tail(self._store, self._tree, self._tree.size)
        known = signed.size <= self._tree.size
        root = self._tree.root(signed.size) if known else b""
        if root != signed.root:
            evidence = f"root {root.hex()} at size {signed.size} where {signed.root.hex()} was signed"
            raise self._stop(FreezeReason.FORK if known else FreezeReason.ROLLED_BACK, evidence)
        if signed.size >= self.receipts.head().size:
            self._last = signed
            self.receipts.publish(_shown(signed))
            self._reached(Moment.SHOWN)


def _root_at(store: Store, receipts: Receipts, size: int) -> bytes:
    """Root of the first entries, also where another process signed them and nobody told this one yet."""
    published = receipts.head().size
    if size <= published:
        return receipts.root(size)
    with store.read() as session:
        leaves, _ = read_on(session, 0, size)
    return root_from_leaves(leaves)


def _shown(signed: SignedHead) -> Head:
    return Head(signed.size, signed.root, signed.note)
