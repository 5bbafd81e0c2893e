# SPDX-License-Identifier: Apache-2.0
"""What the log has of a run's attempts: when each was asked, until when, and what one round left behind.

    open_attempt(session, run_id)            the attempt that is being asked, if there is one
    openings(session, run_id, newest=60)     round.opened of the newest attempts
    left_behind(session, run_id, 7)          every entry of round 7, in order

Read by the indexes of runs; a log of any size answers as fast.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.store.tables import log_entry, round_
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.store import Session
    from policies.encoding import Json

__all__ = ["Left", "Opened", "left_behind", "open_attempt", "openings", "verdicts_of_votes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An attempt as ``round.opened`` says it.

    Attributes:
        index: Of the entry.
        at_ms: When it was opened.
        deadline: Until when members may answer, ISO 8601 to the minute.
        cohort: How many were asked.
    """

    index: int
    round: int
    attempt: int
    at_ms: int
    deadline: str
    cohort: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One entry of a round."""

    index: int
    type: str
    actor: str
    at_ms: int
    pub: Mapping[str, Json]
    refs: tuple[int, ...]


def openings(
    session: Session, run_id: str, *, newest: int, rounds: tuple[int, int] | None = None
) -> tuple[Opened, ...]:
    """The newest attempts that were asked, newest first; of all rounds, or from one to another."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.ROUND_OPENED.value)
    if rounds is not None:
        of &= log_entry.c.round.between(*rounds)
    columns = (log_entry.c.idx, log_entry.c.round, log_entry.c.ts_ms, log_entry.c.body)
    rows = session.execute(select(*columns).where(of).order_by(log_entry.c.idx.desc()).limit(newest))
    return tuple(_opened(row.idx, row.round, row.ts_ms, json.loads(row.body)["pub"]) for row in rows)


def open_attempt(session: Session, run_id: str) -> Opened | None:
    """The newest attempt that was asked, unless it is settled."""
    found = openings(session, run_id, newest=1)
    if not found:
        return None
    last = found[0]
    settled = (
        (round_.c.run_id == run_id) & (round_.c.round == last.round) & (round_.c.attempt == last.attempt)
    )
    return last if session.scalar(select(round_.c.at_ms).where(settled)) is None else None


def left_behind(session: Session, run_id: str, number: int) -> tuple[Left, ...]:
    """Every entry of one round, in order."""
    of = (log_entry.c.run == run_id) & (log_entry.c.round == number)
    columns = (log_entry.c.idx, log_entry.c.type, log_entry.c.actor, log_entry.c.ts_ms, log_entry.c.body)
    rows = session.execute(select(*columns).where(of).order_by(log_entry.c.idx))
    found = []
    for row in rows:
        body: dict[str, Any] = json.loads(row.body)
        found.append(
            Left(
                index=row.idx,
                type=row.type,
                actor=row.actor,
                at_ms=row.ts_ms,
                pub=body["pub"],
                refs=tuple(body["refs"]),
            )
        )
    return tuple(found)


def verdicts_of_votes(session: Session, run_id: str) -> tuple[tuple[int, int, int], ...]:
    """Of each round that was voted on: its number, how many accept, how many voted."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.ROUND_JUDGED.value)
    rows = session.execute(select(log_entry.c.round, log_entry.c.body).where(of).order_by(log_entry.c.idx))
    pubs = [(row.round, json.loads(row.body)["pub"]) for row in rows]
    return tuple((number, int(pub["accepting"]), int(pub["voting"])) for number, pub in pubs)


def _opened(index: int, number: int, at_ms: int, pub: Mapping[str, Any]) -> Opened:
    return Opened(
        index=index,
        round=number,
        attempt=int(pub["attempt"]),
        at_ms=at_ms,
        deadline=str(pub["deadline"]),
        cohort=int(pub["cohort"]),
    )
