# SPDX-License-Identifier: Apache-2.0
"""What this node has answered, so that a request that comes twice has one effect (``fleet.db``).

The slot of a request is (contract, run, round, attempt, type); its work is `RequestHeader.work`. States of a
slot:

    ADMITTED   decided, nothing private touched       same work: run it            other work: refused
    RUNNING    the work has begun                     the process died: refused    other work: refused
    REPLIED    the reply is on disk                   the same content again       other work: refused
    CLOSED     a later round of the run was seen      refused                      refused

Allowed order: `look`, then `admit`, `running`, `replied`. `running` is durable before the work begins and
`replied` before the reply is sent (write-ahead log, synchronous FULL). `admit` waits for no disk: a row that
a power cut takes stands for no work, and its request is decided anew. Entering a later round closes the
earlier ones and forgets their tensors.

Requests without work of their own have no row (`client.federation.handlers.FREE`).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.federation.errors import RequestDiffersError, RoundClosedError, WorkInterruptedError
from client.settings import private_file
from policies.errors import invariant
from policies.limits import FLEET_INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policies.exchange import RequestHeader

__all__ = ["FleetLedger", "Stored"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS slot (
    contract TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL, type TEXT
    NOT NULL,
    work TEXT NOT NULL, state TEXT NOT NULL, header BLOB, tensor BLOB, file TEXT,
    PRIMARY KEY (contract, run, round, attempt, type)
) STRICT, WITHOUT ROWID
"""
_SLOT: Final = "contract = ? AND run = ? AND round = ? AND attempt = ? AND type = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A reply as it was sent the first time."""

    header: bytes
    tensor: bytes | None


class FleetLedger:
    """The ledger file of one node; one process and one thread use it."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the ledger; large tensors lie beside it in a folder ``fleet-replies``."""
        private_file(path)
        self._files = path.parent / "fleet-replies"
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {line}")
        self._db.execute(_SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def look(self, request: RequestHeader) -> Stored | None:
        """The reply that this request already has, or None if the work may be done.

        Raises:
            RequestDiffersError: The slot belongs to other work.
            WorkInterruptedError: The work began and its process died.
            RoundClosedError: A later round was seen.
        """
        row = self._db.execute(
            f"SELECT work, state, header, tensor, file FROM slot WHERE {_SLOT}",  # noqa: S608  constants
            _slot(request),
        ).fetchone()
        if row is None:
            self._refuse_earlier(request)
            return None
        work, state, header, tensor, file = row
        if state == "CLOSED":
            raise _closed(request)
        if work != request.work:
            raise RequestDiffersError(
                need="the request that was answered in this slot",
                found="another one",
                remedy="ask again as a new attempt",
            )
        if state == "RUNNING":
            raise WorkInterruptedError(
                need="work that ended",
                found="work whose process died",
                remedy="ask again as a new attempt",
            )
        if state == "ADMITTED":
            return None
        return Stored(header=header, tensor=(self._files / file).read_bytes() if file else tensor)

    def admit(self, request: RequestHeader) -> None:
        """Takes the slot for this request; nothing private was touched yet."""
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            self._db.execute(
                "INSERT INTO slot (contract, run, round, attempt, type, work, state)"
                " VALUES (?, ?, ?, ?, ?, ?, 'ADMITTED') ON CONFLICT DO NOTHING",
                (*_slot(request), request.work),
            )
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def running(self, request: RequestHeader) -> None:
        """Says, durably, that the work begins; earlier rounds of the run are closed."""
        with self._transaction():
            changed = self._db.execute(
                f"UPDATE slot SET state = 'RUNNING' WHERE {_SLOT} AND state = 'ADMITTED'",  # noqa: S608  constants
                _slot(request),
            ).rowcount
            invariant(changed == 1, "an admitted slot before work begins")
            stale = self._close_earlier(request)
        for name in stale:
            (self._files / name).unlink(missing_ok=True)

    def replied(self, request: RequestHeader, header: bytes, tensor: bytes | None) -> None:
        """Keeps the reply, durably, before it is sent."""
        file = None
        if tensor is not None and len(tensor) > FLEET_INLINE_BYTES:
            file = self._write(request, tensor)
        self._db.execute(
            "INSERT INTO slot (contract, run, round, attempt, type, work, state, header, tensor, file)"
            " VALUES (?, ?, ?, ?, ?, ?, 'REPLIED', ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " state = 'REPLIED', header = excluded.header, tensor = excluded.tensor, file = excluded.file"
            " WHERE state IN ('ADMITTED', 'RUNNING') AND work = excluded.work",
            (*_slot(request), request.work, header, None if file else tensor, file),
        )

    def _refuse_earlier(self, request: RequestHeader) -> None:
        later = self._db.execute(
            "SELECT 1 FROM slot WHERE contract = ? AND run = ? AND type = ? AND round > ? LIMIT 1",
            (request.contract, request.run, request.type.value, request.round),
        ).fetchone()
        if later is not None:
            raise _closed(request)

    def _close_earlier(self, request: RequestHeader) -> list[str]:
        where = "contract = ? AND run = ? AND type = ? AND round < ? AND state <> 'CLOSED'"
        values = (request.contract, request.run, request.type.value, request.round)
        files = self._db.execute(
            f"SELECT file FROM slot WHERE {where} AND file IS NOT NULL",  # noqa: S608  constants
            values,
        ).fetchall()
        self._db.execute(
            f"UPDATE slot SET state = 'CLOSED', header = NULL, tensor = NULL, file = NULL WHERE {where}",  # noqa: S608  constants
            values,
        )
        return [name for (name,) in files]

    def _write(self, request: RequestHeader, tensor: bytes) -> str:
        self._files.mkdir(mode=0o700, exist_ok=True)
        name = f"{request.digest.removeprefix('sha256:')}.bin"
        part = self._files / f"{name}.part"
        with part.open("wb") as out:
            out.write(tensor)
            out.flush()
            os.fsync(out.fileno())
        part.replace(self._files / name)
        return name

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _slot(request: RequestHeader) -> tuple[str, str, int, int, str]:
    return request.contract, request.run, request.round, request.attempt, request.type.value


def _closed(request: RequestHeader) -> RoundClosedError:
    return RoundClosedError(
        need=f"round {request.round} or a later one",
        found="a later round was seen here",
        remedy="ask for the current round",
    )
