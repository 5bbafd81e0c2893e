# SPDX-License-Identifier: Apache-2.0
"""The whole tree in memory, rebuilt from the stored bodies at every start: proofs in logarithmic time.

Each level is one run of bytes, so that an entry costs 64 bytes of memory with all nodes above it, and a proof
no read from the disk. What a tree in memory says cannot be changed behind the broker's back: proofs and tiles
are given from here, and the stored tiles are only compared with it.

One thread appends and truncates. Any thread may read sizes that were published, because a level only ever
changes beyond them.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING

from policies.log.merkle import HASH_BYTES, Frontier, MemoryTree, node_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["GrowingTree"]

_PAIR = 2 * HASH_BYTES


class GrowingTree(MemoryTree):
    """A `MemoryTree` that starts empty, can be appended to, and can forget its end again."""

    def __init__(self) -> None:
        super().__init__(())
        self._runs = [bytearray()]

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._runs[0]) // HASH_BYTES

    def leaf(self, index: int) -> bytes:
        """Leaf hash of an entry."""
        return self._node(0, index)

    def append(self, leaf: bytes) -> None:
        """Adds one leaf hash, and every subtree that it completes."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Adds leaf hashes, and every subtree that they complete."""
        self._runs[0] += b"".join(leaves)
        sha256, level = hashlib.sha256, 0
        while len(self._runs[level]) >= _PAIR:
            below = self._runs[level]
            if level + 1 == len(self._runs):
                self._runs.append(bytearray())
            above = self._runs[level + 1]
            ends = range(2 * len(above), len(below) - len(below) % _PAIR + 1, _PAIR)
            above += b"".join([sha256(b"\x01" + below[at:end]).digest() for at, end in pairwise(ends)])
            level += 1

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """As in `MemoryTree`, from the leaf upwards: every receipt asks for one."""
        wanted = self.size if size is None else size
        if not 0 <= index < wanted <= self.size:
            return super().inclusion(index, size)  # says what is wrong
        proof, level, place = [], 0, index
        while 1 << level < wanted:
            sibling = place ^ 1
            start = sibling << level
            if start + (1 << level) <= wanted:
                at = sibling * HASH_BYTES
                proof.append(bytes(self._runs[level][at : at + HASH_BYTES]))
            elif start < wanted:
                proof.append(self._range(start, wanted))
            level, place = level + 1, place >> 1
        return proof

    def truncate(self, size: int) -> None:
        """Forgets all leaves from ``size`` on: they were not committed."""
        for level, run in enumerate(self._runs):
            del run[(size >> level) * HASH_BYTES :]

    def frontier(self) -> Frontier:
        """Right edge of the tree."""
        size, nodes, start = self.size, [], 0
        for level in reversed(range(len(self._runs))):
            if size >> level & 1:
                nodes.append(self._node(level, start >> level))
                start += 1 << level
        return Frontier(size, tuple(nodes))

    def run(self, level: int, start: int, end: int) -> bytes:
        """Nodes ``[start, end)`` of a level, one after the other; fewer where the level ends before."""
        if level >= len(self._runs):
            return b""
        return bytes(self._runs[level][start * HASH_BYTES : end * HASH_BYTES])

    def _node(self, level: int, at: int) -> bytes:
        return bytes(self._runs[level][at * HASH_BYTES : (at + 1) * HASH_BYTES])

    def _range(self, start: int, end: int) -> bytes:
        """As in `MemoryTree`."""
        if start == end:
            return super()._range(0, 0)
        level = (end - start).bit_length() - 1
        if end - start == 1 << level:  # almost always: only the right edge has more than one
            return self._node(level, start >> level)
        middle = start + (1 << level)
        return node_hash(self._node(level, start >> level), self._range(middle, end))
