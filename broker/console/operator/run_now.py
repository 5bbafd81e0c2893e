# SPDX-License-Identifier: Apache-2.0
"""Where a run stands at this moment, in one panel: round, attempt, phase, deadline, cohort, what comes next.

The answer is one sentence: what it does, or what it waits for. Times are in full, because the panel stays on
a page until something happens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.console.charts import Cell, cells
from broker.console.operator.runs import state_of
from broker.console.operator.showing import party_name
from broker.console.screens import Column, Fact, Panel, Table
from broker.console.states import sign_of
from broker.console.values import Count, Duration, Link, Moment, Name, Nothing, State, T, Value
from broker.federation.progress import progress
from broker.membership.directory import Operator
from broker.runs.course import course_of
from broker.runs.rounds import open_attempt, openings
from policies.recipe import load as load_recipe
from policies.rounds import need_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.screens import Drawing
    from broker.console.viewing import View
    from broker.contracts.service import Seat
    from broker.runs.rounds import Opened
    from broker.runs.views import Shown
    from policies.contract import Contract
    from policies.recipe import Recipe
    from policies.rounds import Need

__all__ = ["Standing", "now_panel"]

_DRAWN: Final = 30
_LANES: Final = 12
_TONES: Final = {
    "accepted": "good",
    "refused": "bad",
    "declined": "bad",
    "withdrawn": "bad",
    "silent": "wait",
}
_TITLE: Final = T("Where it is")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that the panels of a run are made from.

    Attributes:
        body: What the service tells this reader.
        rounds: Settled attempts that this reader may know, oldest first.
        asked: The attempt that is being asked; None if there is none, and for members.
        next: Round and attempt that are asked next; for operators.
        halted: Whether a halt of the contract keeps it.
        votes_open: Whether silos still vote on the newest model.
        seats: Members of the run that take part now.
    """

    run: str
    body: dict[str, Any]
    rounds: tuple[Any, ...]
    contract: Contract
    recipe: Recipe
    asked: Opened | None
    next: tuple[int, int]
    halted: bool
    votes_open: bool
    seats: tuple[Seat, ...]
    need: Need

    @classmethod
    def of(cls, view: View, shown: Shown) -> Standing:
        """Of what a reader may see of a run, and may see more than its budget."""
        body: dict[str, Any] = dict(shown.body or {})
        services, session = view.services, view.session
        contract = services.contracts.read_in(session, body["contract"])
        clause = contract.recipe(body["recipe"])
        takes_part = () if clause is None else clause.participants
        whole = isinstance(view.party, Operator)
        goes_on = body["outcome"] is None
        at = progress(session, body["run"], services.contracts) if goes_on else None
        votes = goes_on and contract.validation is not None
        judged = course_of(session, body["run"]).judged if votes else frozenset()
        newest = shown.rounds[-1] if shown.rounds else None
        return cls(
            run=body["run"],
            body=body,
            rounds=tuple(shown.rounds),
            contract=contract,
            recipe=load_recipe(services.contracts.annex(session, contract, body["recipe"])),
            asked=open_attempt(session, body["run"]) if whole and body["outcome"] is None else None,
            next=(0, 0) if at is None else (at.round, at.attempt),
            halted=bool(services.contracts.life(contract, session).halts),
            votes_open=bool(
                whole
                and votes
                and newest is not None
                and newest["model"] is not None
                and newest["round"] not in judged
            ),
            seats=tuple(one for one in services.contracts.seats(contract) if one.party in takes_part),
            need=need_of(contract, body["recipe"]),
        )

    @property
    def rejected(self) -> bool:
        """Whether it waits because silos rejected its models."""
        return self.body["rejected"] is not None

    @property
    def resumable(self) -> bool:
        """Whether an operator's word lets it go on."""
        return self.rejected or self.body["paused_ms"] is not None

    @property
    def pausable(self) -> bool:
        """Whether an operator may pause it."""
        return self.body["paused_ms"] is None and self.body["state"] != "judging"

    def effect_of_stop(self) -> list[T]:
        """What stopping does, in numbers."""
        done, planned = self.body["round"], self.recipe.rounds
        model = T("There is no model yet, so nothing comes to the release gate.")
        if self.body["model"] is not None:
            model = T("The model of round {n} may come to the release gate.", n=Count(done))
        return [
            T("{n} members stop training.", n=Count(len(self.seats))),
            T(
                "{n} of {m} rounds have a model; {k} will not be trained.",
                n=Count(done),
                m=Count(planned),
                k=Count(max(planned - done, 0)),
            ),
            self._open_round(),
            model,
        ]

    def effect_of_pause(self) -> list[T]:
        """What pausing does, in numbers."""
        asked = T(
            "{n} members are asked for no further round until somebody resumes it.", n=Count(len(self.seats))
        )
        return [asked, self._open_round()]

    def effect_of_resume(self) -> list[T]:
        """What resuming does, in numbers."""
        found = [T("{n} members are asked for round {m}.", n=Count(len(self.seats)), m=Count(self.next[0]))]
        if self.rejected:
            found.append(
                T(
                    "It goes on from the model of round {n}; {k} models stay rejected. You answer for it.",
                    n=Count(self.body["rejected"]["stands"]),
                    k=Count(self.body["rejected"]["rounds"]),
                )
            )
        return found

    def deadline_ms(self, asked: Opened) -> int:
        """Until when members answer; the log has it to the minute only."""
        return asked.at_ms + self.recipe.deadline_s * 1000

    def _open_round(self) -> T:
        if self.asked is None:
            return T("No round is open.")
        return T(
            "Round {n} is open with {m} members; it is closed first, by {when} at the latest.",
            n=Count(self.asked.round),
            m=Count(self.asked.cohort),
            when=Moment(self.deadline_ms(self.asked)),
        )


def now_panel(view: View, standing: Standing) -> Panel:
    """Where it is, and why it stands still if it does."""
    operator = isinstance(view.party, Operator)
    live = f"/console/runs/{standing.run}/events?lang={view.lang}"
    goes_on = standing.body["outcome"] is None
    return Panel(
        name="now",
        title=_TITLE,
        prose=(_phase(standing, operator=operator),),
        facts=_facts(view, standing, operator=operator),
        drawing=_timeline(view, standing, operator=operator),
        table=_away(standing) if operator and goes_on else None,
        live=live if operator and goes_on else None,
    )


def _phase(standing: Standing, *, operator: bool) -> T:  # noqa: PLR0911  one line per phase
    """What it does or waits for, in one sentence."""
    body, asked = standing.body, standing.asked
    if body["outcome"] is not None:
        return T(
            "It is closed: {outcome} after round {n}.", outcome=State(body["outcome"]), n=Count(body["round"])
        )
    if body["stopping"]:
        return T("An operator ended it; its open round is closed first.")
    if standing.halted:
        return T("It stands still: the contract is halted. All contributors resume it.")
    if body["paused_ms"] is not None:
        return T("It stands still: an operator paused it at {when}.", when=Moment(body["paused_ms"]))
    if standing.rejected:
        return T(
            "It stands still: silos rejected {n} models in a row. Find out why, then resume or stop it.",
            n=Count(body["rejected"]["rounds"]),
        )
    if body["waiting"] is not None:
        return T(
            "It stands still: members said no. It asks again at {when}.",
            when=Moment(body["waiting"]["until_ms"]),
        )
    if body.get("short") is not None and asked is None:
        return T("It stands still: too few nodes are online. Ask the members below to start theirs.")
    return _going(standing, operator=operator)


def _going(standing: Standing, *, operator: bool) -> T:
    asked = standing.asked
    if not operator:
        return T("It goes on. Your node is asked for each round; iriai-node status says what comes next.")
    if standing.body["state"] == "judging":
        return T("It goes on: silos judge the last model on episodes that were held out.")
    if asked is not None:
        return T(
            "It goes on: {m} members train for round {n}, attempt {k}.",
            m=Count(asked.cohort),
            n=Count(asked.round),
            k=Count(asked.attempt),
        )
    if standing.votes_open:
        return T("It goes on: silos vote on the model of round {n}.", n=Count(standing.body["round"]))
    return T(
        "It goes on: round {n}, attempt {k} is about to be opened.",
        n=Count(standing.next[0]),
        k=Count(standing.next[1]),
    )


def _facts(view: View, standing: Standing, *, operator: bool) -> list[Fact]:
    body, asked = standing.body, standing.asked
    rounds = T("{n} of {m}", n=Count(body["round"]), m=Count(standing.recipe.rounds))
    facts = [
        Fact("state", T("State"), State("training" if _trains(standing) else state_of(body))),
        Fact("round", T("Rounds with a model"), rounds),
    ]
    if body["outcome"] is None and operator:
        number, attempt = standing.next if asked is None else (asked.round, asked.attempt)
        facts += [
            Fact("at", T("At round and attempt"), T("{n}, attempt {k}", n=Count(number), k=Count(attempt))),
            Fact("deadline", T("Members answer until"), _deadline(standing)),
            Fact("next", T("What comes next"), _next(standing)),
        ]
        facts += _cohort(view, standing)
    return facts


def _trains(standing: Standing) -> bool:
    """Whether members train now, whatever the run will wait for afterwards."""
    return (
        standing.asked is not None and standing.body["state"] == "running" and not standing.body["stopping"]
    )


def _deadline(standing: Standing) -> Value:
    asked = standing.asked
    return Nothing(T("no round is open")) if asked is None else Moment(standing.deadline_ms(asked))


def _next(standing: Standing) -> Value:
    if standing.body["stopping"]:
        return T("its end")
    if standing.asked is not None:
        return T("the sum, once {n} groups have answered", n=Count(standing.need.groups))
    if standing.votes_open:
        return T("the verdict of the silos")
    if standing.body["state"] == "judging":
        return T("the release gate")
    return T("round {n}", n=Count(standing.next[0]))


def _cohort(view: View, standing: Standing) -> list[Fact]:
    """Who was asked and who is online, against what a sum takes."""
    online = view.services.engine.online()
    there = [one for one in standing.seats if one.member.node in online]
    need = standing.need
    facts = [
        Fact(
            "cohort",
            T("Members asked"),
            Nothing(T("no round is open")) if standing.asked is None else Count(standing.asked.cohort),
        ),
        Fact(
            "groups",
            T("Groups online, of those needed"),
            T("{n} of {m}", n=Count(len({one.member.group for one in there})), m=Count(need.groups)),
        ),
    ]
    if need.members:
        facts.append(
            Fact(
                "members",
                T("Members online, of those needed"),
                T("{n} of {m}", n=Count(len(there)), m=Count(need.members)),
            )
        )
    return facts


def _away(standing: Standing) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "party": Name(one["name"]),
            "state": State("silent" if one["online"] else "offline"),
            "since": Nothing(T("never heard")) if one["since_ms"] is None else Moment(one["since_ms"]),
        }
        for one in standing.body.get("away", ())
    ]
    return Table(
        name="away",
        caption=T("Members that are missing"),
        columns=(Column("party", T("Member")), Column("state", T("State")), Column("since", T("Heard last"))),
        rows=rows,
        empty=T("Nobody is missing: every member's node is online and answered when it was asked last."),
    )


# --- the drawing ---


def _timeline(view: View, standing: Standing, *, operator: bool) -> Drawing:
    """The newest attempts: a lane for the rounds, and for operators one for each member."""
    opened = {(one.round, one.attempt): one for one in openings(view.session, standing.run, newest=_DRAWN)}
    settled = standing.rounds[-_DRAWN:]
    made: list[Cell] = []
    rows: list[dict[str, Value]] = []
    lanes = operator and len(standing.seats) <= _LANES
    for place, one in enumerate(settled):
        start = opened.get((one["round"], one["attempt"]))
        began = one["at_ms"] if start is None else start.at_ms
        word = "aggregated" if one["model"] is not None else "abandoned"
        made += _cells(standing, one, place, word=word, lanes=lanes)
        rows.append(
            {
                "round": Link(Count(one["round"]), f"/console/runs/{standing.run}/rounds/{one['round']}"),
                "attempt": Count(one["attempt"]),
                "outcome": State(word),
                "began": Moment(began),
                "took": Duration(one["at_ms"] - began),
            }
        )
    if standing.asked is not None:
        made.append(_open_cell(standing.asked, len(settled)))
        rows.append(_open_row(standing, standing.asked))
    places = [int(one["round"]) for one in settled]
    places += [standing.asked.round] if standing.asked is not None else []
    table = _timeline_table(rows)
    return cells("timeline", T("The newest rounds"), made, places=places, x=T("Round"), table=table)


def _cells(standing: Standing, one: Any, place: int, *, word: str, lanes: bool) -> list[Cell]:  # noqa: ANN401
    label = T("round {n}, attempt {k}", n=Count(one["round"]), k=Count(one["attempt"]))
    tone = "good" if word == "aggregated" else "bad"
    found = [Cell(T("rounds"), place, tone, _means(word), label)]
    if lanes:
        verdicts: dict[str, str] = json.loads(one["verdicts"])
        found += [
            Cell(
                party_name(standing.contract, party),
                place,
                _TONES.get(verdict, "bad"),
                _means(verdict),
                State(verdict),
            )
            for party, verdict in sorted(verdicts.items())
        ]
    return found


def _open_cell(asked: Opened, place: int) -> Cell:
    label = T("round {n}, attempt {k}", n=Count(asked.round), k=Count(asked.attempt))
    return Cell(T("rounds"), place, "busy", _means("training"), label)


def _means(word: str) -> T:
    """A state word without its sign."""
    sign = sign_of(word)
    return T("unknown") if sign is None else sign.text


def _open_row(standing: Standing, asked: Opened) -> dict[str, Value]:
    return {
        "round": Link(Count(asked.round), f"/console/runs/{standing.run}/rounds/{asked.round}"),
        "attempt": Count(asked.attempt),
        "outcome": State("training"),
        "began": Moment(asked.at_ms),
        "took": Nothing(T("not settled")),
    }


def _timeline_table(rows: Sequence[dict[str, Value]]) -> Table:
    return Table(
        name="timeline",
        caption=T("The newest attempts"),
        columns=(
            Column("round", T("Round")),
            Column("attempt", T("Attempt")),
            Column("outcome", T("Outcome")),
            Column("began", T("Opened")),
            Column("took", T("Took")),
        ),
        rows=rows,
        empty=T("No round was opened yet."),
        total=len(rows),
    )
