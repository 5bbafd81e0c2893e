# SPDX-License-Identifier: Apache-2.0
"""The disk is full, read-only or fails: what was not acknowledged is not stored, what was is not lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any, Self

import pytest
from sqlalchemy import event, func, insert, select

from broker.log import LogUnavailableError
from broker.store import tables
from policies.log.entries import event_id, request_digest
from tests.logsim import LogSim, console
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from broker.log import LogTx
    from broker.store import Session


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path) as made:
        made.started(entries=4)
        yield made


@pytest.fixture
def either(tmp_path: Path, database: str) -> Iterator[LogSim]:
    with LogSim(tmp_path, **log_urls(database)) as made:
        made.started(entries=4)
        yield made


def before_each_statement(engine: Engine, fail: Callable[[Exception], None]) -> None:
    """Calls ``fail`` with what the driver would raise if the storage failed at this statement."""
    if engine.dialect.name == "postgresql":
        from psycopg import Cursor
        from psycopg.errors import IoError

        class Planted(Cursor):  # type: ignore[type-arg]
            def execute(self, *line: Any, **options: Any) -> Self:
                fail(IoError("planted"))
                return super().execute(*line, **options)

            def executemany(self, *line: Any, **options: Any) -> None:
                fail(IoError("planted"))
                super().executemany(*line, **options)

        @event.listens_for(engine, "checkout")
        def plant(connection: Any, *_: object) -> None:
            connection.cursor_factory = Planted

        return

    @event.listens_for(engine, "before_cursor_execute")
    def before(*_: object) -> None:
        failure = sqlite3.OperationalError("planted")
        failure.sqlite_errorcode = sqlite3.SQLITE_IOERR
        failure.sqlite_errorname = "SQLITE_IOERR"
        fail(failure)


def both(number: int) -> object:
    """A business row and its entry, in one unit of work."""

    def work(session: Session, log: LogTx) -> int:
        known = log.once(event_id(console(number)), request_digest(console(number)))
        if known is not None:
            return known
        session.execute(insert(tables.statement).values(digest=f"d{number}", bytes=b"x" * 60_000))
        return log.add(console(number))

    return work


def rows(sim: LogSim) -> tuple[int, int]:
    with sim.store.read() as session:
        statements = session.scalar(select(func.count()).select_from(tables.statement)) or 0
        entries = session.scalar(select(func.count()).select_from(tables.log_entry)) or 0
    return statements, entries


def pragma(engine: Engine, text: str) -> int:
    """Runs a pragma on the writer's own connection, outside a transaction."""
    connection = engine.raw_connection()
    try:
        row = connection.driver_connection.execute(f"PRAGMA {text}").fetchone()  # type: ignore[union-attr]
    finally:
        connection.close()
    return row[0] if row else 0


def limit_pages(engine: Engine, pages: int) -> None:
    """A full disk, as SQLite sees one: no page beyond these. 0 takes the limit away."""
    pragma(engine, f"max_page_count = {pragma(engine, 'page_count') + pages if pages else 2**30}")


@pytest.mark.parametrize(
    ("which", "pages"), [("main", 1), ("main", 3), ("main", 16), ("main", 90), ("private", 1)]
)
def test_a_full_disk_stores_nothing_and_says_so(sim: LogSim, which: str, pages: int) -> None:
    assert sim.writer is not None
    engine = getattr(sim.store, which)
    limit_pages(engine, pages)
    acknowledged, failed = 0, 0
    for number in range(10, 400):
        error = sim.writer.submit(both(number)).exception()  # type: ignore[arg-type]
        if error is None:
            acknowledged += 1
            continue
        failed = number
        assert isinstance(error, LogUnavailableError)
        assert (error.code, error.found) == ("log.unavailable", "SQLITE_FULL")
        break
    assert failed
    assert rows(sim) == (acknowledged, 4 + acknowledged)
    assert sim.writer.head().size == 4 + acknowledged
    sim.writer.receipts.receipt(0).verify(sim.writer.receipts.leaf(0), [sim.vkey])  # reads go on
    limit_pages(getattr(sim.store, which), 0)
    index, (receipt,) = sim.writer.submit(both(failed)).result()  # type: ignore[arg-type]
    assert (index, receipt.index) == (4 + acknowledged, 4 + acknowledged)
    sim.close()
    assert sim.open().frozen is None


def test_a_full_file_system_stores_nothing_and_says_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "iriai-test", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small file system cannot be mounted here; the test above fills SQLite instead")
    try:
        with LogSim(small) as sim:
            main, private, _ = sim.paths()
            sim.paths = lambda: (main, private, tmp_path / "signer.db")  # type: ignore[method-assign]
            writer = sim.started(entries=4)
            answers = [writer.submit(both(number)).exception() for number in range(10, 50)]  # type: ignore[arg-type]
            refused = [one for one in answers if one is not None]
            assert refused
            assert {type(one) for one in refused} == {LogUnavailableError}
            acknowledged = len(answers) - len(refused)
            assert rows(sim) == (acknowledged, 4 + acknowledged)
            assert writer.head().size == 4 + acknowledged
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True)


def test_a_disk_that_is_full_for_the_signer_loses_nothing(sim: LogSim) -> None:
    """Entries are committed but nobody was told; the same work again finds them."""
    assert sim.writer is not None
    pragma(sim.store.signer, "query_only = ON")
    error = sim.writer.submit(both(10)).exception()  # type: ignore[arg-type]
    assert isinstance(error, LogUnavailableError)
    assert sim.writer.head().size == 4
    pragma(sim.store.signer, "query_only = OFF")
    index, (receipt,) = sim.writer.submit(both(10)).result()  # type: ignore[arg-type]
    assert (index, receipt.index, sim.writer.head().size) == (4, 4, 5)
    assert rows(sim) == (1, 5)


def test_a_read_only_database_is_unavailable(sim: LogSim) -> None:
    assert sim.writer is not None
    pragma(sim.store.main, "query_only = ON")
    error = sim.writer.submit(both(10)).exception()  # type: ignore[arg-type]
    assert isinstance(error, LogUnavailableError)
    assert error.found == "SQLITE_READONLY"
    assert rows(sim) == (0, 4)


def test_a_locked_database_is_unavailable_and_works_again(sim: LogSim) -> None:
    assert sim.writer is not None
    pragma(sim.store.main, "busy_timeout = 20")
    other = sqlite3.connect(sim.paths()[0], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = sim.writer.submit(both(10)).exception()  # type: ignore[arg-type]
    assert isinstance(error, LogUnavailableError)
    assert error.found == "SQLITE_BUSY"
    other.execute("ROLLBACK")
    other.close()
    assert sim.writer.submit(both(10)).result()[0] == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["main", "private", "signer"])
def test_an_error_of_the_nth_statement_for_every_n_is_all_or_nothing(either: LogSim, which: str) -> None:
    """SQLite's own method: let the n-th call fail, for all n, and look whether anything is half done."""
    sim = either
    assert sim.writer is not None
    engine = getattr(sim.store, which)
    calls = {"left": 0}

    def fail(failure: Exception) -> None:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise failure

    before_each_statement(engine, fail)
    failures = 0
    for number in range(1, 60):
        calls["left"] = number
        before = sim.writer.head().size
        future = sim.writer.submit(both(1000 + number))  # type: ignore[arg-type]
        finished = calls["left"] > 0
        calls["left"] = 0
        if future.exception() is None:
            assert finished
            break
        failures += 1
        statements, entries = rows(sim)
        assert entries - 4 == statements
        assert sim.writer.head().size == before
        index, _ = sim.writer.submit(both(1000 + number)).result()  # type: ignore[arg-type]
        assert index + 1 == sim.writer.head().size
    assert failures >= 1
    assert sim.writer.frozen is None
    sim.close()
    assert sim.open().frozen is None
