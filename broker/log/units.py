# SPDX-License-Identifier: Apache-2.0
"""Units of work: how one runs in its savepoint, and whose fault a failure is.

A failure of the storage is everybody's: no room, no right to write, a lock that does not come, a server that
is gone. SQLite says so by its result code, PostgreSQL by its SQLSTATE, or by none when it says nothing any
more. Whatever else a unit raises (a broken constraint too) is that unit's own.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from broker.log.errors import LogUnavailableError
from broker.log.transaction import LogTx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from broker.log.savepoints import Savepoints
    from broker.log.transaction import Batch
    from broker.store import Session

__all__ = ["Unit", "fail", "is_storage", "refused", "run_unit", "unavailable"]

_STORAGE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
_PRIMARY_CODE = 0xFF  # the rest of an extended code says where it happened
_STORAGE_STATES: Final = (
    "08",  # connection
    "25006",  # read-only
    "40",  # deadlock, serialisation failure, a commit of which nobody knows
    "53",  # disk, memory, connections
    "55P03",  # a lock did not come in time
    "57",  # cancelled, shutting down, starting up
    "58",  # the operating system
    "F0",  # configuration
    "XX",  # damaged data, and the server's own bugs
)


@dataclass(slots=True)
class Unit:
    """A unit of work, and what became of it.

    Attributes:
        work: The caller's function.
        future: What the caller waits for.
        value: What ``work`` returned.
        error: What it raised.
        touched: Indexes of the entries that it added or found.
    """

    work: Callable[[Session, LogTx], Any]
    future: Future[Any]
    value: Any = None
    error: Exception | None = None
    touched: Sequence[int] = ()


def run_unit(session: Session, batch: Batch, savepoints: Savepoints, unit: Unit) -> None:
    """Runs a unit in a savepoint. Its own failure stays its own.

    Raises:
        DBAPIError: The storage fails, which is everybody's: the batch has to be rolled back.
    """
    log = LogTx(session, batch, savepoints)
    savepoints.begin()
    try:
        unit.value = unit.work(session, log)
    except Exception as error:  # whatever it is, it belongs to the caller
        if savepoints.failure is not None:
            raise savepoints.failure from error
        if is_storage(error):
            raise
        savepoints.roll_back()
        unit.error = error
        return
    if savepoints.failure is not None:
        raise savepoints.failure
    savepoints.release()
    log.keep()
    unit.touched = log.touched


def fail(units: Iterable[Unit], error: Exception) -> None:
    """Answers every unit of a batch with the same error."""
    for unit in units:
        unit.future.set_exception(error)


def refused(need: str, found: str) -> LogUnavailableError:
    """`log.unavailable` before anything was tried."""
    return LogUnavailableError(need=need, found=found, remedy="send the same again later; nothing was stored")


def unavailable(error: DBAPIError) -> LogUnavailableError:
    """`log.unavailable` for a failure of the database."""
    code = getattr(error.orig, "sqlite_errorname", None) or type(error.orig).__name__
    return LogUnavailableError(
        need="a database that can be written",
        found=code,
        remedy="make room on the disk, correct its permissions or bring the database back, "
        "then send the same again",
    )


def is_storage(error: Exception) -> bool:
    """Whether an error means that the database cannot be used, whoever tries."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    state: str | None = getattr(error.orig, "sqlstate", "")
    if state is None:  # a driver of PostgreSQL to which the server said nothing
        return isinstance(error, (OperationalError, InterfaceError))
    return code & _PRIMARY_CODE in _STORAGE_CODES or (state != "" and state.startswith(_STORAGE_STATES))
