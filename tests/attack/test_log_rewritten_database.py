# SPDX-License-Identifier: Apache-2.0
"""A thousand random bits flipped in the stored log: bodies, leaf hashes, tiles, envelopes. All found, none signed.

Each trial flips one bit in one row of the closed database, opens the log as a broker does when it starts, and
puts the bit back. Bodies, leaf hashes and tiles freeze the log. An envelope is under its sender's signature
and its digest is in the entry: whoever reads it finds that it is not the one.
"""

from __future__ import annotations

import random  # noqa: TID251
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from broker.log import FreezeReason, LogFrozenError, Signer
from broker.log.recovery import Opened, open_log
from broker.store import Store
from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import check_entry
from policies.log.envelope import Seen, open_envelope
from policies.signing import Envelope
from tests.logsim import ORIGIN, LogSim, MemberSim, console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLIPS = 1_000
SIZE = 270  # two tiles of level 0, one of level 1


class Cell(NamedTuple):
    """A value of the stored log that a trial may damage."""

    table: str
    column: str
    where: str
    data: bytes


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogSim]:
    folder = tmp_path_factory.mktemp("flips")
    with LogSim(folder) as made:
        made.started(entries=SIZE - 60)
        head = made.writer.head()
        members = [MemberSim(name, Seen(head.size, head.root)) for name in ("kita", "nord", "hanbit")]
        for rnd in range(1, 21):
            for one in members:
                event = one.submission(rnd=rnd)
                one.advance(event)
                made.add(event)
        made.members = members
        made.close()
        with closing(sqlite3.connect(made.paths()[0])) as connection, connection:
            for table in ("log_entry", "log_envelope"):
                connection.execute(f"DROP TRIGGER {table}_no_update")
        yield made


def cells(path: Path) -> dict[str, list[Cell]]:
    asked = {
        "bodies": ("log_entry", "body", "idx = {}", "idx"),
        "leaf hashes": ("log_entry", "leaf_hash", "idx = {}", "idx"),
        "tiles": ("log_tile", "data", "level = {} AND n = {}", "level, n"),
        "envelopes": ("log_envelope", "dsse", "idx = {}", "idx"),
    }
    with closing(sqlite3.connect(path)) as connection:
        return {
            what: [
                Cell(table, column, where.format(*row[1:]), bytes(row[0]))
                for row in connection.execute(f"SELECT {column}, {keys} FROM {table}")  # noqa: S608
            ]
            for what, (table, column, where, keys) in asked.items()
        }


def write(path: Path, cell: Cell, data: bytes) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        sql = f"UPDATE {cell.table} SET {cell.column} = ? WHERE {cell.where}"  # noqa: S608
        assert connection.execute(sql, (data,)).rowcount == 1


def thaw(path: Path) -> None:
    """Forgets the freeze of a trial, as no command of the broker does."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE state SET state = 'open', reason = NULL, evidence = NULL")


def signed(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM last_signed").fetchall()


def boots(sim: LogSim, store: Store) -> Opened:
    return open_log(store, Signer(store.signer, origin=ORIGIN, key=sim.key, clock=sim.clock))


def is_another(sim: LogSim, body: bytes, stored: bytes) -> bool:
    """Whether a reader of an envelope finds that it is not the one of the entry."""
    try:
        envelope = Envelope.from_bytes(stored)
        if digest(envelope.payload) != check_entry(body).env or envelope.to_bytes() != stored:
            return True
        signer = next(one.key.public for one in sim.members if envelope.signed_by(one.key.public))
        open_envelope(envelope, signer)
    except (IriaiError, StopIteration):
        return True
    return False


def test_a_thousand_random_bit_flips_are_found_and_none_is_signed(sim: LogSim) -> None:
    main, _, signer = sim.paths()
    dice = random.Random(19)  # noqa: S311
    held, before = cells(main), signed(signer)
    bodies = [one.data for one in held["bodies"]]
    assert {len(held["tiles"]), len(bodies), len(held["envelopes"])} == {3, SIZE, 60}
    store, found = Store.open(*sim.paths()), Counter[str]()
    try:
        assert boots(sim, store).freeze is None
        for number in range(FLIPS):
            what = dice.choice(list(held))
            cell = dice.choice(held[what])
            flipped = bytearray(cell.data)
            flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
            if what == "envelopes":
                at = int(cell.where.rpartition(" ")[2])
                assert is_another(sim, bodies[at], bytes(flipped)), (number, at)
                assert not is_another(sim, bodies[at], cell.data)
                found[what] += 1
                continue
            write(main, cell, bytes(flipped))
            freeze = boots(sim, store).freeze
            assert freeze is not None, (number, what, cell.where)
            assert freeze.reason is FreezeReason.CORRUPT
            assert signed(signer) == before
            found[what] += 1
            write(main, cell, cell.data)
            thaw(signer)
        assert boots(sim, store).freeze is None
    finally:
        store.close()
    print(f"\n{sum(found.values())} of {FLIPS} flips found, 0 signed: {dict(found)}")
    assert sum(found.values()) == FLIPS
    assert min(found.values()) > FLIPS // 8


@pytest.mark.parametrize("what", ["bodies", "leaf hashes", "tiles"])
def test_after_a_flip_no_change_is_taken_and_no_checkpoint_made(sim: LogSim, what: str) -> None:
    main, _, signer = sim.paths()
    cell, before = cells(main)[what][2], signed(signer)
    write(main, cell, cell.data[:-1] + bytes([cell.data[-1] ^ 1]))
    writer = sim.open()
    try:
        refused = writer.submit(lambda _session, log: log.add(console(999))).exception()
        assert isinstance(refused, LogFrozenError)
    finally:
        sim.close()
    assert signed(signer) == before
    write(main, cell, cell.data)
    thaw(signer)
    assert sim.open().frozen is None
    sim.close()
