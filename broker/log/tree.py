# SPDX-License-Identifier: Apache-2.0
"""The whole tree in memory, rebuilt from the stored bodies at every start: proofs in logarithmic time.

One thread appends. Any thread may read sizes that were published before, because a level only ever grows at
its end, and the leaves last.
"""

from __future__ import annotations

from policies.log.merkle import Frontier, MemoryTree, node_hash

__all__ = ["GrowingTree"]


class GrowingTree(MemoryTree):
    """A `MemoryTree` that starts empty and can be appended to."""

    def __init__(self) -> None:
        super().__init__(())

    def append(self, leaf: bytes) -> None:
        """Adds one leaf hash, and every subtree that it completes."""
        levels, count, node = self._levels, self.size + 1, leaf
        made: list[bytes] = []
        while count % 2 == 0:
            node = node_hash(levels[len(made)][count - 2], node)
            made.append(node)
            count //= 2
        for level, one in enumerate(made, start=1):
            if level == len(levels):
                levels.append([])
            levels[level].append(one)
        levels[0].append(leaf)

    def frontier(self) -> Frontier:
        """Right edge of the tree."""
        size, nodes, start = self.size, [], 0
        for level in reversed(range(len(self._levels))):
            if size >> level & 1:
                nodes.append(self._levels[level][start >> level])
                start += 1 << level
        return Frontier(size, tuple(nodes))
