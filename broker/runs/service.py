# SPDX-License-Identifier: Apache-2.0
"""Runs as the API sees them: opened here, moved by the round runner, shown to their contract's parties.

- Opening a run is one transaction: its row, ``run.opened`` and the operator's action. The runner finds the
  row afterwards, also after a crash; a run that nobody moves waits. A contract that is halted, has ended or
  is outside its term lets none begin.
- What a run looks like to whom is `broker.runs.views`.
- An operator may stop a run; ``stopping`` says so until its open round is closed.
- An operator may pause a run (`Runs.pause`): its open round is closed, then it asks nobody; ``paused`` says
  since when (`broker.runs.holding`).
- Where silos rejected as many models in a row as the contract allows, it is ``suspended`` too until an
  operator lets it go on (`Runs.resume`); ``rejected`` says so (`broker.runs.course`).
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select, update

from broker.membership.records import console_action
from broker.runs.course import RESUME, course_of
from broker.runs.errors import RecipeUnknownError, RunClosedError, RunNotPausedError, TooFewSeatsError
from broker.runs.holding import CONTINUE, PAUSE, held_since
from broker.runs.views import RUNNING, Views, no_run
from broker.store.tables import run
from policies.contract import Decision, Outcome, TrainRound, evaluate
from policies.contract.errors import NotExecutedError, RefusedError
from policies.encoding import Json, digest, digest_of, new_id
from policies.log.entries import EntryType, Event
from policies.rounds import need_of

if TYPE_CHECKING:
    from broker.contracts.queries import Queries
    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.runs.presence import Presence
    from broker.store import Session
    from policies.contract import Contract, ContractState
    from policies.contract.clauses import RecipeClause
    from policies.ports import Clock, Entropy

__all__ = ["Runs"]


class Runs:
    """The service; see the module."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Entropy,
        contracts: Contracts,
        queries: Queries,
        presence: Presence,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._contracts = contracts
        self.views = Views(clock=clock, contracts=contracts, queries=queries, presence=presence)

    def recipe_of(self, contract: Contract, recipe_id: str) -> RecipeClause:
        """The recipe of this id, once the contract may be used and enough groups are there.

        Raises:
            NotExecutedError: Somebody has not signed.
            NotBegunError, ExpiredError: The contract's term has not begun, or is over.
            HaltedError: Somebody halted the contract.
            RefusedError: The contract has ended.
            RecipeUnknownError: The contract has no such recipe.
            TooFewSeatsError: Too few of its parties are active members.
        """
        if not self._contracts.is_final(contract.digest):
            raise NotExecutedError(
                need="the signatures of all contributors",
                found="an offer",
                remedy=f"iriai-broker contract show {contract.digest} lists who has not signed",
            )
        _may_begin(contract, self._contracts.state(contract))
        self._check_rules(contract)
        found = next((one for one in contract.recipes if one.id == recipe_id), None)
        if found is None:
            raise RecipeUnknownError(
                need="one of " + ", ".join(one.id for one in contract.recipes),
                found=ascii(recipe_id)[1:-1][:60],
                remedy="name a recipe of the contract",
            )
        seats = self._contracts.seats(contract)
        groups = [seat.member.group for seat in seats if seat.party in found.participants]
        need = need_of(contract, found.recipe_digest)
        if not need.met_by(groups):
            raise TooFewSeatsError(
                need=f"{need.groups} independent groups" + (f", {need.members} members" * (need.members > 0)),
                found=f"{len(set(groups))} groups, {len(groups)} members",
                remedy="iriai-broker org list shows who is active",
                clause=contract.aggregation.clause,
            )
        return found

    def _check_rules(self, contract: Contract) -> None:
        """Returns if a successor has taken effect; a first version has, once it is final.

        Raises:
            RefusedError: It has not: its predecessor rules.
        """
        if contract.supersedes is None:
            return
        old = self._contracts.get(contract.supersedes)
        if self._contracts.life(old).superseded_by != contract.digest:
            raise RefusedError(
                need="a contract that rules",
                found=f"a successor of {old.digest}, which rules still",
                remedy="wait for the moment at which it takes effect",
                clause=contract.term.clause,
            )

    def open(
        self,
        session: Session,
        tx: LogTx,
        *,
        contract: Contract,
        recipe: RecipeClause,
        operator: Operator,
        request: str,
    ) -> dict[str, Json]:
        """Stores a run and says so in the log."""
        run_id = new_id("run", self._entropy.token_bytes(10))
        session.execute(
            insert(run).values(
                run_id=run_id,
                contract=contract.digest,
                recipe_digest=recipe.recipe_digest,
                recipe_id=recipe.id,
                state=RUNNING,
                round=0,
                steps=0,
                model_digest=None,
                opened_ms=tx.now_ms,
                outcome=None,
            )
        )
        tx.add(console_action(operator, "run.open", subject=recipe.recipe_digest, request=request))
        tx.add(
            Event(
                type=EntryType.RUN_OPENED,
                scope=contract.digest,
                run=run_id,
                pub={"recipe": recipe.recipe_digest, "contract": contract.digest},
            )
        )
        return {"run": run_id, "contract": contract.digest, "recipe": recipe.recipe_digest, "state": RUNNING}

    def stop(
        self, session: Session, tx: LogTx, *, run_id: str, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Ends a run by an operator's word: the runner closes it once its open round is closed.

        A second word changes nothing. What was trained may become a candidate, as after any other end.

        Raises:
            NotPartyError: No such run.
            RunClosedError: It is over already.
        """
        row = session.execute(select(run).where(run.c.run_id == run_id)).mappings().first()
        if row is None:
            raise no_run(run_id)
        if row["outcome"] is not None or row["state"] != RUNNING:
            raise RunClosedError(
                need="a run that trains, or waits",
                found=f"{row['outcome'] or row['state']}",
                remedy=f"nothing; iriai-broker run show {run_id}",
            )
        if row["stop_ms"] is None:
            session.execute(update(run).where(run.c.run_id == run_id).values(stop_ms=tx.now_ms))
        tx.add(console_action(operator, "run.stop", subject=digest(run_id.encode()), request=request))
        return {"run": run_id, "contract": row["contract"], "state": row["state"], "stopping": True}

    def pause(
        self, session: Session, tx: LogTx, *, run_id: str, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Lets a run ask nobody once its open round is closed, until an operator resumes it.

        Raises:
            NotPartyError: No such run.
            RunClosedError: It is over already, or about to be.
        """
        row = session.execute(select(run).where(run.c.run_id == run_id)).mappings().first()
        if row is None:
            raise no_run(run_id)
        if row["outcome"] is not None or row["state"] != RUNNING or row["stop_ms"] is not None:
            raise RunClosedError(
                need="a run that trains, or waits",
                found="one that an operator ended" if row["stop_ms"] else f"{row['outcome'] or row['state']}",
                remedy=f"nothing; iriai-broker run show {run_id}",
            )
        if held_since(session, run_id) is None:
            tx.add(console_action(operator, PAUSE, subject=digest(run_id.encode()), request=request))
        return {"run": run_id, "contract": row["contract"], "state": row["state"], "paused": True}

    def resume(
        self, session: Session, tx: LogTx, *, run_id: str, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Lets a run go on that an operator paused, or that waits because silos rejected models.

        In the second case somebody looked, and answers for it.

        Raises:
            NotPartyError: No such run.
            RunNotPausedError: It does not wait for that.
        """
        row = session.execute(select(run).where(run.c.run_id == run_id)).mappings().first()
        if row is None:
            raise no_run(run_id)
        rejected = course_of(session, run_id).paused(self._contracts.get(row["contract"]))
        held = held_since(session, run_id) is not None
        if row["outcome"] is not None or not (rejected or held):
            raise RunNotPausedError(
                need="a run that an operator paused, or that waits because its models were rejected",
                found=f"{row['outcome'] or row['state']}",
                remedy=f"nothing; iriai-broker run show {run_id}",
            )
        subject = digest(run_id.encode())
        words = (*([CONTINUE] * held), *([RESUME] * rejected))
        for number, word in enumerate(words):
            once = request if not number else digest_of([request, word])
            tx.add(console_action(operator, word, subject=subject, request=once))
        return {"run": run_id, "contract": row["contract"], "state": row["state"], "resumed": True}


_OF_THE_CONTRACT: Final = frozenset({"signed", "standing", "not-halted", "not-before", "not-after"})


def _may_begin(contract: Contract, state: ContractState) -> None:
    """Judges what the run's first round would be asked of the contract as such, whoever takes part.

    Raises:
        RefusedError: With the clause; `NotBegunError` and `ExpiredError` outside the term, `HaltedError`
            under a halt.
    """
    asked = TrainRound(**dict.fromkeys(field.name for field in fields(TrainRound)))
    judged = evaluate(contract, state, asked)
    about = tuple(one for one in judged.findings if one.check in _OF_THE_CONTRACT)
    allow = all(one.outcome is Outcome.SATISFIED for one in about)
    Decision(request_type=judged.request_type, allow=allow, findings=about).require()
