# SPDX-License-Identifier: Apache-2.0
"""Nothing binds before it could have been used: which episodes a removal forgets, and which it keeps and why.

An episode that was only ever stored, without contract or consent, has no budget, and nobody learned from it.
So its rows and marks may go with the last data set that holds it: the whole file may then come after the cut
one, the longer log after the shorter. In this order, and the first that holds keeps the episode:

1. ``right``: it has no seal (`seal`), or an episode of a data set that has a right is the same or has some of
   its rows. The seal is made by its first import where that had no right, taken away for good with its first
   right, and keyed by the node: nobody else can add one to the catalogue. Without the node's key, and in a
   store of a version without seals, nothing is forgotten.
2. ``budget``: its lineage has a ledger, or any ledger was ever charged for its unit.
3. ``donated``: the owner gave it away; it is public for good.
4. ``deployed``: a model acted in it, which it must not lose by coming back as somebody's own.
5. ``elsewhere``: another data set holds it.

A data set whose files cannot be read may hold a right: then nothing is forgotten (``unreadable``). Splits
are drawn by the node's key from unit or content, so what comes back as it was has the split that it had.
Who owns the disk can put back an old copy of the whole store. That gains nothing where it counts: the ledgers
lie elsewhere, know their units, and refuse these under another lineage.

    forgetting = Forgetting(node_key=key, is_sealed=..., is_charged=..., is_donated=...)
    store.remove("kita/pick", forgetting=forgetting)
    forgetting.forgotten, forgetting.kept            # 3, {"right": 2}
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from client.data.catalogue import keyed
from client.data.errors import StoreDamagedError
from client.data.markfiles import without_marks
from client.data.owners import EPISODE, unit_id
from client.data.places import RowIndex, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.data.catalogue import Catalogue, EpisodeKey
    from client.data.episodes import EpisodeMeta
    from client.data.store import Store

__all__ = ["Forgetting", "is_unbound", "seal", "seals_of"]

_PURPOSE: Final = "iriai-unbound/1"


def seal(node_key: bytes, lineage: str, key: EpisodeKey) -> str:
    """What says of an episode of the catalogue that it never had a right."""
    content, place, unit, _ = key
    return keyed(node_key, _PURPOSE, f"{lineage}\n{content}\n{place}\n{unit}".encode("ascii")).hex()


def seals_of(node_key: bytes, lineage: str, keys: Iterable[EpisodeKey]) -> dict[str, str]:
    """Content and seal of new episodes that came without a right."""
    return {key[0]: seal(node_key, lineage, key) for key in keys}


def is_unbound(node_key: bytes, catalogue: Catalogue, lineage: str, key: EpisodeKey) -> bool:
    """Whether an episode never had a right."""
    found = catalogue.unbound.get(key[0], "")
    return found.isascii() and compare_digest(found, seal(node_key, lineage, key))


class _Held:
    """Contents and rows of some stored episodes."""

    def __init__(self, metas: Iterable[EpisodeMeta]) -> None:
        found = list(metas)
        self._contents = {one.content for one in found}
        self._rows = RowIndex(Rows(one.file_sha256, one.first_row, one.last_row) for one in found)

    def has(self, key: EpisodeKey) -> bool:
        """Whether one of them is this episode, or has a row of it."""
        return key[0] in self._contents or self._rows.overlaps(Rows.read(key[1]))


def _no(*_: object) -> bool:
    return False


@dataclass(slots=True, kw_only=True)
class Forgetting:
    """What one removal may forget, and afterwards what it did forget.

    Attributes:
        node_key: Secret of this node.
        is_sealed: Whether the budget of a lineage was opened.
        is_charged: Whether a ledger was ever charged for a unit.
        is_donated: Whether an episode, by content and place, was given away.
        forgotten: How many episodes were.
        kept: Reason to how many of the data set's episodes stay known for it.
    """

    node_key: bytes
    is_sealed: Callable[[str], bool]
    is_charged: Callable[[bytes], bool] = _no
    is_donated: Callable[[str, str], bool] = _no
    forgotten: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    def apply(self, store: Store, name: str, catalogue: Catalogue) -> Catalogue:
        """The catalogue without the data set's episodes that may be forgotten; their marks are gone from it.

        Args:
            store: Locked.
            name: Data set that is about to be removed.
            catalogue: As it is.

        Raises:
            StoreDamagedError: A file of marks is missing or changed.
        """
        try:
            metas = {one: [row.meta for row in store.episodes(one)] for one in catalogue.datasets}
        except StoreDamagedError:
            self.kept = {"unreadable": len(catalogue.unbound)}
            return catalogue
        others = [row for one, rows in metas.items() if one != name for row in rows]
        entitled = [row for rows in metas.values() for row in rows if any(row.rights)]
        mine, held, bound = _Held(metas[name]), _Held(others), _Held(entitled)
        why: Counter[str] = Counter()
        gone = set()
        for lineage, key in catalogue.rows():
            if mine.has(key) or not held.has(key):
                reason = self._reason(catalogue, lineage, key, bound, held)
                if not reason:
                    gone.add(key[0])
                elif mine.has(key):
                    why[reason] += 1
        self.forgotten, self.kept = len(gone), dict(sorted(why.items()))
        if not gone:
            return catalogue
        return without_marks(store.root, catalogue, gone).without_rows(gone)

    def _reason(self, catalogue: Catalogue, lineage: str, key: EpisodeKey, bound: _Held, held: _Held) -> str:
        """Why an episode stays known; empty where nothing keeps it."""
        content, place, unit, _ = key
        owner = bytes.fromhex(unit) if unit else unit_id(self.node_key, EPISODE, bytes.fromhex(content))
        if not is_unbound(self.node_key, catalogue, lineage, key) or bound.has(key):  # 1
            return "right"
        if self.is_sealed(lineage) or self.is_charged(owner):  # 2
            return "budget"
        if self.is_donated(content, place):  # 3
            return "donated"
        if content in catalogue.acts:  # 4
            return "deployed"
        return "elsewhere" if held.has(key) else ""  # 5
