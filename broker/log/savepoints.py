# SPDX-License-Identifier: Apache-2.0
"""A savepoint for each unit of work, made when the unit first speaks to the database, and not before.

What earlier units of the same batch added to the log waits in memory until then, too, so that many units that
only add entries make one statement. Whoever asks the database anything sees all of it: `Savepoints` is told
before every statement of the session, writes what waits, and then makes the savepoint.

    with Savepoints(session, write_waiting) as savepoints:
        savepoints.begin()                       a unit begins; nothing is sent
        …                                        its first statement: what waits, then SAVEPOINT, then it
        savepoints.release() or .roll_back()     nothing is sent if it made no statement

The log's own look-ups of what cannot be waiting go past it (`quiet`). A failure to write what waits belongs
to the batch, whoever's statement met it; see `failure`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from sqlalchemy import event

from broker.store.prepared import BEFORE_STATEMENT, run_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from broker.store import Session

__all__ = ["Savepoints", "watch"]


def watch(engine: Engine) -> None:
    """Lets every statement that SQLAlchemy executes be announced; once for an engine."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: Session, *_: object) -> None:
        announce: Callable[[], None] | None = connection.info.get(BEFORE_STATEMENT)
        if announce is not None:
            announce()


class Savepoints:
    """See the module; for one session and one batch.

    Attributes:
        failure: What writing the waiting entries failed of; then nothing of the batch may be committed.
    """

    def __init__(self, session: Session, write_waiting: Callable[[], None]) -> None:
        self._session = session
        self._write = write_waiting
        self._quiet = True
        self._taken = False
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        self._session.info[BEFORE_STATEMENT] = self._before
        return self

    def __exit__(self, *_: object) -> None:
        if not self._session.invalidated:
            self._session.info.pop(BEFORE_STATEMENT, None)

    def begin(self) -> None:
        """A unit begins."""
        self._taken = self._quiet = False

    def release(self) -> None:
        """It ended well."""
        self._quiet = True
        if self._taken:
            run_text(self._session, "RELEASE SAVEPOINT unit")

    def roll_back(self) -> None:
        """It failed; what it did is undone."""
        self._quiet = True
        if self._taken:
            run_text(self._session, "ROLLBACK TO SAVEPOINT unit")
            run_text(self._session, "RELEASE SAVEPOINT unit")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """For statements that need no savepoint and nothing that waits."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _before(self) -> None:
        if self._quiet or self._taken:
            return
        with self.quiet():
            try:
                self._write()
                run_text(self._session, "SAVEPOINT unit")
            except Exception as error:
                self.failure = error
                raise
        self._taken = True
