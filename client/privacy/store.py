# SPDX-License-Identifier: Apache-2.0
"""The node's budget ledger on disk: a SQLite file per lineage, durable before the first gradient.

- `BudgetStore.create` writes the genesis; it never replaces a file. `BudgetStore` opens one: the whole chain
  is verified, with every digest, every signature and the recorded head, else ``budget.unknown`` and no
  training.
- Each call is one ``BEGIN IMMEDIATE`` transaction, durable at commit: a rollback journal, so that no part of
  the ledger lies in a second file that could get lost alone, and ``synchronous EXTRA``. Under FULL the folder
  is not synced once the journal was removed: after a loss of power it could be back, and undo the last touch.
- The state that decides is read inside the transaction, so a second process cannot spend the same steps.
- A crash after `touch` costs the round: the steps are spent, whether they ran or not.
- `reserve` charges every block that the units are in. The ledger remembers the block of each unit that it
  ever charged, and goes by that, whatever the data catalogue says by then; unknown units open the block that
  the catalogue names, or join it.

    with BudgetStore(path, clock=clock, key=key) as store:
        store.preview(plan, cap)                              # what the guard shows the contract
        store.reserve(plan, cap, run=run, recipe=digest, units=units)
        store.touch(run, round_number, attempt)               # before the round's first gradient
        store.commit(run)
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from policies.encoding import canonical
from policies.errors import IriaiError
from policies.identity import SigningKey, verify
from policies.privacy import ledger
from policies.privacy.accounting import epsilon_text
from policies.privacy.blocks import HELD_OUT, TRAIN, split_of
from policies.privacy.errors import BudgetUnknownError, EvalUnplannedError
from policies.privacy.ledger import Cap, LedgerState, Total
from policies.privacy.plan import DpPlan, EvalPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from client.privacy.units import Units
    from policies.ports import Clock

__all__ = ["BudgetFigures", "BudgetStore", "Spend"]

_PRAGMAS: Final = ("journal_mode=DELETE", "synchronous=EXTRA", "locking_mode=NORMAL", "trusted_schema=OFF")
_SCHEMA: Final = (
    "CREATE TABLE entry (seq INTEGER PRIMARY KEY, body BLOB NOT NULL, signature BLOB NOT NULL) STRICT",
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, digest TEXT) STRICT",
)
_BUSY_S: Final = 10.0
_APPLICATION_ID: Final = 0x49524C47


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Receipt of one touch; the node sends its facts as ``epsilon.spent``.

    Attributes:
        mechanism: ``run/split/round/attempt``, unique in the ledger.
        blocks: Blocks that it charged.
        plan_digest: The plan that is charged.
        steps: Steps of this touch.
        steps_total: Steps of the plan so far, this one included.
        ledger_head: Digest of the entry.
        ledger_seq: Its position.
        rho_nano: Cost at the lineage's order.
        epsilon_after: Lineage filter after it, spent and held, in the fullest of its blocks, six decimals,
            rounded up.
        epsilon_max: The lineage's cap.
    """

    mechanism: str
    blocks: tuple[str, ...]
    plan_digest: str
    steps: int
    steps_total: int
    ledger_head: str
    ledger_seq: int
    rho_nano: int
    epsilon_after: str
    epsilon_max: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetFigures:
    """Where a cap stands; for the local page, the guard and the statement.

    Attributes:
        scope: Lineage or contract digest.
        part: Block of the lineage (``train-1``), or split that the contract's cap is about (``train``).
        order: Filter order.
        delta: Delta of the cap.
        epsilon_max: The cap.
        rho_spent_nano: Spent, at the order.
        rho_held_nano: Reserved and not yet spent.
        rho_max_nano: What the cap holds.
        epsilon_spent: Filter over spent, six decimals rounded up; "0.000000" where nothing was spent.
        epsilon_total: Filter over spent and held, likewise.
        epsilon_release: For `preview`: ``epsilon_rdp`` of the plan; else empty.
        ledger_head: Digest of the last entry.
    """

    scope: str
    part: str
    order: int
    delta: str
    epsilon_max: str
    rho_spent_nano: int
    rho_held_nano: int
    rho_max_nano: int
    epsilon_spent: str
    epsilon_total: str
    epsilon_release: str
    ledger_head: str


def split_read(plan: DpPlan | EvalPlan) -> str:
    """Split of the units that a plan reads and charges."""
    return TRAIN if isinstance(plan, DpPlan) else HELD_OUT


def _unknown(need: str, found: str) -> BudgetUnknownError:
    return BudgetUnknownError(
        need=need,
        found=found,
        remedy="restore the newest copy of the ledger; without it these data cannot be trained on again",
    )


class BudgetStore:
    """One lineage's ledger. Thread-safe; several processes may hold it, one writes at a time.

    Args:
        path: The file; it must exist.
        clock: Wall clock.
        key: The node's signing key; signs each entry's digest.
        former: Keys that the node had before, each with the first entry that is not its own any more, oldest
            first.
        at_least: Position and digest of the newest entry that somebody else has seen (the broker's mirror).
            A ledger that
            does not hold it is an old backup.

    Raises:
        BudgetUnknownError: No file, not a ledger, a broken chain, a wrong signature, or an old backup.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        key: SigningKey,
        former: tuple[tuple[int, bytes], ...] = (),
        at_least: tuple[int, str] | None = None,
    ) -> None:
        if not path.is_file():
            raise _unknown(f"the ledger file {path.name}", "none")
        self._open(path, clock, key, former)
        try:
            with self._wrapped():
                self._load_all()
            if at_least is not None:
                self._check_mirror(*at_least)
        except IriaiError:
            self.close()
            raise

    def _open(
        self, path: Path, clock: Clock, key: SigningKey, former: tuple[tuple[int, bytes], ...] = ()
    ) -> None:
        self._path, self._clock, self._key, self._former = path, clock, key, former
        self._lock = threading.Lock()
        self._state = LedgerState()
        with self._wrapped():
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        clock: Clock,
        key: SigningKey,
        cap: Cap,
        unit: str = "episode",
        adjacency: str = "zero-out",
        first: Callable[[BudgetStore], object] | None = None,
    ) -> Self:
        """Starts the ledger of a new lineage, without any block; ``cap.scope`` is the lineage.

        Args:
            path: The file.
            clock: Wall clock.
            key: The node's signing key.
            cap: Of the lineage.
            unit: Of every plan.
            adjacency: Likewise.
            first: Writes the entries that belong to its beginning; the file is there with them or not at all.

        Raises:
            BudgetUnknownError: There is a file already: a budget never starts again.
            OrderUnfitError: The cap does not hold one release.
        """
        if path.exists():
            raise _unknown("no ledger yet", f"{path.name} is there")
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        for left in (new, new.with_name(new.name + "-journal")):  # by a process that died here
            left.unlink(missing_ok=True)
        store = cls.__new__(cls)
        store._open(new, clock, key)  # noqa: SLF001  own constructor
        try:
            with store._wrapped():  # noqa: SLF001
                store._write_new(cap, unit, adjacency)  # noqa: SLF001
            if first is not None:
                first(store)
        except IriaiError:
            store.close()
            new.unlink()
            raise
        store.close()
        new.chmod(0o600)
        new.replace(path)
        _sync_directory(path.parent)
        return cls(path, clock=clock, key=key)

    def _write_new(self, cap: Cap, unit: str, adjacency: str) -> None:
        self._db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._append("genesis", ledger.genesis_body(cap, unit=unit, adjacency=adjacency))
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> LedgerState:
        """The state as of the last call; pure value."""
        return self._state

    def read(self) -> LedgerState:
        """The state with what other processes appended."""
        with self._lock, self._wrapped():
            self._catch_up()
        return self._state

    def tighten(self, epsilon_total: str) -> None:
        """Lowers the lineage's cap for the rest of its life.

        Raises:
            BudgetError: It is not lower than the cap now.
        """
        with self._transaction():
            self._append("tighten", {"epsilon_total": epsilon_total})

    def waive(self, contract: str, *, by: str) -> None:
        """Marks for good that the units are used without privacy under a contract.

        Raises:
            BudgetError: It is marked so.
        """
        with self._transaction():
            self._append("waived", ledger.waived_body(contract, by=by))

    def append_missing(self, spends: Sequence[Mapping[str, Any]]) -> None:
        """Appends spends that this copy of the ledger lacks, as an incident; no cap refuses the truth.

        Args:
            spends: From `policies.privacy.ledger.missing_spend`; a block that is not here is opened.

        Raises:
            BudgetError: One of them is in the ledger.
        """
        with self._transaction():
            for block in sorted({block for one in spends for block in one["blocks"]}):
                if block not in self._state.blocks:
                    self._append("block", ledger.block_body(block))
            self._append("incident", ledger.incident_body([dict(one) for one in spends]))

    def preview(self, plan: DpPlan | EvalPlan, contract: Cap) -> BudgetFigures:
        """Figures of the contract's cap as they would be with this plan reserved; changes nothing.

        If the plan's reservation is already in the ledger (same run going on), pass `figures` instead.
        """
        return self._figures(contract, split_read(plan), plan)

    def figures(self, contract: Cap | None = None, *, split: str = TRAIN) -> BudgetFigures:
        """Where a contract's cap stands in a split; without one, the lineage's in its fullest block there."""
        return self._figures(contract, split, None)

    def figures_of(self, block: str) -> BudgetFigures:
        """Where the lineage's cap stands in a block."""
        with self._lock, self._wrapped():
            self._catch_up()
        cap, total = self._state.lineage, self._state.in_block(block)
        return self._shown(cap, block, total, ledger.epsilon_of(cap, total.both))

    def _figures(self, contract: Cap | None, split: str, plan: DpPlan | EvalPlan | None) -> BudgetFigures:
        with self._lock, self._wrapped():
            self._catch_up()
        state = self._state
        if contract is None:
            mine = [one for one in sorted(state.blocks) if split_of(one) == split]
            block = max(mine, key=lambda one: state.in_block(one).both, default=split)
            return self.figures_of(block)
        document = plan.document if plan is not None else None
        after = ledger.epsilon_after(state, contract, split=split, plan=document)
        release = epsilon_text(plan.epsilon_rdp) if plan is not None else ""
        return self._shown(contract, split, state.under(contract, split), after, release)

    def _shown(self, cap: Cap, part: str, total: Total, after: float, release: str = "") -> BudgetFigures:
        return BudgetFigures(
            scope=cap.scope,
            part=part,
            order=cap.order,
            delta=cap.delta,
            epsilon_max=cap.epsilon_total,
            rho_spent_nano=total.spent,
            rho_held_nano=total.held,
            rho_max_nano=cap.rho_max_nano,
            epsilon_spent=epsilon_text(ledger.epsilon_of(cap, total.spent)),
            epsilon_total=epsilon_text(after),
            epsilon_release=release,
            ledger_head=self._state.head,
        )

    def is_reserved(self, run: str, *, split: str = TRAIN) -> bool:
        """Whether a run holds an open reservation."""
        return self.reserved(run, split=split) is not None

    def reserved(self, run: str, *, split: str = TRAIN) -> str | None:
        """Manifest of the units that a run's open reservation is about; None without one."""
        with self._lock, self._wrapped():
            self._catch_up()
        hold = self._state.holds.get((run, split))
        return hold.manifest if hold is not None and hold.open else None

    def check_holds(self, cap: Cap, *, split: str = TRAIN) -> None:
        """Returns if all that is spent and held fits under a cap, which may be newer than the entries.

        Raises:
            BudgetExhaustedError: It does not.
        """
        figures = self.figures(cap, split=split)
        if figures.rho_spent_nano + figures.rho_held_nano > figures.rho_max_nano:
            raise ledger.exhausted_total(cap, figures.epsilon_total)

    def reserve(
        self,
        plan: DpPlan | EvalPlan,
        contract: Cap,
        *,
        run: str,
        recipe: str,
        units: Units,
        own: Cap | None = None,
    ) -> BudgetFigures:
        """Holds all steps of a plan under every cap; durable when it returns.

        Args:
            plan: A `DpPlan` charges training units, an `EvalPlan` held-out ones.
            contract: The contract's cap for this party.
            run: The run.
            recipe: Digest of its recipe.
            units: What it will read, frozen; their number checks delta.
            own: The owner's tighter cap on the same contract, where there is one.

        Raises:
            BudgetExhaustedError: One of the caps does not hold it.
            DeltaTooLargeError: Delta is too large for so many units.
            PlanMismatchError: Another unit or adjacency than the lineage's.
            EvalUnplannedError: Held-out units would be trained on, or trained ones judged on.
            BudgetError: The run has a reservation.
        """
        split = split_read(plan)
        if units.split != split:
            raise EvalUnplannedError(
                need=f"a plan that reads {units.split} units",
                found=f"one that reads {split} units",
                remedy="held-out units are never trained on, and trained ones never judged on",
            )
        plan.check_units(units.count)
        for cap in (contract,) if own is None else (contract, own):
            if plan.epsilon_rdp > float(cap.epsilon_per_release):
                raise ledger.exhausted_release(cap, epsilon_text(plan.epsilon_rdp))
        with self._transaction():
            blocks = self._enrol(units)
            body = ledger.reserve_body(
                contract,
                run=run,
                recipe=recipe,
                blocks=blocks,
                plan=plan.document,
                manifest=units.manifest,
                own=own,
            )
            self._append("reserve", body)
        return self._figures(contract, split, None)

    def _enrol(self, units: Units) -> tuple[str, ...]:
        """The blocks that these units are in: those that the ledger knows, else those of the catalogue."""
        known = self._state.units
        for block, found in units.blocks.items():
            new = [one for one in found if one not in known]
            if new:
                self._append("block", ledger.block_body(block, new))
        return tuple(sorted({self._state.units[one] for one in units.fingerprints}))

    def touch(
        self, run: str, round_number: int, attempt: int, *, split: str = TRAIN, subject: str | None = None
    ) -> Spend:
        """Spends one round's steps; durable when it returns, so call it before the first gradient.

        Args:
            run: The run.
            round_number: Its round.
            attempt: The round's attempt.
            split: Of the plan's units.
            subject: Digest of the candidate that a query judges; names the spend in the log.

        Raises:
            BudgetExhaustedError: No reservation, no step left, or this round and attempt was touched.
            BudgetUnknownError: The write could not be made durable.
        """
        with self._transaction():
            hold = self._state.holds.get((run, split))
            steps = hold.steps_per_touch if hold is not None else 1
            body: dict[str, Any] = {"run": run, "split": split, "round": round_number, "attempt": attempt}
            body |= {"steps": steps} if subject is None else {"steps": steps, "subject": subject}
            self._append("touch", body)
        state = self._state
        hold = state.holds[(run, split)]
        return Spend(
            mechanism=f"{run}/{split}/{round_number}/{attempt}",
            blocks=hold.blocks,
            plan_digest=hold.plan_digest,
            steps=hold.steps_per_touch,
            steps_total=hold.steps_spent,
            ledger_head=state.head,
            ledger_seq=state.seq - 1,
            rho_nano=hold.steps_per_touch * hold.lineage_step,
            epsilon_after=epsilon_text(ledger.epsilon_in(state, hold.blocks)),
            epsilon_max=state.lineage.epsilon_total,
        )

    def commit(self, run: str, *, split: str = TRAIN) -> None:
        """Closes a run's reservation; steps that never ran are released.

        Raises:
            BudgetExhaustedError: No open reservation.
        """
        with self._transaction():
            self._append("commit", {"run": run, "split": split})

    def cancel(self, run: str, *, split: str = TRAIN) -> None:
        """Gives back a reservation that was never touched.

        Raises:
            CancelAfterTouchError: Data were read.
            BudgetExhaustedError: No open reservation.
        """
        with self._transaction():
            self._append("cancel", {"run": run, "split": split})

    def entries(self) -> Iterator[dict[str, Any]]:
        """All entries in order, as JSON values."""
        rows = self._db.execute("SELECT body FROM entry ORDER BY seq").fetchall()
        return (json.loads(body) for (body,) in rows)

    # inside

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            told = f": {error}"[:120] if isinstance(error, sqlite3.Error) else ""  # never a value of an entry
            found = f"one that cannot be: {type(error).__name__}{told}"
            raise _unknown("a ledger that can be read and written", found) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._wrapped():
            self._db.execute("BEGIN IMMEDIATE")
            before = self._state
            try:
                self._catch_up()
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._state = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        entry = ledger.seal(self._state, kind, dict(body), at_ms=self._clock.now_ms())
        state = ledger.apply(self._state, entry)  # refuses before anything is written
        signature = self._key.sign(entry["digest"].encode())
        self._db.execute("INSERT INTO entry VALUES (?, ?, ?)", (entry["seq"], canonical(entry), signature))
        self._db.execute(
            "INSERT INTO head VALUES (1, ?, ?)"
            " ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, digest = excluded.digest",
            (entry["seq"], entry["digest"]),
        )
        self._state = state

    def _load_all(self) -> None:
        (found,) = self._db.execute("PRAGMA application_id").fetchone()
        if found != _APPLICATION_ID:
            raise _unknown("a budget ledger", "another kind of file")
        self._catch_up()
        if self._state.genesis is None:
            raise _unknown("a genesis entry", "an empty ledger")

    def _catch_up(self) -> None:
        """Applies what another process appended, as one moment shows it: entries and head belong together."""
        if self._db.in_transaction:
            self._apply_new()
            return
        self._db.execute("BEGIN")
        try:
            self._apply_new()
        finally:
            self._db.execute("ROLLBACK")  # nothing was written

    def _apply_new(self) -> None:
        """Checks digests, signatures and the recorded head."""
        rows = self._db.execute(
            "SELECT seq, body, signature FROM entry WHERE seq >= ? ORDER BY seq", (self._state.seq,)
        ).fetchall()
        state = self._state
        for seq, body, signature in rows:
            try:
                entry = json.loads(body)
                if canonical(entry) != body or seq != state.seq:
                    raise _unknown("canonical entries in order", f"another at {state.seq}")
                state = ledger.apply(state, entry)
                verify(self._signer(seq), signature, entry["digest"].encode())
            except (IriaiError, KeyError, TypeError, ValueError) as error:
                raise _unknown(
                    f"a chain signed by this node at entry {state.seq}", str(error)[:200]
                ) from error
        head = self._db.execute("SELECT seq, digest FROM head").fetchone()
        if head != (state.seq - 1, state.head):
            raise _unknown("the recorded head", "a shorter or longer chain")
        self._state = state

    def _signer(self, seq: int) -> bytes:
        """The key that signs an entry: a former one below its end, else the present one."""
        return next((key for end, key in self._former if seq < end), self._key.public)

    def _check_mirror(self, seq: int, digest: str) -> None:
        row = self._db.execute("SELECT body FROM entry WHERE seq = ?", (seq,)).fetchone()
        if row is None or json.loads(row[0])["digest"] != digest:
            raise _unknown(f"entry {seq} that the broker has seen", "an older or another ledger")


def _sync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
