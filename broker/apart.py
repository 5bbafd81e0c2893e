# SPDX-License-Identifier: Apache-2.0
"""Work of seconds that a caller can ask for, beside the event loop: texts are read, linted and proven there.

A text may be as long as a body, and strict reading is slow. Everybody else is answered meanwhile: a few such
works go on at a time, the others wait.

    proposal = await apart(lambda: services.offers.read(text, recipes=[], prose=None))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from policies.limits import APART_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["apart"]

_T = TypeVar("_T")
_limiter: Final[RunVar[CapacityLimiter]] = RunVar("iriai-apart")


async def apart(work: Callable[[], _T]) -> _T:
    """What the work returns or raises, once it was done on another thread."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(APART_AT_ONCE)
        _limiter.set(limiter)
    return await to_thread.run_sync(work, limiter=limiter)
