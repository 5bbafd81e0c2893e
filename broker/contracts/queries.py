# SPDX-License-Identifier: Apache-2.0
"""Views: what a contributor or the auditor reads about runs goes through `Query` first (point ``broker``).

- A contract without a clause of queries names no views: its parties read what they always may, and nothing
  is asked. With the clause only what it allows is answered; the rest is refused with the clause.
- Views that this version shows: ``run-status`` (state of a run and the counts of its rounds), ``own-budget``
  (whether a run still holds the asking party's budget) and ``own-receipts`` (the receipt of an own entry in a
  run). Receipts of signatures and notices are part of making a contract, not views of its pool. Operators
  run the broker; the clause is not about them.
- Counts of rounds say who answered in time. They depend on no episode, so they pass as noised.
- Behind a status stand all participants of the recipe that have not left. Cohorts that were shown before are
  those of the decisions on record about the same view and recipe.
- **No storm.** A decision is recorded when it is the first about this party, view and run, or when its
  outcome or its clauses are others than in the last one on record. A poll repeats nothing. A frozen log takes
  no entry; reads go on, by the same decision.

    asked = queries.status(session, contract, member, run_id=..., recipe=..., made_ms=...)
    if asked is not None:                              # None: the contract names no views
        if queries.is_news(session, asked): ...        # then queries.record(session, tx, asked)
        asked.judgement.decision.require()
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.decisions import Judgement, judge
from broker.store.tables import decision as decision_table
from broker.store.tables import log_entry, run
from policies.contract import Query
from policies.contract.checks.outputs import ALL
from policies.identity import key_text
from policies.log.entries import EntryType
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.ports import Entropy

__all__ = ["OWN_BUDGET", "OWN_RECEIPTS", "RUN_STATUS", "Asked", "Queries"]

RUN_STATUS: Final = "run-status"
OWN_BUDGET: Final = "own-budget"
OWN_RECEIPTS: Final = "own-receipts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A view that somebody asked for, and the decision about it."""

    request: Query
    run: str
    judgement: Judgement

    @property
    def allow(self) -> bool:
        """Whether the view is shown."""
        return self.judgement.allow


class Queries:
    """The service; see the module for its rules."""

    def __init__(self, *, contracts: Contracts, entropy: Entropy) -> None:
        self._contracts = contracts
        self._entropy = entropy

    def status(
        self, session: Session, contract: Contract, member: Member, *, run_id: str, recipe: str, made_ms: int
    ) -> Asked | None:
        """The decision about showing a run's status; None where the contract names no views.

        Args:
            session: Of the main database.
            contract: Of the run.
            member: Who asks.
            run_id: Of the run.
            recipe: Its recipe's digest.
            made_ms: When the newest round that would be shown was settled, or the run was opened.

        Raises:
            NotPartyError: The member is no party.
        """
        clause, gone = contract.recipe(recipe), self._contracts.life(contract, session).exited
        shown = _of_recipe(session, contract, recipe)
        request = Query(
            party=self._contracts.party_of(contract, member).party,
            key=key_text(member.key),
            view=RUN_STATUS,
            subject=ALL,
            cohort=tuple(name for name in (clause.participants if clause else ()) if name not in gone),
            earlier_cohorts=tuple(sorted({tuple(one["cohort"]) for one in shown if one["cohort"]})),
            made_at=iso_s(made_ms),
            dp_noised=True,
        )
        return self._judged(session, contract, request, run_id)

    def own(
        self, session: Session, contract: Contract, member: Member, *, run_id: str, view: str, made_ms: int
    ) -> Asked | None:
        """The decision about showing a party what is its own; None where the contract names no views.

        Raises:
            NotPartyError: The member is no party.
        """
        party = self._contracts.party_of(contract, member).party
        request = Query(
            party=party,
            key=key_text(member.key),
            view=view,
            subject=party,
            cohort=(party,),
            earlier_cohorts=(),
            made_at=iso_s(made_ms),
            dp_noised=False,
        )
        return self._judged(session, contract, request, run_id)

    def _judged(self, session: Session, contract: Contract, request: Query, run_id: str) -> Asked | None:
        if contract.queries is None:
            return None
        state = self._contracts.state(contract, session)
        judgement = judge(contract, point="broker", request=request, state=state, entropy=self._entropy)
        return Asked(request=request, run=run_id, judgement=judgement)

    def is_news(self, session: Session, asked: Asked) -> bool:
        """Whether no decision is on record about this party, view and run, or the last one says otherwise."""
        last: list[str] | None = None
        for clauses, one in _recorded(session, asked.judgement.contract, asked.run):
            if (one["party"], one["view"]) == (asked.request.party, asked.request.view):
                last = clauses
        return last is None or last != list(asked.judgement.decision.clauses)

    def record(self, session: Session, tx: LogTx, asked: Asked) -> None:
        """Keeps and logs a decision, unless another transaction has done so meanwhile."""
        if self.is_news(session, asked):
            asked.judgement.record(session, tx, run=asked.run)


def _recorded(session: Session, contract: str, run_id: str) -> Iterator[tuple[list[str], Json]]:
    """Clauses and request of each `Query` on record about a run, oldest first."""
    of = (log_entry.c.run == run_id) & log_entry.c.round.is_(None) & (log_entry.c.scope == contract)
    kind = log_entry.c.type == EntryType.DECISION_RECORDED.value
    bodies = session.scalars(select(log_entry.c.body).where(of & kind).order_by(log_entry.c.idx))
    pubs = [one["pub"] for one in map(json.loads, bodies) if one["pub"]["point"] == "broker"]
    rows = session.execute(
        select(decision_table.c.digest, decision_table.c.request).where(
            decision_table.c.digest.in_([pub["decision"] for pub in pubs])
        )
    )
    asked = {row.digest: json.loads(row.request) for row in rows}
    for pub in pubs:
        request = asked.get(pub["decision"])
        if request is not None and request["type"] == Query.TYPE:
            yield pub["clauses"], request


def _of_recipe(session: Session, contract: Contract, recipe: str) -> Iterator[Json]:
    """Requests for the status of a run of a recipe that were allowed, as far as they are on record.

    A run may have gone on under a successor since: what was shown before, was shown.
    """
    runs = session.scalars(
        select(run.c.run_id).where(run.c.recipe_digest == recipe).order_by(run.c.run_id)
    ).all()
    for name in runs:
        for clauses, one in _recorded(session, contract.digest, name):
            if not clauses and one["view"] == RUN_STATUS:
                yield one
