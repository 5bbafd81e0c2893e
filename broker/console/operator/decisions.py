# SPDX-License-Identifier: Apache-2.0
"""What contracts refused: subject, clause, what was needed, what was found, what to do; counts by clause.

The records of nodes' guards are here once their owners disclosed them; before, the log has the clause alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.console.operator.showing import (
    PAGE,
    Aliases,
    contract_choice,
    contract_link,
    index_after,
    party_name,
    run_link,
)
from broker.console.screens import OPERATORS, Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Moment,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.contracts.errors import NotPartyError
from broker.contracts.refused import at_index, page
from broker.log.growth import first_since
from policies.contract.words.remedies import remedy_text
from policies.encoding import Json, canonical

if TYPE_CHECKING:
    from broker.console.viewing import View
    from broker.contracts.refused import Decided
    from policies.contract import Contract

__all__ = ["room"]

room = Room("decisions")
_DAY_MS: Final = 86_400_000
_CELL: Final = 160


@room.screen(
    "/console/decisions",
    name="decisions",
    title=T("Decisions"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    nav=True,
)
def decisions(view: View) -> Screen:
    """What contracts refused in the last day, by clause; and every refusal, newest first."""
    return Screen(
        panels=[
            view.panel("today", T("In the last 24 hours"), lambda: _today(view)),
            view.panel("list", T("Refusals, newest first"), lambda: _listed(view)),
        ],
        refresh_s=30,
    )


def _today(view: View) -> Panel:
    since = first_since(view.session, view.now_ms - _DAY_MS)
    counts, cut = view.services.refusals.clauses_since(view.session, since)
    rows: list[dict[str, Value]] = []
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:PAGE]
    for (scope, clause), number in most:
        contract = _contract(view, scope)
        rows.append(
            {
                "clause": Link(Code(clause), f"/console/decisions?clause={clause}"),
                "contract": Nothing() if contract is None else contract_link(view, contract),
                "count": Count(number),
            }
        )
    total = sum(counts.values())
    answer = T("Contracts refused {n} times by a clause in the last 24 hours.", n=Count(total))
    if cut:
        answer = T(
            "Contracts refused at least {n} times by a clause; older ones are not counted.", n=Count(total)
        )
    table = Table(
        name="clauses",
        caption=T("Refusals by clause"),
        columns=(
            Column("clause", T("Clause")),
            Column("contract", T("Contract")),
            Column("count", T("Refusals"), sort=True),
        ),
        rows=rows,
        empty=T("No contract refused anything in the last 24 hours. Older refusals are in the list below."),
        total=len(counts),
    )
    return Panel(
        name="today", title=T("In the last 24 hours"), prose=(answer,), table=table.sorted_by(view.query)
    )


def _listed(view: View) -> Panel:
    clause, contract = view.query.get("clause") or None, view.query.get("contract") or None
    found, more = page(
        view.session, after=index_after(view.query), limit=PAGE, contract=contract, clause=clause
    )
    table = Table(
        name="decisions",
        caption=T("Refusals, newest first"),
        columns=(
            Column("entry", T("Entry")),
            Column("at", T("When")),
            Column("subject", T("What was asked")),
            Column("party", T("About")),
            Column("clause", T("By clause")),
            Column("need", T("What was needed")),
            Column("found", T("What was found")),
            Column("remedy", T("What to do")),
            Column("contract", T("Contract")),
        ),
        rows=[_row(view, one) for one in found],
        empty=T("No refusal fits these filters.")
        if clause or contract
        else T("Refusals would be here. No contract refused anything since this log began."),
        more=None if more is None else {"after": str(more)},
    )
    filters = Form(
        action="/console/decisions",
        method="get",
        button=T("Show"),
        fields=(
            Field(name="clause", label=T("Clause"), value=clause or "", required=False),
            contract_choice(view),
        ),
    )
    return Panel(name="list", title=T("Refusals, newest first"), table=table, forms=(filters,))


def _row(view: View, one: Decided) -> dict[str, Value]:
    contract = _contract(view, one.contract)
    first = one.against[0] if one.against else None
    undisclosed = Nothing(T("its owner has the record"))
    return {
        "entry": Link(Code(str(one.index)), f"/console/decisions/{one.index}"),
        "at": Moment(one.at_ms),
        "subject": Code(str(one.request["type"])) if one.request else undisclosed,
        "party": _party(view, one, contract),
        "clause": Code(", ".join(one.clauses)) if one.clauses else Nothing(),
        "need": undisclosed if first is None else Foreign(f"{first['check']} {first['need']}"[:_CELL]),
        "found": undisclosed if first is None else Foreign(str(first["found"])[:_CELL]),
        "remedy": undisclosed if first is None else _remedy(view, first),
        "contract": Nothing() if contract is None else contract_link(view, contract),
    }


def _remedy(view: View, finding: Any) -> Value:  # noqa: ANN401  a finding
    return Foreign(remedy_text(str(finding["remedy"]), view.lang), view.lang)


def _contract(view: View, digest: str | None) -> Contract | None:
    if digest is None:
        return None
    try:
        return view.services.contracts.read_in(view.session, digest)
    except NotPartyError:
        return None


def _party(view: View, one: Decided, contract: Contract | None) -> Value:
    """Whom a decision is about: as its record says, else whose node decided."""
    if contract is None:
        return Nothing()
    party = one.request.get("party")
    if party is None and one.actor != "broker":
        party = Aliases.of(view, contract, one.run, one.round).party(one.actor)
    return Nothing() if party is None else party_name(contract, str(party))


# --- one decision ---


@room.screen(
    "/console/decisions/{index}",
    name="decision",
    title=T("Decision"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
)
def decision(view: View) -> Screen:
    """One decision of the log with its findings."""
    text = view.path["index"]
    index = int(text) if text.isdecimal() and text.isascii() and len(text) <= 15 else -1  # noqa: PLR2004
    one = at_index(view.session, index)
    contract = _contract(view, one.contract)
    return Screen(
        panels=[_about(view, one, contract), _findings(view, one), _asked(one)],
        title=T("Decision {n}", n=Code(str(one.index))),
        trail=((T("Decisions"), "/console/decisions"),),
    )


def _about(view: View, one: Decided, contract: Contract | None) -> Panel:
    answer = T("It was allowed.")
    if one.outcome == "refuse":
        answer = T("It was refused by {n} clauses.", n=Count(len(one.clauses)))
    return Panel(
        name="about",
        title=T("What was decided"),
        prose=(answer,),
        facts=(
            Fact("outcome", T("Outcome"), State(one.outcome)),
            Fact("clauses", T("Refused by"), Code(", ".join(one.clauses)) if one.clauses else Nothing()),
            Fact("subject", T("What was asked"), _type(one)),
            Fact("party", T("About"), _party(view, one, contract)),
            Fact("point", T("Decided at"), Code(one.point)),
            Fact("contract", T("Contract"), Nothing() if contract is None else contract_link(view, contract)),
            Fact("run", T("Run"), Nothing() if one.run is None else run_link(one.run)),
            Fact("round", T("Round"), Nothing() if one.round is None else Count(one.round)),
            Fact("at", T("When"), When(one.at_ms)),
            Fact("record", T("Digest of the record"), Digest(one.digest)),
        ),
    )


def _type(one: Decided) -> Value:
    return Code(str(one.request["type"])) if one.request else Nothing(T("its owner has the record"))


def _findings(view: View, one: Decided) -> Panel:
    ordered = [*one.against, *(each for each in one.findings if each["outcome"] == "satisfied")]
    rows: list[dict[str, Value]] = [
        {
            "clause": Code(str(each["clause"])),
            "check": Code(str(each["check"])),
            "outcome": State(str(each["outcome"])),
            "need": Foreign(str(each["need"])),
            "found": Foreign(str(each["found"])),
            "remedy": Nothing() if each["outcome"] == "satisfied" else _remedy(view, each),
        }
        for each in ordered
    ]
    table = Table(
        name="findings",
        caption=T("What was checked"),
        columns=(
            Column("clause", T("Clause")),
            Column("check", T("Check")),
            Column("outcome", T("Outcome")),
            Column("need", T("What was needed")),
            Column("found", T("What was found")),
            Column("remedy", T("What to do")),
        ),
        rows=rows,
        empty=T(
            "The node that decided keeps the record. Its owner can disclose it: {command}",
            command=Code("iriai-node guard log"),
        ),
    )
    return Panel(name="findings", title=T("Why"), table=table)


def _asked(one: Decided) -> Panel:
    """Every fact that the decision was made from."""
    rows: list[dict[str, Value]] = [
        {"fact": Code(name), "value": Nothing(T("not known")) if value is None else Foreign(_text(value))}
        for name, value in sorted(one.request.items())
    ]
    table = Table(
        name="request",
        caption=T("The facts that it was made from"),
        columns=(Column("fact", T("Fact")), Column("value", T("Value"))),
        rows=rows,
        empty=T("The log has the digest of the record, and not the record itself."),
    )
    return Panel(name="request", title=T("What was asked"), table=table)


def _text(value: Json) -> str:
    found = value if isinstance(value, str) else canonical(value).decode("utf-8")
    return found if len(found) <= 2_000 else found[:2_000] + "…"  # noqa: PLR2004
