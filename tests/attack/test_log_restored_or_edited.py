# SPDX-License-Identifier: Apache-2.0
"""Somebody changes or restores the database files behind the broker's back: nothing more is ever signed."""

from __future__ import annotations

import random  # noqa: TID251
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from broker.log import FreezeReason, LogFrozenError, LogRolledBackError, NotInLogError
from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, checkpoint_text, sign_checkpoint
from policies.log.errors import NoteError, ProofError, QuorumError
from policies.log.merkle import EMPTY_ROOT, Frontier, leaf_hash
from tests.logsim import LogSim, console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    (tmp_path / "live").mkdir()
    with LogSim(tmp_path / "live") as made:
        made.started(entries=6)
        yield made


def keep(sim: LogSim, name: str = "kept") -> Path:
    """A copy of the closed databases."""
    sim.close()
    kept = sim.folder.parent / name
    shutil.copytree(sim.folder, kept)
    sim.open()
    return kept


def edit(sim: LogSim, sql: str, *values: object, file: int = 0) -> None:
    """Changes a closed database as its operator could, triggers out of the way."""
    with closing(sqlite3.connect(sim.paths()[file])) as connection, connection:
        for table in ("log_entry", "log_envelope"):
            for verb in ("update", "delete"):
                connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        assert connection.execute(sql, values).rowcount > 0


def reopened_frozen(sim: LogSim, reason: FreezeReason) -> LogFrozenError:
    """Opens, sees the freeze, and sees that it holds for every change and after another start."""
    for _ in range(2):
        writer = sim.open()
        assert writer.frozen is not None
        assert writer.frozen.found.startswith(f"{reason.value}: ")
        refused = writer.submit(lambda _session, log: log.add(console(99))).exception()
        assert isinstance(refused, LogFrozenError)
        assert (refused.http_status, refused.exit_code) == (503, 7)
        sim.close()
    return refused


def test_a_restored_older_database_freezes_the_log_and_reads_go_on(sim: LogSim) -> None:
    kept = keep(sim)
    assert sim.writer is not None
    older = sim.writer.head()
    sim.add(*(console(number) for number in range(10, 20)))
    sim.close()
    for name in ("broker.db", "private.db"):
        shutil.copy(kept / name, sim.folder / name)
    refused = reopened_frozen(sim, FreezeReason.ROLLED_BACK)
    assert isinstance(refused, LogRolledBackError)
    assert (refused.code, LogFrozenError.code) == ("log.rolled-back", "log.frozen")
    writer = sim.open()
    shown = writer.head()
    assert shown.size <= older.size
    for index in range(shown.size):
        writer.receipts.receipt(index).verify(leaf_hash(writer.receipts.body(index)), [sim.vkey])
    with pytest.raises(NotInLogError):
        writer.receipts.receipt(older.size)


def test_everything_restored_but_the_signer_is_found_at_any_age(sim: LogSim) -> None:
    copies = []
    for number in range(3):
        copies.append(keep(sim, f"kept{number}"))
        sim.add(console(100 + number))
    sim.close()
    for copy in copies:
        shutil.copy(copy / "broker.db", sim.folder / "broker.db")
        opened = sim.open()
        assert isinstance(opened.frozen, LogRolledBackError)
        sim.close()


def test_an_empty_database_under_an_old_signer_is_rolled_back(sim: LogSim) -> None:
    sim.close()
    sim.paths()[0].unlink()
    reopened_frozen(sim, FreezeReason.ROLLED_BACK)
    assert sim.open().head() == (0, EMPTY_ROOT, "")


def test_a_lost_signer_freezes_a_log_with_entries(sim: LogSim) -> None:
    sim.close()
    sim.paths()[2].unlink()
    reopened_frozen(sim, FreezeReason.AMNESIA)


def test_the_true_database_put_back_stays_frozen(sim: LogSim) -> None:
    kept = keep(sim)
    sim.add(console(50))
    newest = keep(sim, "newest")
    sim.close()
    shutil.copy(kept / "broker.db", sim.folder / "broker.db")
    reopened_frozen(sim, FreezeReason.ROLLED_BACK)
    shutil.copy(newest / "broker.db", sim.folder / "broker.db")
    reopened_frozen(sim, FreezeReason.ROLLED_BACK)


@pytest.mark.parametrize("index", [0, 3, 5])
def test_an_edited_body_freezes_the_log(sim: LogSim, index: int) -> None:
    sim.close()
    edit(sim, "UPDATE log_entry SET body = CAST(body || ' ' AS BLOB) WHERE idx = ?", index)
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_body_edited_with_its_leaf_hash_freezes_the_log(sim: LogSim) -> None:
    sim.close()
    edit(sim, "UPDATE log_entry SET body = ?, leaf_hash = ? WHERE idx = 2", b"{}", leaf_hash(b"{}"))
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_history_rewritten_in_every_table_is_a_fork(sim: LogSim) -> None:
    assert sim.writer is not None
    leaves = [sim.writer.receipts.leaf(index) for index in range(6)]
    sim.close()
    leaves[2] = leaf_hash(b"{}")
    forged = Frontier().append(*leaves)
    edit(sim, "UPDATE log_entry SET body = ?, leaf_hash = ? WHERE idx = 2", b"{}", leaves[2])
    edit(sim, "UPDATE log_head SET frontier = ?", forged.to_bytes())
    edit(sim, "UPDATE log_tile SET data = ? WHERE level = 0", b"".join(leaves))
    reopened_frozen(sim, FreezeReason.FORK)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM log_entry WHERE idx = 3",
        "DELETE FROM log_entry WHERE idx = 5",
        "UPDATE log_entry SET idx = 60 WHERE idx = 5",
        "UPDATE log_head SET frontier = zeroblob(64)",
        "UPDATE log_head SET size = 5, frontier = (SELECT substr(data, 1, 0) FROM log_tile)",
        "DELETE FROM log_head",
        "UPDATE log_tile SET data = zeroblob(192)",
        "UPDATE log_tile SET data = substr(data, 1, 160)",
        "UPDATE log_tile SET data = CAST(data || zeroblob(32) AS BLOB)",
        "INSERT INTO log_tile VALUES (1, 0, zeroblob(32))",
        "UPDATE log_tile SET level = 1",
    ],
)
def test_a_missing_entry_or_another_head_freezes_the_log(sim: LogSim, sql: str) -> None:
    sim.close()
    edit(sim, sql)
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_body_edited_between_commit_and_signature_is_never_signed(sim: LogSim) -> None:
    """The writer reads back what it signs: plant the edit through a trigger that fires inside its own commit."""
    assert sim.writer is not None
    before = sim.writer.head()
    sim.close()
    with closing(sqlite3.connect(sim.paths()[0])) as connection, connection:
        connection.execute("DROP TRIGGER log_entry_no_update")
        connection.execute(
            "CREATE TRIGGER planted AFTER INSERT ON log_entry "
            "BEGIN UPDATE log_entry SET body = x'7b7d' WHERE idx = new.idx; END"
        )
    writer = sim.open()
    refused = writer.submit(lambda _session, log: log.add(console(50))).exception()
    assert isinstance(refused, LogFrozenError)
    assert refused.found.startswith("corrupt")
    assert writer.head() == before
    sim.close()
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_tile_edited_between_commit_and_signature_is_never_signed(sim: LogSim) -> None:
    assert sim.writer is not None
    before = sim.writer.head()
    with closing(sqlite3.connect(sim.paths()[0])) as connection, connection:
        for verb in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TRIGGER planted_{verb} AFTER {verb} ON log_tile WHEN new.data != zeroblob(224) "  # noqa: S608
                "BEGIN UPDATE log_tile SET data = zeroblob(224) WHERE n = new.n AND level = new.level; END"
            )
    refused = sim.writer.submit(lambda _session, log: log.add(console(50))).exception()
    assert isinstance(refused, LogFrozenError)
    assert refused.found == "corrupt: tile 0/0 is not the one of the bodies"
    assert sim.writer.head() == before
    sim.close()
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_a_bit_flipped_in_any_tile_is_found_when_the_log_opens(sim: LogSim) -> None:
    sim.add(*(console(number) for number in range(100, 700)))
    kept = keep(sim)
    sim.close()
    dice = random.Random(11)  # noqa: S311
    with closing(sqlite3.connect(kept / "broker.db")) as connection:
        rows = connection.execute("SELECT level, n, data FROM log_tile").fetchall()
    assert {(level, n) for level, n, _ in rows} == {(0, 0), (0, 1), (0, 2), (1, 0)}
    for level, n, data in [*rows, *dice.choices(rows, k=8)]:
        flipped = bytearray(data)
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        for name in ("broker.db", "signer.db", "private.db"):
            shutil.copy(kept / name, sim.folder / name)
        edit(sim, "UPDATE log_tile SET data = ? WHERE level = ? AND n = ?", bytes(flipped), level, n)
        opened = sim.open()
        assert opened.frozen is not None
        assert opened.frozen.found == f"corrupt: tile {level}/{n} is not the one of the bodies"
        sim.close()


def test_an_entry_behind_the_head_freezes_the_log(sim: LogSim) -> None:
    sim.close()
    columns = "event_id, req_sha256, leaf_hash, body, type, scope, run, round, actor, ts_ms"
    changed = columns.replace("event_id", "zeroblob(16)", 1)
    edit(sim, f"INSERT INTO log_entry (idx, {columns}) SELECT 6, {changed} FROM log_entry WHERE idx = 5")  # noqa: S608
    reopened_frozen(sim, FreezeReason.CORRUPT)


def test_random_bit_flips_in_stored_bodies_are_all_found(sim: LogSim) -> None:
    dice = random.Random(7)  # noqa: S311
    kept = keep(sim)
    sim.close()
    with closing(sqlite3.connect(kept / "broker.db")) as connection:
        bodies = [row[0] for row in connection.execute("SELECT body FROM log_entry ORDER BY idx")]
    from broker.log.recovery import open_log
    from broker.log.signer import Signer
    from broker.store import Store

    for _ in range(40):
        index = dice.randrange(len(bodies))
        flipped = bytearray(bodies[index])
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        for name in ("broker.db", "signer.db", "private.db"):
            shutil.copy(kept / name, sim.folder / name)
        edit(sim, "UPDATE log_entry SET body = ? WHERE idx = ?", bytes(flipped), index)
        store = Store.open(*sim.paths())
        opened = open_log(
            store, Signer(store.signer, origin="pool.example/log/test", key=sim.key, clock=sim.clock)
        )
        store.close()
        assert opened.freeze is not None
        assert opened.freeze.reason is FreezeReason.CORRUPT


def test_another_signer_that_signed_another_history_freezes_this_one(sim: LogSim) -> None:
    """Two brokers on two copies of the main database and one signer: the second to sign stops, and says nothing false."""
    kept = keep(sim)
    sim.close()
    other = LogSim(kept)
    shutil.copy(sim.paths()[2], kept / "signer.db")
    sim.open()
    assert sim.writer is not None
    sim.add(console(70))
    sim.close()
    shutil.copy(sim.paths()[2], kept / "signer.db")  # what the signer remembers now
    with other:
        writer = other.open()
        assert isinstance(writer.frozen, LogRolledBackError)


def test_a_racing_signer_with_another_history_is_a_freeze_not_a_signature(sim: LogSim) -> None:
    kept = keep(sim)
    other = LogSim(kept)
    other_main, other_private, _ = other.paths()
    other.paths = lambda: (other_main, other_private, sim.paths()[2])  # type: ignore[method-assign]
    with other:
        writer = other.open()
        assert writer.frozen is None
        sim.add(console(70))
        refused = writer.submit(lambda _session, log: log.add(console(71))).exception()
        assert isinstance(refused, LogFrozenError)
        assert writer.head().size == 6
    assert sim.writer is not None
    assert sim.writer.head().size == 7


class TestANoteThatSomebodyShows:
    """Everything was restored, the signer as well: only who kept a note of it can tell."""

    @pytest.fixture
    def restored(self, sim: LogSim) -> tuple[LogSim, str]:
        """A log that forgot its last entries, and the note that a witness kept."""
        kept = keep(sim)
        assert sim.writer is not None
        sim.add(*(console(number) for number in range(10, 14)))
        note = sim.writer.head().note
        sim.close()
        for name in ("broker.db", "private.db", "signer.db"):
            shutil.copy(kept / name, sim.folder / name)
        assert sim.open().frozen is None  # nothing of its own tells it
        return sim, note

    def test_a_larger_one_freezes_the_log(self, restored: tuple[LogSim, str]) -> None:
        sim, note = restored
        assert sim.writer is not None
        assert sim.writer.amnesia(note)
        assert sim.writer.frozen is not None
        assert sim.writer.frozen.found.startswith("amnesia: a note of size 10 root ")
        assert sim.writer.amnesia(note)  # told again
        sim.close()
        reopened_frozen(sim, FreezeReason.AMNESIA)

    def test_one_of_another_history_freezes_the_log(self, restored: tuple[LogSim, str]) -> None:
        sim, note = restored
        assert sim.writer is not None
        sim.add(*(console(number) for number in range(20, 30)))  # went on as if nothing was
        assert sim.writer.head().size > 10
        assert sim.writer.amnesia(note)
        refused = sim.writer.submit(lambda _session, log: log.add(console(99))).exception()
        assert isinstance(refused, LogFrozenError)

    def test_a_true_one_changes_nothing(self, sim: LogSim) -> None:
        assert sim.writer is not None
        notes = [sim.writer.head().note]
        for number in range(10, 14):
            sim.add(console(number))
            notes.append(sim.writer.head().note)
        assert not any(sim.writer.amnesia(note) for note in notes)
        assert sim.writer.frozen is None

    def test_a_forged_one_is_refused_and_changes_nothing(self, sim: LogSim) -> None:
        assert sim.writer is not None
        text = checkpoint_text(Checkpoint("pool.example/log/test", 99, b"r" * 32))
        stranger = SigningKey.from_seed(b"S" * 32)
        forged = sign_checkpoint(stranger, Checkpoint("pool.example/log/test", 99, b"r" * 32))
        _, _, signature = sim.writer.head().note.partition("\n\n")
        for note, kind in ((forged, QuorumError), (f"{text}\n{signature}", NoteError), ("x", NoteError)):
            with pytest.raises(kind):
                sim.writer.amnesia(note)
        assert sim.writer.frozen is None

    def test_another_thread_may_show_one_while_the_log_is_busy(self, tmp_path: Path) -> None:
        (tmp_path / "busy").mkdir()
        with LogSim(tmp_path / "busy", threaded=True) as sim:
            writer = sim.started()
            note = writer.head().note
            futures = [
                writer.submit(lambda _session, log, number=number: log.add(console(number)))
                for number in range(1, 400)
            ]
            while not futures[-1].done():
                assert not writer.amnesia(note)
                note = writer.head().note
            assert [one.result()[0] for one in futures] == list(range(1, 400))


def test_proofs_beyond_the_signed_head_are_refused(sim: LogSim) -> None:
    assert sim.writer is not None
    for call in (
        lambda: sim.writer.proof(0, 7),
        lambda: sim.writer.consistency(1, 7),
        lambda: sim.writer.proof(6),
    ):
        with pytest.raises(ProofError):
            call()
