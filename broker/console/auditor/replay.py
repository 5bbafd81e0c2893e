# SPDX-License-Identifier: Apache-2.0
"""Decisions replayed, and privacy recomputed: what the last rehearsal made again, and what the log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.console.auditor.entries import COLUMNS
from broker.console.auditor.reading import entry_row, newest
from broker.console.auditor.rehearsal import may_read, no_rehearsal, rehearsal_facts
from broker.console.screens import READERS, Area, Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Foreign, Link, Name, Nothing, Number, State, T, Value
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.auditing.checks import Check
    from broker.console.viewing import View

__all__ = ["room"]

room = Room("replay")
_REFUSED: Final = (
    EntryType.DECISION_RECORDED,
    EntryType.CONTRIBUTION_REFUSED,
    EntryType.MODEL_REFUSED,
)
_NANO: Final = 1e9


@room.screen(
    "/audit/decisions",
    name="replayed",
    title=T("Decisions replayed"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-verify verify bundle.zip --policy policy.txt --json",
    nav=True,
)
def replayed(view: View) -> Screen:
    """Did every contribution obey the contract that was in force then?"""
    return Screen(
        panels=(
            view.panel("made-again", T("Made again by the last check"), lambda: _made_again(view)),
            view.panel("logged", T("What the log says"), lambda: _logged(view)),
        )
    )


def _made_again(view: View) -> Panel:
    title, last = T("Made again by the last check"), view.services.checks.last()
    if last is None:
        return Panel(name="made-again", title=title, prose=(no_rehearsal(),))
    facts = _facts_of(last)
    decisions, contributions = facts.get("decisions", {}), facts.get("contributions", {})
    different = [one for one in last.data.get("findings", []) if str(one["id"]) == "AUD-059"]
    shown = (
        *rehearsal_facts(last)[:1],
        Fact("replayed", T("Decisions made again"), Count(int(decisions.get("replayed", 0)))),
        Fact("refused", T("Of these, refusals"), Count(int(decisions.get("refused", 0)))),
        Fact("accepted", T("Contributions accepted"), Count(int(contributions.get("accepted", 0)))),
        Fact(
            "different",
            T("Came out differently"),
            Link(Count(len(different)), "/audit/findings"),
        ),
        Fact("sums", T("Sums opened"), Count(int(facts.get("sums", {}).get("opened", 0)))),
        Fact("redone", T("Of these, added up again"), Count(int(facts.get("sums", {}).get("redone", 0)))),
    )
    return Panel(name="made-again", title=title, facts=shown)


def _logged(view: View) -> Panel:
    found = newest(view, kinds=_REFUSED)
    kinds: list[tuple[str, Value]] = [("", T("every type"))]
    kinds += [(one.value, Code(one.value)) for one in _REFUSED]
    choose = Form(
        action="/audit/decisions",
        method="get",
        button=T("Show"),
        fields=(
            Field(
                name="type", label=T("Type"), kind="select", value=view.query.get("type", ""), choices=kinds
            ),
            Field(name="run", label=T("Run"), value=view.query.get("run", ""), required=False),
        ),
    )
    table = Table(
        name="decisions",
        caption=T("Decisions and refusals, newest first"),
        columns=(*COLUMNS[:4], Column("clauses", T("Clauses")), COLUMNS[4]),
        rows=[
            entry_row(index, entry, view.lang) | {"clauses": _clauses(entry.pub)}
            for index, entry in found.entries
        ],
        empty=T("No decision was logged: none was asked for yet."),
        more=None if found.next is None else {"after": str(found.next)},
    )
    return Panel(name="logged", title=T("What the log says"), table=table, forms=(choose,))


def _clauses(pub: Mapping[str, Any]) -> Value:
    named = pub.get("clauses") or ([pub["reason"]] if "reason" in pub else [])
    return Code(", ".join(str(one) for one in named)) if named else Nothing()


@room.screen(
    "/audit/privacy",
    name="privacy",
    title=T("Privacy recomputed"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-verify verify bundle.zip --policy policy.txt --json",
    nav=True,
)
def privacy(view: View) -> Screen:
    """Was the claim right?"""
    last = view.services.checks.last()
    title = T("Recomputed from the log's accounting events")
    if last is None:
        return Screen(panels=(Panel(name="recomputed", title=title, prose=(no_rehearsal(),)),))
    facts = _facts_of(last)
    lines = [Foreign(str(one)) for one in facts.get("recomputed", [])]
    claim = Fact("claim", T("Released models"), Code(str(facts.get("privacy", "unknown"))))
    spent = facts.get("spent", {}) if may_read(view) else {}
    rows = [_spent(party, told) for party, told in sorted(spent.items())]
    table = Table(
        name="spent",
        caption=T("Spent by each contributor, added up again from its accounting events"),
        columns=(
            Column("party", T("Contributor")),
            Column("epsilon", T("Epsilon after its last step")),
            Column("rho", T("rho (zero-concentrated)")),
        ),
        rows=rows,
        empty=T("No contributor has spent privacy yet, or the contract has no privacy plan.")
        if may_read(view)
        else T("Who spent how much is shown to auditors with a grant for every confidential field."),
    )
    wrong = [one for one in last.data.get("findings", []) if str(one["id"]).startswith("AUD-06")]
    state = Fact("agrees", T("Recomputed against logged"), State("failed" if wrong else "ok"))
    return Screen(
        panels=(
            Panel(name="when", title=T("The check"), facts=rehearsal_facts(last)),
            Panel(name="recomputed", title=title, facts=(claim, state), prose=lines, table=table),
        )
    )


def _spent(party: str, told: Mapping[str, Any]) -> dict[str, Value]:
    rho = told.get("rho_nano")
    return {
        "party": Name(party),
        "epsilon": Number(str(told.get("epsilon_after", ""))),
        "rho": Number(f"{rho / _NANO:.6f}") if isinstance(rho, int) else Nothing(),
    }


def _facts_of(last: Check) -> Mapping[str, Any]:
    found = last.data.get("facts")
    return found if isinstance(found, dict) else {}
