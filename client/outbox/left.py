# SPDX-License-Identifier: Apache-2.0
"""What left this site, and what its guard decided, as the outbox has them on disk: reads alone.

Pages go by the number of the row, newest first: what comes in meanwhile moves nothing, and a page reads as
many rows as it shows and one more, however many there are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from client.outbox.rows import Decided, Sent
from client.outbox.transmission import Totals, Transmission

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Left"]

_ALL = -1  # as a LIMIT: none
_RUNS = 100
_PAGE = (
    "SELECT s.id, s.at_ms, s.kind, s.size_bytes, s.digest, s.clause, s.contract, s.run, s.round, s.attempt,"
    " (SELECT count(*) FROM envelope e WHERE e.seq BETWEEN s.first_seq AND s.last_seq),"
    " (SELECT count(e.receipt) FROM envelope e WHERE e.seq BETWEEN s.first_seq AND s.last_seq),"
    " (SELECT count(*) FROM envelope e JOIN witnessed_receipt w ON w.env = e.env"
    " WHERE e.seq BETWEEN s.first_seq AND s.last_seq)"
    " FROM sent s WHERE (?1 IS NULL OR s.run = ?1) AND (?2 IS NULL OR s.id < ?2) ORDER BY s.id DESC LIMIT ?3"
)


class Left:
    """Transmissions and decisions, newest first; `client.outbox.Outbox.left`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def sent(self, limit: int | None = 1000, *, run: str | None = None) -> tuple[Sent, ...]:
        """What left this site, newest first, of one run if asked; all of it without a limit."""
        rows = self._db.execute(
            "SELECT at_ms, kind, size_bytes, digest, clause, contract, run, round, attempt, first_seq,"
            " last_seq,"
            " (SELECT count(*) FROM envelope WHERE seq BETWEEN first_seq AND last_seq),"
            " (SELECT count(receipt) FROM envelope WHERE seq BETWEEN first_seq AND last_seq)"
            " FROM sent WHERE ?1 IS NULL OR run = ?1 ORDER BY id DESC LIMIT ?2",
            (run, _ALL if limit is None else limit),
        ).fetchall()
        return tuple(
            Sent(
                at_ms=row[0], kind=row[1], size_bytes=row[2], digest=row[3], clause=row[4], contract=row[5],
                run=row[6], round=row[7], attempt=row[8],
                receipts="-" if row[9] is None else f"{row[12]} of {row[11]}",
                first=row[9], last=row[10],
            )
            for row in rows
        )  # fmt: skip

    def sent_count(self, run: str | None = None) -> int:
        """How many transmissions left, of one run if asked."""
        return self._count("SELECT count(*) FROM sent WHERE ?1 IS NULL OR run = ?1", run)

    def decisions(self, *, run: str | None = None, limit: int | None = 1000) -> tuple[Decided, ...]:
        """Decisions of the guard, newest first, of one run if asked; all of them without a limit."""
        rows = self._db.execute(
            "SELECT at_ms, contract, recipe, run, round, attempt, kind, allow, clauses, document"
            " FROM decision WHERE ?1 IS NULL OR run = ?1 ORDER BY id DESC LIMIT ?2",
            (run, _ALL if limit is None else limit),
        ).fetchall()
        return tuple(
            Decided(
                at_ms=row[0], contract=row[1], recipe=row[2], run=row[3], round=row[4], attempt=row[5],
                kind=row[6], allow=bool(row[7]), clauses=tuple(row[8].split()), document=json.loads(row[9]),
            )
            for row in rows
        )  # fmt: skip

    def decisions_count(self, run: str | None = None) -> int:
        """How many decisions of the guard are kept, of one run if asked."""
        return self._count("SELECT count(*) FROM decision WHERE ?1 IS NULL OR run = ?1", run)

    def decided_runs(self) -> frozenset[str]:
        """Runs about which the guard decided something."""
        return frozenset(row[0] for row in self._db.execute("SELECT DISTINCT run FROM decision").fetchall())

    def rounds_elsewhere(self, contracts: tuple[str, ...], recipe: str, run: str) -> int:
        """Rounds of a recipe under these contracts in which this node took part, not counting one run."""
        row = self._db.execute(
            "SELECT count(*) FROM (SELECT DISTINCT run, round FROM decision"
            " WHERE contract IN (SELECT value FROM json_each(?)) AND recipe = ? AND run <> ?"
            " AND allow = 1 AND kind IN ('train.contribute', 'train.sa_contribute'))",
            (json.dumps(contracts), recipe, run),
        ).fetchone()
        return int(row[0])

    def newest_round(self, kind: str, *, run: str) -> int:
        """The newest round of a run about which something of a kind left this site; 0 if nothing did.

        Under whatever contract: rounds of a run count on under a successor.
        """
        row = self._db.execute(
            "SELECT coalesce(max(round), 0) FROM sent WHERE kind = ? AND run = ?",
            (kind, run),
        ).fetchone()
        return int(row[0])

    def sent_bytes(self, run: str | None = None, *, contract: str | None = None) -> int:
        """Sum of all bytes that left, of one run or under one contract if asked."""
        of = "(?1 IS NULL OR run = ?1) AND (?2 IS NULL OR contract = ?2)"
        query = f"SELECT coalesce(sum(size_bytes), 0) FROM sent WHERE {of}"  # noqa: S608  constants only
        return int(self._db.execute(query, (run, contract)).fetchone()[0])

    def page(
        self, *, run: str | None, before: int | None, limit: int
    ) -> tuple[tuple[Transmission, ...], int | None]:
        """Transmissions before a row, and the cursor of the next page; None where these are the last."""
        rows = self._db.execute(_PAGE, (run, before, limit + 1)).fetchall()
        found = tuple(
            Transmission(
                number=row[0], at_ms=row[1], kind=row[2], size_bytes=row[3], digest=row[4], clause=row[5],
                contract=row[6], run=row[7], round=row[8], attempt=row[9],
                envelopes=row[10], receipts=row[11], witnessed=row[12],
            )
            for row in rows[:limit]
        )  # fmt: skip
        return found, found[-1].number if len(rows) > limit else None

    def totals(self) -> tuple[Totals, ...]:
        """What left, run by run, the newest first."""
        rows = self._db.execute(
            "SELECT run, count(*), sum(size_bytes), min(at_ms), max(at_ms) FROM sent"
            " GROUP BY run ORDER BY max(id) DESC LIMIT ?",
            (_RUNS,),
        ).fetchall()
        return tuple(
            Totals(run=row[0], messages=row[1], size_bytes=row[2], first_ms=row[3], last_ms=row[4])
            for row in rows
        )

    def refused_page(
        self, *, run: str | None, before: int | None, limit: int
    ) -> tuple[tuple[tuple[int, Decided], ...], int | None]:
        """Refusals of the guard before a row, each with its number, and the cursor of the next page."""
        rows = self._db.execute(
            "SELECT id, at_ms, contract, recipe, run, round, attempt, kind, clauses, document FROM decision"
            " WHERE allow = 0 AND (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR id < ?2)"
            " ORDER BY id DESC LIMIT ?3",
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

    def newest_ms(self) -> int | None:
        """When something left last; None if nothing ever did."""
        row = self._db.execute("SELECT max(at_ms) FROM sent").fetchone()
        return None if row[0] is None else int(row[0])

    def _count(self, query: str, run: str | None) -> int:
        return int(self._db.execute(query, (run,)).fetchone()[0])
