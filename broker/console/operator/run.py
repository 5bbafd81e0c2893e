# SPDX-License-Identifier: Apache-2.0
"""One run, live: where it is, why it stands still, who is missing, and stopping, pausing or resuming it.

- The panel ``now`` is what the event stream renews; the whole page has it too, so a reload shows the same.
- Operators see who is away, as a state and nothing more. A member's person sees what its node may see.
- Updates carry nothing but the update: no loss is known here, and the clause that says so is named.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from broker.console.charts import Series, line
from broker.console.errors import FormError
from broker.console.live import Looked, stream
from broker.console.operator.run_now import Standing, now_panel
from broker.console.operator.runs import (
    RUN_READERS,
    model_of,
    note_asked,
    refused_clause,
    refused_screen,
    state_of,
)
from broker.console.operator.showing import (
    OPERATOR,
    PAGE,
    contract_link,
    party_name,
    place_after,
    run_link,
)
from broker.console.pages import Place
from broker.console.screens import OPERATORS, Column, Done, Fact, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Folded,
    Foreign,
    Hidden,
    Link,
    Moment,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.runs.rounds import openings, verdicts_of_votes
from broker.store.tables import log_entry, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.responses import Response

    from broker.console.acting import Act
    from broker.console.screens import Drawing
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.runs.views import Shown
    from broker.services import Services
    from broker.store import Session

__all__ = ["room"]

room = Room("run")
_ROUNDS: Final = 4 * PAGE  # of one page, which folds equal ones
_COUNTS: Final = ("accepted", "unused", "refused", "silent", "unasked")
_CALM: Final = 15  # looks after which a panel is made again though the log did not move: nodes come and go


@room.screen(
    "/console/runs/{run_id}",
    name="run",
    title=T("Run"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker run show RUN --dir DIR --key FILE",
)
def run_screen(view: View) -> Screen:
    """One run, as far as its contract lets the reader see it."""
    name = view.path["run_id"]
    shown = view.services.runs.views.show(view.session, name, view.party)
    note_asked(view, [shown])
    trail = ((T("Runs"), "/console/runs"),)
    command = f"iriai-broker run show {name} --dir DIR --key FILE"
    if shown.body is None:
        return refused_screen(shown, trail)
    if shown.body.get("budget_only"):
        return Screen(panels=(_budget_only(view, shown),), title=Code(name), trail=trail, command=command)
    standing = Standing.of(view, shown)
    return Screen(
        panels=_panels(view, standing), title=Code(name), trail=trail, command=command, refresh_s=30
    )


def _panels(view: View, standing: Standing) -> list[Panel]:
    return [
        now_panel(view, standing),
        *_acts(view, standing),
        *_ended(standing),
        *_said_no(standing),
        *_out(standing),
        _learning(view, standing),
        _rounds(view, standing),
        _about(view, standing),
    ]


def _budget_only(view: View, shown: Shown) -> Panel:
    """What a contract lets a party know that may see its own budget and nothing else of a run."""
    body: dict[str, Any] = dict(shown.body or {})
    hidden = Hidden(refused_clause(shown))
    contract = view.services.contracts.read_in(view.session, body["contract"])
    return Panel(
        name="now",
        title=T("Where it is"),
        facts=(
            Fact("state", T("State"), State(state_of(body))),
            Fact("contract", T("Contract"), contract_link(view, contract)),
            Fact("recipe", T("Recipe"), Code(body["recipe_id"])),
            Fact("round", T("Rounds with a model"), hidden),
            Fact("model", T("Model"), hidden),
        ),
    )


# --- why it stands still, and why it ended ---


def _ended(standing: Standing) -> list[Panel]:
    ended = standing.body["ended"]
    if ended is None:
        return []
    rows: list[dict[str, Value]] = [
        {
            "clause": Code(one["clause"]),
            "check": Code(one["check"]),
            "need": Foreign(one["need"]),
            "found": Foreign(one["found"]),
            "remedy": Foreign(one["remedy"]),
        }
        for one in ended["findings"]
    ]
    facts = [Fact("reason", T("Reason"), Foreign(ended["reason"]))]
    if ended["code"]:
        facts.append(Fact("ended-code", T("Code"), Code(ended["code"])))
    if ended["clauses"]:
        facts.append(Fact("clauses", T("Clauses"), Code(", ".join(ended["clauses"]))))
    if ended["remedy"]:
        facts.append(Fact("remedy", T("What to do"), Foreign(ended["remedy"])))
    table = Table(
        name="findings",
        caption=T("What was checked and refused"),
        columns=(
            Column("clause", T("Clause")),
            Column("check", T("Check")),
            Column("need", T("What was needed")),
            Column("found", T("What was found")),
            Column("remedy", T("What to do")),
        ),
        rows=rows,
        empty=T("No clause of the contract refused anything."),
    )
    title = T("Why it ended before its last round")
    return [Panel(name="ended", title=title, facts=facts, table=table if rows else None)]


def _said_no(standing: Standing) -> list[Panel]:
    waiting = standing.body["waiting"]
    if waiting is None:
        return []
    rows: list[dict[str, Value]] = [
        {"party": party_name(standing.contract, party), "code": Code(code or "?")}
        for party, code in sorted(waiting.get("codes", {}).items())
    ]
    facts = [
        Fact("asks-again", T("It asks again"), Moment(waiting["until_ms"])),
        Fact("patience", T("Refused from then on, it ends"), Moment(waiting["ends_ms"])),
    ]
    if "remedy" in waiting:
        facts.append(Fact("remedy", T("What to do"), Foreign(waiting["remedy"])))
    table = Table(
        name="said-no",
        caption=T("Members that said no"),
        columns=(Column("party", T("Member")), Column("code", T("Their node's code"))),
        rows=rows,
        empty=T("Who said no is for operators to know."),
    )
    title = T("Why it waits")
    return [Panel(name="waiting", title=title, prose=(Foreign(waiting["reason"]),), facts=facts, table=table)]


def _out(standing: Standing) -> list[Panel]:
    body = standing.body
    out, suspects = body.get("out") or [], body.get("suspects") or []
    if not out and not suspects:
        return []
    rows: list[dict[str, Value]] = [
        {
            "party": Code(one["node"])
            if one["party"] is None
            else party_name(standing.contract, one["party"]),
            "kind": Code(one["kind"]),
            "round": Nothing() if one["round"] is None else Count(one["round"]),
            "evidence": Digest(one["evidence"]),
        }
        for one in out
    ]
    facts = [
        Fact(
            f"suspect-{number}",
            T("Stood in every team that was left out"),
            party_name(standing.contract, one),
        )
        for number, one in enumerate(suspects, 1)
    ]
    table = Table(
        name="out",
        caption=T("Members that are asked for no further round"),
        columns=(
            Column("party", T("Member")),
            Column("kind", T("Incident")),
            Column("round", T("In round")),
            Column("evidence", T("Evidence")),
        ),
        rows=rows,
        empty=T("Nobody is out of this run."),
    )
    return [Panel(name="out", title=T("Who is out, and whom to look at"), facts=facts, table=table)]


def _who(standing: Standing, one: dict[str, Any]) -> Value:
    party = one["party"]
    return Code(one["node"]) if party is None else party_name(standing.contract, party)


# --- what it learned ---


def _learning(view: View, standing: Standing) -> Panel:
    contract = standing.contract
    loss: Value = Hidden(contract.privacy.clause)
    if contract.privacy.mode == "none":
        loss = Nothing(T("no node reports one: a reply holds the update and nothing else"))
    facts = [Fact("loss", T("Loss at the sites"), loss)]
    votes = verdicts_of_votes(view.session, standing.run) if contract.validation is not None else ()
    seen = {one["round"] for one in standing.body["rounds"]}
    points = [
        (float(number), accepting / max(voting, 1)) for number, accepting, voting in votes if number in seen
    ]
    drawing = None
    if contract.validation is not None:
        title = T("Silos that accept the model of a round")
        drawing = line(
            "votes", title, [Series(title, points)], x=T("Round"), y=T("Share that accepts"), step=True
        )
    return Panel(name="learning", title=T("What it learned"), facts=facts, drawing=drawing)


def _votes(view: View, standing: Standing) -> Drawing:
    """Which part of the silos accepted the model of each round that the reader may know."""
    seen = {one["round"] for one in standing.body["rounds"]}
    votes = [one for one in verdicts_of_votes(view.session, standing.run) if one[0] in seen]
    points = [(float(number), accepting / max(voting, 1)) for number, accepting, voting in votes]
    title, share = T("Silos that accept the model of a round"), T("Share that accepts")
    return line("votes", title, [Series(title, points)], x=T("Round"), y=share, step=True)


# --- its rounds ---


def _rounds(view: View, standing: Standing) -> Panel:
    """Settled attempts, newest first, one page of them."""
    after = _slot_after(view)
    rounds = [
        one
        for one in reversed(standing.body["rounds"])
        if after is None or (one["round"], one["attempt"]) < after
    ]
    page = rounds[:_ROUNDS]
    opened = {}
    if page:
        between = page[-1]["round"], page[0]["round"]
        asked = openings(view.session, standing.run, newest=2 * _ROUNDS, rounds=between)
        opened = {(one.round, one.attempt): one for one in asked}
    rows = [_round_row(standing, one, opened.get((one["round"], one["attempt"]))) for one in page]
    more = {"after": f"{page[-1]['round']}.{page[-1]['attempt']}"} if len(rounds) > _ROUNDS else None
    table = Table(
        name="rounds",
        caption=T("Settled attempts, newest first; equal ones stand in one row"),
        columns=(
            Column("round", T("Round")),
            Column("attempt", T("Attempt")),
            Column("outcome", T("Outcome")),
            Column("model", T("Model")),
            Column("accepted", T("In the model")),
            Column("unused", T("Held, unused")),
            Column("refused", T("Refused")),
            Column("silent", T("Silent")),
            Column("unasked", T("Spared")),
            Column("opened", T("Opened")),
            Column("settled", T("Settled")),
        ),
        rows=rows,
        folded=[_fold(standing, equal) for equal in _equal(page, rows)],
        empty=T(
            "Attempts would be here once they are settled. The panel above says what the first one waits for."
        ),
        more=more,
        total=len(standing.body["rounds"]),
    )
    return Panel(name="rounds", title=T("Its rounds"), table=table)


def _slot_after(view: View) -> tuple[int, int] | None:
    """Round and attempt in ``after``.

    Raises:
        FormError: Another text.
    """
    found = place_after(view.query)
    if found is None:
        return None
    if not found[1].isdecimal() or not found[1].isascii():
        raise FormError(need="after as round.attempt", found=ascii(found[1])[:40], remedy="begin again")
    return found[0], int(found[1][:6])


def _round_row(standing: Standing, one: dict[str, Any], opened: Any) -> dict[str, Value]:  # noqa: ANN401
    row: dict[str, Value] = {name: Count(one[name]) for name in _COUNTS}
    return row | {
        "round": _round_link(standing, one),
        "attempt": Count(one["attempt"]),
        "outcome": State("aggregated" if one["model"] is not None else "abandoned"),
        "opened": Nothing() if opened is None else Moment(opened.at_ms),
        "settled": Moment(one["at_ms"]),
        "model": Nothing() if one["model"] is None else Digest(one["model"]),
    }


def _round_link(standing: Standing, one: dict[str, Any]) -> Link:
    return Link(Count(one["round"]), f"/console/runs/{standing.run}/rounds/{one['round']}")


_Told = tuple[dict[str, Any], dict[str, Value]]


def _equal(page: Sequence[dict[str, Any]], rows: Sequence[dict[str, Value]]) -> list[list[_Told]]:
    """Attempts that say the same one after the other, as ``iriai-broker run show`` puts them together."""

    def said(told: _Told) -> tuple[object, ...]:
        one = told[0]
        return (one["attempt"], one["model"] is None, *(one[name] for name in _COUNTS))

    return [list(equal) for _, equal in itertools.groupby(zip(page, rows, strict=True), said)]


def _fold(standing: Standing, equal: Sequence[_Told]) -> dict[str, Value]:
    """One row of the page: of a single attempt, or of several with a link to each round."""
    (newest, row), (oldest, first) = equal[0], equal[-1]
    if len(equal) == 1:
        return row
    label = T("{a} to {b}", a=Count(oldest["round"]), b=Count(newest["round"]))
    links = tuple(_round_link(standing, one) for one, _ in reversed(equal))
    return row | {"round": Folded(label, links), "opened": first["opened"]}


def _about(view: View, standing: Standing) -> Panel:
    body = standing.body
    plan = body["plan"]
    return Panel(
        name="about",
        title=T("What it is"),
        facts=(
            Fact("run", T("Run"), run_link(standing.run)),
            Fact("contract", T("Contract"), contract_link(view, standing.contract)),
            Fact("recipe", T("Recipe"), Code(body["recipe_id"])),
            Fact("recipe-digest", T("Digest of the recipe"), Digest(body["recipe"])),
            Fact(
                "plan",
                T("Privacy plan"),
                Nothing(T("none: the recipe spends no budget")) if plan is None else Digest(plan),
            ),
            Fact("opened", T("Opened"), When(body["opened_ms"])),
            Fact("steps", T("Noisy steps taken"), Count(body["steps"])),
            Fact("last-model", T("Newest model"), model_of(view, body["model"])),
        ),
    )


# --- acts ---


def _acts(view: View, standing: Standing) -> list[Panel]:
    body = standing.body
    if view.role != "operator" or body["outcome"] is not None or body["stopping"]:
        return []
    base = f"/console/runs/{standing.run}"
    forms = []
    if standing.resumable:
        forms.append(
            Form(action=f"{base}/resume", button=T("Resume the run"), effect=standing.effect_of_resume())
        )
    if standing.pausable:
        forms.append(
            Form(action=f"{base}/pause", button=T("Pause the run"), effect=standing.effect_of_pause())
        )
    if body["state"] != "judging":
        stop = Form(
            action=f"{base}/stop", button=T("Stop the run"), effect=standing.effect_of_stop(), danger=True
        )
        forms.append(stop)
    return [Panel(name="acts", title=T("What you may do"), forms=forms)] if forms else []


async def _moved(act: Act, move: Callable[..., object], said: T) -> Done:
    """One word of the operator's to `broker.runs.service.Runs` about the run that the path names."""
    run_id = act.path["run_id"]

    def effect(session: Session, tx: LogTx) -> None:
        move(session, tx, run_id=run_id, operator=act.operator, request=act.request)

    await act.change(effect)
    return Done(f"/console/runs/{run_id}", said)


@room.act("/console/runs/{run_id}/stop", name="run-stop", roles=OPERATOR, sees=Sees.EVERYTHING)
async def stop_run(act: Act) -> Done:
    """Ends a run once its open round is closed."""
    return await _moved(act, act.services.runs.stop, T("The run ends once its open round is closed."))


@room.act("/console/runs/{run_id}/pause", name="run-pause", roles=OPERATOR, sees=Sees.EVERYTHING)
async def pause_run(act: Act) -> Done:
    """Lets a run ask nobody once its open round is closed."""
    return await _moved(act, act.services.runs.pause, T("The run pauses once its open round is closed."))


@room.act("/console/runs/{run_id}/resume", name="run-resume", roles=OPERATOR, sees=Sees.EVERYTHING)
async def resume_run(act: Act) -> Done:
    """Lets a run go on that an operator paused, or whose models silos rejected."""
    return await _moved(act, act.services.runs.resume, T("The run goes on within a minute."))


# --- live ---


@room.events("/console/runs/{run_id}/events", name="run-events", roles=OPERATORS, sees=Sees.EVERYTHING)
def events(view: View, after: str) -> Response:
    """The panel ``now`` as it becomes new. Members reload: what they may see is decided at each look."""
    name = view.path["run_id"]
    view.services.runs.views.show(view.session, name, view.party)
    place = Place(path=f"/console/runs/{name}", query={})
    return stream(view, _Watch(view, name), after=after, place=place)


class _Watch:
    """Looks at a run; makes its panel only if the log moved under it, or nodes came or went."""

    def __init__(self, view: View, run_id: str) -> None:
        self._view = view
        self._run = run_id
        self._size = 0
        self._online: frozenset[str] = frozenset()
        self._calm = 0

    def __call__(self, services: Services, session: Session) -> Looked | None:
        size = int(session.scalar(select(func.coalesce(func.max(log_entry.c.idx), -1))) or 0) + 1
        online = services.engine.online()
        first = self._size == 0
        moved = first or (size > self._size and self._is_about(session))
        self._size, before = size, self._online
        self._online, self._calm = online, self._calm + 1
        if not moved and online == before and self._calm < _CALM:
            return None
        self._calm = 0
        view = replace(self._view, session=session, now_ms=services.clock.now_ms(), reads=[], later=[])
        shown = services.runs.views.show(session, self._run, view.party)
        return Looked(now_panel(view, Standing.of(view, shown)), size)

    def _is_about(self, session: Session) -> bool:
        """Whether an entry since the last look is about the run, its contract, or what operators did."""
        contract = session.scalar(select(run.c.contract).where(run.c.run_id == self._run))
        about = (
            (func.coalesce(log_entry.c.run, "") == self._run)  # not by the index of runs: few are new
            | (func.coalesce(log_entry.c.scope, "") == contract)
            | (func.coalesce(log_entry.c.scope, "") == "")
        )
        query = select(log_entry.c.idx).where((log_entry.c.idx >= self._size) & about).limit(1)
        return session.scalar(query) is not None
