# SPDX-License-Identifier: Apache-2.0
"""Transmissions and decisions, a page at a time, newest first, by the number of the row.

A cursor is the number of the last row that was shown: what comes in meanwhile moves nothing. A page reads as
many rows as it shows and one more, however many there are.

Grades of a transmission, by the envelopes that left with it:

    none           it carried none: nothing of it is in the log
    waiting        the broker's receipt for one of them is not here yet
    late           so for longer than `WITNESS_MAX_AGE_MIN`, or unwitnessed for that long where that is due
    signed         each has a receipt that the broker signed
    witnessed      each has a receipt that enough witnesses cosigned
    contradicted   the log showed two histories before there was a receipt
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from client.outbox.rows import Decided
from policies.limits import WITNESS_MAX_AGE_MIN

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

__all__ = ["Grade", "Left", "Totals", "decided_page", "sent_page", "totals"]

_LATE_MS: Final = WITNESS_MAX_AGE_MIN * 60_000
_RUNS: Final = 100
Grade = Literal["none", "waiting", "late", "signed", "witnessed", "contradicted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One transmission; ``number`` is its row."""

    number: int
    at_ms: int
    kind: str
    size_bytes: int
    digest: str
    clause: str | None
    contract: str | None
    run: str | None
    round: int | None
    attempt: int | None
    envelopes: int
    receipts: int
    witnessed: int

    def grade(self, *, now_ms: int, stopped_ms: int | None, demanding: Collection[str]) -> Grade:
        """How well the log is known to hold it; see the module.

        Args:
            now_ms: Now.
            stopped_ms: When the log contradicted itself, if it did.
            demanding: Contracts under which witnesses are due.
        """
        if not self.envelopes:
            return "none"
        if self.witnessed == self.envelopes:
            return "witnessed"
        old = now_ms - self.at_ms > _LATE_MS
        if self.receipts == self.envelopes:
            return "late" if old and self.contract in demanding else "signed"
        if stopped_ms is not None:
            return "contradicted"
        return "late" if old else "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What left for one run, or for none."""

    run: str | None
    messages: int
    size_bytes: int
    first_ms: int
    last_ms: int


_SENT = (
    "SELECT s.id, s.at_ms, s.kind, s.size_bytes, s.digest, s.clause, s.contract, s.run, s.round, s.attempt,"
    " (SELECT count(*) FROM envelope e WHERE e.seq BETWEEN s.first_seq AND s.last_seq),"
    " (SELECT count(e.receipt) FROM envelope e WHERE e.seq BETWEEN s.first_seq AND s.last_seq),"
    " (SELECT count(*) FROM envelope e JOIN witnessed_receipt w ON w.env = e.env"
    " WHERE e.seq BETWEEN s.first_seq AND s.last_seq)"
    " FROM sent s WHERE (?1 IS NULL OR s.run = ?1) AND (?2 IS NULL OR s.id < ?2) ORDER BY s.id DESC LIMIT ?3"
)


def sent_page(
    database: sqlite3.Connection, *, run: str | None, before: int | None, limit: int
) -> tuple[tuple[Left, ...], int | None]:
    """Transmissions before a row, and the cursor of the next page; None where these are the last."""
    rows = database.execute(_SENT, (run, before, limit + 1)).fetchall()
    found = tuple(
        Left(
            number=row[0], at_ms=row[1], kind=row[2], size_bytes=row[3], digest=row[4], clause=row[5],
            contract=row[6], run=row[7], round=row[8], attempt=row[9],
            envelopes=row[10], receipts=row[11], witnessed=row[12],
        )
        for row in rows[:limit]
    )  # fmt: skip
    return found, found[-1].number if len(rows) > limit else None


def totals(database: sqlite3.Connection) -> tuple[Totals, ...]:
    """What left, run by run, the newest first."""
    rows = database.execute(
        "SELECT run, count(*), sum(size_bytes), min(at_ms), max(at_ms) FROM sent"
        " GROUP BY run ORDER BY max(id) DESC LIMIT ?",
        (_RUNS,),
    ).fetchall()
    return tuple(
        Totals(run=row[0], messages=row[1], size_bytes=row[2], first_ms=row[3], last_ms=row[4])
        for row in rows
    )


def decided_page(
    database: sqlite3.Connection, *, run: str | None, before: int | None, limit: int
) -> tuple[tuple[tuple[int, Decided], ...], int | None]:
    """Refusals of the guard before a row, each with its number, and the cursor of the next page."""
    rows = database.execute(
        "SELECT id, at_ms, contract, recipe, run, round, attempt, kind, clauses, document FROM decision"
        " WHERE allow = 0 AND (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        (run, before, limit + 1),
    ).fetchall()
    found = tuple(
        (
            row[0],
            Decided(
                at_ms=row[1], contract=row[2], recipe=row[3], run=row[4], round=row[5], attempt=row[6],
                kind=row[7], allow=False, clauses=tuple(row[8].split()), document=json.loads(row[9]),
            ),
        )
        for row in rows[:limit]
    )  # fmt: skip
    return found, found[-1][0] if len(rows) > limit else None
