# SPDX-License-Identifier: Apache-2.0
"""The static read side: what a tiled log shows to anybody who knows its names (C2SP tlog-tiles).

- Everything comes from what was committed *and* signed. Witnesses build their proofs from tiles before they
  cosign, so tiles go up to the newest signed head, which may be ahead of the newest one with a quorum.
- A full tile is shown once the head covers it. A partial one is shown in each width that it had at a
  published size, and in no other: what was never signed says nothing.
- Anything else there is not. Names have one spelling (`policies.log.tiles.parse_tile_path`).

    static = StaticLog(store, receipts)
    static.read("tile/0/x001/067.p/8")      bytes, or None
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from broker.log.errors import NotInLogError
from broker.store import tables
from broker.store.prepared import Prepared
from policies.log.bundle import join_tile
from policies.log.errors import ProofError
from policies.log.tiles import TILE_WIDTH, TileName, parse_tile_path

if TYPE_CHECKING:
    from broker.log.receipts import Receipts
    from broker.store import Store

__all__ = ["StaticLog"]

_HEIGHT: Final = 8
_ENTRY = tables.log_entry
_CHECKPOINT = tables.log_checkpoint
_BODIES: Final = Prepared(
    select(_ENTRY.c.body)
    .where(_ENTRY.c.idx >= bindparam("start"), _ENTRY.c.idx < bindparam("end"))
    .order_by(_ENTRY.c.idx)
)
_BETWEEN: Final = Prepared(
    select(_CHECKPOINT.c.size).where(
        _CHECKPOINT.c.size >= bindparam("least"), _CHECKPOINT.c.size < bindparam("end")
    )
)


class StaticLog:
    """Tiles and bundles of entries by their names; for readers of any thread."""

    def __init__(self, store: Store, receipts: Receipts) -> None:
        self._store = store
        self._receipts = receipts

    def read(self, path: str) -> bytes | None:
        """What has this name, beginning with ``tile/``; None if there is nothing, or not yet.

        Raises:
            LogFrozenError: The log has no head that it can show.
        """
        try:
            name = parse_tile_path(path)
        except ProofError:
            return None
        return self._hashes(name) if name.level is not None else self._entries(name)

    def _hashes(self, name: TileName) -> bytes | None:
        try:
            data = self._receipts.tile(name.level or 0, name.n, name.width)
        except NotInLogError:
            return None
        return data if self._shown(name) else None

    def _entries(self, name: TileName) -> bytes | None:
        start = name.n * TILE_WIDTH
        end = start + name.width
        if end > self._receipts.head().size or not self._shown(name):
            return None
        with self._store.read() as session:
            bodies = [bytes(body) for (body,) in _BODIES.all(session, {"start": start, "end": end})]
        return join_tile(bodies) if len(bodies) == name.width else None

    def _shown(self, name: TileName) -> bool:
        """Whether a tile that the head covers is full, or of a published size."""
        if name.width == TILE_WIDTH:
            return True
        shift = _HEIGHT * (name.level or 0)
        least = (name.n * TILE_WIDTH + name.width) << shift
        end = least + (1 << shift)
        if least <= self._receipts.head().size < end:
            return True
        with self._store.read() as session:
            return _BETWEEN.first(session, {"least": least, "end": end}) is not None
