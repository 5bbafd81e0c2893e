# SPDX-License-Identifier: Apache-2.0
"""What becomes of a probe's teams: left out by their norm, or by the judges; the others make the model.

After the sums of several teams were opened, in the same attempt and before it is settled:

1. a team whose mean is beyond the contract's bound is left out (`Sums.failed`);
2. every participant that is online judges every union of the others (``evaluate.sa_judge`` with the team
   sums): each makes the models itself, and answers noised gains over the last accepted model, at the price of
   one vote on a round (`policies.robustness.scores`). ``epsilon.spent`` and ``round.scored`` are logged;
3. the union that they choose makes the round's model (`choice`). If it is none, the round is rejected: the
   run goes on from the last accepted model, as after a vote;
4. what was chosen is ``round.chosen``, written with the attempt's outcome. An attempt that is lost all the
   same, by a halt, say, has none.

A broker that stops in between asks the attempt again, and is given the same bytes. If no team is within the
bound, nobody is asked, and the round has no model.

Who stands in every team that was left out is told to the operator, once there were enough probes
(`policies.robustness.offenders`): a line ``probe.suspects``, and the run's page. Nobody is dropped for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.federation.checkpoints import model_bytes, model_digest
from broker.federation.participants import participants
from broker.federation.secure.teams import Choice
from broker.federation.voting import Question
from broker.runs.course import course_of
from broker.runs.suspects import suspects_of
from broker.store.tables import log_entry, log_envelope
from policies.encoding import digest_of
from policies.log.entries import EntryType
from policies.robustness.plan import votes_plan
from policies.robustness.scores import choice, gains_of
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.federation.checkpoints import Checkpoint
    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.records import Opening
    from broker.federation.secure.teams import Summed, Sums, TeamSum
    from broker.federation.tools import Tools
    from broker.federation.voting import Heard, Voting
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe
    from policies.robustness.votes import Union

    Answers = Mapping[int, tuple[str, Mapping[Union, int]]]
    """Entry → party and figures."""

__all__ = ["Probed", "Probing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe came to: the sum of the chosen teams, and what was heard meanwhile."""

    summed: Summed
    heard: Heard | None


class Probing:
    """The probes of one run."""

    def __init__(
        self, tools: Tools, run_id: str, contract: Contract, recipe: Recipe, *, voting: Voting
    ) -> None:
        self._tools = tools
        self._run = run_id
        self._contract = contract
        self._recipe = recipe
        self._voting = voting
        self._plan: Mapping[str, Any] = votes_plan(contract.validation, recipe.evaluation.document) or {}

    async def choose(
        self,
        engine_run: EngineRun,
        opening: Opening,
        base: Checkpoint,
        sums: Sums,
        *,
        step: int,
        asked: Sequence[Participant],
    ) -> Probed:
        """Steps 1 to 3.

        Args:
            engine_run: Of the engine.
            opening: Of the attempt.
            base: What its members trained on.
            sums: Of the teams that were opened.
            step: Steps of the server before this one.
            asked: Participants that are online.

        Raises:
            RunHaltedError, RunSupersededError: As `Voting.heard`.
        """
        failed, against = sums.failed(), self._voting.accepted()
        judged = [one for one in sums.teams if one.number not in failed]
        heard: Heard | None = None
        chosen: tuple[int, ...] = ()
        answers: Answers = {}
        if judged:
            question = self._question(opening.round, base, against, judged, step)
            heard = await self._voting.hear(engine_run, question, asked)
            with self._tools.store.read() as session:
                answers = self._answers(session, question)
            chosen = tuple(judged[one].number for one in sorted(self._chosen(answers, len(judged))))
        found = Choice(
            base=model_digest(base.weights),
            against=model_digest(against.weights),
            transcript=sums.transcript,
            opened=tuple(one.number for one in sums.teams),
            failed=failed,
            chosen=chosen,
            judges=len(answers),
            refs=tuple(sorted(answers)),
            rejected_rounds=0,
            back_to=model_digest(against.weights) if against.round else None,
            left_out=tuple(one.parties for one in sums.teams if one.number not in chosen),
        )
        found = replace(found, rejected_rounds=self._rejections(opening.round, found))
        self._say(opening.round, found)
        summed = replace(sums.joined(chosen), choice=found) if chosen else sums.none(found)
        return Probed(summed=summed, heard=heard)

    def _question(
        self, number: int, base: Checkpoint, against: Checkpoint, teams: Sequence[TeamSum], step: int
    ) -> Question:
        state = [base.state[name].astype("<f8").tobytes() for name in sorted(base.state)]
        sums = [one.z.astype("<u4").tobytes() for one in teams]
        return Question(
            kind=EntryType.ROUND_SCORED,
            number=number,
            named={
                "base": model_digest(base.weights),
                "against": model_digest(against.weights),
                "sums": [one.digest for one in teams],
            },
            more={
                "teams": [list(one.parties) for one in teams],
                "step": step,
                "plan": digest_of(dict(self._plan)),
            },
            tensor=b"".join([model_bytes(against.weights), model_bytes(base.weights), *sums, *state]),
            dtype="uint32",
        )

    def _answers(self, session: Session, question: Question) -> Answers:
        """Answers in the log that are about this question."""
        everybody = participants(self._tools.contracts, self._contract, self._recipe, active=False)
        of = (log_entry.c.run == self._run) & (log_entry.c.round == question.number)
        rows = session.execute(
            select(log_entry.c.idx, log_entry.c.actor, log_entry.c.scope, log_envelope.c.dsse)
            .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
            .where(of & (log_entry.c.type == EntryType.ROUND_SCORED.value))
            .order_by(log_entry.c.idx)
        )
        found = {}
        for row in rows:
            body = json.loads(Envelope.from_bytes(row.dsse).payload)["body"]
            shown = {one.alias(row.scope, self._run, question.number): one.party for one in everybody}
            gains = gains_of(body["gains"], len(question.named["sums"]))
            same = all(body[name] == value for name, value in question.named.items())
            if gains is not None and same and row.actor in shown:
                found[row.idx] = shown[row.actor], gains
        return found

    def _chosen(self, answers: Answers, teams: int) -> Union:
        return choice(
            dict(answers.values()),
            teams=teams,
            groups={one.party: one.group for one in self._contract.contributors},
            plan=self._plan,
            least=self._contract.aggregation.min_parties,
        )

    def _rejections(self, number: int, found: Choice) -> int:
        with self._tools.store.read() as session:
            course = course_of(session, self._run)
        if found.chosen or found.rejected:
            course = course.after(number, accepted=bool(found.chosen))
        return course.rejections

    def tell(self) -> None:
        """Tells the operator whom the probes point at, if they do."""
        clause = self._contract.recipe(self._recipe.digest)
        with self._tools.store.read() as session:
            members = 0 if clause is None else len(clause.participants)
            found = suspects_of(session, self._run, members=max(1, members))
        if found:
            self._tools.journal.note("probe.suspects", run=self._run, parties=list(found))

    def _say(self, number: int, found: Choice) -> None:
        self._tools.journal.note(
            "round.probed",
            run=self._run,
            round=number,
            teams=len(found.opened),
            failed=len(found.failed),
            chosen=len(found.chosen),
            judges=found.judges,
        )
