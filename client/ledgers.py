# SPDX-License-Identifier: Apache-2.0
"""What this node can show of itself: what left, and what its gate decided. Budgets are shown elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from policies.ports import iso_s

if TYPE_CHECKING:
    from client.outbox import Outbox
    from client.rows import Decided

__all__ = ["guard_log", "outbox_list"]


def outbox_list(outbox: Outbox) -> Answer:
    """Every transmission, newest first."""
    rows = outbox.sent()
    lines = table(
        ("when", "bytes", "kind", "run", "round", "digest", "clause", "receipts"),
        [
            (
                iso_s(one.at_ms),
                one.size_bytes,
                one.kind,
                one.run or "-",
                "-" if one.round is None else one.round,
                short(one.digest),
                one.clause or "-",
                one.receipts,
            )
            for one in rows
        ],
    )
    return Answer(
        data={
            "sent": [asdict(one) for one in rows],
            "total_bytes": outbox.sent_bytes(),
            "without_receipt": len(outbox.pending(limit=10_000)),
        },
        text=(*lines, f"sum  {outbox.sent_bytes()} bytes"),
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


def guard_log(outbox: Outbox, run: str | None) -> Answer:
    """Decisions of the gate, newest first."""
    rows = outbox.decisions(run=run)
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
    return Answer(data={"decisions": [_decided(one) for one in rows]}, text=lines)
