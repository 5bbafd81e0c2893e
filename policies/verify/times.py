# SPDX-License-Identifier: Apache-2.0
"""Step 4, times of entries against times of witnesses. AUD-091.

An entry stands behind every checkpoint whose size does not reach it, and before every one that does. So its
time, which is the broker's word, lies between two times that are not:

1. not before the first cosignature of the newest cosigned checkpoint without it, less five minutes;
2. not after the first cosignature of the oldest cosigned checkpoint with it, plus five minutes.

Five minutes are what clocks may differ, and what a witness may take. ``ts`` shows the minute; ``at``, where
it is disclosed, the millisecond. One pass over the entries; nothing is claimed before the first cosignature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.limits import WITNESS_CLOCK_S
from policies.ports import iso_s
from policies.verify.checkpoints import cosignatures
from policies.verify.errors import InputError
from policies.verify.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.verify.checkpoints import Cosigned
    from policies.verify.history import History
    from policies.verify.ledger import Row

__all__ = ["check_as_of", "check_times"]

_MINUTE_MS = 60_000
_SKEW_MS = WITNESS_CLOCK_S * 1000


def check_times(history: History, cosigned: Sequence[Cosigned], report: Report) -> None:
    """AUD-091."""
    if not cosigned:
        return
    marks = [(one.size, min(one.times.values()) * 1000) for one in cosigned]
    at, after = 0, 0
    for index, row in history.ledger.rows():
        while at < len(marks) and marks[at][0] <= index:
            after = max(after, marks[at][1])
            at += 1
        before = marks[at][1] if at < len(marks) else None
        earliest, latest = _span(row)
        if latest < after - _SKEW_MS:  # 1.
            ts = history.entries[index].ts
            report.add("AUD-091", f"{ts}, yet behind what was cosigned at {iso_s(after)}", index=index)
        elif before is not None and earliest > before + _SKEW_MS:  # 2.
            ts = history.entries[index].ts
            report.add("AUD-091", f"{ts}, yet in what was cosigned at {iso_s(before)}", index=index)


def check_as_of(history: History, note: str, as_of_ms: int | None) -> None:
    """Whether somebody can have looked at this bundle then: a slip would switch AUD-017 and AUD-018 off.

    Args:
        history: That is looked at.
        note: Of the bundle's checkpoint.
        as_of_ms: What ``--as-of`` says.

    Raises:
        InputError: It lies before the newest cosignature, or before the last entry.
    """
    if as_of_ms is None:
        return
    cosigned = cosignatures(history, note, "AUD-014", "checkpoint", Report()).times.values()
    last = history.ledger.row(history.size - 1) if history.size else None
    there = {
        "the newest cosignature": max(cosigned, default=0) * 1000,
        "the last entry": 0 if last is None else _span(last)[0],
    }
    name, newest_ms = max(there.items(), key=lambda one: one[1])
    if as_of_ms < newest_ms - _SKEW_MS:
        raise InputError(
            need=f"--as-of when you look at the bundle, after {name} of {iso_s(newest_ms)}",
            found=iso_s(as_of_ms),
            remedy="correct the time; if it is right, the log's times lie ahead of yours: ask why",
        )


def _span(row: Row) -> tuple[int, int]:
    """When the entry says that it was made: a minute, or a millisecond where it is disclosed."""
    if row.at_ms >= 0:
        return row.at_ms, row.at_ms
    minute = row.minute * _MINUTE_MS
    return minute, minute + _MINUTE_MS - 1
