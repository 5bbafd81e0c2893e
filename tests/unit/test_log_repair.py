# SPDX-License-Identifier: Apache-2.0
"""A frozen log gets back what was signed: from a bundle that fits, after two operators said so, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, update

from broker.log import FreezeReason, export
from broker.log.approvals import approve, approvers
from broker.log.errors import LogApprovalError, LogRepairError
from broker.log.repair import Repair
from broker.log.signer import Signer
from broker.membership.records import key_added
from broker.store import tables
from policies.identity import SigningKey, key_text
from tests import pgserver
from tests.logsim import ORIGIN, LogSim, console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ANN, BOB, EVE = (SigningKey.from_seed(seed * 32) for seed in (b"a", b"b", b"e"))
NAMES = {ANN.public: "ann", BOB.public: "bob"}
FILES = ("broker.db", "private.db")
RESTORED = (tables.log_entry, tables.log_envelope, tables.log_tile, tables.log_head)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    """A log whose backup has 5 entries, and which went on to 305 with a member's envelopes."""
    (tmp_path / "live").mkdir()
    with LogSim(tmp_path / "live") as made:
        made.started(entries=5)
        made.close()
        shutil.copytree(made.folder, tmp_path / "backup")
        made.open()
        member = made.member("kita")
        made.add(key_added("node", "ed25519", member.key.public, shown=key_text(member.key.public)))
        for rnd in range(1, 4):
            event = member.submission(rnd=rnd)
            made.add(event)
            member.advance(event)
        made.add(*(console(number) for number in range(10, 306)))
        yield made


def bundle(sim: LogSim, name: str = "kept.zip") -> Path:
    path = sim.folder.parent / name
    assert sim.writer is not None
    export(sim.store, sim.writer, path, policy="policy", software="0.1.0")
    return path


def restore(sim: LogSim, *files: str) -> None:
    """Puts the backup's files back; the next start finds it."""
    sim.close()
    for name in files or FILES:
        shutil.copy(sim.folder.parent / "backup" / name, sim.folder / name)
    sim.open()


def rows(sim: LogSim) -> list[list[tuple[object, ...]]]:
    with sim.store.read() as session:
        found = [
            [tuple(row) for row in session.execute(select(one).order_by(*one.primary_key))]
            for one in RESTORED
        ]
    with sim.store.read_private() as session:
        private = select(tables.log_private).order_by(*tables.log_private.primary_key)
        return [*found, [tuple(row) for row in session.execute(private)]]


def signer(sim: LogSim) -> Signer:
    return Signer(sim.store.signer, origin=ORIGIN, key=sim.key, clock=sim.clock)


def plan(sim: LogSim, path: Path) -> Repair:
    return Repair.plan(sim.store, signer(sim), ORIGIN, path)


def repaired(sim: LogSim, path: Path) -> Repair:
    found = plan(sim, path)
    found.apply(sim.store, signer(sim))
    sim.close()
    assert sim.open().frozen is None
    return found


def test_a_restored_backup_gets_back_everything_that_was_signed(sim: LogSim) -> None:
    assert sim.writer is not None
    kept, before, head = bundle(sim), rows(sim), sim.writer.head()
    restore(sim)
    assert sim.writer.frozen is not None
    found = repaired(sim, kept)
    assert (found.reason, found.start, found.size) == (FreezeReason.ROLLED_BACK, 5, 305)
    assert found.lost == {"console.action": 296, "key.added": 1, "submission.received": 3}
    assert rows(sim) == before  # bodies, envelopes, tiles, head and salts, to the byte
    assert sim.writer.head() == head
    member = sim.member("kita")
    assert sim.add(console(305)) == [304]  # sent again: found
    assert sim.add(console(400)) == [305]
    assert member.seen.size == 305


def test_a_lost_main_database_is_made_again_from_the_bundle(sim: LogSim) -> None:
    assert sim.writer is not None
    kept, before = bundle(sim), rows(sim)
    sim.close()
    for name in FILES:
        (sim.folder / name).unlink()
    assert sim.open().frozen is not None
    assert repaired(sim, kept).start == 0
    assert rows(sim) == before


@pytest.mark.parametrize("sql", ["UPDATE log_tile SET data = zeroblob(32)", "UPDATE log_head SET size = 9"])
def test_what_is_derived_is_made_again(sim: LogSim, sql: str) -> None:
    kept, before = bundle(sim), rows(sim)
    sim.close()
    with closing(sqlite3.connect(sim.paths()[0])) as database, database:
        database.execute(sql)
    assert sim.open().frozen is not None
    found = repaired(sim, kept)
    assert (found.reason, found.start, found.size) == (FreezeReason.CORRUPT, 305, 305)
    assert not found.lost
    assert rows(sim) == before


def test_a_log_that_forgot_its_end_gets_it_back_up_to_the_note_that_proved_it(sim: LogSim) -> None:
    assert sim.writer is not None
    early = bundle(sim, "early.zip")
    sim.add(console(500))
    kept, before, head = bundle(sim), rows(sim), sim.writer.head()
    restore(sim, *FILES, "signer.db")
    assert sim.writer.frozen is None
    assert sim.writer.amnesia(head.note)
    with pytest.raises(LogRepairError, match="306 entries, which were signed"):
        plan(sim, early)
    assert repaired(sim, kept).reason is FreezeReason.AMNESIA
    assert (rows(sim), sim.writer.head()) == (before, head)


def test_entries_that_were_written_and_not_signed_stay(sim: LogSim) -> None:
    kept = bundle(sim)
    sim.add(console(500))
    sim.close()
    with closing(sqlite3.connect(sim.paths()[0])) as database, database:
        database.execute("UPDATE log_tile SET data = zeroblob(32) WHERE level = 1")
    sim.open()
    repaired(sim, kept)
    assert sim.writer is not None
    assert sim.writer.head().size == 306


def test_a_crash_before_the_signer_is_open_is_repaired_by_repeating(sim: LogSim) -> None:
    kept, before = bundle(sim), rows(sim)
    restore(sim)
    found = plan(sim, kept)
    with pytest.raises(ZeroDivisionError):
        found.apply(sim.store, _Broken())  # type: ignore[arg-type]
    sim.close()
    assert sim.open().frozen is not None
    repaired(sim, kept)
    assert rows(sim) == before


class _Broken:
    """A signer that is gone once the entries are written."""

    known_vkeys = ()

    def thaw(self, *_: object) -> bool:
        raise ZeroDivisionError


def changed(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A bundle with other files."""
    out = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return out


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("tile/entries/000", lambda data: data.replace(b'"done"', b'"fail"', 1)),
        ("tile/entries/000", lambda data: data[:-1]),
        ("tile/entries/001.p/49", lambda _: None),
        ("checkpoint", lambda data: data.replace(b"305", b"304")),
        ("checkpoint", lambda _: None),
        ("checkpoint", lambda _: b"\xff"),
        ("BUNDLE", lambda data: data.replace(b'"size":305', b'"size":-1')),
        ("BUNDLE", lambda data: data.replace(b'"auditor"', b'"member"')),
        ("BUNDLE", lambda data: data.replace(b"pool.example/log/test", b"pool.example/log/tesu")),
        ("BUNDLE", lambda _: b"[]"),
        ("envelopes/000.jsonl", lambda _: None),
        ("envelopes/000.jsonl", lambda _: b'{"index":5}\n'),
    ],
)
def test_a_changed_bundle_repairs_nothing(
    sim: LogSim, part: str, change: Callable[[bytes], bytes | None]
) -> None:
    kept = bundle(sim)
    restore(sim)
    before = rows(sim)
    forged = changed(kept, lambda name, data: change(data) if name == part else data)
    with pytest.raises(LogRepairError) as refused:
        repaired(sim, forged)
    assert (refused.value.code, refused.value.exit_code) == ("log.repair", 3)
    assert rows(sim) == before
    assert sim.writer is not None
    assert sim.writer.frozen is not None
    repaired(sim, kept)


def test_no_bundle_at_all_is_refused(sim: LogSim, tmp_path: Path) -> None:
    restore(sim)
    (tmp_path / "x").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(LogRepairError):
        plan(sim, tmp_path / "x")


def test_a_stored_entry_that_differs_is_never_changed(sim: LogSim) -> None:
    kept = bundle(sim)
    sim.close()
    with closing(sqlite3.connect(sim.paths()[0])) as database, database:
        database.execute("DROP TRIGGER log_entry_no_update")
        database.execute("UPDATE log_entry SET body = CAST(body || ' ' AS BLOB) WHERE idx = 7")
    sim.open()
    with pytest.raises(LogRepairError, match="entry 7"):
        plan(sim, kept)
    restore(sim)
    repaired(sim, kept)


def test_an_older_bundle_and_an_open_log_are_refused(sim: LogSim) -> None:
    kept = bundle(sim)
    with pytest.raises(LogRepairError, match="a frozen log"):
        plan(sim, kept)
    sim.add(console(500))
    restore(sim)
    with pytest.raises(LogRepairError, match="306 entries, which were signed"):
        plan(sim, kept)


def test_another_history_under_the_same_key_is_no_repair(sim: LogSim, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with LogSim(tmp_path / "other") as other:
        other.started(entries=400)
        foreign = bundle(other, "foreign.zip")
    restore(sim)
    with pytest.raises(LogRepairError, match=r"entry|root"):
        plan(sim, foreign)


class TestApprovals:
    """Two different operators, exactly this document."""

    @pytest.fixture
    def subject(self, sim: LogSim) -> bytes:
        kept = bundle(sim)
        restore(sim)
        return plan(sim, kept).subject()

    def test_two_operators_are_enough(self, subject: bytes) -> None:
        signed = [approve(key, subject) for key in (BOB, ANN)]
        assert approvers(subject, signed, NAMES.get) == ("ann", "bob")

    @pytest.mark.parametrize("keys", [(), (ANN,), (ANN, ANN), (ANN, EVE)])
    def test_anything_less_is_refused(self, subject: bytes, keys: tuple[SigningKey, ...]) -> None:
        with pytest.raises(LogApprovalError) as refused:
            approvers(subject, [approve(key, subject) for key in keys], NAMES.get)
        assert refused.value.exit_code == 7

    def test_an_approval_of_something_else_is_refused(self, subject: bytes) -> None:
        other = subject.replace(b'"from":5', b'"from":6')
        with pytest.raises(LogApprovalError, match="approvals of"):
            approvers(subject, [approve(ANN, subject), approve(BOB, other)], NAMES.get)

    def test_a_borrowed_signature_is_refused(self, subject: bytes) -> None:
        forged = approve(EVE, subject).replace(EVE.public.hex().encode(), BOB.public.hex().encode())
        with pytest.raises(LogApprovalError, match="does not verify"):
            approvers(subject, [approve(ANN, subject), forged], NAMES.get)

    @pytest.mark.parametrize(
        "data", [b"", b"{}", b"[1]", b'{"key":"ed25519:00","approval":{}}', b"\xff", b"x" * 200_000]
    )
    def test_no_approval_file_is_refused(self, subject: bytes, data: bytes) -> None:
        with pytest.raises(LogApprovalError):
            approvers(subject, [data], NAMES.get)

    @pytest.mark.parametrize(
        "document", [b"", b"{}", b'{"action":"pay"}', b'{ "action":"log.repair"}', b"\xff"]
    )
    def test_only_such_documents_are_signed(self, document: bytes) -> None:
        with pytest.raises(LogApprovalError):
            approve(ANN, document)


def test_a_database_of_postgresql_that_lost_its_end_is_repaired(tmp_path: Path) -> None:
    if (reason := pgserver.unavailable()) is not None:
        pytest.skip(reason)
    (tmp_path / "live").mkdir()
    with LogSim(tmp_path / "live", **pgserver.log_urls("postgresql")) as sim:
        sim.started(entries=300)
        kept, before = bundle(sim), rows(sim)
        sim.close()
        assert sim.main is not None
        engine = pgserver.shared().engine(sim.main)
        with engine.begin() as session:
            session.execute(delete(tables.log_entry).where(tables.log_entry.c.idx >= 40))
            session.execute(delete(tables.log_tile))
            session.execute(update(tables.log_head).values(size=40))
        engine.dispose()
        assert sim.open().frozen is not None
        found = repaired(sim, kept)
        assert (found.start, found.size, rows(sim)) == (40, 300, before)
        assert sim.add(console(900)) == [300]
