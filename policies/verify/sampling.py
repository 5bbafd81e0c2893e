# SPDX-License-Identifier: Apache-2.0
"""A sample that the audited party cannot choose and anybody can draw again.

The rank of entry ``idx`` is ``SHA256(root || seed || idx)``: the checkpoint's root (32 bytes), the
auditor's seed (UTF-8, may be empty), the index as 8 bytes, big-endian. The sample is the ``n`` entries of
smallest rank, in the order of their indexes. The broker fixed the root before it knew the seed, and cannot
change it without all voters.

By hand::

    python3 -c "import
    hashlib,sys;r,s,i=sys.argv[1:];print(hashlib.sha256(bytes.fromhex(r)+s.encode()+int(i).to_bytes(8)).hexdigest())"
    ROOT SEED INDEX
"""

from __future__ import annotations

import hashlib
import heapq
from typing import TYPE_CHECKING

from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from policies.verify.history import History

__all__ = ["SAMPLE", "candidates", "draw", "rank"]

SAMPLE = 25
"""Entries of a sample where nobody says otherwise."""


def rank(root: bytes, seed: str, index: int) -> bytes:
    """Rank of an entry, 32 bytes: the smallest are drawn."""
    return hashlib.sha256(root + seed.encode("utf-8") + index.to_bytes(8, "big")).digest()


def draw(root: bytes, seed: str, indexes: Iterable[int], count: int) -> list[int]:
    """The ``count`` indexes of smallest rank, ascending; memory for these alone is needed."""
    return sorted(heapq.nsmallest(count, indexes, key=lambda index: rank(root, seed, index)))


def candidates(
    history: History, *, kind: EntryType | None = None, number: int | None = None
) -> Iterator[int]:
    """Indexes that may be drawn: all, those of one type, those of one round."""
    if kind is None and number is None:
        yield from range(history.size)
        return
    kinds = tuple(EntryType) if kind is None else (kind,)
    for index, entry in history.of(*kinds):
        if number is None or entry.round == number:
            yield index
