# SPDX-License-Identifier: Apache-2.0
"""Tiles: names, which there are, and trees made from them against trees made from leaves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from policies.log.errors import ProofError
from policies.log.merkle import (
    EMPTY_ROOT,
    MemoryTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from policies.log.tiles import (
    TILE_WIDTH,
    TileName,
    TileTree,
    entries_path,
    parse_tile_path,
    tile_path,
    tile_root,
    tiles_of,
)

LARGE = 70_000
MILLION = 1_000_000


@lru_cache(maxsize=4)
def memory_tree(size: int) -> MemoryTree:
    return MemoryTree(leaf_hash(at.to_bytes(4, "big")) for at in range(size))


class TileStore:
    """Serves a tree's tiles as a log does, each hashed from the definition, and counts what is read."""

    def __init__(self, tree: MemoryTree) -> None:
        self.tree = tree
        self.read: list[tuple[int, int]] = []

    def __call__(self, level: int, n: int, width: int) -> bytes:
        self.read.append((level, n))
        span = TILE_WIDTH**level
        first = n * TILE_WIDTH
        return b"".join(self.tree._range(at * span, (at + 1) * span) for at in range(first, first + width))


def tiled(tree: MemoryTree, size: int | None = None) -> tuple[TileTree, TileStore]:
    store = TileStore(tree)
    return TileTree(tree.size if size is None else size, store), store


@pytest.mark.parametrize(
    ("level", "n", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (1, 4, 17, "tile/1/004.p/17"),
        (0, 1067, 8, "tile/0/x001/067.p/8"),
        (63, 999, 1, "tile/63/999.p/1"),
        (2, 1_000_000, 255, "tile/2/x001/x000/000.p/255"),
    ],
)
def test_a_tile_has_one_path(level: int, n: int, width: int, path: str) -> None:
    assert tile_path(level, n, width) == path
    assert parse_tile_path(path) == TileName(level, n, width)
    assert TileName(level, n, width).path() == path


def test_a_bundle_of_entries_has_one_path() -> None:
    assert entries_path(1067) == "tile/entries/x001/067"
    assert entries_path(273, 112) == "tile/entries/273.p/112"
    for path in ("tile/entries/x001/067", "tile/entries/273.p/112"):
        assert parse_tile_path(path).level is None
        assert parse_tile_path(path).path() == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001/067",
        "tile/0/x1/067",
        "tile/00/001",
        "tile/64/001",
        "tile/100/001",
        "tile/-1/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/08",
        "tile/0/001.p/",
        "tile/0/001.p/1000",
        "tile/0/001/",
        "tile/0/001\n",
        "/tile/0/001",
        "tile/0/../../secret",
        "tile/0/%2e%2e/001",
        "tile/entries/001.p/256",
        "tile/Entries/001",
        "tile/0/\u0660\u0660\u0661",
        "tile/0/" + "x999/" * 9 + "999",
    ],
)
def test_another_spelling_of_a_tile_is_refused(path: str) -> None:
    with pytest.raises(ProofError):
        parse_tile_path(path)


@pytest.mark.parametrize(
    ("level", "n", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_no_path_names_a_tile_that_cannot_be(level: int, n: int, width: int) -> None:
    with pytest.raises(ProofError):
        tile_path(level, n, width)


def test_the_tiles_of_70000_entries_are_those_of_the_specification() -> None:
    names = list(tiles_of(LARGE))
    full = [sum(1 for one in names if one.level == level and one.width == TILE_WIDTH) for level in range(3)]
    partial = {one.level: one.width for one in names if one.width < TILE_WIDTH}
    assert full == [273, 1, 0]
    assert partial == {0: 112, 1: 17, 2: 1}
    assert list(tiles_of(256)) == [TileName(0, 0, 256), TileName(1, 0, 1)]
    assert list(tiles_of(0)) == []


def test_the_tiles_that_are_new_are_those_of_the_larger_log_without_those_of_the_smaller() -> None:
    sizes = [0, 1, 5, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, LARGE]
    for start in sizes:
        before = {(one.level, one.n): one.width for one in tiles_of(start)}
        for size in (one for one in sizes if one >= start):
            new = list(tiles_of(size, start=start))
            assert new == [one for one in tiles_of(size) if before.get((one.level, one.n)) != one.width]


def test_a_full_tile_hashes_to_what_stands_in_the_tile_above() -> None:
    tree = memory_tree(LARGE)
    store = TileStore(tree)
    above = store(1, 1, 17)
    for at in range(17):
        assert tile_root(store(0, 256 + at, 256)) == above[at * 32 : at * 32 + 32]
    for data in (b"", store(0, 273, 112), store(0, 0, 256) + bytes(32)):
        with pytest.raises(ProofError):
            tile_root(data)


def test_every_size_up_to_700_gives_the_roots_and_proofs_of_the_leaves() -> None:
    tree, draw = memory_tree(700), np.random.default_rng(6)
    assert tiled(tree, 0)[0].root() == EMPTY_ROOT
    for size in range(1, 701):
        made, _ = tiled(tree, size)
        index, old = int(draw.integers(size)), int(draw.integers(1, size + 1))
        assert made.root() == tree.root(size)
        assert made.leaf(index) == tree.leaf(index)
        assert made.inclusion(index) == tree.inclusion(index, size)
        assert made.consistency(old) == tree.consistency(old, size)


def test_random_sizes_up_to_70000_give_the_roots_and_proofs_of_the_leaves() -> None:
    tree, draw = memory_tree(LARGE), np.random.default_rng(7)
    edges = [255, 256, 257, 65_535, 65_536, 65_537, LARGE]
    for size in edges + [int(draw.integers(1, LARGE + 1)) for _ in range(60)]:
        made, _ = tiled(tree, size)
        prefix = int(draw.integers(1, size + 1))
        index, old = int(draw.integers(prefix)), int(draw.integers(1, prefix + 1))
        assert made.root(prefix) == tree.root(prefix)
        assert made.inclusion(index, prefix) == tree.inclusion(index, prefix)
        assert made.consistency(old, prefix) == tree.consistency(old, prefix)
        verify_inclusion(tree.leaf(index), index, prefix, made.inclusion(index, prefix), tree.root(prefix))
        verify_consistency(old, prefix, tree.root(old), tree.root(prefix), made.consistency(old, prefix))


def test_each_tile_is_read_once() -> None:
    made, store = tiled(memory_tree(LARGE))
    made.root()
    for index in range(0, LARGE, 7_001):
        made.inclusion(index)
        made.consistency(index + 1)
    assert len(store.read) == len(set(store.read))


class CountedTiles:
    """A log of which only the number of reads matters: every hash is the same."""

    def __init__(self) -> None:
        self.read: set[tuple[int, int]] = set()

    def __call__(self, level: int, n: int, width: int) -> bytes:
        self.read.add((level, n))
        return bytes(32 * width)


def test_an_inclusion_proof_in_a_million_entries_reads_at_most_6_tiles_and_has_at_most_20_hashes() -> None:
    draw = np.random.default_rng(8)
    for index in [
        0,
        255,
        256,
        65_535,
        65_536,
        524_288,
        MILLION - 1,
        *(int(draw.integers(MILLION)) for _ in range(500)),
    ]:
        counted = CountedTiles()
        proof = TileTree(MILLION, counted).inclusion(index)
        assert len(proof) <= 20
        assert len(counted.read) <= 6


def test_a_consistency_proof_between_a_million_entries_reads_few_tiles() -> None:
    draw = np.random.default_rng(9)
    for old in [1, 255, 65_536, MILLION - 1, *(int(draw.integers(1, MILLION + 1)) for _ in range(500))]:
        counted = CountedTiles()
        assert len(TileTree(MILLION, counted).consistency(old)) <= 21
        assert len(counted.read) <= 8


@pytest.mark.parametrize(
    "change", [lambda tile: tile[:-32], lambda tile: tile + bytes(32), lambda tile: tile[1:]]
)
def test_a_tile_of_another_width_is_refused(change) -> None:
    store = TileStore(memory_tree(700))
    made = TileTree(700, lambda level, n, width: change(store(level, n, width)))
    for use in (made.root, lambda: made.leaf(3), lambda: made.inclusion(3), lambda: made.consistency(3)):
        with pytest.raises(ProofError):
            use()


def test_a_changed_hash_in_any_tile_never_passes_verification() -> None:
    tree, draw = memory_tree(700), np.random.default_rng(10)
    root = tree.root()
    for _ in range(200):
        level, n, at, index = (
            int(draw.integers(2)),
            int(draw.integers(3)),
            int(draw.integers(256 * 32)),
            int(draw.integers(700)),
        )
        store = TileStore(tree)

        def fetch(tile_level: int, tile_n: int, width: int, *, bad=(level, n, at), store=store) -> bytes:
            tile = bytearray(store(tile_level, tile_n, width))
            if (tile_level, tile_n) == bad[:2] and bad[2] < len(tile):
                tile[bad[2]] ^= 1
            return bytes(tile)

        made = TileTree(700, fetch)
        proof = made.inclusion(index)
        if proof == tree.inclusion(index):
            continue
        with pytest.raises(ProofError):
            verify_inclusion(tree.leaf(index), index, 700, proof, root)


def test_what_lies_outside_the_log_is_refused() -> None:
    made, store = tiled(memory_tree(700))
    for use in (
        lambda: made.root(701),
        lambda: made.root(-1),
        lambda: made.leaf(700),
        lambda: made.leaf(-1),
        lambda: made.inclusion(700),
        lambda: made.inclusion(5, 5),
        lambda: made.consistency(0),
        lambda: made.consistency(6, 5),
        lambda: made.consistency(5, 701),
        lambda: TileTree(-1, store),
        lambda: TileTree(2**63, store),
    ):
        with pytest.raises(ProofError):
            use()
    assert store.read == []
