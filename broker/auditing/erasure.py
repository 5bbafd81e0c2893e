# SPDX-License-Identifier: Apache-2.0
"""Erasure: confidential values that have to go, while every proof, receipt and later audit stays valid.

    erased = erasure.order(session, tx, ...)      with the entries, in the transaction of the request
    await writer.run(erasure.finish)              the bytes, afterwards; and at every start

- An entry holds commitments only. Without its salt one opens nothing and is worth nothing to who guesses.
- The order stands in the log before anything is deleted. After a crash in between, and after a restored
  backup, `finish` deletes what the log says is erased.
- What is deleted leaves the database's file too, and its write-ahead log: bytes are overwritten and both
  files are written anew. A mark in the private database, set with the deletion, outlives a crash before that.
  PostgreSQL writes the table anew too; its own write-ahead log and its backups are its operator's to shorten.
- `finish` and `sweep` are units of work of the writer: nobody else writes private rows meanwhile. An entry
  that is in the log is never given private rows again, so a repeated event brings nothing back.
- What a member signed is in its envelope, which every later audit needs: such a value is not erased here, and
  the refusal says so. The broker's own commitments can be (``at`` of every entry among them).
- Rows whose event never came into the log are swept after a day: their batch failed, and nobody repeated it.

Order of the steps of `Erasure.order`:
1. the entries are in the log; 2. each has each of the fields; 3. none is in a member's envelope; 4. something
of it is not erased yet; 5. ``console.action`` and ``erasure.performed``.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select

from broker.auditing.errors import (
    AlreadyErasedError,
    ErasureUnfinishedError,
    FieldUnknownError,
    InEnvelopeError,
)
from broker.log.commitments import erased_values
from broker.log.errors import NotInLogError
from broker.membership.records import console_action
from broker.store import tables
from policies.encoding import canonical, digest, parse
from policies.limits import ORPHAN_H
from policies.log.entries import EntryType, Event
from policies.ports import iso_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session, Store
    from policies.encoding import Json
    from policies.ports import Clock

__all__ = ["Erasure"]

_ENTRY = tables.log_entry
_PRIVATE = tables.log_private
_CHUNK: Final = 500
_HOUR_MS: Final = 3_600_000
_TIME: Final = "at"
"""The field that every event has, and that the broker alone knows."""


class Erasure:
    """The service; see the module for its rules."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def order(
        self,
        session: Session,
        tx: LogTx,
        *,
        indexes: Sequence[int],
        fields: Sequence[str],
        reason: str,
        operator: Operator,
        request: str,
    ) -> dict[str, Json]:
        """Puts an erasure on record; see the module for its steps.

        Args:
            session: Of the transaction.
            tx: Of the transaction.
            indexes: Of the entries.
            fields: Confidential fields; every entry has each of them.
            reason: A reason code.
            operator: Who orders it.
            request: Digest of the request.

        Raises:
            NotInLogError: Step 1.
            FieldUnknownError: Step 2.
            InEnvelopeError: Step 3.
            AlreadyErasedError: Step 4.
        """
        wanted, names = sorted(set(indexes)), sorted(set(fields))
        rows = session.execute(select(_ENTRY.c.idx, _ENTRY.c.body).where(_ENTRY.c.idx.in_(wanted)))
        bodies = {row.idx: parse(row.body) for row in rows}
        missing = [index for index in wanted if index not in bodies]
        if missing:  # 1.
            raise NotInLogError(
                need="entries of the log",
                found=str(missing[0]),
                remedy="iriai-verify show BUNDLE INDEX shows which entry is meant",
            )
        for index in wanted:
            _check_entry(index, bodies[index], names)  # 2., 3.
        if not {(one, name) for one in wanted for name in names} - erased_values(session):  # 4.
            raise AlreadyErasedError(
                need="a value that is still there",
                found="none; it was erased before",
                remedy="nothing is left to do",
            )
        subject = digest(canonical([wanted, names, reason]))  # 5.
        tx.add(console_action(operator, "audit.erase", subject=subject, request=request))
        pub = {"indexes": wanted, "fields": names, "reason": reason, "request": request}
        entry = tx.add(Event(type=EntryType.ERASURE_PERFORMED, pub=pub))
        return {"indexes": list(wanted), "fields": list(names), "entry": entry}

    def finish(self, session: Session, _tx: LogTx) -> int:
        """Deletes what the log says is erased; how many values were still there. A unit of work.

        Raises:
            ErasureUnfinishedError: The files could not be written anew: somebody reads, or the disk is full.
        """
        by_event: dict[bytes, list[str]] = {}
        pairs = sorted(erased_values(session))
        ids = _event_ids(session, {index for index, _ in pairs})
        for index, name in pairs:
            by_event.setdefault(ids[index], []).append(name)
        where = [
            (_PRIVATE.c.event_id == event) & _PRIVATE.c.field.in_(names) for event, names in by_event.items()
        ]
        return self._remove(where)

    def sweep(self, session: Session, _tx: LogTx, found: Iterable[bytes]) -> int:
        """Deletes rows of `orphans` that are still none of the log's; how many there were. A unit of work.

        Raises:
            ErasureUnfinishedError: As `finish`.
        """
        return self._remove([_PRIVATE.c.event_id == one for one in _strangers(session, found)])

    def orphans(self, after: bytes = b"") -> tuple[list[bytes], bytes | None]:
        """Some events with private rows that are old enough to be swept, and no entry.

        Args:
            after: Where the last call ended.

        Returns:
            The events, and where the next call goes on; None at the end.
        """
        old = canonical(iso_ms(self._clock.now_ms() - ORPHAN_H * _HOUR_MS))
        query = (
            select(_PRIVATE.c.event_id)
            .where(_PRIVATE.c.field == _TIME, _PRIVATE.c.value < old, _PRIVATE.c.event_id > after)
            .order_by(_PRIVATE.c.event_id)
            .limit(_CHUNK)
        )
        with self._store.read_private() as private:
            found = [bytes(one) for one in private.scalars(query)]
        with self._store.read() as session:
            return _strangers(session, found), found[-1] if len(found) == _CHUNK else None

    def _remove(self, where: Sequence[Any]) -> int:
        private, removed = self._store.private, 0
        is_sqlite = private.dialect.name == "sqlite"
        with private.begin() as connection:
            if is_sqlite:
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            for one in where:
                removed += connection.execute(delete(_PRIVATE).where(one)).rowcount
            if is_sqlite and removed:
                connection.exec_driver_sql("PRAGMA user_version = 1")  # the mark: to be written anew
        if is_sqlite:
            self._write_anew()
        elif removed:
            with private.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql(f"VACUUM FULL {_PRIVATE.name}")
        return removed

    def _write_anew(self) -> None:
        """SQLite: both files without what was deleted, if the mark is set."""
        raw = self._store.private.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA user_version")
            if cursor.fetchone() == (0,):
                return
            cursor.execute("VACUUM")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            busy, *_ = cursor.fetchone() or (1,)
            if busy:
                raise _unfinished("somebody who reads it all the time")
            cursor.execute("PRAGMA user_version = 0")
            cursor.close()
        except sqlite3.Error as error:
            raise _unfinished(getattr(error, "sqlite_errorname", type(error).__name__)) from error
        finally:
            raw.close()


def _unfinished(found: str) -> ErasureUnfinishedError:
    return ErasureUnfinishedError(
        need="the private database for a moment, and room beside it for a copy",
        found=found,
        remedy="repeat the command; it is on record already, and is finished at the next start at the latest",
    )


def _strangers(session: Session, events: Iterable[bytes]) -> list[bytes]:
    """Those of these events that are not in the log."""
    asked, strangers = [bytes(one) for one in events], []
    for at in range(0, len(asked), _CHUNK):
        part = asked[at : at + _CHUNK]
        known = set(session.scalars(select(_ENTRY.c.event_id).where(_ENTRY.c.event_id.in_(part))))
        strangers += [one for one in part if one not in known]
    return strangers


def _event_ids(session: Session, indexes: set[int]) -> dict[int, bytes]:
    wanted = sorted(indexes)
    found: dict[int, bytes] = {}
    for at in range(0, len(wanted), _CHUNK):
        part = _ENTRY.c.idx.in_(wanted[at : at + _CHUNK])
        rows = session.execute(select(_ENTRY.c.idx, _ENTRY.c.event_id).where(part))
        found |= {row.idx: bytes(row.event_id) for row in rows}
    return found


def _check_entry(index: int, body: dict[str, Json], names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in body["sd"]]
    if unknown:
        raise FieldUnknownError(
            need=f"confidential fields of entry {index}: " + " ".join(sorted(body["sd"])),
            found=ascii(unknown[0])[1:-1][:60],
            remedy="erase entries of one kind at a time",
        )
    signed = [name for name in names if name != _TIME]
    if body["env"] is not None and signed:
        raise InEnvelopeError(
            need="a value that the broker alone wrote down",
            found=f"{signed[0]} of entry {index}, which a member's signed envelope says too",
            remedy="only `at` of such an entry can be erased; its owner decides what it signs from now on",
        )
