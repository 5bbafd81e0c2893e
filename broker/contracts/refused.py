# SPDX-License-Identifier: Apache-2.0
"""What contracts refused: the refusing decisions of the log, newest first, and counts of their clauses.

    page(session, after=None, limit=50)          the newest, and where to go on
    Refusals().clauses_since(session, index)      clause to how often, since an entry
    at_index(session, index)                      one decision of the log, with its record if it is here

Refusals are few among decisions and have an index of their own (`broker.store.tables.REFUSED`). What a node's
guard decided is here with its findings once its owner disclosed the record; else the log has its clauses.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from broker.contracts.errors import NotPartyError
from broker.store.tables import REFUSED, log_entry
from broker.store.tables import decision as decision_table
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

    from broker.store import Session
    from policies.encoding import Json

__all__ = ["Decided", "Refusals", "at_index", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision as the log names it, and what it was about.

    Attributes:
        index: Of its entry.
        point: ``node``, ``broker``, ``gate`` or ``auditor``.
        outcome: ``allow`` or ``refuse``.
        actor: Name in the log of whoever decided.
        request: What was asked; empty where nobody disclosed it.
        findings: What was checked; empty where nobody disclosed it.
        state: What was known of the contract; empty where nobody disclosed it.
    """

    index: int
    digest: str
    contract: str | None
    run: str | None
    round: int | None
    at_ms: int
    point: str
    outcome: str
    actor: str
    clauses: tuple[str, ...]
    request: Mapping[str, Json] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    state: Mapping[str, Json] = field(default_factory=dict)

    @property
    def against(self) -> tuple[Mapping[str, Any], ...]:
        """Findings that refused, what is violated before what is not known."""
        found = [one for one in self.findings if one["outcome"] != "satisfied"]
        return tuple(sorted(found, key=lambda one: one["outcome"] != "violated"))


def page(
    session: Session,
    *,
    after: int | None = None,
    limit: int,
    contract: str | None = None,
    clause: str | None = None,
    looked: int = 2_000,
) -> tuple[list[Decided], int | None]:
    """Refusals, newest first, and the index after which the next page begins.

    Args:
        session: To read with.
        after: Last index of the page before.
        limit: Refusals of a page.
        contract: Only under this one.
        clause: Only by this one.
        looked: At most so many refusals are looked at; a page may then have fewer, and the next one goes on.
    """
    wanted: list[ColumnElement[bool]] = [] if after is None else [log_entry.c.idx < after]
    if contract is not None:
        wanted.append(log_entry.c.scope == contract)
    rows = _refusals(session, wanted, newest=looked if clause is not None else limit + 1)
    kept: list[Decided] = []
    for row in rows:
        one = _of_row(row)
        if clause is None or clause in one.clauses:
            kept.append(one)
        if len(kept) > limit:
            break
    if len(kept) > limit:
        return _with_records(session, kept[:limit]), kept[limit - 1].index
    more = rows[-1].idx if clause is not None and len(rows) == looked else None
    return _with_records(session, kept), more


class Refusals:
    """How often clauses refused of late; for one event loop.

    What was counted is kept, and reading goes on behind it: a look reads what is new.
    """

    def __init__(self, *, most: int = 5_000) -> None:
        self._most = most
        self._since = 0
        self._upto = 0
        self._known: deque[tuple[int, str, tuple[str, ...]]] = deque()
        self._counts: Counter[tuple[str, str]] = Counter()

    def clauses_since(self, session: Session, index: int) -> tuple[Counter[tuple[str, str]], bool]:
        """How often each clause of each contract refused since an entry, and whether there were too many."""
        if index < self._since:
            self._forget(len(self._known))
            self._upto = index
        self._since = index
        wanted = log_entry.c.idx >= max(self._upto, index)
        for row in reversed(_refusals(session, [wanted], newest=self._most)):
            named = row.idx, str(row.scope), tuple(json.loads(row.body)["pub"]["clauses"])
            self._known.append(named)
            self._counts.update((named[1], clause) for clause in named[2])
            self._upto = row.idx + 1
        self._forget(len(self._known) - self._most)
        self._forget(sum(1 for _ in takewhile(lambda one: one[0] < index, self._known)))
        return self._counts, len(self._known) == self._most

    def _forget(self, oldest: int) -> None:
        for _ in range(oldest):
            _, scope, clauses = self._known.popleft()
            self._counts.subtract((scope, clause) for clause in clauses)
            for clause in clauses:
                if not self._counts[scope, clause]:
                    del self._counts[scope, clause]


def at_index(session: Session, index: int) -> Decided:
    """The decision that an entry of the log names.

    Raises:
        NotPartyError: The entry is none.
    """
    kind = log_entry.c.type == EntryType.DECISION_RECORDED.value
    row = session.execute(select(*_COLUMNS).where((log_entry.c.idx == index) & kind)).first()
    if row is None:
        raise NotPartyError(
            need="the index of an entry decision.recorded",
            found=str(index),
            remedy="open it from the list of decisions",
        )
    return _with_records(session, [_of_row(row)])[0]


_COLUMNS = (
    log_entry.c.idx,
    log_entry.c.type,
    log_entry.c.scope,
    log_entry.c.run,
    log_entry.c.round,
    log_entry.c.actor,
    log_entry.c.ts_ms,
    log_entry.c.body,
)


def _refusals(session: Session, wanted: Sequence[ColumnElement[bool]], *, newest: int) -> Sequence[Any]:
    """Rows of refusing decisions, newest first; the words are those of their index."""
    refused = text(REFUSED[session.dialect.name])
    query = select(*_COLUMNS).where(refused, *wanted).order_by(log_entry.c.idx.desc()).limit(newest)
    return [row for row in session.execute(query) if row.type == EntryType.DECISION_RECORDED.value]


def _of_row(row: Any) -> Decided:  # noqa: ANN401  a row of `_COLUMNS`
    pub = json.loads(row.body)["pub"]
    return Decided(
        index=row.idx,
        digest=str(pub["decision"]),
        contract=row.scope,
        run=row.run,
        round=row.round,
        at_ms=row.ts_ms,
        point=str(pub["point"]),
        outcome=str(pub["outcome"]),
        actor=row.actor,
        clauses=tuple(pub["clauses"]),
    )


def _with_records(session: Session, found: list[Decided]) -> list[Decided]:
    """The same decisions with what they were made from, as far as it is here."""
    names = [one.digest for one in found]
    rows = session.execute(select(decision_table).where(decision_table.c.digest.in_(names))).all()
    kept = {row.digest: row for row in rows}
    return [one if one.digest not in kept else _joined(one, kept[one.digest]) for one in found]


def _joined(one: Decided, row: Any) -> Decided:  # noqa: ANN401  a row of decisions
    record = json.loads(row.bytes)
    return replace(
        one,
        request=json.loads(row.request),
        findings=tuple(record["findings"]),
        state=json.loads(row.state),
    )
