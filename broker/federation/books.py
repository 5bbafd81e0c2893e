# SPDX-License-Identifier: Apache-2.0
"""What the members' own envelopes in the log come to: the books that a new envelope must fit.

An audit replays the log; an entry that it calls an error stays one for good. So an envelope is tried here,
with the auditor's own rules, before it gets its entry:

- budget entries by `policies.privacy.spending`;
- one submission for a slot, one evaluation of a candidate, one vote on a round, one entry for a decision;
- one commitment to canaries in a run, and a reveal of exactly those (`policies.privacy.canaries`);
- a vote on a known candidate is of its contract and run;
- an acknowledgement says of a closed round what the log says (`broker.federation.acks`).

A member's books are kept under its first key (`broker.log.rotations`): a new key begins no new budget.

Entries up to the signed head are read once and kept; what a transaction wrote behind it is read each time.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.contracts.lineage import scopes_of, versions
from broker.federation.acks import Closings, unfit
from broker.log.rotations import Rotations
from broker.store.tables import candidate, decision, log_entry, log_envelope, run
from policies.identity import key_id, parse_key
from policies.log.entries import EntryType
from policies.privacy.canaries import check_reveal, per_party
from policies.privacy.errors import AuditFailedError, BudgetError
from policies.privacy.ledger import Cap
from policies.privacy.spending import Book, Plans
from policies.recipe import load as load_recipe
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row

    from broker.contracts.service import Contracts
    from broker.federation.participants import Participant
    from broker.federation.signed import Signed
    from broker.log import Writer
    from broker.store import Session, Store
    from policies.contract.clauses import Caps

__all__ = ["DIFFERS", "DIVERGED", "Books", "MisfitError", "Page"]

Json = Any
SPEND, SUBMISSION, EVALUATION, DECISION, CANARY = (
    "spend-differs",
    "submission-differs",
    "evaluation-differs",
    "decision-differs",
    "privacy.audit-failed",
)
DIFFERS = frozenset({SPEND, SUBMISSION, EVALUATION, DECISION, CANARY})
"""Reasons behind which stands what a node signed and an audit would refuse: the node is out of the run."""
MISSING = "spend-missing"
DIVERGED = frozenset({SPEND, MISSING})
"""Budget entries that are missing, out of order or too cheap: the broker's mirror and a node's ledger differ.

The incident is ``budget.diverged``. The ledger decides, the mirror accuses: the node's owner answers for it.
"""
_MISPLACED = "envelope-malformed"
_ONCE: Mapping[EntryType, tuple[str | None, str, str]] = {
    EntryType.SUBMISSION_RECEIVED: ("attempt", SUBMISSION, "one submission for a slot"),
    EntryType.EVALUATION_RECEIVED: ("candidate", EVALUATION, "one evaluation of a candidate"),
    EntryType.ROUND_VOTED: (None, EVALUATION, "one vote on a round"),
    EntryType.ROUND_SCORED: (None, EVALUATION, "one judgement of a probe's teams"),
}
"""Kinds that a member makes once: for which field, why another is refused, and what is needed."""
_BUDGET = frozenset({EntryType.BUDGET_OPENED, EntryType.EPSILON_SPENT})
_READ = [*sorted(_BUDGET), EntryType.DECISION_RECORDED]
_OPEN_ENDED = 2**62


class MisfitError(Exception):
    """An envelope does not fit the books; the caller names its sender."""

    def __init__(self, reason: str, *, need: str, found: str) -> None:
        super().__init__(reason)
        self.reason, self.need, self.found = reason, need, found


class Books:
    """The books of all members, as one run sees them. Used by one transaction at a time."""

    def __init__(self, contracts: Contracts, writer: Writer, store: Store) -> None:
        self._contracts = contracts
        self._writer = writer
        self._upto = 0
        self._kept: dict[str, Book] = {}
        self._decided: set[str] = set()
        self._rotations = Rotations()
        self._plans: dict[str, Plans] = {}
        self._caps: dict[tuple[str, str], Cap | None] = {}
        with store.read() as session:
            self._catch_up(session)

    def page(self, session: Session, sender: Participant) -> Page:
        """A member's books as they stand in this transaction, to try envelopes on, in their order."""
        self._catch_up(session)
        rotations = Rotations.read(session)
        kid = rotations.first(key_id(sender.node_key))
        book, decided = self._kept.get(kid, Book()).copy(), set(self._decided)
        for row in _rows(session, self._upto, _OPEN_ENDED):
            self._take(session, book if rotations.first(row.signer) == kid else Book(), decided, row)
        kids = rotations.line(kid)
        return Page(self, session, kid, book=book, decided=decided, kids=kids, sender=sender)

    def plans_of(self, session: Session, run_id: str) -> Plans | None:
        """Plans of a run's recipe; None if nobody opened it."""
        found = self._plans.get(run_id)
        if found is None:
            row = session.execute(
                select(run.c.contract, run.c.recipe_digest).where(run.c.run_id == run_id)
            ).one_or_none()
            if row is None:
                return None
            contract = self._contracts.get(row.contract)
            recipe = load_recipe(self._contracts.annex(session, contract, row.recipe_digest))
            train = None if recipe.plan is None else recipe.plan.document
            plans = Plans(train=train, evaluation=recipe.evaluation.document)
            found = self._plans[run_id] = plans
        return found

    def cap(self, session: Session, scope: str, kid: str) -> Cap | None:
        """The caps of a contract for the member whose first key this is.

        Spends under its earlier versions count.
        """
        if (scope, kid) not in self._caps:
            contract, first = self._contracts.get(scope), self._rotations.first
            party = next((one.party for one in contract.contributors if first(_kid(one.key)) == kid), None)
            caps = None if party is None else contract.caps(party)
            before = versions(session, scope)[1:]
            self._caps[(scope, kid)] = None if caps is None else _cap(scope, caps, before)
        return self._caps[(scope, kid)]

    def try_budget(self, session: Session, book: Book, payload: Mapping[str, Json], kid: str) -> None:
        """Takes a budget entry.

        Raises:
            BudgetError: An audit would call it an error.
        """
        found = self.plans_of(session, payload["run"])
        if found is None or payload["scope"] not in scopes_of(session, payload["run"]):
            raise BudgetError(need="a run of the envelope's contract", found="another", remedy="none")
        validation = self._contracts.get(payload["scope"]).validation
        found = replace(found, votes=votes_plan(validation, found.evaluation))
        if payload["kind"] == EntryType.BUDGET_OPENED:
            book.opened(payload["body"], plans=found)
            return
        book.spent(
            payload["body"],
            slot=(payload["run"], payload["round"]),
            scope=payload["scope"],
            cap=self.cap(session, payload["scope"], kid),
            plans=found,
        )

    def canaries(self, scope: str) -> int:
        """How many canaries a contract asks of each party."""
        contract = self._contracts.get(scope)
        return per_party(contract.release.evidence, contract.aggregation.min_parties)

    def _catch_up(self, session: Session) -> None:
        size = self._writer.head().size
        self._rotations = Rotations.read(session)
        for row in _rows(session, self._upto, size):
            kid = self._rotations.first(row.signer)
            self._take(session, self._kept.setdefault(kid, Book()), self._decided, row)
        self._upto = max(self._upto, size)

    def _take(self, session: Session, book: Book, decided: set[str], row: Row[Any]) -> None:
        payload = json.loads(Envelope.from_bytes(row.dsse).payload)
        if row.type == EntryType.DECISION_RECORDED:
            decided.add(payload["body"]["decision"])
            return
        with contextlib.suppress(BudgetError):  # it is in the log, and counts
            self.try_budget(session, book, payload, self._rotations.first(row.signer))


class Page:
    """One member's books, to try the envelopes of one reply on, in their order."""

    def __init__(
        self,
        books: Books,
        session: Session,
        kid: str,
        *,
        book: Book,
        decided: set[str],
        kids: tuple[str, ...],
        sender: Participant,
    ) -> None:
        self._books = books
        self._session = session
        self._kid = kid
        self._kids = kids
        self._book = book
        self._decided = decided
        self._once: set[tuple[object, ...]] = set()
        self._canaries: dict[str, Mapping[str, Json]] = {}
        self._sender = sender
        self._acked: set[int] = set()

    def fit(self, one: Signed) -> None:
        """Takes an envelope that is not in the log yet.

        Raises:
            MisfitError: An audit would call its entry an error.
        """
        payload, body = one.payload, one.payload["body"]
        if one.kind in _BUDGET:
            try:
                self._books.try_budget(self._session, self._book, payload, self._kid)
            except BudgetError as error:
                raise MisfitError(SPEND, need=error.need, found=error.found) from error
        elif one.kind in _ONCE:
            self._fit_once(one, *_ONCE[one.kind])
        elif one.kind is EntryType.DECISION_RECORDED:
            self._fit_decision(body["decision"])
        elif one.kind is EntryType.VOTE_CAST:
            self._fit_vote(payload)
        elif one.kind is EntryType.ROUND_ACK:
            self._fit_ack(payload)
        elif one.kind is EntryType.CANARY_COMMITTED:
            if self._committed(payload["run"]) is not None:
                raise MisfitError(CANARY, need="one commitment to canaries in a run", found="a second one")
            self._canaries[payload["run"]] = payload
        elif one.kind is EntryType.CANARY_REVEALED:
            self._fit_reveal(payload)

    def _fit_once(self, one: Signed, name: str | None, reason: str, need: str, /) -> None:
        """No other envelope of this kind by this member has the same run, round and value."""
        payload = one.payload
        value = None if name is None else payload["body"][name]
        slot = (one.kind, payload["run"], payload["round"], value)
        of = (log_entry.c.run == payload["run"]) & (log_entry.c.type == one.kind.value)
        query = (
            select(log_entry.c.round, log_entry.c.body)
            .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
            .where(of & log_envelope.c.signer.in_(self._kids))
        )
        if one.kind is not EntryType.EVALUATION_RECEIVED:
            query = query.where(log_entry.c.round == payload["round"])
        else:
            slot = (*slot[:2], None, slot[3])  # a candidate is the run's, not a round's
        logged = any(
            name is None or json.loads(row.body)["pub"][name] == value for row in self._session.execute(query)
        )
        if logged or slot in self._once:
            raise MisfitError(reason, need=need, found="a second one")
        self._once.add(slot)

    def _fit_decision(self, named: str) -> None:
        kept = self._session.scalar(select(decision.c.digest).where(decision.c.digest == named))
        if kept is not None or named in self._decided:
            raise MisfitError(DECISION, need="one entry for a decision", found="a second one")
        self._decided.add(named)

    def _committed(self, run_id: str) -> Mapping[str, Json] | None:
        """This member's commitment in a run: one that was tried before in this reply, or one in the log."""
        of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.CANARY_COMMITTED.value)
        query = (
            select(log_envelope.c.dsse)
            .join(log_entry, log_envelope.c.idx == log_entry.c.idx)
            .where(of & log_envelope.c.signer.in_(self._kids))
        )
        logged = self._session.scalars(query).first()
        return self._canaries.get(run_id) if logged is None else _payload(logged)

    def _fit_reveal(self, payload: Mapping[str, Json]) -> None:
        committed = self._committed(payload["run"])
        if committed is None:
            raise MisfitError(CANARY, need="a commitment before the reveal", found="none")
        try:
            check_reveal(
                run=payload["run"],
                body=payload["body"],
                commitment=committed["body"]["commitment"],
                count=self._books.canaries(committed["scope"]),
            )
        except AuditFailedError as error:
            raise MisfitError(CANARY, need=error.need, found=error.found) from error

    def _fit_ack(self, payload: Mapping[str, Json]) -> None:
        closings = Closings(payload["run"])
        closings.read(self._session)
        wrong = unfit(closings, self._sender, payload, self._acked)
        if wrong:
            raise MisfitError(SUBMISSION, need="one acknowledgement of each closed round", found=wrong)
        self._acked.add(payload["body"]["closed"])

    def _fit_vote(self, payload: Mapping[str, Json]) -> None:
        row = self._session.execute(
            select(candidate.c.run_id).where(candidate.c.digest == payload["body"]["subject"])
        ).one_or_none()
        if row is None:
            return
        if row.run_id != payload["run"] or payload["scope"] not in scopes_of(self._session, row.run_id):
            raise MisfitError(_MISPLACED, need="a vote in the candidate's own run", found="in another")


def _rows(session: Session, since: int, until: int) -> list[Row[Any]]:
    """Members' budget entries and decisions from one index to another, in order."""
    query = (
        select(log_entry.c.idx, log_entry.c.type, log_envelope.c.signer, log_envelope.c.dsse)
        .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
        .where((log_entry.c.idx >= since) & (log_entry.c.idx < until) & log_entry.c.type.in_(_READ))
        .order_by(log_entry.c.idx)
    )
    return list(session.execute(query)) if since < until else []


def _cap(scope: str, caps: Caps, before: tuple[str, ...]) -> Cap:
    return Cap(
        scope=scope,
        epsilon_total=caps.epsilon_total,
        epsilon_per_release=caps.epsilon_per_release,
        delta=caps.delta,
        before=before,
    )


def _payload(dsse: bytes) -> dict[str, Json]:
    found: dict[str, Json] = json.loads(Envelope.from_bytes(dsse).payload)
    return found


def _kid(key: str) -> str:
    return key_id(parse_key(key))
