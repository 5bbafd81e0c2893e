# SPDX-License-Identifier: Apache-2.0
"""What this node can show of itself: what left, and what its gate decided. Budgets are shown elsewhere.

Both show the newest `ROWS` unless all are asked for, or one run's; what is not shown is counted and said.
For people, transmissions that differ only in round, time and bytes are one line; programs get each.

    outbox_list(outbox)                 # text ends with "1000 of 1181 shown; --all or --run for the rest"
    outbox_list(outbox, run="run_…")    # all of this run
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, plain, ranges, short, table
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from client.outbox import Outbox
    from client.outbox.rows import Decided, Sent

__all__ = ["AGAIN", "ROWS", "guard_log", "outbox_list"]

ROWS: Final = 1000
AGAIN: Final = "descriptor-again"  # under which the outbox keeps why a data set was described anew so soon


def outbox_list(outbox: Outbox, *, run: str | None = None, every: bool = False) -> Answer:
    """Every transmission, newest first.

    Args:
        outbox: Of the node.
        run: Only of this run.
        every: Also those that are older than the newest `ROWS`.
    """
    rows = outbox.left.sent(_limit(run, every=every), run=run)
    total, size = outbox.left.sent_count(run), outbox.left.sent_bytes(run)
    again = () if run else outbox.listed(AGAIN)
    lines = table(
        ("newest", "times", "bytes", "kind", "run", "rounds", "digest", "clause", "receipts"),
        [_one_line(alike) for alike in _alike(rows)],
    )
    return Answer(
        data={
            "sent": [asdict(one) for one in rows],
            "total": total,
            "total_bytes": size,
            "without_receipt": outbox.pending_count(),
            "again": list(again),
        },
        text=(
            *lines,
            *_cut(len(rows), total),
            *(f"described again  {plain(one)}" for one in again),
            f"sum  {size} bytes in {total} messages",
        ),
    )


def guard_log(outbox: Outbox, run: str | None, *, every: bool = False) -> Answer:
    """Decisions of the gate, newest first.

    Args:
        outbox: Of the node.
        run: Only about this run.
        every: Also those that are older than the newest `ROWS`.
    """
    rows = outbox.left.decisions(run=run, limit=_limit(run, every=every))
    total = outbox.left.decisions_count(run)
    lines = table(
        ("when", "kind", "run", "round", "attempt", "", "clauses"),
        [
            (
                iso_s(one.at_ms),
                one.kind,
                one.run,
                one.round,
                one.attempt,
                "allowed" if one.allow else "REFUSED",
                " ".join(one.clauses) or "-",
            )
            for one in rows
        ],
    )
    return Answer(
        data={"decisions": [_decided(one) for one in rows], "total": total},
        text=(*lines, *_cut(len(rows), total)),
    )


def _limit(run: str | None, *, every: bool) -> int | None:
    return None if every or run is not None else ROWS


def _cut(shown: int, total: int) -> tuple[str, ...]:
    return (f"{shown} of {total} shown; --all or --run for the rest",) if shown < total else ()


def _alike(rows: Iterable[Sent]) -> list[list[Sent]]:
    """Transmissions that are told in the same words together, the group with the newest first."""
    groups: dict[tuple[object, ...], list[Sent]] = {}
    for one in rows:
        groups.setdefault((one.kind, one.run, one.clause, one.receipts), []).append(one)
    return list(groups.values())


def _one_line(alike: Sequence[Sent]) -> tuple[object, ...]:
    newest = alike[0]
    rounds = ranges(sorted({one.round for one in alike if one.round is not None}))
    return (
        iso_s(newest.at_ms),
        len(alike),
        sum(one.size_bytes for one in alike),
        newest.kind,
        newest.run or "-",
        rounds or "-",
        short(newest.digest) if len(alike) == 1 else "-",
        newest.clause or "-",
        newest.receipts,
    )


def _decided(one: Decided) -> dict[str, Any]:
    return {
        "at_ms": one.at_ms,
        "kind": one.kind,
        "run": one.run,
        "round": one.round,
        "attempt": one.attempt,
        "allow": one.allow,
        "clauses": list(one.clauses),
    }
