# SPDX-License-Identifier: Apache-2.0
"""Units of work: how one runs in its savepoint, and whose fault a failure is."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from broker.log.errors import LogUnavailableError
from broker.log.transaction import LogTx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    from broker.log.transaction import Batch
    from broker.store import Session

__all__ = ["Unit", "fail", "refused", "run_unit", "unavailable"]

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


def run_unit(session: Session, batch: Batch, unit: Unit) -> None:
    """Runs a unit in a savepoint. Its own failure stays its own.

    Raises:
        DBAPIError: The storage fails, which is everybody's: the batch has to be rolled back.
    """
    log = LogTx(session, batch)
    savepoint = session.begin_nested()
    try:
        unit.value = unit.work(session, log)
        log.flush()
    except Exception as error:  # whatever it is, it belongs to the caller
        if _is_storage(error):
            raise
        savepoint.rollback()
        unit.error = error
        return
    savepoint.commit()
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
        remedy="make room on the disk or correct its permissions, then send the same again",
    )


def _is_storage(error: Exception) -> bool:
    """Whether an error means that the database cannot be written, whoever tries."""
    code = getattr(error.orig, "sqlite_errorcode", 0) if isinstance(error, DBAPIError) else 0
    return code & _PRIMARY_CODE in _STORAGE_CODES
