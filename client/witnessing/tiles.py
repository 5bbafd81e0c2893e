# SPDX-License-Identifier: Apache-2.0
"""The log's tree as this node sees it for itself: tiles over HTTP, and nothing believed of them.

    tree = tiles.tree(head)          every tile of it leads to the root that the log signed, or it raises

Tiles of the right edge are kept from step to step, so that a small step asks for one tile or two. A wider
tile begins with a narrower one. If what is kept and what is fetched do not lead to the signed root together,
all of it is fetched anew. The hashes inside are believed by the proofs that are made of them, and by nothing
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from client.errors import PeerAnswerError
from policies.log.errors import ProofError
from policies.log.merkle import HASH_BYTES
from policies.log.tiles import TileTree, tile_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.outbox.rows import Seen

__all__ = ["Tiles"]

_KEPT: Final = 64


class Tiles:
    """Reads tiles, and keeps the newest."""

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        """Keeps nothing yet.

        Args:
            fetch: Bytes behind a path of the static log, ``/log/tile/…``.
        """
        self._fetch = fetch
        self._kept: dict[tuple[int, int], bytes] = {}

    def tree(self, head: Seen) -> TileTree:
        """The tree of a signed head, proven to lead to its root.

        Raises:
            PeerAnswerError: The tiles that the broker gives do not.
            RemoteRefusalError: It gives none.
            PeerUnreachableError: Nothing answered.
        """
        for again in (False, True):
            if again:
                self._kept.clear()
            tree = TileTree(head.size, self._tile)
            try:
                if tree.root() == head.root:
                    return tree
            except ProofError:
                continue
        raise PeerAnswerError(
            need=f"tiles that lead to the signed root of {head.size} entries",
            found="others",
            remedy="it is tried again; if it stays so, the broker withholds its log: tell the other members",
        )

    def _tile(self, level: int, n: int, width: int) -> bytes:
        size = width * HASH_BYTES
        kept = self._kept.get((level, n), b"")
        if len(kept) < size:
            kept = self._fetch(f"/log/{tile_path(level, n, width)}")
            if len(kept) != size:
                return kept  # `TileTree` refuses it
            self._kept.pop((level, n), None)
            self._kept[level, n] = kept
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return kept[:size]
