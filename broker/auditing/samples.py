# SPDX-License-Identifier: Apache-2.0
"""Samples of the log, drawn beside the event loop where that takes long, and kept for whoever asks again.

Drawing ranks every index of the log (`policies.verify.sampling`): about a second for a million entries. A
sample is named by root, seed and size, so a kept one is never stale.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from policies.verify.sampling import draw

__all__ = ["Samples"]

_AT_ONCE: Final = 20_000  # entries that are ranked while somebody waits
_KEPT: Final = 64
_Name = tuple[bytes, str, int, int]


class Samples:
    """For one event loop."""

    def __init__(self) -> None:
        self._drawn: OrderedDict[_Name, Future[list[int]]] = OrderedDict()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sample")

    def draw(self, root: bytes, seed: str, *, size: int, count: int) -> list[int] | None:
        """The sample, or None while it is being drawn: ask again in a moment."""
        if size <= _AT_ONCE:
            return draw(root, seed, range(size), count)
        name = (root, seed, size, count)
        if name not in self._drawn:
            self._drawn[name] = self._worker.submit(draw, root, seed, range(size), count)
            while len(self._drawn) > _KEPT:
                self._drawn.popitem(last=False)
        found = self._drawn[name]
        return found.result() if found.done() else None

    def close(self) -> None:
        """Draws no more."""
        self._worker.shutdown(wait=False, cancel_futures=True)
