# SPDX-License-Identifier: Apache-2.0
"""Hash tiles beside the entries: written at the right edge only, made for old logs, shown for every published size."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select

from broker.log import NotInLogError
from broker.log.tiles import TILE, tiles_between
from broker.log.tree import GrowingTree
from broker.store import tables
from policies.log.merkle import MemoryTree, leaf_hash
from policies.log.tiles import TileTree, tiles_of
from tests.logsim import LogSim, console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[LogSim]:
    with LogSim(tmp_path) as made:
        made.started()
        yield made


def stored(sim: LogSim) -> dict[tuple[int, int], bytes]:
    with sim.store.read() as session:
        rows = session.execute(select(tables.log_tile))
        return {(row.level, row.n): row.data for row in rows}


def grow(sim: LogSim, first: int, count: int) -> None:
    sim.add(*(console(number) for number in range(first, first + count)))


def test_tiles_come_with_their_entries_and_make_the_whole_tree(sim: LogSim) -> None:
    writer = sim.writer
    assert writer is not None
    first = 1
    for count in (1, 254, 1, 300, 256, 1):
        grow(sim, first, count)
        first += count
        rows, size = stored(sim), writer.head().size
        assert rows.keys() == {(level, n) for level, n, _ in tiles_of(size)}
        tree = TileTree(size, lambda level, n, width, rows=rows: rows[level, n][: 32 * width])
        assert tree.root(size) == writer.head().root
        assert tree.inclusion(size // 2, size) == writer.proof(size // 2)


def test_only_tiles_at_the_right_edge_are_written_and_a_full_one_never_again(sim: LogSim) -> None:
    grow(sim, 1, 2 * TILE - 1)  # the second tile is full
    before = stored(sim)
    written: Counter[tuple[int, int]] = Counter()

    with closing(sqlite3.connect(sim.paths()[0])) as database, database:
        database.execute("CREATE TABLE touched (level INTEGER, n INTEGER)")
        for verb in ("INSERT", "UPDATE"):
            database.execute(
                f"CREATE TRIGGER t_{verb} AFTER {verb} ON log_tile BEGIN INSERT INTO touched VALUES (new.level, new.n); END"  # noqa: S608
            )
    grow(sim, 1000, TILE + 3)
    with closing(sqlite3.connect(sim.paths()[0])) as database:
        written.update(database.execute("SELECT level, n FROM touched").fetchall())
    assert written == {(0, 2): 1, (0, 3): 1, (1, 0): 1}
    after = stored(sim)
    assert after[0, 0] == before[0, 0]
    assert after[0, 1] == before[0, 1]
    assert after[1, 0].startswith(before[1, 0])


def test_the_edge_names_exactly_the_tiles_that_grow() -> None:
    for old, new in ((0, 1), (255, 256), (256, 257), (65_535, 65_536), (65_536, 65_792), (0, 70_000), (9, 9)):
        expected = {(level, n, width) for level, n, width in tiles_of(new)} - set(tiles_of(old))
        assert set(tiles_between(old, new)) == expected


def test_a_log_from_before_there_were_tiles_gets_them_when_it_opens(sim: LogSim) -> None:
    grow(sim, 1, 600)
    rows = stored(sim)
    with sim.store.main.begin() as session:
        session.execute(delete(tables.log_tile))
    sim.close()
    assert sim.open().frozen is None
    assert stored(sim) == rows
    grow(sim, 2000, 1)
    sim.close()
    assert sim.open().frozen is None


def test_every_tile_of_every_published_size_can_be_read(sim: LogSim) -> None:
    writer = sim.writer
    assert writer is not None
    grow(sim, 1, 520)
    tree = MemoryTree(writer.receipts.leaf(index) for index in range(521))
    for size in (1, 2, 255, 256, 257, 512, 521):
        fetched = TileTree(size, writer.receipts.tile)
        assert fetched.root(size) == tree.root(size)


@pytest.mark.parametrize(
    ("level", "n", "width"),
    [(0, 2, 10), (0, 3, 1), (1, 0, 3), (2, 0, 1), (0, -1, 1), (-1, 0, 1), (0, 0, 0), (0, 0, 257), (63, 0, 1)],
)
def test_a_tile_that_the_log_does_not_have_is_refused(sim: LogSim, level: int, n: int, width: int) -> None:
    assert sim.writer is not None
    grow(sim, 1, 520)  # 521: tiles 256, 256, 9, and 2 above them
    with pytest.raises(NotInLogError) as refused:
        sim.writer.receipts.tile(level, n, width)
    assert refused.value.http_status == 404


def test_a_growing_tree_is_the_tree_of_its_leaves_also_after_it_forgot_some() -> None:
    leaves = [leaf_hash(bytes([one % 256, one // 256])) for one in range(600)]
    tree = GrowingTree()
    for start, end, back in ((0, 3, 3), (3, 200, 100), (100, 257, 256), (256, 600, 0), (0, 600, 600)):
        tree.extend(leaves[start:end])
        whole = MemoryTree(leaves[:end])
        assert (tree.size, tree.root()) == (end, whole.root())
        assert tree.frontier().root() == whole.root()
        for size in {1, 2, end // 2 or 1, end}:
            assert tree.root(size) == whole.root(size)
            assert [tree.inclusion(i, size) for i in range(0, size, 17)] == [
                whole.inclusion(i, size) for i in range(0, size, 17)
            ]
            assert tree.consistency(size, end) == whole.consistency(size, end)
        tree.truncate(back)
        assert tree.size == back
