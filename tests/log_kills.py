# SPDX-License-Identifier: Apache-2.0
"""Writers that die: a process under load is ended at random and at each named moment, again and again.

    python -m tests.log_kills --kills 300              SQLite and, where a server can be started, PostgreSQL
    python -m tests.log_kills --kills 50 --only sqlite --seed 7

A *nursery* is a process that has everything imported and forks one writer after another, so that a death costs
milliseconds. A writer submits units of work from several threads; each has a business row and one to three entries.
It says on its standard output, one line at a time, which were acknowledged: ``number index size``. After each death
the log is opened as a broker opens it, and everything that was ever acknowledged has to be there, once, where it was
said to be. The next writer begins by sending the last 20 units again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random  # noqa: TID251
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import func, insert, select, text

from broker.log.failpoints import Moment, nobody
from broker.store import tables
from policies.log.entries import check_entry, event_id
from policies.log.merkle import leaf_hash
from tests.logsim import LogSim, console, genesis

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.log import LogTx
    from broker.store import Session

SENT_AGAIN = 20
CALLERS = 8
FOLDER_KILLS = 25  # then a new log: each check reads all of it
WAIT_S = 60


def unit(number: int) -> Callable[[Session, LogTx], list[int]]:
    """A unit of work that may be sent any number of times."""

    def work(session: Session, log: LogTx) -> list[int]:
        events = [console(number * 10 + part) for part in range(1 + number % 3)]
        if log.known(events[0]) is None:
            session.execute(insert(tables.statement).values(digest=f"d{number:06d}", bytes=b"x" * 200))
        return [log.add(event) for event in events]

    return work


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a nursery is told: which log, from which unit on to which, and at which moment to die by itself."""

    folder: str
    first: int
    last: int = 1_000_000
    callers: int = CALLERS
    main: str | None = None
    private: str | None = None
    moment: str | None = None
    after: int = 1

    def sim(self) -> LogSim:
        return sim_of(Path(self.folder), self.main, self.private)


def sim_of(folder: Path, main: str | None, private: str | None) -> LogSim:
    made = LogSim(folder, threaded=True)
    if main is not None and private is not None:
        made.main, made.private = main, private
    return made


def nursery() -> None:
    """Forks one writer for each line of standard input; ``dead`` says that it ended."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                write(Order(**json.loads(line)))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        say("dead")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write of less than a page: a line is said whole or not at all


def write(order: Order) -> None:
    """What a writer does until it is ended, or until the last unit is acknowledged."""
    start = time.perf_counter()
    sim, left = order.sim(), itertools.count(1)

    def reached(moment: Moment) -> None:
        if moment == order.moment and next(left) == order.after:
            os.kill(os.getpid(), signal.SIGKILL)

    writer = sim.open(reached=reached if order.moment else nobody)
    if writer.frozen is not None:
        say(f"frozen {writer.frozen.found}")
        return
    sim.add(genesis())
    say(f"open {os.getpid()} {time.perf_counter() - start:.3f}")
    numbers, turn = itertools.count(order.first), threading.Lock()

    def call() -> None:
        while True:
            with turn:
                number = next(numbers)
            if number > order.last:
                return
            indices, receipts = writer.submit(unit(number)).result()
            newest = receipts[-1]
            if number % 16 == 0:
                newest.verify(leaf_hash(writer.receipts.body(newest.index)), [sim.vkey])
            say(f"{number} {indices[0]} {newest.checkpoint.size}")

    callers = [threading.Thread(target=call) for _ in range(order.callers)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    sim.close()


class Nursery:
    """The nursery's process, from outside."""

    def __init__(self) -> None:
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.log_kills", "--nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)
        self._process.stdout.close()

    def begin(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order.__dict__) + "\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def said(self) -> list[str]:
        """Every further line up to the writer's end."""
        return list(itertools.takewhile(lambda line: line != "dead", iter(self.line, "")))


@dataclass(kw_only=True)
class Tally:
    """What was seen over all deaths."""

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    entries: int = 0
    sent_again: int = 0
    lost: int = 0
    doubled: int = 0
    worst_recovery_s: float = 0.0

    def report(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "kills": sum(self.kills.values()),
            "by_moment": dict(sorted(self.kills.items())),
        }


@dataclass(kw_only=True)
class Killing:
    """One log, and the deaths of its writers."""

    folder: Path
    nursery: Nursery
    tally: Tally
    main: str | None = None
    private: str | None = None
    acknowledged: dict[int, tuple[int, int]] = field(default_factory=dict)

    def first(self) -> int:
        return max(1, max(self.acknowledged, default=0) + 1 - SENT_AGAIN)

    def at_random(self, after_s: float) -> None:
        """Ends a writer some time after it began to work."""
        self.nursery.begin(self._order())
        pid = self._opened(self.nursery.line())
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        self._dead("random", self.nursery.said())

    def at(self, moment: Moment, after: int) -> None:
        """Lets a writer end itself when it reaches a moment for so many times; perhaps before it is ready."""
        self.nursery.begin(self._order(moment=moment.value, after=after))
        lines = self.nursery.said()
        if lines:
            self._opened(lines.pop(0))
        self._dead(moment.value, lines)

    def _order(self, **changes: Any) -> Order:
        where: dict[str, Any] = {"folder": str(self.folder), "main": self.main, "private": self.private}
        return Order(first=self.first(), **where, **changes)

    def _opened(self, line: str) -> int:
        assert line.startswith("open "), line
        _, pid, seconds = line.split()
        self.tally.worst_recovery_s = max(self.tally.worst_recovery_s, float(seconds))
        return int(pid)

    def _dead(self, how: str, lines: list[str]) -> None:
        again = 0
        for line in lines:
            number, index, size = map(int, line.split())
            known = self.acknowledged.get(number)
            again += known is not None
            if known is not None and known[0] != index:
                self.tally.doubled += 1  # sent again, and given another place
            self.acknowledged[number] = (index, size)
        self.tally.kills[how] += 1
        self.tally.sent_again += again
        self.check()

    def check(self) -> None:
        """Opens the log as a broker does, and looks for everything that was ever acknowledged."""
        with sim_of(self.folder, self.main, self.private) as sim:
            start = time.perf_counter()
            writer = sim.open()
            self.tally.worst_recovery_s = max(self.tally.worst_recovery_s, time.perf_counter() - start)
            assert writer.frozen is None, writer.frozen
            head = writer.head()
            with sim.store.read() as session, session.begin():
                entries = session.execute(select(tables.log_entry.c.event_id, tables.log_entry.c.idx))
                places = {bytes(key): index for key, index in entries}
                rows = {int(one[1:]) for one in session.scalars(select(tables.statement.c.digest))}
                size = session.scalar(select(func.count()).select_from(tables.log_entry)) or 0
                last = session.scalar(select(func.max(tables.log_entry.c.idx)))
                if session.dialect.name == "sqlite":
                    assert session.scalar(text("PRAGMA integrity_check")) == "ok"
            self._compare(places, rows, size, last, head.size)
            if self.acknowledged:
                newest = max(index for index, _ in self.acknowledged.values())
                body = writer.receipts.body(newest)
                assert check_entry(body).id in places
                writer.receipts.receipt(newest).verify(leaf_hash(body), [sim.vkey])

    def _compare(
        self, places: dict[bytes, int], rows: set[int], size: int, last: int | None, head: int
    ) -> None:
        self.tally.doubled += size - len(places)
        assert size == (0 if last is None else last + 1)  # no gap
        assert max((one for _, one in self.acknowledged.values()), default=0) <= head
        for number, (index, _) in self.acknowledged.items():
            found = [places.get(event_id(console(number * 10 + part))) for part in range(1 + number % 3)]
            if found != list(range(index, index + len(found))) or number not in rows:
                self.tally.lost += 1
        for number in rows:  # the row is there if and only if all its entries are
            assert all(event_id(console(number * 10 + part)) in places for part in range(1 + number % 3))
        assert sum(1 + number % 3 for number in rows) + 1 == size or not rows

    def end(self) -> None:
        self.tally.acknowledged += len(self.acknowledged)
        with sim_of(self.folder, self.main, self.private) as sim:
            self.tally.entries += sim.open().head().size


def run(kills: int, seed: int, tally: Tally, place: Callable[[int], dict[str, Any]]) -> Tally:
    """Half of the deaths at random, the others at each moment in turn.

    Args:
        kills: How many.
        seed: Of the random moments.
        tally: Filled.
        place: Folder, and for PostgreSQL the databases, of the n-th log.
    """
    dice, moments = random.Random(seed), itertools.cycle(Moment)  # noqa: S311
    with Nursery() as nursery:
        killing = None
        for number in range(kills):
            if number % FOLDER_KILLS == 0:
                if killing is not None:
                    killing.end()
                killing = Killing(nursery=nursery, tally=tally, **place(number // FOLDER_KILLS))
            assert killing is not None
            if number % 2:
                killing.at(next(moments), dice.randrange(1, 12))
            else:
                killing.at_random(dice.uniform(0.0, 0.25))
        if killing is not None:
            killing.end()
    return tally


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="Ends writers at random and at named moments; see the module."
    )
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--only", choices=("sqlite", "postgres"))
    asked = parser.parse_args()
    if asked.nursery:
        nursery()
        return
    found = {}
    databases = [asked.only] if asked.only else ["sqlite", "postgres"]
    with tempfile.TemporaryDirectory(prefix="iriai-kills-") as scratch:
        for name in databases:
            kills, tally = asked.kills // len(databases), Tally()
            if name == "sqlite":
                run(kills, asked.seed, tally, lambda at: {"folder": _made(Path(scratch) / f"sqlite{at}")})
            else:
                _on_postgres(Path(scratch), kills, asked.seed, tally)
            found[name] = tally.report()
    print(json.dumps(found, indent=2))


def _on_postgres(scratch: Path, kills: int, seed: int, tally: Tally) -> None:
    from tests.pgserver import server

    with server() as pg:

        def place(at: int) -> dict[str, Any]:
            main, private = pg.databases()
            return {"folder": _made(scratch / f"postgres{at}"), "main": main, "private": private}

        run(kills, seed, tally, place)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    _main()
