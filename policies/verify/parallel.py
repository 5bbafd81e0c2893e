# SPDX-License-Identifier: Apache-2.0
"""Work on parts of a log by several processes, with results in the order of the parts.

A forked process sees what its parent knew at that moment; what it learns comes back as its result or
stands in the temporary files that both have open. Where the system cannot fork, or with one job, the parts
are worked on one after the other, with the same results.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from policies.verify.errors import WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["chunks", "in_order"]

Part = TypeVar("Part")
Result = TypeVar("Result")
_work: list[Callable[[Any], Any]] = []  # of this process; a forked one calls its parent's


def chunks(count: int, size: int) -> list[range]:
    """Numbers below ``count`` in parts of this size."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def in_order(work: Callable[[Part], Result], parts: Sequence[Part], jobs: int) -> Iterator[Result]:
    """Results of the parts, in their order.

    Raises:
        RuntimeError: The work failed in another process; with its trace.
        WorkerLostError: Another process was killed, for example for want of memory.
    """
    jobs = min(jobs, len(parts))
    if jobs < 2 or "fork" not in multiprocessing.get_all_start_methods():  # noqa: PLR2004  one does it alone
        yield from map(work, parts)
        return
    _work.append(work)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("fork"),
        initializer=signal.signal,  # a terminal's Ctrl-C reaches all of them: they end without a trace
        initargs=(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for done, failed in pool.map(_call, parts):
            if failed:
                raise RuntimeError(failed)
            yield done
    except BrokenProcessPool as error:
        raise WorkerLostError(
            need=f"{jobs} processes that finish their parts",
            found="one that was killed",
            remedy="see whether memory ran out; fewer --jobs need less",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        _work.pop()


def _call(part: Any) -> tuple[Any, str]:  # noqa: ANN401  whatever the work takes and gives
    try:
        return _work[-1](part), ""
    except Exception:  # noqa: BLE001  told to the parent, which stops
        return None, traceback.format_exc()
