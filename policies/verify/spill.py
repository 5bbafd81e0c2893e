# SPDX-License-Identifier: Apache-2.0
"""What an audit knows about every entry, kept in temporary files: memory does not grow with the log.

- `SpillFile`: bytes at offsets, shared by forked processes; what was never written reads as zeros.
- `SpillTree`: the Merkle tree of all entries with the interface of `policies.log.merkle.MemoryTree`. It is
  filled tile by tile in any order and by any process, then `SpillTree.finish` makes the hashes above the
  tiles.
- `Doubles`: finds keys that came more than once, by sorting on disk.

The files have no name, or lose it at once: nothing is left behind, also after a crash.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING

from policies.log.errors import ProofError
from policies.log.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    node_hash,
    prove_consistency,
    prove_inclusion,
    range_root,
)
from policies.log.tiles import TILE_WIDTH
from policies.verify.source import read_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Doubles", "SpillFile", "SpillTree"]

_TILE_LEVEL = 8
_ROOTS = 4_096  # of prefixes that are kept at hand: envelopes name the newest ones again and again
_BATCH = 1_024


class SpillFile:
    """A temporary file without a name."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile(buffering=0) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes at an offset; zeros where nothing was written."""
        return read_at(self._descriptor, offset, length).ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """Bytes at an offset."""
        while data:
            if hasattr(os, "pwrite"):
                done = os.pwrite(self._descriptor, data, offset)
            else:
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                done = os.write(self._descriptor, data)
            offset, data = offset + done, data[done:]


class SpillTree:
    """A whole tree on disk.

    Args:
        size: Number of leaves.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._file = SpillFile()
        self._starts = [0]
        while size >> len(self._starts):
            self._starts.append(self._starts[-1] + (size >> len(self._starts) - 1) * HASH_BYTES)
        self._prefix = lru_cache(maxsize=_ROOTS)(self._prefix_root)

    def fill(self, tile: int, leaves: Sequence[bytes]) -> None:
        """The leaf hashes of a tile of 256, and what follows from them inside it."""
        level, hashes, first = 0, list(leaves), tile * TILE_WIDTH
        while hashes and level < len(self._starts):
            self._put(level, first >> level, hashes)
            if level == _TILE_LEVEL:
                return
            hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
            level += 1

    def finish(self) -> None:
        """The hashes above the tiles, once all tiles are there."""
        for level in range(_TILE_LEVEL, len(self._starts) - 1):
            count = self.size >> level
            for start in range(0, count - 1, 2 * _BATCH):
                below = self.hashes(level, start, min(start + 2 * _BATCH, count))
                above = [node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
                self._put(level + 1, start // 2, above)

    def hashes(self, level: int, start: int, end: int) -> list[bytes]:
        """Hashes ``[start, end)`` of a level."""
        data = self._file.read(self._starts[level] + start * HASH_BYTES, (end - start) * HASH_BYTES)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def leaf(self, index: int) -> bytes:
        """Leaf hash of an entry.

        Raises:
            IndexError: There is no such entry.
        """
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """Root of the first ``size`` leaves; of all of them without it.

        Raises:
            ProofError: More leaves than there are.
        """
        wanted = self.size if size is None else size
        if not 0 <= wanted <= self.size:
            raise ProofError(need=f"at most {self.size} leaves", found=str(wanted), remedy="ask for a prefix")
        return self._prefix(wanted)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Inclusion proof in the tree of ``size``, or of all leaves."""
        return prove_inclusion(index, self.size if size is None else size, self._range)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Consistency proof from ``old`` to ``new``, or to all leaves."""
        return prove_consistency(old, self.size if new is None else new, self._range)

    def _prefix_root(self, size: int) -> bytes:
        return self._range(0, size) if size else EMPTY_ROOT

    def _range(self, start: int, end: int) -> bytes:
        return range_root(start, end, self._node)

    def _node(self, level: int, index: int) -> bytes:
        return self._file.read(self._starts[level] + index * HASH_BYTES, HASH_BYTES)

    def _put(self, level: int, index: int, hashes: Sequence[bytes]) -> None:
        self._file.write(self._starts[level] + index * HASH_BYTES, b"".join(hashes))


class Doubles:
    """Keys of 8 bytes with the index that each came with; sorted on disk."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None)  # a temporary database of its own, on disk
        for setting in ("cache_size=-512", "journal_mode=OFF", "synchronous=OFF", "temp_store=FILE"):
            self._base.execute(f"PRAGMA {setting}")
        self._base.execute("CREATE TABLE seen (key INTEGER NOT NULL, at INTEGER NOT NULL)")

    def add(self, keys: Iterable[tuple[bytes, int]]) -> None:
        """Keys with their indexes, rising."""
        rows = ((int.from_bytes(key, "big", signed=True), index) for key, index in keys)
        self._base.execute("BEGIN")
        self._base.executemany("INSERT INTO seen VALUES (?, ?)", rows)
        self._base.execute("COMMIT")

    def groups(self) -> Iterator[list[int]]:
        """Indexes that came with one key, ascending, for every key that came more than once; asked once."""
        self._base.execute("CREATE TEMP TABLE twice AS SELECT key FROM seen GROUP BY key HAVING COUNT(*) > 1")
        self._base.execute("CREATE UNIQUE INDEX temp.of_twice ON twice (key)")
        query = "SELECT seen.key, at FROM seen CROSS JOIN twice USING (key) ORDER BY seen.key, at"
        last, group = None, list[int]()
        for key, index in self._base.execute(query):
            if key != last and group:
                yield group
                group = []
            last = key
            group.append(index)
        if group:
            yield group
        self._base.close()
