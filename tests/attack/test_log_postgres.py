# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL fails, is restored or edited, or has two writers: nothing acknowledged is lost, nothing false is signed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text

from broker.log import FreezeReason, LogFrozenError, LogRolledBackError, LogUnavailableError
from broker.store import tables
from policies.log.entries import event_id, request_digest
from policies.log.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency
from tests import pgserver
from tests.logsim import LogSim, console
from tests.pgserver import BROKER, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.log import LogTx
    from broker.store import Session

pytestmark = pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable()))


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path, **pgserver.log_urls("postgresql")) as made:
        made.started(entries=6)
        yield made
    pgserver.shared().give_back()


def both(number: int, *, before: str | None = None, size: int = 2_000) -> object:
    """A business row and its entry, in one unit of work; first a statement of the server's."""

    def work(session: Session, log: LogTx) -> int:
        known = log.once(event_id(console(number)), request_digest(console(number)))
        if known is not None:
            return known
        row = {"digest": f"d{number}", "bytes": os.urandom(size)}
        session.execute(insert(tables.statement).values(row))
        if before is not None:
            session.execute(text(before))
        return log.add(console(number))

    return work


def rows(sim: LogSim) -> tuple[int, int]:
    with sim.store.read() as session:
        statements = session.scalar(select(func.count()).select_from(tables.statement)) or 0
        entries = session.scalar(select(func.count()).select_from(tables.log_entry)) or 0
    return statements, entries


def refused(sim: LogSim, work: object) -> LogUnavailableError:
    assert sim.writer is not None
    error = sim.writer.submit(work).exception()  # type: ignore[arg-type]
    assert isinstance(error, LogUnavailableError), error
    assert (error.code, error.http_status, error.exit_code) == ("log.unavailable", 503, 75)
    return error


def accepted(sim: LogSim, work: object) -> int:
    assert sim.writer is not None
    index, _ = sim.writer.submit(work).result()  # type: ignore[arg-type]
    return int(index)


# --- the storage fails ---


def test_a_connection_that_is_lost_within_a_batch_stores_nothing_and_the_writer_goes_on(sim: LogSim) -> None:
    lost = refused(sim, both(10, before="SELECT pg_terminate_backend(pg_backend_pid())"))
    assert lost.found == "AdminShutdown"
    assert rows(sim) == (0, 6)
    assert accepted(sim, both(10)) == 6
    assert rows(sim) == (1, 7)


def test_connections_that_are_lost_between_batches_are_not_noticed(sim: LogSim) -> None:
    pgserver.shared().sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{BROKER}'"  # noqa: S608  our own name
    )
    assert accepted(sim, both(10)) == 6
    assert rows(sim) == (1, 7)


def test_a_server_that_ends_and_comes_back_loses_nothing_that_was_acknowledged(sim: LogSim) -> None:
    server = pgserver.shared()
    assert accepted(sim, both(10)) == 6
    server.end(signal.SIGQUIT)  # as a power cut: no checkpoint, no goodbye
    try:
        for _ in range(2):
            assert refused(sim, both(11)).found == "OperationalError"
        assert sim.writer is not None
        assert sim.writer.head().size == 7  # proofs are in memory
    finally:
        server.start()
    assert rows(sim) == (1, 7)
    assert accepted(sim, both(11)) == 7
    assert accepted(sim, both(10)) == 6  # the answer of before
    sim.close()
    assert sim.open().frozen is None


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("40001", "SerializationFailure"),
        ("40P01", "DeadlockDetected"),
        ("53100", "DiskFull"),
        ("58030", "IoError"),
    ],
)
def test_what_the_server_says_of_itself_is_everybodys_and_stores_nothing(
    sim: LogSim, state: str, found: str
) -> None:
    planted = f"DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END $$"
    assert refused(sim, both(10, before=planted)).found == found
    assert rows(sim) == (0, 6)
    assert accepted(sim, both(10)) == 6


def test_a_broken_constraint_stays_the_units_own(sim: LogSim) -> None:
    assert sim.writer is not None
    error = sim.writer.submit(both(10, before="SELECT 1 / 0")).exception()  # type: ignore[arg-type]
    assert "division by zero" in str(error)
    assert not isinstance(error, LogUnavailableError)
    assert accepted(sim, both(11)) == 6
    assert rows(sim) == (1, 7)


def test_a_head_that_somebody_else_holds_is_unavailable_and_works_again(sim: LogSim) -> None:
    assert sim.main is not None
    server = pgserver.shared()
    server.sql(f"ALTER ROLE {BROKER} IN DATABASE {name_of(sim.main)} SET lock_timeout = '30ms'")
    sim.store.reset()
    engine = server.engine(sim.main)
    with engine.begin() as other:
        other.execute(text("SELECT 1 FROM log_head FOR UPDATE"))
        assert refused(sim, both(10)).found == "LockNotAvailable"
    engine.dispose()
    assert accepted(sim, both(10)) == 6
    server.sql(f"ALTER ROLE {BROKER} IN DATABASE {name_of(sim.main)} RESET ALL")


def test_a_server_that_became_read_only_is_unavailable(sim: LogSim) -> None:
    assert sim.main is not None
    server, name = pgserver.shared(), name_of(sim.main)
    server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    sim.store.reset()
    assert refused(sim, both(10)).found == "ReadOnlySqlTransaction"
    server.sql(f"ALTER DATABASE {name} RESET ALL")
    sim.store.reset()
    assert accepted(sim, both(10)) == 6


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    """The tables lie in a file system of 24 MiB."""
    server = pgserver.shared()
    small = server.folder / "small"
    small.mkdir()
    owner = f"uid={server.folder.stat().st_uid}"
    mount = ["/bin/mount", "-t", "tmpfs", "-o", f"size=24m,mode=700,{owner}", "iriai-test", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        small.rmdir()
        pytest.skip("a small file system cannot be mounted here; DiskFull is planted above instead")
    main, private = server.databases()
    try:
        server.sql(f"CREATE TABLESPACE small LOCATION '{small}'")
        server.sql(f"ALTER DATABASE {name_of(main)} SET TABLESPACE small")
        with LogSim(tmp_path, main=main, private=private) as sim:
            sim.started(entries=6)
            answers: list[BaseException | None] = []
            while len(answers) < 500 and sum(one is not None for one in answers) < 3:
                work = both(10 + len(answers), size=400_000)
                answers.append(sim.writer.submit(work).exception())  # type: ignore[union-attr,arg-type]
            failed = [one for one in answers if one is not None]
            assert {(type(one), one.found) for one in failed} == {(LogUnavailableError, "DiskFull")}  # type: ignore[attr-defined]
            acknowledged = len(answers) - len(failed)
            assert rows(sim) == (acknowledged, 6 + acknowledged)
            subprocess.run(["/bin/mount", "-o", "remount,size=64m", str(small)], check=True)
            assert accepted(sim, both(1000)) == 6 + acknowledged
    finally:
        server.sql(f"ALTER DATABASE {name_of(main)} SET TABLESPACE pg_default", "DROP TABLESPACE small")
        server.give_back()
        subprocess.run(["/bin/umount", str(small)], check=True)
        small.rmdir()


# --- somebody restores or edits it ---


def edit(sim: LogSim, sql: str, **values: object) -> None:
    """Changes a closed database as a superuser could, triggers and rights out of the way."""
    assert sim.main is not None
    engine = pgserver.shared().engine(sim.main)
    with engine.begin() as session:
        assert session.execute(text(sql), values).rowcount > 0
    engine.dispose()


def reopened_frozen(sim: LogSim, reason: FreezeReason) -> LogFrozenError:
    writer = sim.open()
    assert writer.frozen is not None
    assert writer.frozen.found.startswith(f"{reason.value}: ")
    error = writer.submit(lambda _session, log: log.add(console(99))).exception()
    assert isinstance(error, LogFrozenError)
    sim.close()
    return error


def test_a_restored_older_database_freezes_the_log(sim: LogSim) -> None:
    assert sim.main is not None
    server, live = pgserver.shared(), name_of(sim.main)
    sim.close()
    server.sql(f"CREATE DATABASE {live}_kept TEMPLATE {live} OWNER iriai_owner")  # a backup
    sim.open()
    sim.add(*(console(number) for number in range(10, 20)))
    sim.close()
    sim.main = server.url(f"{live}_kept")
    assert isinstance(reopened_frozen(sim, FreezeReason.ROLLED_BACK), LogRolledBackError)
    sim.main = server.url(live)  # the true one put back stays frozen
    reopened_frozen(sim, FreezeReason.ROLLED_BACK)


def test_an_empty_database_under_an_old_signer_is_rolled_back(sim: LogSim) -> None:
    sim.close()
    sim.main = pgserver.shared().databases()[0]
    reopened_frozen(sim, FreezeReason.ROLLED_BACK)
    assert sim.open().head() == (0, EMPTY_ROOT, "")


def test_a_lost_signer_freezes_a_log_with_entries(sim: LogSim) -> None:
    sim.close()
    sim.paths()[2].unlink()
    reopened_frozen(sim, FreezeReason.AMNESIA)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE log_entry SET body = body || ' '::bytea WHERE idx = 3",
        "DELETE FROM log_entry WHERE idx = 3",
        "DELETE FROM log_entry WHERE idx = 5",
        "UPDATE log_entry SET idx = 60 WHERE idx = 5",
        "UPDATE log_head SET frontier = '\\x00'::bytea || substring(frontier from 2)",
        "UPDATE log_tile SET data = '\\x00'::bytea || substring(data from 2)",
    ],
)
def test_what_a_superuser_edits_freezes_the_log(sim: LogSim, sql: str) -> None:
    sim.close()
    edit(sim, sql)
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_history_rewritten_in_every_table_is_never_signed(sim: LogSim) -> None:
    assert sim.writer is not None
    leaves = [sim.writer.receipts.leaf(index) for index in range(6)]
    sim.close()
    leaves[2] = leaf_hash(b"{}")
    forged = Frontier().append(*leaves).to_bytes()
    edit(
        sim, "UPDATE log_entry SET body = :body, leaf_hash = :leaf WHERE idx = 2", body=b"{}", leaf=leaves[2]
    )
    edit(sim, "UPDATE log_head SET frontier = :forged", forged=forged)
    edit(sim, "UPDATE log_tile SET data = :data WHERE level = 0 AND n = 0", data=b"".join(leaves))
    reopened_frozen(sim, FreezeReason.FORK)


def test_a_body_edited_between_commit_and_signature_is_never_signed(sim: LogSim) -> None:
    """The writer reads back what it signs: plant the edit through a trigger that fires inside its own commit."""
    assert sim.writer is not None
    assert sim.main is not None
    assert sim.private is not None
    before = sim.writer.head()
    sim.close()
    engine = pgserver.shared().engine(sim.main)
    with engine.begin() as session:
        session.execute(
            text(
                "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN new.body := '{}'::bytea; RETURN new; END $$"
            )
        )
        session.execute(
            text("CREATE TRIGGER planted BEFORE INSERT ON log_entry FOR EACH ROW EXECUTE FUNCTION planted()")
        )
    engine.dispose()
    pgserver.shared().spoilt((sim.main, sim.private))
    writer = sim.open()
    error = writer.submit(lambda _session, log: log.add(console(50))).exception()
    assert isinstance(error, LogFrozenError)
    assert error.found.startswith("corrupt")
    assert writer.head() == before


# --- two writers ---


def test_two_writers_on_one_database_make_one_history(sim: LogSim) -> None:
    """64 callers, half of them at each of two brokers with one signer: one order, no gap, every answer kept."""
    sim.close()
    brokers = [LogSim(sim.folder, main=sim.main, private=sim.private, threaded=True) for _ in range(2)]
    writers = [one.open() for one in brokers]
    answers: dict[int, int] = {}

    def call(number: int) -> None:
        for part in range(5):
            name = 100 + number * 5 + part
            while True:
                future = writers[number % 2].submit(lambda _session, log, name=name: log.add(console(name)))
                error = future.exception()
                if error is None:
                    answers[name], (receipt,) = future.result()
                    receipt.verify(writers[number % 2].receipts.leaf(receipt.index), [sim.vkey])
                    break
                assert isinstance(error, LogUnavailableError)  # send the same again

    callers = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    heads = [one.head() for one in writers]
    for one in brokers:
        one.close()
    writer = sim.open()
    assert writer.frozen is None
    assert sorted(answers.values()) == list(range(6, 6 + 320))
    for old in heads:
        proof = writer.consistency(old.size)
        new = writer.head()
        verify_consistency(size1=old.size, size2=new.size, root1=old.root, root2=new.root, proof=proof)
