# SPDX-License-Identifier: Apache-2.0
"""Votes of all silos on the model of a round, where the contract's validation clause asks for them.

After a round that is drawn (`policies.robustness.votes.is_judged`), before the next one is opened, unless it
was a probe, whose judges have answered already (`broker.federation.probing`):

1. every participant that is online is asked with both models: the round's, and the last accepted one;
   who gave no vote is asked once more;
2. their envelopes are logged: ``epsilon.spent`` and ``round.voted``;
3. the votes in the log are counted by group: ``round.judged``, with the number of rejections in a row;
4. an accepted model is what later ones are judged beside. A rejected one is taken back: the run goes on from
   the accepted one, and the optimiser's state is the one of that moment. What the round spent stays spent.

It is an exchange of its own and not part of the next round's: so nobody trains, or spends, on a model that is
taken back. A broker that stops in between asks again, and is given the same votes. Nothing is asked under a
halt. Too few votes are no consent: the round is rejected.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from broker.federation.checkpoints import model_bytes, model_digest
from broker.federation.engine import Reply
from broker.federation.envelopes import EnvelopesRefusedError, add_envelopes, declare, store_votes
from broker.federation.errors import RunRejectedError
from broker.federation.participants import participants
from broker.federation.signed import ReplyRefusedError
from broker.runs.course import course_of
from broker.store.tables import log_entry, run
from policies.encoding import digest_of
from policies.exchange import ExchangeType
from policies.log.entries import EntryType, Event
from policies.robustness.plan import votes_plan
from policies.robustness.votes import is_judged, tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.federation.asking import Asking
    from broker.federation.books import Books
    from broker.federation.checkpoints import Checkpoint, Checkpoints
    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.standing import Standing
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.runs.course import Course
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Heard", "Question", "Verdict", "Voting"]

_ASKED = 2  # attempts, before a silo that gives no vote counts as silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What judges are asked.

    Attributes:
        kind: Of the entry that answers it.
        number: Of the round.
        named: What it is about; an answer names the same.
        more: What else the request says.
        tensor: Bytes beside it, and their ``dtype``.
    """

    kind: EntryType
    number: int
    named: Mapping[str, Any]
    more: Mapping[str, Any]
    tensor: bytes = field(repr=False)
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came beside the answers, which are in the log.

    Attributes:
        voted: Candidates about which a vote came with a reply.
        barred: Nodes that are out of the run from here on.
    """

    voted: frozenset[str]
    barred: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a round's model.

    Attributes:
        at: Where the run goes on from.
        accepted: Whether the model stands.
        rejections: In a row.
        voted: Candidates about which a vote came with a reply.
        barred: Nodes that are out of the run from here on.
    """

    at: Checkpoint
    accepted: bool
    rejections: int
    voted: frozenset[str]
    barred: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    sender: Participant
    reply: NodeReply

    def answers(self, run_id: str, question: Question) -> bool:
        """Whether an answer is in it, and not only what waited for a receipt."""
        votes = [one for one in self.reply.signed if one.kind is question.kind]
        return any(one.belongs_to(run_id, question.number) for one in votes)


class Voting:
    """Votes in one run."""

    def __init__(
        self,
        tools: Tools,
        run_id: str,
        contract: Contract,
        recipe: Recipe,
        *,
        asking: Asking,
        books: Books,
        standing: Standing,
        checkpoints: Checkpoints,
    ) -> None:
        self._tools = tools
        self._run = run_id
        self._contract = contract
        self._recipe = recipe
        self._asking = asking
        self._books = books
        self._standing = standing
        self._checkpoints = checkpoints
        self._plan = votes_plan(contract.validation, recipe.evaluation.document)

    def require_trusted(self, rejections: int) -> None:
        """Returns unless so many models in a row were rejected that a human has to look first.

        Raises:
            RunRejectedError: It is so.
        """
        clause = self._contract.validation
        if clause is not None and rejections >= clause.max_rejected_rounds:
            raise RunRejectedError(
                need=f"fewer than {clause.max_rejected_rounds} rejected models in a row",
                found=str(rejections),
                remedy=f"find out why; then iriai-broker run resume {self._run}, or run stop",
                clause=clause.clause,
            )

    def stands(self) -> tuple[int, ...]:
        """Rounds of the newest accepted model, and of the one before it: their checkpoints are needed still.

        The first of all is round 0.
        """
        if self._plan is None:
            return (0,)
        with self._tools.store.read() as session:
            return (0, *course_of(session, self._run).accepted)[-2:]

    def due(self, session: Session, number: int) -> bool:
        """Whether the model of a round is to be voted on, and was not yet."""
        clause = self._contract.validation
        if self._plan is None or clause is None or clause.max_judgings is None or number == 0:
            return False
        course = course_of(session, self._run)
        return number not in course.judged and is_judged(
            self._run,
            number,
            rounds=self._recipe.rounds,
            judgings=clause.max_judgings,
            used=len(course.judged),
        )

    async def judge(self, engine_run: EngineRun, at: Checkpoint, asked: Sequence[Participant]) -> Verdict:
        """Asks about the model of a round, logs what comes of it, and says where the run goes on from.

        Args:
            engine_run: Of the engine.
            at: The round's model.
            asked: Participants that are online.

        Raises:
            RunHaltedError: A party stopped the contract: nothing is written.
            RunSupersededError: A successor rules: likewise.
        """
        before = self.accepted()
        question = Question(
            kind=EntryType.ROUND_VOTED,
            number=at.round,
            named=_named(at, before),
            more={"plan": digest_of(self._plan)},
            tensor=model_bytes(at.weights) + model_bytes(before.weights),
        )
        heard = await self.hear(engine_run, question, asked)
        (accepted, course), _ = await self._tools.writer.run(
            lambda session, tx: self._conclude(session, tx, at, before)
        )
        verdict = Verdict(
            at=at if accepted else before,
            accepted=accepted,
            rejections=course.rejections,
            voted=heard.voted,
            barred=heard.barred,
        )
        self._tools.journal.note(
            "round.judged",
            run=self._run,
            round=at.round,
            accepted=verdict.accepted,
            rejections=verdict.rejections,
        )
        return verdict

    def accepted(self) -> Checkpoint:
        """The newest accepted model; the start model before the first."""
        with self._tools.store.read() as session:
            stands = course_of(session, self._run).stands
        return self._checkpoints.load(stands, size=self._recipe.parameters)

    async def hear(self, engine_run: EngineRun, question: Question, asked: Sequence[Participant]) -> Heard:
        """Asks, twice whoever gives no answer, and logs what came.

        Raises:
            RunHaltedError: A party stopped the contract: nothing is written.
            RunSupersededError: A successor rules: likewise.
        """
        answers, refused = await self._ask(engine_run, question, asked), list[EnvelopesRefusedError]()
        voted: set[str] = set()
        while (error := await self._log(question.number, answers, refused, voted)) is not None:
            refused.append(error)
            answers = [one for one in answers if one.sender != error.sender]
        barred = frozenset(one.sender.node for one in refused if one.evidence is not None)
        return Heard(voted=frozenset(voted), barred=barred)

    async def _ask(
        self, engine_run: EngineRun, question: Question, asked: Sequence[Participant]
    ) -> list[_Answer]:
        found: dict[str, _Answer] = {}
        for attempt in range(1, _ASKED + 1):
            done = {party for party, one in found.items() if one.answers(self._run, question)}
            if waiting := [one for one in asked if one.party not in done]:
                for one in await self._exchange(engine_run, question, waiting, attempt):
                    found[one.sender.party] = one
        return [found[party] for party in sorted(found)]

    async def _exchange(
        self,
        engine_run: EngineRun,
        question: Question,
        asked: Sequence[Participant],
        attempt: int,
    ) -> list[_Answer]:
        deadline_ms = self._asking.deadline_ms()
        by_node = {one.node: one for one in asked}
        requests = [
            self._asking.request(
                one,
                ExchangeType.SA_JUDGE,
                (question.number, attempt),
                body={**question.named, **question.more},
                model=question.tensor,
                deadline_ms=deadline_ms,
                dtype=question.dtype,
            )
            for one in asked
        ]
        answers = []
        async for outcome in self._asking.exchange(engine_run, requests, deadline_ms=deadline_ms):
            sender = by_node[outcome.node]
            if not isinstance(outcome, Reply):
                self._note("failed", sender, outcome.code)
                continue
            if not outcome.ok:
                self._note("declined", sender, outcome.header.code or "")
            try:
                answers.append(_Answer(sender=sender, reply=self._asking.read(sender, outcome)))
            except ReplyRefusedError as error:
                self._note("refused", sender, error.reason)
        return answers

    def _note(self, what: str, sender: Participant, code: str) -> None:
        self._tools.journal.note(f"vote.{what}", run=self._run, node=sender.node, code=code)

    async def _log(
        self,
        number: int,
        answers: Sequence[_Answer],
        refused: Sequence[EnvelopesRefusedError],
        voted: set[str],
    ) -> EnvelopesRefusedError | None:
        """Logs what came; gives the refusal of one that the log does not take, and then wrote nothing."""

        def work(session: Session, tx: LogTx) -> None:
            self._require_running(session)
            for error in refused:
                self._declare(session, tx, error, number)
            for one in answers:
                added = add_envelopes(
                    session,
                    tx,
                    one.sender,
                    one.reply,
                    contract=self._contract.digest,
                    slot=(self._run, number, None),
                    books=self._books,
                )
                self._asking.owe_receipts(one.sender.party, added)
                voted.update(store_votes(session, tx, one.sender, one.reply, contract=self._contract.digest))

        try:
            await self._tools.writer.run(work)
        except EnvelopesRefusedError as error:
            return error
        return None

    def _require_running(self, session: Session) -> None:
        self._standing.require_running(self._contract, session)
        self._standing.require_current(self._contract, self._recipe.digest, session)

    def _declare(self, session: Session, tx: LogTx, error: EnvelopesRefusedError, number: int) -> None:
        if error.evidence is not None:
            declare(
                session,
                tx,
                error.evidence,
                error.reason,
                contract=self._contract.digest,
                run_id=self._run,
                number=number,
            )

    def _conclude(
        self, session: Session, tx: LogTx, at: Checkpoint, before: Checkpoint
    ) -> tuple[bool, Course]:
        """Counts the votes in the log and says so.

        A transaction of its own: what another one adds to the log is seen once that is written.
        """
        self._require_running(session)
        contract, clause = self._contract, self._contract.validation
        votes, entries = self._votes(session, at.round)
        found = tally(
            votes,
            groups={one.party: one.group for one in contract.contributors},
            quorum="1" if clause is None else clause.quorum,
            least=contract.aggregation.min_parties,
        )
        course = course_of(session, self._run).after(at.round, accepted=found.accepted)
        tx.add(
            Event(
                type=EntryType.ROUND_JUDGED,
                scope=contract.digest,
                run=self._run,
                round=at.round,
                refs=tuple(sorted(entries)),
                pub={
                    **_named(at, before),
                    "accepting": found.accepting,
                    "voting": found.voting,
                    "verdict": "accepted" if found.accepted else "rejected",
                    "rejected_rounds": course.rejections,
                },
            )
        )
        if not found.accepted:
            stands = model_digest(before.weights) if before.round else None
            session.execute(update(run).where(run.c.run_id == self._run).values(model_digest=stands))
        return found.accepted, course

    def _votes(self, session: Session, number: int) -> tuple[dict[str, bool], list[int]]:
        """Votes on a round by party, and the entries behind a verdict: votes and the round's aggregate."""
        everybody = participants(self._tools.contracts, self._contract, self._recipe, active=False)
        kinds = (EntryType.ROUND_VOTED.value, EntryType.AGGREGATE_RELEASED.value)
        of = (log_entry.c.run == self._run) & (log_entry.c.round == number) & log_entry.c.type.in_(kinds)
        rows = session.execute(
            select(log_entry.c.idx, log_entry.c.type, log_entry.c.actor, log_entry.c.scope, log_entry.c.body)
            .where(of)
            .order_by(log_entry.c.idx)
        ).all()
        votes = {}
        for row in rows:
            if row.type == EntryType.ROUND_VOTED.value:
                shown = {one.alias(row.scope, self._run, number): one.party for one in everybody}
                votes[shown.get(row.actor, "")] = _accepts(row.body)
        votes.pop("", None)
        return votes, [row.idx for row in rows]


def _accepts(body: bytes) -> bool:
    pub: dict[str, Any] = json.loads(body)["pub"]
    return bool(pub["vote"] == "accept")


def _named(at: Checkpoint, before: Checkpoint) -> dict[str, str]:
    return {"model": model_digest(at.weights), "against": model_digest(before.weights)}
