# SPDX-License-Identifier: Apache-2.0
"""How often a batch waits for a disk: three commits, whatever it holds; and what that is worth."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from policies.limits import COMMIT_BATCH
from tests.logsim import LogSim, console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.log import Writer


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path, threaded=True) as made:
        made.started()
        yield made


@pytest.fixture
def commits(sim: LogSim) -> Counter[str]:
    """Commits by database, from here on; one that wrote nothing counts as well."""
    found: Counter[str] = Counter()
    for name in ("main", "private", "signer"):
        event.listen(getattr(sim.store, name), "commit", lambda _connection, name=name: found.update([name]))
    return found


def held(writer: Writer, count: int) -> list[object]:
    """Units that wait behind one that does nothing, so that they all go into the next batch."""
    gate, entered = threading.Event(), threading.Event()

    def hold(_session: object, _log: object) -> None:
        entered.set()
        gate.wait(10)
        raise ZeroDivisionError  # rolled back: no commit of its own

    writer.submit(hold)
    assert entered.wait(10)
    made = [
        writer.submit(lambda _session, log, number=number: log.add(console(number)))
        for number in range(1, count + 1)
    ]
    gate.set()
    return [one.result(30) for one in made]


@pytest.mark.parametrize("count", [1, 2, COMMIT_BATCH])
def test_a_batch_of_any_size_is_three_commits(sim: LogSim, commits: Counter[str], count: int) -> None:
    assert sim.writer is not None
    answers = held(sim.writer, count)
    assert len(answers) == count
    assert commits == {"main": 1, "private": 1, "signer": 1}


def test_what_is_known_already_costs_no_signature(sim: LogSim, commits: Counter[str]) -> None:
    sim.add(console(1))
    commits.clear()
    assert sim.add(console(1)) == [1]
    assert commits == {"main": 1}  # nothing was written in it


def test_a_unit_that_fails_costs_nothing(sim: LogSim, commits: Counter[str]) -> None:
    assert sim.writer is not None
    refused = sim.writer.submit(lambda _session, _log: 1 // 0).exception()
    assert isinstance(refused, ZeroDivisionError)
    assert not commits
