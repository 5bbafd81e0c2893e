# SPDX-License-Identifier: Apache-2.0
"""What group commit gains, and what the batch of one round costs. Ratios are asserted, times are printed (-s)."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from broker.store import tables
from policies.log.envelope import Seen
from tests.logsim import LogSim, console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.log import LogTx
    from broker.store import Session
    from policies.log.entries import Event

BATCH = 256
SINGLES = 60
ROUNDS = 30


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path, threaded=True) as made:
        made.started()
        yield made


def with_row(number: int) -> object:
    def work(session: Session, log: LogTx) -> int:
        session.execute(insert(tables.operator).values(name=f"op{number}", key="k", state="active"))
        return log.add(console(number))

    return work


@pytest.mark.slow
def test_a_batch_is_several_times_faster_than_its_entries_one_by_one(sim: LogSim) -> None:
    assert sim.writer is not None
    submit = sim.writer.submit
    start = time.perf_counter()
    for number in range(SINGLES):
        submit(with_row(number)).result()  # type: ignore[arg-type]
    single_s = (time.perf_counter() - start) / SINGLES
    per_entry = []
    for rep in range(4):
        start = time.perf_counter()
        futures = [submit(with_row(1000 * (rep + 1) + number)) for number in range(BATCH)]  # type: ignore[arg-type]
        for future in futures:
            future.result()
        per_entry.append((time.perf_counter() - start) / BATCH)
    batch_s = min(per_entry)
    sys.stdout.write(
        f"\nsingle {single_s * 1e3:.2f} ms, in batches {batch_s * 1e3:.3f} ms, ratio {single_s / batch_s:.1f}\n"
    )
    assert single_s / batch_s > 2


@pytest.mark.slow
def test_the_batch_of_one_round(sim: LogSim) -> None:
    """25 entries, 12 of them with envelopes of four members, 9 and more business rows."""
    assert sim.writer is not None
    writer, members = sim.writer, [sim.member(f"m{number}") for number in range(4)]

    def unit(events: list[Event], number: int) -> object:
        def work(session: Session, log: LogTx) -> None:
            for event in events:
                log.add(event)
            row = {"run_id": "r", "attempt": 1, "plan_digest": "p", "steps": 1, "round": number}
            session.execute(insert(tables.ledger_mirror), [row | {"party": one.name} for one in members])
            blob = {"contract": "c", "point": "node", "bytes": b"x" * 400, "request": b"y" * 400}
            session.execute(
                insert(tables.decision),
                [
                    blob | {"digest": f"{number}/{part}", "salt": b"s" * 16, "state": b"{}"}
                    for part in range(5)
                ],
            )

        return work

    times = []
    for number in range(ROUNDS):
        events = [console(number * 100 + part) for part in range(13)]
        for member in members:
            head = writer.head()
            member.seen = Seen(head.size, head.root)
            for part in range(3):
                events.append(member.submission(rnd=number * 3 + part))
                member.advance(events[-1])
        start = time.perf_counter()
        _, receipts = writer.submit(unit(events, number)).result()  # type: ignore[arg-type]
        times.append((time.perf_counter() - start) * 1e3)
        assert len(receipts) == 25
    sys.stdout.write(f"\nround batch: median {statistics.median(times):.1f} ms, best {min(times):.1f} ms\n")
