# SPDX-License-Identifier: Apache-2.0
"""How fast the log grows: where a moment lies in it, found in a few steps, because its times never go back.

since = first_since(session, now_ms - DAY_MS)         index of the first entry of the last day
grown = size - since
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from broker.store.tables import log_entry

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["first_since"]


def first_since(session: Session, since_ms: int) -> int:
    """Index of the first entry that is not older than a moment; the size of the log if all are."""
    newest = session.scalar(select(func.max(log_entry.c.idx)))
    low, high = 0, 0 if newest is None else int(newest) + 1
    while low < high:
        middle = (low + high) // 2
        at_ms = session.scalar(select(log_entry.c.ts_ms).where(log_entry.c.idx == middle))
        low, high = (low, middle) if at_ms is not None and at_ms >= since_ms else (middle + 1, high)
    return low
