# SPDX-License-Identifier: Apache-2.0
"""Masked vectors of one team, added up as they arrive: modulo 2^32, one vector of memory for all of them.

A vector is looked at whole before its first value is added: nothing of a wrong one gets into the sum.

    total = RingSum(d)
    total.add([b"...", b"..."])         # the bytes of one vector, in pieces as they came
    total.pour(tensor.chunks())         # of one whose length and digest were checked, read piece by piece
    masks.unmask(total.values, remove)
    total.digest()                      # of the opened sum's little-endian bytes
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from policies.errors import invariant
from policies.secagg.errors import UpdateUnfitError
from policies.secagg.ring import RING, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RingSum"]


class RingSum:
    """A sum of vectors.

    Attributes:
        values: ``<u4 [d]``, so far.
        count: Vectors in it.
    """

    def __init__(self, dimension: int) -> None:
        self.values = np.zeros(dimension, RING)
        self.count = 0

    def add(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Adds one vector that came in pieces of whole values each (of an array its ``data``).

        Raises:
            UpdateUnfitError: They are not d values.
        """
        views = [memoryview(one).cast("B") for one in parts]
        if sum(map(len, views)) != self.values.nbytes or any(len(one) % RING.itemsize for one in views):
            raise UpdateUnfitError(
                need=f"{self.values.size} values of {RING.itemsize} bytes",
                found=f"{sum(map(len, views))} bytes in {len(views)} pieces",
                remedy="refuse the reply",
            )
        self.pour(views)

    def pour(self, parts: Iterable[bytes | memoryview]) -> None:
        """Adds one vector that was checked, piece by piece: one piece at a time is in memory.

        Raises:
            InvariantError: It is not as long as the sum, which is of no use any more.
        """
        at = 0
        for part in parts:
            words = np.frombuffer(part, RING)
            self.values[at : at + words.size] += words
            at += words.size
        invariant(at == self.values.size, "a vector of the sum's length")
        self.count += 1

    def digest(self) -> str:
        """``sha256:…`` of the values' bytes."""
        hashed = hashlib.sha256()
        for piece in pieces(self.values.size):
            hashed.update(self.values[piece].data)
        return f"sha256:{hashed.hexdigest()}"
