# SPDX-License-Identifier: Apache-2.0
"""Hash tiles of the log (C2SP tlog-tiles, height 8): what is stored, compared and shown.

Tile ``(level, n)`` holds up to 256 nodes of the tree's level ``8 * level``, from node ``256 * n`` on. The
table `log_tile` has one row for each. Entries and tiles are written by one transaction: only tiles at the
right edge are ever written again, and a full one never.

What is shown comes from the tree in memory, which was hashed again from the bodies; the rows are compared
with it when the broker starts and, at the edge, before every signature.

    rows = edge(tree, 700)              # of a tree that had 700 leaves before
    Tiles(receipts).data(0, 2, 188)     # a tile of a published size
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, select

from broker.log.errors import NotInLogError
from broker.store import tables
from broker.store.prepared import Prepared
from broker.store.upserts import updating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.log.tree import GrowingTree
    from broker.store import Session

__all__ = ["TILE", "TileId", "Tiles", "differing", "edge", "edge_differs", "write"]

TILE: Final = 256
HEIGHT: Final = 8
_TABLE = tables.log_tile
_WRITE: Final = Prepared(updating(_TABLE))
_EDGE: Final = Prepared(
    select(_TABLE.c.n, _TABLE.c.data)
    .where(_TABLE.c.level == 0, _TABLE.c.n >= bindparam("first"), _TABLE.c.n <= bindparam("last"))
    .order_by(_TABLE.c.n)
)


class TileId(NamedTuple):
    """A tile's place and how many nodes of it there are."""

    level: int
    n: int
    width: int


def tiles_between(old: int, new: int) -> Iterator[TileId]:
    """Tiles that a log which grows from ``old`` to ``new`` entries makes or makes wider."""
    level = 0
    while new > old:
        for n in range(old // TILE, -(-new // TILE)):
            yield TileId(level, n, min(TILE, new - n * TILE))
        old, new, level = old >> HEIGHT, new >> HEIGHT, level + 1


def edge(tree: GrowingTree, old: int) -> list[dict[str, Any]]:
    """Rows of `log_tile` that change when a tree that had ``old`` leaves becomes this one."""
    return [{"level": one.level, "n": one.n, "data": _of(tree, one)} for one in tiles_between(old, tree.size)]


def write(session: Session, tree: GrowingTree, old: int) -> None:
    """Stores the tiles of the right edge.

    Raises:
        DBAPIError: As from SQLAlchemy.
    """
    _WRITE.many(session, edge(tree, old))


def edge_differs(session: Session, tree: GrowingTree, old: int, new: int) -> str | None:
    """Whether a level-0 tile that holds leaves ``[old, new)`` is missing or another; what, if so.

    A tile may be wider than ``new``: another process wrote on.
    """
    first, last = old // TILE, (new - 1) // TILE
    rows = dict(_EDGE.all(session, {"first": first, "last": last}))
    for n in range(first, last + 1):
        want = tree.run(0, n * TILE, min(new, (n + 1) * TILE))
        if not rows.get(n, b"").startswith(want):
            return f"tile 0/{n} is not the one of the bodies"
    return None


def differing(session: Session, tree: GrowingTree) -> tuple[str | None, bool]:
    """What is wrong with the stored tiles, None if nothing; and whether there is none at all."""
    want = {(one.level, one.n): one for one in tiles_between(0, tree.size)}
    rows = session.execute(select(_TABLE.c.level, _TABLE.c.n, _TABLE.c.data))
    damage, none = None, True
    for level, n, data in rows:
        none = False
        one = want.pop((level, n), None)
        if one is None:
            damage = damage or f"tile {level}/{n} is not one of {tree.size} entries"
        elif bytes(data) != _of(tree, one):
            damage = damage or f"tile {level}/{n} is not the one of the bodies"
    if want and not none:
        level, n = min(want)
        damage = damage or f"tile {level}/{n} is missing"
    return damage, none and bool(want)


def _of(tree: GrowingTree, one: TileId) -> bytes:
    start = one.n * TILE
    return tree.run(one.level * HEIGHT, start, start + one.width)


class Tiles:
    """Tiles of published sizes, for readers of any thread."""

    def __init__(self, tree: GrowingTree) -> None:
        self._tree = tree

    def data(self, size: int, level: int, n: int, width: int = TILE) -> bytes:
        """The first ``width`` nodes of a tile in a log of ``size`` entries, which has to be published.

        Raises:
            NotInLogError: A log of that size has no such tile, or a narrower one.
        """
        nodes = size >> min(HEIGHT * level, 64) if level >= 0 else 0
        if n < 0 or not 0 < width <= TILE or n * TILE + width > nodes:
            raise NotInLogError(
                need=f"a tile of a log of {size} entries",
                found=f"tile {level}/{n} with {width} nodes",
                remedy="read /log/checkpoint again, and ask for tiles of its size",
            )
        return _of(self._tree, TileId(level, n, width))
