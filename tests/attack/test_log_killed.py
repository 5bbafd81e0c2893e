# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments: nothing that was acknowledged is lost, indices stay contiguous, nothing is doubled."""

from __future__ import annotations

import os
import random  # noqa: TID251
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from policies.log.entries import check_entry, event_id
from policies.log.merkle import leaf_hash
from tests.logsim import LogSim, console

KILLS = 12
CHILD = Path(__file__).with_name("log_kill_child.py")
SEED = 20_26


def run_and_kill(folder: Path, first: int, after_s: float) -> list[str]:
    """Starts the child, lets it write for a while from its first answer on, kills it; every whole line it printed."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), str(first)],
        stdout=subprocess.PIPE,
        cwd=CHILD.parents[2],
        env={**os.environ, "PYTHONPATH": str(CHILD.parents[2])},
    ) as child:
        assert child.stdout is not None
        opened = child.stdout.readline().decode()
        assert opened.startswith("open "), opened
        time.sleep(after_s)
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().decode()
        assert child.wait(10) == -signal.SIGKILL
    return rest.split("\n")[:-1]  # what follows the last newline was not said


@pytest.mark.slow
def test_no_acknowledged_entry_is_lost_over_many_kills(tmp_path: Path) -> None:
    dice = random.Random(SEED)  # noqa: S311
    acknowledged: dict[int, tuple[int, int]] = {}
    first = 1
    for _ in range(KILLS):
        lines = run_and_kill(tmp_path, first, dice.uniform(0.0, 0.25))
        for line in lines:
            number, index, size = map(int, line.split())
            assert acknowledged.get(number, (index, 0))[0] == index  # sent again: the same place
            acknowledged[number] = (index, size)
        check(tmp_path, acknowledged)
        first = max(1, max(acknowledged, default=1) - 20)  # the last ones are sent again
    assert len(acknowledged) > KILLS


def check(folder: Path, acknowledged: dict[int, tuple[int, int]]) -> None:
    with LogSim(folder) as sim:
        writer = sim.open()
        assert writer.frozen is None
        head = writer.head()
        assert max((size for _, size in acknowledged.values()), default=0) <= head.size
        for number, (index, _) in acknowledged.items():
            for part in range(1 + number % 3):
                body = writer.receipts.body(index + part)
                assert check_entry(body).id == event_id(console(number * 10 + part))
        newest = max((index for index, _ in acknowledged.values()), default=0)
        writer.receipts.receipt(newest).verify(leaf_hash(writer.receipts.body(newest)), [sim.vkey])
    with closing(sqlite3.connect(folder / "broker.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        size, ids, last = database.execute(
            "SELECT count(*), count(DISTINCT event_id), max(idx) FROM log_entry"
        ).fetchone()
        assert (ids, last + 1) == (size, size)
        rows = {row[0] for row in database.execute("SELECT digest FROM statement")}
        events = {row[0] for row in database.execute("SELECT event_id FROM log_entry")}
    numbers = {int(row[1:]) for row in rows}
    for number in numbers:  # the row is there if and only if all its entries are
        assert all(event_id(console(number * 10 + part)) in events for part in range(1 + number % 3))
    assert sum(1 + number % 3 for number in numbers) + 1 == size
    assert set(acknowledged) <= numbers
