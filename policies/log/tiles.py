# SPDX-License-Identifier: Apache-2.0
"""Hash tiles (C2SP tlog-tiles): their names, and roots and proofs made from them.

A tile of level L holds up to 256 consecutive hashes, each the root of ``256 ** L`` leaves; level 0 holds leaf
hashes. So a tile is a subtree of height 8 without its inner hashes. A tree of size s has, of each level,
``s // 256 ** L`` hashes in full tiles and at most one partial tile; a hash of the level above exists only
for a full tile. Full tiles never change. Paths::

    tile/0/x001/x234/067          level 0, tile 1,234,067, full
    tile/1/004.p/17               level 1, tile 4, its first 17 hashes
    tile/entries/x001/x234/067    the entries under the level-0 tile of the same number

`TileTree` reads each tile that it needs once and checks its width. **It believes what it reads**: a root or
proof that it makes means something only once it was compared with a signed root (`verify_inclusion`,
`verify_consistency`, or the root itself).

Example::

    tree = TileTree(checkpoint.size, fetch=lambda level, n, width: get(tile_path(level, n, width)))
    proof = tree.consistency(seen.size, checkpoint.size)
    verify_consistency(seen.size, checkpoint.size, seen.root, checkpoint.root, proof)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from policies.log.errors import ProofError
from policies.log.merkle import (
    HASH_BYTES,
    SIZE_MAX,
    prefix_of,
    prove_consistency,
    prove_inclusion,
    range_root,
    root_from_leaves,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "TILE_WIDTH",
    "TileName",
    "TileTree",
    "entries_path",
    "parse_tile_path",
    "tile_path",
    "tile_root",
    "tiles_of",
]

TILE_WIDTH = 256
_HEIGHT = 8
_LEVEL_MAX = 63
_GROUP = 1000
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<n>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


class TileName(NamedTuple):
    """Which tile: its level (None for a bundle of entries), its number and how many hashes or entries."""

    level: int | None
    n: int
    width: int

    def path(self) -> str:
        """As in `tile_path` and `entries_path`."""
        return _path("entries" if self.level is None else str(self.level), self.n, self.width)


def _path(level: str, n: int, width: int) -> str:
    if n < 0 or not 1 <= width <= TILE_WIDTH:
        raise ProofError(
            need=f"a tile number and a width from 1 to {TILE_WIDTH}",
            found=f"{n}, {width}",
            remedy="ask for a tile of `tiles_of`",
        )
    parts = [f"{n % _GROUP:03d}"]
    while n := n // _GROUP:
        parts.append(f"x{n % _GROUP:03d}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(parts))}{partial}"


def tile_path(level: int, n: int, width: int = TILE_WIDTH) -> str:
    """Path of a hash tile, for example ``tile/0/x001/067`` or ``tile/0/x001/067.p/8``.

    Raises:
        ProofError: No tile has this level, number or width.
    """
    if not 0 <= level <= _LEVEL_MAX:
        raise ProofError(need=f"a level from 0 to {_LEVEL_MAX}", found=str(level), remedy="ask for another")
    return _path(str(level), n, width)


def entries_path(n: int, width: int = TILE_WIDTH) -> str:
    """Path of a bundle of entries, for example ``tile/entries/x001/067``.

    Raises:
        ProofError: No bundle has this number or width.
    """
    return _path("entries", n, width)


def parse_tile_path(path: str) -> TileName:
    """The tile behind a path, which is the only spelling of its name.

    Raises:
        ProofError: Another form.
    """
    found = _PATH.fullmatch(path)
    if found is not None:
        level = None if found["level"] == "entries" else int(found["level"])
        width = int(found["width"] or TILE_WIDTH)
        name = TileName(level, int(re.sub("[x/]", "", found["n"])), width)
        if width <= TILE_WIDTH and (level or 0) <= _LEVEL_MAX and name.path() == path:
            return name
    raise ProofError(
        need="tile/<level or entries>/<number>[.p/<width>]",
        found=ascii(path)[1:-1][:120],
        remedy="see tlog-tiles",
    )


def _width(size: int, level: int, n: int) -> int:
    """Width of a tile in the tree of this size; 0 or less where there is none."""
    return min(TILE_WIDTH, (size >> _HEIGHT * level) - n * TILE_WIDTH)


def tiles_of(size: int, *, start: int = 0) -> Iterator[TileName]:
    """Every hash tile that a log of this size has, level by level.

    Args:
        size: Of the log.
        start: Size of a log of which every tile is there already: full tiles of it are left out.
    """
    level = 0
    while size >> _HEIGHT * level:
        n = (start >> _HEIGHT * level) // TILE_WIDTH
        while (width := _width(size, level, n)) > 0:
            if width > max(0, _width(start, level, n)):
                yield TileName(level, n, width)
            n += 1
        level += 1


def tile_root(data: bytes) -> bytes:
    """The hash that a full tile has in the tile above.

    Raises:
        ProofError: The tile is not full.
    """
    if len(data) != TILE_WIDTH * HASH_BYTES:
        raise ProofError(
            need=f"a full tile, {TILE_WIDTH * HASH_BYTES} bytes",
            found=f"{len(data)} bytes",
            remedy="hash a tile only once it is full",
        )
    return root_from_leaves(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


class TileTree:
    """A tree of which only tiles are read, each once.

    Args:
        size: Of the log whose tiles are fetched.
        fetch: Bytes of a tile, by (level, number, width): ``width`` hashes, never more.
    """

    def __init__(self, size: int, fetch: Callable[[int, int, int], bytes]) -> None:
        if not 0 <= size <= SIZE_MAX:
            raise ProofError(need="a size", found=str(size), remedy="use the size of a checkpoint")
        self.size = size
        self._fetch = fetch
        self._tiles: dict[tuple[int, int], bytes] = {}

    def leaf(self, index: int) -> bytes:
        """Leaf hash of an entry.

        Raises:
            ProofError: The log has no such entry, or a tile has another width.
        """
        if not 0 <= index < self.size:
            raise ProofError(
                need=f"0 <= index < {self.size}", found=str(index), remedy="ask for an entry of the log"
            )
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """Root of the first ``size`` leaves; of all of them without it.

        Raises:
            ProofError: More leaves than there are, or a tile has another width.
        """
        return self._range(0, self._prefix(size))

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Inclusion proof of an entry in the tree of ``size``, or of all leaves.

        Raises:
            ProofError: As for `root`, or the index is not inside the tree.
        """
        return prove_inclusion(index, self._prefix(size), self._range)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Consistency proof from ``old`` to ``new``, or to all leaves.

        Raises:
            ProofError: As for `root`, or ``old`` is 0 or larger than ``new``.
        """
        return prove_consistency(old, self._prefix(new), self._range)

    def _prefix(self, size: int | None) -> int:
        return prefix_of(self.size, size)

    def _range(self, start: int, end: int) -> bytes:
        return range_root(start, end, self._node)

    def _node(self, level: int, index: int) -> bytes:
        """Root of the ``index``-th perfect subtree of ``2 ** level`` leaves."""
        tile_level, above = divmod(level, _HEIGHT)
        first = index << above  # among the hashes of the tile's level
        tile = self._tile(tile_level, first // TILE_WIDTH)
        at = first % TILE_WIDTH * HASH_BYTES
        part = tile[at : at + (HASH_BYTES << above)]
        return root_from_leaves(part[at : at + HASH_BYTES] for at in range(0, len(part), HASH_BYTES))

    def _tile(self, level: int, n: int) -> bytes:
        tile = self._tiles.get((level, n))
        if tile is None:
            width = _width(self.size, level, n)
            tile = self._fetch(level, n, width)
            if len(tile) != width * HASH_BYTES:
                raise ProofError(
                    need=f"{width} hashes in {tile_path(level, n, width)}",
                    found=f"{len(tile)} bytes",
                    remedy="fetch the tile again; if it repeats, the log withholds it",
                )
            self._tiles[level, n] = tile
        return tile
