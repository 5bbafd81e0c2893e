# SPDX-License-Identifier: Apache-2.0
"""Any number of processes of one node number one chain: two outboxes of the worker, and commands beside it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.errors import OutboxError
from client.outbox import Outbox
from client.outbox.rows import Proven, Seen
from client.settings import private_file
from policies.encoding import digest
from policies.identity import SigningKey
from policies.limits import OUTBOX_PENDING
from policies.log.envelope import ChainState, open_envelope
from policies.privacy.errors import BudgetUnknownError
from tests.learnsim import Budget, small_recipe
from tests.nodeprocess import run_process
from tests.nodesim import ORIGIN, HandClock, SeedEntropy

KEY = SigningKey.from_seed(b"n" * 32)
OWN = {"key": KEY, "origin": ORIGIN}
Opened = Callable[[bytes], Outbox]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    boxes: list[Outbox] = []

    def one(seed: bytes) -> Outbox:
        path = tmp_path / "outbox.db"
        boxes.append(Outbox(path, key=KEY, origin=ORIGIN, clock=HandClock(), entropy=SeedEntropy(seed)))
        return boxes[-1]

    yield one
    for box in boxes:
        box.close()


def seal(outbox: Outbox, number: int) -> int:
    body = {"subject": f"sha256:{number:064x}", "vote": "approve", "clause": None}
    with outbox.writing() as letters:
        return int(open_envelope(letters.seal("vote.cast", body=body), KEY.public)["seq"])


def numbers(outbox: Outbox) -> list[int]:
    return [one.seq for one in outbox.envelopes()]


# --- planted: what made a worker and its commands lose sight of each other ---


def test_a_log_that_was_removed_under_a_process_is_noticed_before_a_number_is_used(
    opened: Opened, tmp_path: Path
) -> None:
    worker = opened(b"w")
    assert seal(worker, 0) == 0
    os.close(os.open(tmp_path / "outbox.db", os.O_RDWR))  # gives up the locks of this process
    assert run_process(tmp_path, 1, **OWN)["sealed"] == [1]  # and this one removes the log
    with pytest.raises(OutboxError, match="other files"):
        seal(worker, 2)
    worker.close()
    again = opened(b"again")
    assert (numbers(again), seal(again, 2)) == ([0, 1], 2)


def test_a_database_that_was_restored_under_a_process_is_noticed(opened: Opened, tmp_path: Path) -> None:
    worker = opened(b"w")
    seal(worker, 0)
    copy = tmp_path / "backup"
    copy.write_bytes((tmp_path / "outbox.db").read_bytes())
    copy.replace(tmp_path / "outbox.db")
    with pytest.raises(OutboxError):
        seal(worker, 1)


_TRY = "import fcntl,sys; f=open(sys.argv[1],'rb+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"


def test_making_a_file_private_gives_up_no_lock_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    private_file(path)
    assert [one.name for one in tmp_path.iterdir()] == ["some.db"]
    with path.open("rb+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        path.chmod(0o644)
        private_file(path)
        assert path.stat().st_mode & 0o777 == 0o600
        tried = subprocess.run([sys.executable, "-c", _TRY, str(path)], capture_output=True, check=False)
        assert b"BlockingIOError" in tried.stderr


def test_a_file_that_another_process_made_first_is_kept(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "some.db"
    linked = os.link

    def late(source: str, target: Path) -> None:
        target.write_bytes(b"theirs")
        linked(source, target)

    monkeypatch.setattr(os, "link", late)
    private_file(path)
    assert path.read_bytes() == b"theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["some.db"]


# --- two outboxes of the worker, and processes beside them ---


@pytest.mark.parametrize("first", [0, 1], ids=["the older one writes first", "the newer one writes first"])
def test_a_worker_with_two_outboxes_and_commands_number_one_chain(
    opened: Opened, tmp_path: Path, first: int
) -> None:
    both = [opened(b"desk"), opened(b"tidy")]
    one, two = both[first], both[1 - first]
    assert seal(one, 0) == 0
    found = run_process(tmp_path, 1, **OWN)
    assert (found["waiting"], found["sealed"]) == ([0], [1])
    assert seal(two, 2) == 2
    assert run_process(tmp_path, **OWN)["waiting"] == [0, 1, 2]  # a command that only looks
    assert seal(one, 3) == 3
    assert run_process(tmp_path, 4, 5, **OWN)["sealed"] == [4, 5]
    assert seal(two, 6) == 6
    for box in (one, two, opened(b"third")):
        assert numbers(box) == list(range(7))
        assert [entry.seq for entry in box.pending()] == list(range(7))
    state = None
    for entry in one.envelopes():
        payload = open_envelope(entry.envelope, KEY.public)
        state = (state or ChainState(chain=payload["chain"])).accept(payload)


@pytest.mark.parametrize("first", [0, 1])
def test_a_receipt_that_one_outbox_stored_ends_the_backlog_of_the_other(opened: Opened, first: int) -> None:
    both = [opened(b"desk"), opened(b"tidy")]
    one, two = both[first], both[1 - first]
    for number in range(OUTBOX_PENDING + 1):
        seal(one, number)
    assert len(two.pending(OUTBOX_PENDING + 1)) == OUTBOX_PENDING + 1
    proven = {entry.env: Proven(index=entry.seq, leaf=b"l" * 32, text="{}") for entry in one.envelopes()}
    two.shown.learn((Seen(size=99, root=b"r" * 32, note="note"),), proven)
    assert one.pending() == ()
    assert one.shown.seen().size == 99


@pytest.mark.parametrize("first", [0, 1])
def test_no_reader_holds_an_old_moment(opened: Opened, first: int) -> None:
    both = [opened(b"desk"), opened(b"tidy")]
    reader, writer = both[first], both[1 - first]
    seal(writer, 0)
    with writer.writing() as letters:
        letters.note(kind="descriptor", size_bytes=1, digest=digest(b"x"))
    kept = (
        reader.pending(),
        reader.find("none"),
        reader.by_env(writer.envelopes()[0].env),
        reader.left.sent(),
        reader.left.decisions(),
        reader.left.rounds_elsewhere(("c",), "r", "run_x"),
        reader.charged("lin"),
        reader.left.sent_bytes(),
        reader.shown.seen(),
        reader.shown.seen_at(1),
        reader.evidence(),
        reader.rotation,
    )
    assert len(kept) == 12
    reader.check_open()
    reader.check_settled()
    busy, *_ = writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    seal(writer, 1)
    assert numbers(reader) == [0, 1]


# --- the same for the budget ---


def test_a_ledger_that_grows_while_it_is_read_is_one_ledger(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "budget" / "lin_parts.db", small_recipe())
    with budget.create() as writer, budget.open() as reader:
        writer._db.execute("PRAGMA busy_timeout=0")
        tried: list[str] = []

        def between(statement: str) -> None:
            if "FROM head" in statement and not tried:
                tried.append("reserve")
                try:
                    budget.reserve(writer)
                except BudgetUnknownError as error:  # it has to wait for the reader
                    tried.append(error.found)

        reader._db.set_trace_callback(between)
        empty = writer.state.head
        assert reader.figures().ledger_head == empty
        assert [one.rpartition(": ")[2] for one in tried] == ["reserve", "database is locked"]
        budget.reserve(writer)
        assert reader.is_reserved("run_a")
