# SPDX-License-Identifier: Apache-2.0
"""A broker's writer as a process that somebody kills: it prints each acknowledged entry, one line at a time.

Usage: ``log_kill_child.py FOLDER FIRST``. Each unit of work has a business row and one to three entries; several
are in flight. A line is ``number index size``: the unit's number, its first index, the signed size of its receipt.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert

from broker.store import tables
from tests.logsim import LogSim, console, genesis

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

IN_FLIGHT = 24


def unit(number: int) -> Any:
    def work(session: Session, log: LogTx) -> list[int]:
        events = [console(number * 10 + part) for part in range(1 + number % 3)]
        if log.known(events[0]) is None:
            session.execute(insert(tables.statement).values(digest=f"d{number:06d}", bytes=b"x" * 200))
        return [log.add(event) for event in events]

    return work


def main(folder: str, first: str) -> None:
    sim = LogSim(Path(folder), threaded=True)
    writer = sim.open()
    if writer.frozen is not None:
        os.write(1, f"frozen {writer.frozen.found}\n".encode())
        raise SystemExit(7)
    sim.add(genesis())
    os.write(1, f"open {writer.head().size}\n".encode())
    waiting: deque[tuple[int, Any]] = deque()
    for number in range(int(first), 1_000_000):
        waiting.append((number, writer.submit(unit(number))))
        while len(waiting) >= IN_FLIGHT:
            done, future = waiting.popleft()
            indices, receipts = future.result()
            size = receipts[-1].checkpoint.size
            os.write(1, f"{done} {indices[0]} {size}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
