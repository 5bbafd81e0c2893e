# SPDX-License-Identifier: Apache-2.0
"""Privacy budgets: how much each party has left under a contract, and when it ends at the rate so far.

- The first sentence answers: whether another run can begin, and how far what is left goes. Three limits are
  told apart by name: what a budget pays for, what the contract allows of a recipe, whole runs under both.
- A rate is told once it was seen for an hour: seconds of a run that is over say nothing about a day.
- The figures are the broker's mirror: plans and steps that the log has. What only a node's ledger knows, a
  tighter cap of its owner among it, is hidden by the clause on privacy.
- A member's person sees its own organisation's line, if the contract lets it (view ``own-budget``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from broker.console.charts import gauge
from broker.console.operator.runs import RUN_READERS, note_asked
from broker.console.operator.showing import contract_choice, contract_link, party_name, run_link
from broker.console.screens import Column, Fact, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Hidden, Nothing, Number, Share, T, Value, When, plain
from broker.contracts.lineage import versions
from broker.contracts.queries import OWN_BUDGET
from broker.federation.affording import whole_runs
from broker.federation.outlook import recipes_left
from broker.membership.directory import Member
from broker.runs.views import Shown
from broker.store.tables import ledger_mirror, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View
    from broker.federation.outlook import Outlook
    from policies.contract import Contract

__all__ = ["room"]

room = Room("budgets")
_GAUGES: Final = 16
_RATE_MS: Final = 3_600_000


@room.screen(
    "/console/budgets",
    name="budgets",
    title=T("Privacy budgets"),
    roles=RUN_READERS,
    sees=Sees.OWN,
    command="iriai-broker budget show CONTRACT --dir DIR --key FILE",
    nav=True,
)
def budgets(view: View) -> Screen:
    """The budgets of one contract: the one that was asked for, else the one that trained last."""
    contract = _chosen(view)
    choice_of = contract_choice(view, chosen=None if contract is None else contract.digest)
    choose = Form(action="/console/budgets", method="get", button=T("Show"), fields=(choice_of,))
    if contract is None:
        nothing = T(
            "Budgets of a contract would be here once a run of it was opened. "
            "Nothing was spent yet: {command}",
            command=Code("iriai-broker run open --contract DIGEST --recipe ID --dir DIR --key FILE"),
        )
        return Screen(panels=(Panel(name="choice", title=T("Which contract"), prose=(nothing,)),))
    facts = (
        Fact("contract", T("Contract"), contract_link(view, contract)),
        Fact("clause", T("Caps stand in clause"), Code(contract.privacy.clause)),
        Fact("ledger", T("What nodes' own ledgers say"), _ledgers(contract)),
    )
    choice = Panel(name="choice", title=T("Which contract"), facts=facts, forms=(choose,))
    hidden, fits = _hidden(view, contract), _whole_runs(view, contract)
    panels = [choice]
    if hidden is None:
        panels += _parties(view, contract, fits)
    else:
        panels.append(Panel(name="parties", title=T("How much is left"), prose=(Hidden(hidden),)))
    return Screen(panels=[*panels, _recipes(view, contract, fits)])


def _chosen(view: View) -> Contract | None:
    """The contract of the query; else that of the newest run that the reader may see.

    Raises:
        NotPartyError: Not one of the reader's.
    """
    wanted = view.query.get("contract")
    if wanted:
        return view.services.contracts.for_caller(wanted, view.party)
    shown, _ = view.services.runs.views.page(view.session, view.party, limit=1)
    if not shown:
        return None
    named = shown[0].body["contract"] if shown[0].body else shown[0].asked[0].judgement.contract
    return view.services.contracts.read_in(view.session, str(named))


def _ledgers(contract: Contract) -> Value:
    if contract.privacy.mode == "none":
        return Nothing(T("nothing: the contract asks for no privacy budget"))
    return Hidden(contract.privacy.clause)


def _hidden(view: View, contract: Contract) -> str | None:
    """The clause that keeps a party's own budget from it; None if it may see it. Operators keep the books."""
    if not isinstance(view.party, Member) or contract.queries is None:
        return None
    newest = view.session.execute(
        select(run.c.run_id, run.c.opened_ms)
        .where(run.c.contract == contract.digest)
        .order_by(run.c.opened_ms.desc())
        .limit(1)
    ).first()
    if newest is None:
        return None
    asked = view.services.queries.own(
        view.session, contract, view.party, run_id=newest.run_id, view=OWN_BUDGET, made_ms=newest.opened_ms
    )
    if asked is None:
        return None
    note_asked(view, [Shown(body=None, asked=(asked,))])
    return None if asked.allow else next(iter(asked.judgement.decision.clauses), contract.queries.clause)


def _parties(view: View, contract: Contract, fits: Mapping[str, Value]) -> list[Panel]:
    services = view.services
    own = None
    if isinstance(view.party, Member):
        own = (services.contracts.party_of(contract, view.party).party,)
    found = services.outlooks.of(view.session, contract, now_ms=view.now_ms, parties=own)
    open_run = _open(view, contract)
    table = Table(
        name="parties",
        caption=T("Budget of each party"),
        columns=(
            Column("party", T("Party"), sort=True),
            Column("used", T("Used, counted in steps"), sort=True),
            Column("ends", T("Ends at this rate"), sort=True),
            Column("rounds", T("Rounds that it still pays for"), sort=True),
            Column("spent", T("Epsilon spent"), sort=True),
            Column("reserved", T("Held by open runs")),
            Column("cap", T("Epsilon at most")),
            Column("clause", T("By clause")),
            Column("rate", T("Noisy steps a day")),
        ),
        rows=[_row(contract, one, open_run=open_run) for one in found],
        empty=T("This contract asks for no privacy budget: its clause on privacy has no caps."),
    ).sorted_by(view.query)
    prose = (
        *_left(contract, found, fits, own=own is not None),
        *_pace(view, contract, found, open_run=open_run),
    )
    if found:
        prose += (_MEASURE,)
    answer = Panel(name="parties", title=T("How much is left"), prose=prose, table=table)
    return [answer, *(_gauge(contract, one) for one in found[:_GAUGES])]


_MEASURE: Final = T(
    "Every noisy step costs the same; epsilon does not grow evenly with them. So the part that is used is "
    "counted in steps, and differs from epsilon spent over epsilon at most."
)


def _left(
    contract: Contract, found: tuple[Outlook, ...], fits: Mapping[str, Value], *, own: bool
) -> tuple[Value, ...]:
    """The answer: whether another run can begin, and how far the smallest budget goes."""
    counted = [one for one in found if one.rounds is not None]
    if not counted:
        return ()
    least = min(counted, key=lambda one: one.rounds or 0)
    rounds, party = Count(least.rounds or 0), party_name(contract, least.party)
    if own:
        return (T("Your budget still pays for {n} rounds.", n=rounds),)
    if not any(plain(one) for one in fits.values()):
        return (
            T(
                "No further run can begin: no whole one fits any more. What is left pays for {n} rounds, "
                "reckoned by {party}, whose budget is the smallest.",
                n=rounds,
                party=party,
            ),
        )
    whole = tuple(
        T("Whole runs of {recipe} that can still begin: {n}.", recipe=Code(name), n=number)
        for name, number in fits.items()
    )
    more = T(
        "What is left pays for {n} rounds, reckoned by {party}, whose budget is the smallest.",
        n=rounds,
        party=party,
    )
    return (*whole, more)


def _pace(view: View, contract: Contract, found: tuple[Outlook, ...], *, open_run: bool) -> tuple[Value, ...]:
    """When the first budget ends; without an open run nothing is spent, so there is no date."""
    dated = [one for one in found if one.ends_ms is not None and one.span_ms >= _RATE_MS]
    if not found:
        return ()
    if not open_run:
        return _last_run(view, contract, [one.party for one in found])
    if not dated:
        return (T("There is no rate yet: rounds have to span an hour at least."),)
    first = min(dated, key=lambda one: one.ends_ms or 0)
    return (
        T(
            "At the rate so far the budget of {party} ends first: {when}.",
            party=party_name(contract, first.party),
            when=When(first.ends_ms or 0),
        ),
    )


def _open(view: View, contract: Contract) -> bool:
    chain = versions(view.session, contract.digest)
    trains = select(run.c.run_id).where(run.c.contract.in_(chain) & run.c.outcome.is_(None)).limit(1)
    return view.session.scalar(trains) is not None


def _last_run(view: View, contract: Contract, parties: list[str]) -> tuple[Value, ...]:
    """That no run is open, and what the newest one took of these parties."""
    chain = versions(view.session, contract.digest)
    newest = select(run.c.run_id).where(run.c.contract.in_(chain)).order_by(run.c.opened_ms.desc()).limit(1)
    name = view.session.scalar(newest)
    if name is None:
        return (T("No run is open and none was: nothing is being spent."),)
    each = (
        select(func.sum(ledger_mirror.c.steps).label("steps"))
        .where((ledger_mirror.c.run_id == name) & ledger_mirror.c.party.in_(parties))
        .group_by(ledger_mirror.c.party)
        .subquery()
    )
    steps = view.session.scalar(select(func.max(each.c.steps))) or 0
    said = T(
        "No run is open, so nothing is being spent and there is no date. The last run, {run}, used at most "
        "{n} noisy steps of a party.",
        run=run_link(name),
        n=Count(int(steps)),
    )
    return (said,)


def _row(contract: Contract, one: Outlook, *, open_run: bool) -> dict[str, Value]:
    seen = one.span_ms >= _RATE_MS
    rate, ends = one.steps_a_day if seen else None, one.ends_ms if open_run and seen else None
    no_date = T("no rate yet") if open_run else T("no run is open")
    return {
        "party": party_name(contract, one.party),
        "spent": Number(one.spent),
        "reserved": Number(one.reserved),
        "cap": Number(one.cap),
        "clause": Code(one.clause),
        "used": Share(one.used),
        "rounds": Nothing() if one.rounds is None else Count(one.rounds),
        "rate": Nothing(T("too short for a rate")) if rate is None else Count(round(rate)),
        "ends": Nothing(no_date) if ends is None else When(ends),
    }


def _gauge(contract: Contract, one: Outlook) -> Panel:
    """How far one party's cap is used, by what steps cost: epsilons of steps do not add up."""
    picture = gauge(
        f"gauge-{one.party}",
        T("Budget of {party}", party=party_name(contract, one.party)),
        spent=one.used,
        reserved=one.held,
        cap=1.0,
        say_as=Share,
    )
    title = T("Budget of {party}", party=party_name(contract, one.party))
    return Panel(name=f"party-{one.party}", title=title, drawing=picture, wide=False)


def _whole_runs(view: View, contract: Contract) -> dict[str, Value]:
    """Whole runs by recipe, for operators: the figure rests on the budgets of all parties."""
    if isinstance(view.party, Member):
        return {}
    services, found = view.services, {}
    left = {one.party: one for one in services.outlooks.of(view.session, contract, now_ms=view.now_ms)}
    for clause in contract.recipes:
        fits = whole_runs(view.session, services.contracts, contract, clause, left)
        if fits is not None:
            found[clause.id] = Count(fits)
    return dict(found)


def _recipes(view: View, contract: Contract, fits: Mapping[str, Value]) -> Panel:
    rows: list[dict[str, Value]] = [
        {
            "recipe": Code(one.id),
            "used": Count(one.used),
            "most": Count(one.most),
            "left": Count(max(one.most - one.used, 0)),
            "clause": Code(one.clause),
            **({"runs": fits.get(one.id, Nothing())} if fits else {}),
        }
        for one in recipes_left(view.session, contract)
    ]
    table = Table(
        name="recipes",
        caption=T(
            "Rounds of each recipe that the contract allows, all runs together; budgets may end before"
        ),
        columns=(
            Column("recipe", T("Recipe")),
            Column("used", T("Rounds used")),
            Column("most", T("Rounds allowed")),
            Column("left", T("Rounds still allowed")),
            *((Column("runs", T("Whole runs that can still begin")),) if fits else ()),
            Column("clause", T("By clause")),
        ),
        rows=rows,
        empty=T("The contract has no recipe."),
    )
    return Panel(name="recipes", title=T("What the contract allows of each recipe"), table=table)
