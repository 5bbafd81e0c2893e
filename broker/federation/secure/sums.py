# SPDX-License-Identifier: Apache-2.0
"""The sum of one attempt: masked vectors go in as they arrive, chunk by chunk, and none is kept in memory.

total = MaskedSum(terms, vectors)
await total.add(tensor)                 # and keeps the vector's file, if the contract lets it
opened = await total.opened(remove)     # masks off, in place; the ring sum and its digest
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from policies.secagg.masks import unmask
from policies.secagg.sums import RingSum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np

    from broker.federation.engine import TensorHandle
    from broker.federation.secure.vectors import Vectors
    from policies.secagg.masks import Signed
    from policies.secagg.terms import Terms

__all__ = ["MaskedSum", "apart_from_loop"]

T = TypeVar("T")
_INLINE_BYTES = 1024 * 1024


class MaskedSum:
    """Grows with each vector; memory is one vector, whatever the number of members."""

    def __init__(self, terms: Terms, vectors: Vectors) -> None:
        self._total = RingSum(terms.dimension)
        self._vectors = vectors

    async def add(self, tensor: TensorHandle) -> None:
        """Adds a vector whose digest, type and length were checked.

        Raises:
            OSError: It cannot be kept.
        """

        def work() -> None:
            self._vectors.keep(tensor)
            self._total.pour(tensor.chunks())

        await apart_from_loop(work, tensor.spec.size_bytes)

    async def opened(self, remove: Iterable[Signed]) -> tuple[np.ndarray, str]:
        """Takes masks off; gives the ring sum ``<u4 [d]`` and the digest of its bytes."""
        keys = tuple(remove)

        def work() -> str:
            unmask(self._total.values, keys)
            return self._total.digest()

        named = await apart_from_loop(work, self._total.values.nbytes)
        return self._total.values, named


async def apart_from_loop(work: Callable[[], T], size_bytes: int) -> T:
    """Does it in another thread where it is long."""
    return await asyncio.to_thread(work) if size_bytes > _INLINE_BYTES else work()
