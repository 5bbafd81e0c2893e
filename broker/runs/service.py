# SPDX-License-Identifier: Apache-2.0
"""Runs as the API sees them: opened here, moved by the round runner, shown to their contract's parties.

Opening a run is one transaction: its row, ``run.opened`` and the operator's action. The runner finds the
row afterwards, also after a crash; a run that nobody moves waits.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from broker.contracts.errors import NotPartyError
from broker.membership.directory import Operator
from broker.membership.records import console_action
from broker.runs.ending import why_it_ended
from broker.runs.errors import RecipeUnknownError, TooFewSeatsError
from broker.store.tables import round_, run
from policies.contract import Decision, Outcome, TrainRound, evaluate
from policies.contract.errors import NotExecutedError
from policies.encoding import Json, new_id
from policies.limits import LIST_ROWS
from policies.log.entries import EntryType, Event
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session
    from policies.contract import Contract, ContractState
    from policies.contract.clauses import RecipeClause
    from policies.ports import Clock, Entropy

__all__ = ["RUNNING", "Runs"]

RUNNING: Final = "running"


class Runs:
    """The service; see the module."""

    def __init__(self, *, clock: Clock, entropy: Entropy, contracts: Contracts) -> None:
        self._clock = clock
        self._entropy = entropy
        self._contracts = contracts

    def recipe_of(self, contract: Contract, recipe_id: str) -> RecipeClause:
        """The recipe of this id, once the contract may be used and enough groups are there.

        Raises:
            NotExecutedError: Somebody has not signed.
            ExpiredError: The contract's term has not begun, or is over.
            RecipeUnknownError: The contract has no such recipe.
            TooFewSeatsError: Too few of its parties are active members.
        """
        if not self._contracts.is_final(contract.digest):
            raise NotExecutedError(
                need="the signatures of all contributors",
                found="an offer",
                remedy=f"iriai-broker contract show {contract.digest} lists who has not signed",
            )
        _in_term(contract, self._contracts.state(contract))
        found = next((one for one in contract.recipes if one.id == recipe_id), None)
        if found is None:
            raise RecipeUnknownError(
                need="one of " + ", ".join(one.id for one in contract.recipes),
                found=ascii(recipe_id)[1:-1][:60],
                remedy="name a recipe of the contract",
            )
        groups = {
            seat.member.group for seat in self._contracts.seats(contract) if seat.party in found.participants
        }
        if len(groups) < contract.aggregation.min_parties:
            raise TooFewSeatsError(
                need=f"{contract.aggregation.min_parties} independent groups",
                found=f"{len(groups)}",
                remedy="iriai-broker members shows who is active",
                clause=contract.aggregation.clause,
            )
        return found

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
                opened_ms=self._clock.now_ms(),
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

    def show(self, session: Session, run_id: str, caller: Member | Operator) -> dict[str, Json]:
        """A run and its rounds.

        Raises:
            NotPartyError: No such run, or not of the caller's contracts.
        """
        row = session.execute(select(run).where(run.c.run_id == run_id)).mappings().first()
        if row is None:
            raise _no_run(run_id)
        try:
            self._contracts.for_caller(row["contract"], caller)
        except NotPartyError as error:
            raise _no_run(run_id) from error
        rounds = session.execute(
            select(round_).where(round_.c.run_id == run_id).order_by(round_.c.round, round_.c.attempt)
        ).mappings()
        recipe = load_recipe(
            self._contracts.annex(session, self._contracts.get(row["contract"]), row["recipe_digest"])
        )
        return {
            **_line(row),
            "plan": recipe.plan.digest if recipe.plan is not None else None,
            "ended": why_it_ended(
                session, row, rounds_wanted=recipe.rounds, whole=isinstance(caller, Operator)
            ),
            "rounds": [
                {
                    "round": one["round"],
                    "attempt": one["attempt"],
                    "model": one["model"],
                    "accepted": one["accepted"],
                    "refused": one["refused"],
                    "at_ms": one["at_ms"],
                }
                for one in rounds
            ],
        }

    def list_for(self, session: Session, caller: Member | Operator) -> list[dict[str, Json]]:
        """The newest runs of the caller's contracts, oldest first."""
        rows = session.execute(select(run).order_by(run.c.opened_ms.desc()).limit(LIST_ROWS)).mappings().all()
        shown = []
        for row in reversed(rows):
            try:
                self._contracts.for_caller(row["contract"], caller)
            except NotPartyError:
                continue
            shown.append(_line(row))
        return shown


def _in_term(contract: Contract, state: ContractState) -> None:
    """Judges the term, and nothing else, of what the run's first round would ask.

    Raises:
        ExpiredError: With the clause.
    """
    asked = TrainRound(**dict.fromkeys(field.name for field in fields(TrainRound)))
    judged = evaluate(contract, state, asked)
    term = tuple(one for one in judged.findings if one.clause == contract.term.clause)
    allow = all(one.outcome is Outcome.SATISFIED for one in term)
    Decision(request_type=judged.request_type, allow=allow, findings=term).require()


def _line(row: RowMapping) -> dict[str, Json]:
    return {
        "run": row["run_id"],
        "contract": row["contract"],
        "recipe": row["recipe_digest"],
        "recipe_id": row["recipe_id"],
        "state": row["state"],
        "round": row["round"],
        "steps": row["steps"],
        "model": row["model_digest"],
        "opened_ms": row["opened_ms"],
        "outcome": row["outcome"],
    }


def _no_run(run_id: str) -> NotPartyError:
    return NotPartyError(
        need="a run of one of your contracts", found=ascii(run_id)[1:-1][:60], remedy="run list shows yours"
    )
