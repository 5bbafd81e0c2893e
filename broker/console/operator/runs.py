# SPDX-License-Identifier: Apache-2.0
"""Runs: which there are, where each is and what it waits for; and opening one, with what it will cost.

- A member's person sees the runs of its organisation's contracts, as its node does by the API. What a
  contract refuses is told with the clause, and that it was asked is recorded once
  (`broker.contracts.queries`).
- Before a run is opened, the same checks as at the opening say what would happen, in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.console.errors import FormError
from broker.console.operator.showing import (
    OPERATOR,
    PAGE,
    contract_choice,
    contract_link,
    model_link,
    place_after,
    run_link,
)
from broker.console.screens import (
    OPERATORS,
    Column,
    Done,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import (
    Code,
    Count,
    Digest,
    Hidden,
    Moment,
    Name,
    Nothing,
    Number,
    State,
    T,
    Value,
    When,
)
from broker.contracts.service import FINALIZED
from broker.federation.affording import check_affordable, rounds_left
from broker.membership.directory import Operator
from broker.store.tables import candidate, contract_document
from policies.contract.errors import RefusedError
from policies.recipe import load as load_recipe
from policies.rounds import need_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.runs.views import Shown
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import RecipeClause

__all__ = ["RUN_READERS", "model_of", "note_asked", "refused_clause", "refused_screen", "room", "state_of"]

room = Room("runs")
RUN_READERS = OPERATORS | {"member"}
_STATES = (("", T("all")), ("open", T("not closed")), ("closed", T("closed")))


@room.screen(
    "/console/runs",
    name="runs",
    title=T("Runs"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker run list --dir DIR --key FILE",
    nav=True,
)
def runs(view: View) -> Screen:
    """Every run that the reader may see, newest first."""
    panels = [view.panel("list", T("Runs, newest first"), lambda: _listed(view))]
    if view.role == "operator":
        panels.append(view.panel("open", T("Open a run"), lambda: _opening(view)))
    return Screen(panels=panels, refresh_s=15)


def _listed(view: View) -> Panel:
    asked = view.query.get("state", "")
    if asked not in {name for name, _ in _STATES}:
        raise FormError(need="state open or closed", found=ascii(asked)[:40], remedy="choose one of the list")
    shown, more = view.services.runs.views.page(
        view.session,
        view.party,
        after=place_after(view.query),
        limit=PAGE,
        contract=view.query.get("contract") or None,
        closed=None if not asked else asked == "closed",
    )
    note_asked(view, shown)
    table = Table(
        name="runs",
        caption=T("Runs"),
        columns=(
            Column("run", T("Run")),
            Column("contract", T("Contract")),
            Column("recipe", T("Recipe")),
            Column("state", T("State"), sort=True),
            Column("round", T("Rounds with a model")),
            Column("waits", T("Waits for")),
            Column("model", T("Model")),
            Column("opened", T("Opened"), sort=True),
        ),
        rows=[_row(view, one) for one in shown],
        empty=_empty(view),
        more=None if more is None else {"after": f"{more[0]}.{more[1]}"},
    )
    return Panel(
        name="list",
        title=T("Runs, newest first"),
        prose=(_answer(shown),),
        table=table.sorted_by(view.query),
        forms=(_filter(view),),
    )


def _answer(shown: list[Shown]) -> T:
    """The panel's question in one line: does something stand still?"""
    still = [one for one in shown if one.body is not None and _stands_still(one.body)]
    going = [one for one in shown if one.body is not None and one.body["outcome"] is None]
    if still:
        return T("{n} of the runs on this page stand still; the column says why.", n=Count(len(still)))
    if not going:
        return T("No run on this page is open.")
    return T("Runs on this page that go on: {n}; none stands still.", n=Count(len(going)))


def _stands_still(body: dict[str, Any]) -> bool:
    return body["outcome"] is None and (body["state"] == "suspended" or body.get("short") is not None)


def _filter(view: View) -> Form:
    return Form(
        action="/console/runs",
        method="get",
        button=T("Show"),
        fields=(
            Field(
                name="state",
                label=T("State"),
                kind="select",
                value=view.query.get("state", ""),
                choices=_STATES,
                required=False,
            ),
            contract_choice(view),
        ),
    )


def _empty(view: View) -> T:
    if view.query.get("state") or view.query.get("contract"):
        return T("No run fits these filters. Choose others, or all.")
    if isinstance(view.party, Operator):
        return T(
            "Runs of all contracts would be here. None was opened yet: open one below, or by {command}.",
            command=Code("iriai-broker run open --contract DIGEST --recipe ID --dir DIR --key FILE"),
        )
    return T("Runs of your contracts would be here. The broker opens one once a contract is in force.")


def _row(view: View, shown: Shown) -> dict[str, Value]:
    if shown.body is None:
        return _refused_row(view, shown)
    body: dict[str, Any] = shown.body
    contract = view.services.contracts.read_in(view.session, body["contract"])
    row: dict[str, Value] = {
        "run": run_link(body["run"]),
        "contract": contract_link(view, contract),
        "recipe": Code(body["recipe_id"]),
        "state": State(state_of(body)),
    }
    if body.get("budget_only"):
        hidden = Hidden("?" if contract.queries is None else contract.queries.clause)
        return row | dict.fromkeys(("round", "waits", "model", "opened"), hidden)
    return row | {
        "round": Count(body["round"]),
        "waits": _waits(body),
        "model": model_of(view, body["model"]),
        "opened": When(body["opened_ms"]),
    }


def model_of(view: View, digest: str | None) -> Value:
    """The model of a run; a link once it is a candidate of the gate."""
    if digest is None:
        return Nothing()
    known = view.session.scalar(select(candidate.c.digest).where(candidate.c.digest == digest))
    return Digest(digest) if known is None else model_link(known)


def _refused_row(view: View, shown: Shown) -> dict[str, Value]:
    asked = shown.asked[0]
    contract = view.services.contracts.read_in(view.session, asked.judgement.contract)
    hidden = Hidden(refused_clause(shown))
    row: dict[str, Value] = {"run": Code(asked.run), "contract": contract_link(view, contract)}
    return row | dict.fromkeys(("recipe", "state", "round", "waits", "model", "opened"), hidden)


def refused_clause(shown: Shown) -> str:
    """The clause by which a view of a run was refused."""
    clauses = [clause for one in shown.asked if not one.allow for clause in one.judgement.decision.clauses]
    return clauses[0] if clauses else "?"


def refused_screen(shown: Shown, trail: Sequence[tuple[Value, str]]) -> Screen:
    """A run, or a round of it, that its contract keeps from the reader: by which clause, and what to do."""
    title = T("What the contract lets you see")
    try:
        next(one for one in shown.asked if not one.allow).judgement.decision.require()
    except RefusedError as error:
        panel = Panel(name="now", title=title, error=error)
        return Screen(panels=(panel,), trail=trail, status=error.http_status)
    panel = Panel(name="now", title=title, prose=(Hidden(refused_clause(shown)),))
    return Screen(panels=(panel,), trail=trail, status=RefusedError.http_status)


def note_asked(view: View, shown: list[Shown]) -> None:
    """Decisions about what was shown, or was not, are recorded if they are news."""
    queries = view.services.queries
    for one in shown:
        for asked in one.asked:
            if queries.is_news(view.session, asked):
                view.later.append(_recording(view, asked))


def _recording(view: View, asked: Any) -> Any:  # noqa: ANN401  a decision, and the unit of work that keeps it
    def work(session: Session, tx: LogTx) -> None:
        view.services.queries.record(session, tx, asked)

    return work


def state_of(body: dict[str, Any]) -> str:
    """The state word of a run: how it ended, else what it does."""
    if body["outcome"] is not None:
        return str(body["outcome"])
    if body.get("stopping"):
        return "stopping"
    return "held" if _stands_still(body) else str(body["state"])


def _waits(body: dict[str, Any]) -> Value:  # noqa: PLR0911  one line per reason
    if body["outcome"] is not None:
        return Nothing()
    if body.get("stopping"):
        return T("its open round, then it is closed")
    if body["rejected"] is not None:
        return T("an operator: {n} models in a row were rejected", n=Count(body["rejected"]["rounds"]))
    if body["waiting"] is not None:
        return T("members that said no, until {when}", when=Moment(body["waiting"]["until_ms"]))
    if body.get("short") is not None:
        short = body["short"]
        return T(
            "nodes: {n} of {m} groups are online",
            n=Count(short["groups"]),
            m=Count(short["groups_needed"]),
        )
    if body["paused_ms"] is not None:
        return T("an operator, who paused it {when}", when=When(body["paused_ms"]))
    if body["state"] == "suspended":
        return T("all parties: the contract is halted")
    return Nothing(T("nothing, it goes on"))


# --- opening one ---


@dataclass(frozen=True, slots=True)
class _Choice:
    contract: Contract
    recipe: RecipeClause

    @property
    def name(self) -> str:
        """As the form has it."""
        return f"{self.contract.digest} {self.recipe.id}"


def _choices(view: View) -> list[_Choice]:
    """Recipes of the contracts that rule now, newest contract first."""
    contracts = view.services.contracts
    names = view.session.scalars(
        select(contract_document.c.digest)
        .where(contract_document.c.state == FINALIZED)
        .order_by(contract_document.c.at_ms.desc())
        .limit(PAGE)
    ).all()
    texts = [contracts.read_in(view.session, one) for one in names]
    ruling = [one for one in texts if contracts.life(one, view.session).superseded_by is None]
    return [_Choice(one, recipe) for one in ruling for recipe in one.recipes]


def _opening(view: View) -> Panel:
    """The choice, and once somebody chose, what would happen."""
    choices = _choices(view)
    wanted = view.query.get("open", "")
    chosen = next((one for one in choices if one.name == wanted), None)
    if not choices:
        nothing = T(
            "No contract is in force, so nothing can be trained. Negotiate one first: {command}",
            command=Code("iriai-broker contract offer FILE --dir DIR --key FILE"),
        )
        return Panel(name="open", title=T("Open a run"), prose=(nothing,))
    choose = Form(
        action="/console/runs",
        method="get",
        button=T("What would happen?"),
        fields=(
            Field(
                name="open",
                label=T("Contract and recipe"),
                kind="select",
                value=wanted,
                choices=[
                    (
                        one.name,
                        T(
                            "{title}, recipe {recipe}",
                            title=Name(one.contract.title),
                            recipe=Code(one.recipe.id),
                        ),
                    )
                    for one in choices
                ],
            ),
        ),
    )
    if chosen is None:
        return Panel(
            name="open",
            title=T("Open a run"),
            prose=(T("Choose what shall be trained; nothing happens before you confirm."),),
            forms=(choose,),
        )
    return Panel(
        name="open",
        title=T("Open a run"),
        prose=(T("This would happen. Nothing has happened yet."),),
        forms=(_confirm(view, chosen), choose),
    )


def _confirm(view: View, chosen: _Choice) -> Form:
    return Form(
        action="/console/runs/open",
        button=T("Open the run"),
        effect=_effect(view, chosen),
        fields=(
            Field(name="contract", kind="hidden", value=chosen.contract.digest),
            Field(name="recipe", kind="hidden", value=chosen.recipe.id),
        ),
    )


def _effect(view: View, chosen: _Choice) -> list[T]:
    """What opening it does, in numbers.

    Raises:
        IriaiError: It could not be opened, as the opening itself would say.
    """
    services, contract, clause = view.services, chosen.contract, chosen.recipe
    services.runs.recipe_of(contract, clause.id)
    left = rounds_left(view.session, contract, clause)
    check_affordable(view.session, services.contracts, contract, clause)
    recipe = load_recipe(services.contracts.annex(view.session, contract, clause.recipe_digest))
    seats = [one for one in services.contracts.seats(contract) if one.party in clause.participants]
    online = services.engine.online()
    there = sum(one.member.node in online for one in seats)
    need = need_of(contract, clause.recipe_digest)
    found = [
        T(
            "{n} members of {m} groups are asked to train; {k} are online now.",
            n=Count(len(seats)),
            m=Count(len({one.member.group for one in seats})),
            k=Count(there),
        ),
        T("Each round needs {n} independent groups.", n=Count(need.groups)),
        T(
            "It plans {n} rounds; the contract has {m} left of {k}.",
            n=Count(recipe.rounds),
            m=Count(left),
            k=Count(clause.max_rounds),
        ),
    ]
    return found + _cost(view, contract, recipe.plan)


def _cost(view: View, contract: Contract, plan: Any) -> list[T]:  # noqa: ANN401  a plan, or None
    if plan is None:
        return [T("It spends no privacy budget: its recipe has no plan.")]
    tightest = max(
        view.services.outlooks.of(view.session, contract, now_ms=view.now_ms),
        key=lambda one: one.used + one.held,
        default=None,
    )
    promise = T(
        "Each member spends up to epsilon {epsilon} for it.", epsilon=Number(f"{plan.epsilon_rdp:.4g}")
    )
    if tightest is None:
        return [promise]
    return [
        promise,
        T(
            "The budget that is used most so far is that of {party}: {spent} of {cap}.",
            party=Name(tightest.party),
            spent=Number(tightest.spent),
            cap=Number(tightest.cap),
        ),
    ]


@room.act("/console/runs/open", name="run-open", roles=OPERATOR, sees=Sees.EVERYTHING)
async def open_run(act: Act) -> Done:
    """Opens a run of a recipe that the caps can hold; the round runner takes it from there."""
    services = act.services
    contract = services.contracts.get(act.field("contract"))
    wanted, opened = act.field("recipe", most=80), []

    def effect(session: Session, tx: LogTx) -> None:
        recipe = services.runs.recipe_of(contract, wanted)
        rounds_left(session, contract, recipe)
        check_affordable(session, services.contracts, contract, recipe)
        done = services.runs.open(
            session, tx, contract=contract, recipe=recipe, operator=act.operator, request=act.request
        )
        opened.append(str(done["run"]))

    def wake() -> None:
        if services.runner is not None and opened:
            services.runner.opened(opened[-1])

    act.after.append(wake)
    await act.change(effect)
    to = f"/console/runs/{opened[-1]}" if opened else "/console/runs"
    return Done(to, T("The run is opened. Its first round is asked as soon as enough nodes are online."))
