# SPDX-License-Identifier: Apache-2.0
"""Runs as a caller may see them: operators all of each, members what their contract lets them ask for.

- A run that is not closed shows as ``suspended`` while its contract is halted, and while it waits because
  members said no and too few are left; then ``waiting`` says until when and, to operators, for whom and by
  which code.
- Operators see who is ``out`` of a run, and by which incident: what its node signed, no audit would accept
  (``budget.diverged``, say). ``suspects`` are members that stood in every team that was left out of a model
  (`broker.runs.suspects`).
- Operators see who is ``away`` of an open run, and what it is ``short`` of while too few are online
  (`broker.runs.presence`).
- Where the contract names the views that may be asked for (`broker.contracts.queries`), a member's view of a
  run ends with the rounds that are older than the contract's delay. Refused the status, a member that may
  know its own budget is still told whether the run holds it: state and outcome, no counts.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, tuple_

from broker.contracts.errors import NotPartyError
from broker.contracts.queries import OWN_BUDGET
from broker.membership.directory import Operator
from broker.runs.course import course_of
from broker.runs.ending import why_it_ended
from broker.runs.holding import held_since
from broker.runs.incidents import incidents_of
from broker.runs.presence import away_of, short_of
from broker.runs.remedies import remedy_of
from broker.runs.suspects import suspects_of
from broker.runs.verdicts import Pause, counts_of, pause_between, pause_of, who_said
from broker.store.tables import round_, run
from policies.contract.findings import HOUR_MS
from policies.limits import LIST_ROWS
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import RowMapping

    from broker.contracts.queries import Asked, Queries
    from broker.contracts.service import Contracts
    from broker.membership.directory import Member
    from broker.runs.presence import Presence
    from broker.store import Session
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.ports import Clock

__all__ = ["RUNNING", "SUSPENDED", "Place", "Shown", "Views", "no_run"]

RUNNING: Final = "running"
SUSPENDED: Final = "suspended"
Place = tuple[int, str]
"""Where a run stands in the order of lists: when it was opened, and its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a caller sees of a run.

    Attributes:
        body: The answer; None if the contract refuses it.
        rounds: Settled attempts in it.
        asked: The decisions behind it, to be recorded if they are news.
    """

    body: dict[str, Json] | None
    rounds: tuple[RowMapping, ...] = ()
    asked: tuple[Asked, ...] = ()


class Views:
    """What callers see; `broker.runs.service.Runs.views`."""

    def __init__(self, *, clock: Clock, contracts: Contracts, queries: Queries, presence: Presence) -> None:
        self._clock = clock
        self._contracts = contracts
        self._queries = queries
        self._presence = presence

    def show(self, session: Session, run_id: str, caller: Member | Operator) -> Shown:
        """A run and its rounds.

        Raises:
            NotPartyError: No such run, or not of the caller's contracts.
        """
        row = session.execute(select(run).where(run.c.run_id == run_id)).mappings().first()
        if row is None:
            raise no_run(run_id)
        try:
            contract = self._contracts.for_caller(row["contract"], caller)
        except NotPartyError as error:
            raise no_run(run_id) from error
        view = self._view(session, contract, row, caller)
        if view.body is None or view.body.get("budget_only"):
            return view
        recipe = load_recipe(self._contracts.annex(session, contract, row["recipe_digest"]))
        ended = None
        if len(view.rounds) == len(_rounds(session, run_id)):
            ended = why_it_ended(
                session,
                row,
                contract=contract,
                life=self._contracts.life(contract, session),
                rounds_wanted=recipe.rounds,
                whole=isinstance(caller, Operator),
            )
        plan = recipe.plan.digest if recipe.plan is not None else None
        more: dict[str, Json] = {"plan": plan, "ended": ended}
        if isinstance(caller, Operator):
            more["out"] = self._out(session, contract, run_id)
            more["suspects"] = self._suspects(session, contract, run_id)
        return replace(view, body={**view.body, **more, "rounds": [_round(one) for one in view.rounds]})

    def _out(self, session: Session, contract: Contract, run_id: str) -> list[dict[str, Json]]:
        """Members that are asked for no further round of a run, each with the incident that says why."""
        parties = {
            self._contracts.member_of(contract, one.party).node: one.party for one in contract.contributors
        }
        return [
            {"party": parties.get(one.node), "node": one.node, "kind": one.kind, "round": one.round}
            | {"evidence": one.evidence}
            for one in incidents_of(session, run_id)
        ]

    @staticmethod
    def _suspects(session: Session, contract: Contract, run_id: str) -> list[Json]:
        """Members that stood in every team that was left out; somebody should look, nobody is dropped."""
        clause = contract.recipe(session.scalar(select(run.c.recipe_digest).where(run.c.run_id == run_id)))
        members = 0 if clause is None else len(clause.participants)
        return list(suspects_of(session, run_id, members=members)) if members else []

    def list_for(self, session: Session, caller: Member | Operator) -> list[Shown]:
        """The newest runs of the caller's contracts, oldest first."""
        return self.page(session, caller)[0][::-1]

    def rows_of(self, session: Session, caller: Member | Operator) -> list[RowMapping]:
        """Rows of every run of the caller's contracts, oldest first, by time and id."""
        query = select(run).order_by(run.c.opened_ms, run.c.run_id)
        if not isinstance(caller, Operator):
            query = query.where(run.c.contract.in_(self._own(session, caller)))
        return list(session.execute(query).mappings())

    def shown(self, session: Session, rows: Iterable[RowMapping], caller: Member | Operator) -> list[Shown]:
        """What the caller sees of these runs of their contracts."""
        contracts = self._contracts
        return [
            self._view(session, contracts.read_in(session, one["contract"]), one, caller, lean=True)
            for one in rows
        ]

    def page(
        self,
        session: Session,
        caller: Member | Operator,
        *,
        after: Place | None = None,
        limit: int = LIST_ROWS,
        contract: str | None = None,
        closed: bool | None = None,
    ) -> tuple[list[Shown], Place | None]:
        """A page of the caller's runs, newest first, and the place after which the next one begins.

        Args:
            session: To read with.
            caller: Whose contracts they are of; operators see all.
            after: Place of the last run of the page before.
            limit: Runs of a page.
            contract: Only runs under this contract.
            closed: Only runs that are closed, or only those that are not.
        """
        wanted = [] if after is None else [tuple_(run.c.opened_ms, run.c.run_id) < tuple_(*after)]
        if contract is not None:
            wanted.append(run.c.contract == contract)
        if not isinstance(caller, Operator):
            wanted.append(run.c.contract.in_(self._own(session, caller)))
        if closed is not None:
            wanted.append(run.c.outcome.is_not(None) if closed else run.c.outcome.is_(None))
        newest = select(run).order_by(run.c.opened_ms.desc(), run.c.run_id.desc()).limit(limit + 1)
        rows = session.execute(newest.where(*wanted)).mappings().all()
        shown = self.shown(session, rows[:limit], caller)
        last = rows[limit - 1] if len(rows) > limit else None
        return shown, None if last is None else (last["opened_ms"], last["run_id"])

    def _own(self, session: Session, member: Member) -> list[str]:
        """Contracts with runs that a member is a party of."""
        found = []
        for name in session.scalars(select(run.c.contract).distinct()).all():
            with contextlib.suppress(NotPartyError):
                found.append(self._contracts.for_caller(name, member).digest)
        return found

    def _view(
        self,
        session: Session,
        contract: Contract,
        row: RowMapping,
        caller: Member | Operator,
        *,
        lean: bool = False,
    ) -> Shown:
        """What the caller may see of a run, with the decisions about it.

        ``lean``: without the rounds, where the line of a run that is closed says nothing of them.
        """
        open_to = isinstance(caller, Operator) or contract.queries is None
        rounds = () if lean and open_to and row["outcome"] is not None else _rounds(session, row["run_id"])
        if isinstance(caller, Operator) or contract.queries is None:
            whole = isinstance(caller, Operator)
            return Shown(body=self._line(session, contract, row, rounds, whole=whole), rounds=rounds)
        delay_ms = contract.aggregation.delay_hours * HOUR_MS
        old = [one for one in rounds if one["at_ms"] + delay_ms <= self._clock.now_ms()]
        line = self._line(session, contract, row, tuple(old))
        made_ms = max([row["opened_ms"], *(one["at_ms"] for one in old)])
        status = self._queries.status(
            session, contract, caller, run_id=row["run_id"], recipe=row["recipe_digest"], made_ms=made_ms
        )
        if status is None or status.allow:
            return Shown(body=_cut(line, old), rounds=tuple(old), asked=() if status is None else (status,))
        own = self._queries.own(
            session, contract, caller, run_id=row["run_id"], view=OWN_BUDGET, made_ms=made_ms
        )
        if own is None or not own.allow:
            return Shown(body=None, asked=(status,))
        kept = {name: line[name] for name in ("run", "contract", "recipe", "recipe_id", "state", "outcome")}
        return Shown(body={**kept, "budget_only": True}, asked=(status, own))

    def _line(
        self,
        session: Session,
        contract: Contract,
        row: RowMapping,
        rounds: tuple[RowMapping, ...],
        *,
        whole: bool = False,
    ) -> dict[str, Json]:
        """A run's line; of its attempts, the caller may know these; ``whole``: also who said no, and why."""
        halted = row["outcome"] is None and bool(self._contracts.life(contract, session).halts)
        waiting = self._waiting(contract, row, rounds, whole=whole)
        rejected = self._rejected(session, contract, row, whole=whole)
        paused_ms = held_since(session, row["run_id"]) if row["outcome"] is None else None
        suspended = halted or waiting is not None or rejected is not None or paused_ms is not None
        there = self._there(session, contract, row, rounds) if whole else {}
        return there | {
            "run": row["run_id"],
            "contract": row["contract"],
            "recipe": row["recipe_digest"],
            "recipe_id": row["recipe_id"],
            "state": SUSPENDED if suspended else row["state"],
            "round": row["round"],
            "steps": row["steps"],
            "model": row["model_digest"],
            "opened_ms": row["opened_ms"],
            "outcome": row["outcome"],
            "stopping": row["outcome"] is None and row["stop_ms"] is not None,
            "paused_ms": paused_ms,
            "waiting": waiting,
            "rejected": rejected,
        }

    def _there(
        self, session: Session, contract: Contract, row: RowMapping, rounds: tuple[RowMapping, ...]
    ) -> dict[str, Json]:
        """Who is away of a run that trains, and what it is short of, for operators."""
        recipe = contract.recipe(row["recipe_digest"])
        if recipe is None or row["outcome"] is not None or row["state"] != RUNNING:
            return {"away": [], "short": None}
        out = {one.node for one in incidents_of(session, row["run_id"])}
        seats = [
            one
            for one in self._contracts.seats(contract)
            if one.party in recipe.participants and one.member.node not in out
        ]
        return {
            "away": away_of(seats, rounds, self._presence),
            "short": short_of(contract, row["recipe_digest"], seats, self._presence),
        }

    def _rejected(
        self, session: Session, contract: Contract, row: RowMapping, *, whole: bool
    ) -> dict[str, Json] | None:
        """Why a run waits for an operator's word; None if it does not."""
        if row["outcome"] is not None or row["stop_ms"]:
            return None
        course = course_of(session, row["run_id"])
        if not course.paused(contract):
            return None
        found: dict[str, Json] = {"rounds": course.rejections, "stands": course.stands}
        remedy = f"find out why; then iriai-broker run resume {row['run_id']}, or run stop"
        return found | ({"remedy": remedy} if whole else {})

    def _waiting(
        self, contract: Contract, row: RowMapping, rounds: tuple[RowMapping, ...], *, whole: bool
    ) -> dict[str, Json] | None:
        """Why a run asks nobody just now, though no halt keeps it; None if it goes on, or is closed."""
        pause = self._pause(contract, row, rounds)
        if pause is None or pause.until_ms <= self._clock.now_ms():
            return None
        where = f"in round {pause.round}" if pause.round else "before the first round"
        who = who_said(pause.codes) if whole else f"{len(pause.codes)} of its members"
        found: dict[str, Json] = {
            "until_ms": pause.until_ms,
            "ends_ms": pause.ends_ms,
            "reason": f"{who} said no {where}, and too few groups are left; "
            "iriai-node guard explain says why at the node",
        }
        if whole:
            remedy = remedy_of(pause.codes.values(), row["run_id"])
            found |= {"parties": sorted(pause.codes), "codes": dict(pause.codes), "remedy": remedy}
        return found

    def _pause(self, contract: Contract, row: RowMapping, rounds: tuple[RowMapping, ...]) -> Pause | None:
        recipe = contract.recipe(row["recipe_digest"])
        if recipe is None or row["outcome"] is not None or row["state"] != RUNNING or row["stop_ms"]:
            return None
        if not rounds:
            return None if row["steps"] or row["round"] else pause_of(row["start"])
        seats = {one.party for one in self._contracts.seats(contract)}
        return pause_between(contract, row["recipe_digest"], seats & set(recipe.participants), rounds)


def _rounds(session: Session, run_id: str) -> tuple[RowMapping, ...]:
    """Settled attempts of a run, in order."""
    query = select(round_).where(round_.c.run_id == run_id).order_by(round_.c.round, round_.c.attempt)
    return tuple(session.execute(query).mappings())


def _round(one: RowMapping) -> dict[str, Json]:
    return {**{name: one[name] for name in ("round", "attempt", "model", "at_ms")}, **counts_of(one)}


def _cut(line: dict[str, Json], old: list[RowMapping]) -> dict[str, Json]:
    """A run's line as it stood after the rounds that may be shown."""
    models = [one for one in old if one["model"] is not None]
    return {
        **line,
        "round": models[-1]["round"] if models else 0,
        "steps": len(old),
        "model": models[-1]["model"] if models else None,
    }


def no_run(run_id: str) -> NotPartyError:
    """What is said of a run that is not there, and of one that is none of the caller's."""
    return NotPartyError(
        need="a run of one of your contracts", found=ascii(run_id)[1:-1][:60], remedy="run list shows yours"
    )
