# SPDX-License-Identifier: Apache-2.0
"""The one writer: it runs, commits, signs and answers every change of the broker's state.

A unit of work is a short function ``work(session, log)`` without network calls. It changes business rows
through ``session`` and says what happened through ``log`` (`LogTx`). For each batch:

1. take what is waiting, at most `COMMIT_BATCH` units and `COMMIT_WAIT_MS`; begin, which locks the database;
   read the head;
2. run each unit in a savepoint; one that raises is rolled back alone and only its caller hears of it; if all
   do, the batch is rolled back and the disk is not waited for;
3. write entries, envelopes and head; commit the private salts first, then the batch: one flush to disk for
   all;
4. read the new bodies back, hash them, sign, store what was signed;
5. answer everybody, with receipts at the new checkpoint.

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
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError

from broker.log.errors import LogFrozenError
from broker.log.receipts import Head, Receipts
from broker.log.recovery import newest_fitting, open_log, read_head, read_tail
from broker.log.signer import Freeze, FreezeReason, Signer
from broker.log.transaction import Batch
from broker.log.units import Unit, fail, refused, run_unit, unavailable
from broker.store import tables
from broker.store.prepared import Prepared
from policies.errors import IriaiError, invariant
from policies.limits import COMMIT_BATCH, COMMIT_WAIT_MS, WRITE_QUEUE
from policies.log.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.log.signer import SignedHead
    from broker.log.transaction import LogTx
    from broker.store import Session, Store
    from policies.identity import SigningKey
    from policies.log.merkle import Frontier
    from policies.log.proofs import Receipt
    from policies.ports import Clock, Entropy

__all__ = ["Writer"]

T = TypeVar("T")

_HEAD: Final = (
    update(tables.log_head)
    .where(tables.log_head.c.id == 1)
    .values(size=bindparam("new_size"), frontier=bindparam("new_frontier"))
)
_CHECKPOINT: Final = insert(tables.log_checkpoint).on_conflict_do_nothing()
_private = insert(tables.log_private)
_PRIVATE: Final = Prepared(
    _private.on_conflict_do_update(  # left by an attempt whose batch did not commit
        index_elements=["event_id", "field"],
        set_={"salt": _private.excluded.salt, "value": _private.excluded.value},
    )
)
_SIGN_ATTEMPTS = 3


class Writer:
    """The writer, and through `receipts` everything that the log shows. Make it with `Writer.open`."""

    def __init__(
        self, store: Store, signer: Signer, *, origin: str, clock: Clock, entropy: Entropy, threaded: bool
    ) -> None:
        self._store = store
        self._signer = signer
        self._origin = origin
        self._clock = clock
        self._entropy = entropy
        found = open_log(store, signer)
        self._tree = found.tree
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
    ) -> Writer:
        """Checks the whole log, signs what a crash left unsigned, and starts writing.

        A log that does not fit what was signed opens frozen: see `frozen`; reads work, changes do not.

        Args:
            store: Open databases; the writer is the only one that writes to them.
            origin: Name of the log.
            key: Signs checkpoints.
            clock: Of the broker.
            entropy: For salts.
            threaded: False runs each unit of work inside `submit`, as a batch of one (simulation, commands).

        Raises:
            LogUnavailableError: The signer's database does not answer.
        """
        signer = Signer(store.signer, origin=origin, key=key, clock=clock)
        try:
            return cls(store, signer, origin=origin, clock=clock, entropy=entropy, threaded=threaded)
        except DBAPIError as error:
            raise unavailable(error) from error

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self._origin

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
            self._check_open()
            if self._commit(units):
                self._publish()
        except DBAPIError as error:
            self._store.reset()
            fail(units, unavailable(error))
            return
        except IriaiError as error:
            fail(units, error)
            return
        except Exception as error:  # noqa: BLE001  an unknown bug of ours must reach the callers and not stop the writer
            self._store.reset()
            fail(units, error)
            return
        for unit in units:
            if unit.error is not None:
                unit.future.set_exception(unit.error)
            else:
                receipts = tuple(self.receipts.receipt(index) for index in unit.touched)
                unit.future.set_result((unit.value, receipts))

    def _check_open(self) -> None:
        if self._freeze is not None:
            raise self._freeze.error()

    def _commit(self, units: list[Unit]) -> bool:
        """Steps 2 and 3. Returns whether there is something to sign."""
        with self._store.main.connect() as session, session.begin() as transaction:
            head = read_head(session)
            self._last_ms = max(self._last_ms, self._clock.now_ms())  # entries never go back in time
            batch = Batch(
                origin=self._origin,
                now_ms=self._last_ms,
                size=head.size,
                signed_size=self.receipts.head().size,
                tree=self._tree,
                entropy=self._entropy,
            )
            for unit in units:
                run_unit(session, batch, unit)
            if batch.leaves:
                self._write_head(session, head.append(*batch.leaves), batch)
            if all(unit.error is not None for unit in units):
                transaction.rollback()
            return batch.size != batch.signed_size

    def _write_head(self, session: Session, head: Frontier, batch: Batch) -> None:
        session.execute(_HEAD, {"new_size": head.size, "new_frontier": head.to_bytes()})
        self._write_checkpoint(session, batch.now_ms)
        with self._store.private.begin() as private:  # before the entries: no entry without its salts
            _PRIVATE.many(private, batch.private_rows)

    def _write_checkpoint(self, session: Session, now_ms: int) -> None:
        """The row of the newest note, which the signer holds already."""
        last = self._last
        if last is not None and last.size:
            row = {"size": last.size, "root": last.root, "note": last.note, "published_ms": now_ms}
            session.execute(_CHECKPOINT, row)

    def _record(self) -> None:
        with self._store.main.begin() as session:
            self._write_checkpoint(session, self._clock.now_ms())

    def _publish(self) -> None:
        """Step 4: from the disk, not from memory."""
        last = self._last
        for _ in range(_SIGN_ATTEMPTS):
            if last is None:
                last = self._signer.last()
            start = min(self._tree.size, last.size)
            head, bodies = read_tail(self._store, start)
            leaves = [leaf_hash(body) for body in bodies]
            if head.size < last.size:
                evidence = f"{head.size} entries where a checkpoint of {last.size} was signed"
                self._freeze = self._signer.freeze(FreezeReason.ROLLED_BACK, evidence)
                raise self._freeze.error()
            signed = self._signer.extend(last, leaves[last.size - start :], head)
            if isinstance(signed, Freeze):
                self._freeze = signed
                raise signed.error()
            if signed is not None:
                self._show(signed, leaves[self._tree.size - start :])
                return
            last = None  # another process signed: look again
        raise refused("the signer", "another process that signs all the time")

    def _show(self, signed: SignedHead, leaves: list[bytes]) -> None:
        for leaf in leaves:
            self._tree.append(leaf)
        root = self._tree.root(signed.size)
        if root != signed.root:  # another process signed in between, and not what we read
            evidence = f"root {root.hex()} at size {signed.size} where {signed.root.hex()} was signed"
            self._freeze = self._signer.freeze(FreezeReason.FORK, evidence)
            raise self._freeze.error()
        self._last = signed
        self.receipts.publish(_shown(signed))


def _shown(signed: SignedHead) -> Head:
    return Head(signed.size, signed.root, signed.note)
