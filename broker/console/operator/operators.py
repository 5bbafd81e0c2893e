# SPDX-License-Identifier: Apache-2.0
"""The operator log: what the broker's own people did, proposed, approved and looked at, and who they are.

Everything is from the log and from the rows of people; here nothing can be changed. A subject is a digest: of
what was signed, or of the object; beside it stands what it is about, where the broker knows that
(`broker.console.subjects`). Wrong passwords are counted by this process since it started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from broker.auditing.acts import page
from broker.auth.people import list_people
from broker.console.operator.showing import PAGE, index_after
from broker.console.screens import OPERATORS, Column, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.subjects import named
from broker.console.values import Code, Count, Digest, Link, Moment, Name, Nothing, State, T, Value, When
from broker.store.tables import login_session
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.auditing.acts import Did
    from broker.console.viewing import View

__all__ = ["room"]

room = Room("operators")
READS: Final = "read"
_RESULTS: Final = (("", T("all")), ("done", T("done")), ("refused", T("refused")))


@room.screen(
    "/console/operators",
    name="operators",
    title=T("Operator log"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker operator list --dir DIR --key FILE",
    nav=True,
)
def operators(view: View) -> Screen:
    """What we did, newest first; proposals with who stood behind them; people and their last login."""
    return Screen(
        panels=[
            view.panel("acts", T("What was done"), lambda: _acts(view)),
            view.panel("proposals", T("What took two people"), lambda: _proposals(view)),
            view.panel("people", T("Who may log in"), lambda: _people(view)),
        ]
    )


def _acts(view: View) -> Panel:
    name, action = view.query.get("name") or None, view.query.get("action") or None
    result = view.query.get("result") or None
    found, more = page(
        view.session,
        after=index_after(view.query),
        limit=PAGE,
        name=name,
        action=action,
        result=result,
    )
    known = named(view, (one.subject for one in found))
    table = Table(
        name="acts",
        caption=T("Actions, newest first"),
        columns=(
            Column("entry", T("Entry")),
            Column("at", T("When")),
            Column("who", T("Who"), sort=True),
            Column("action", T("What"), sort=True),
            Column("about", T("About")),
            Column("subject", T("Subject")),
            Column("result", T("Result"), sort=True),
        ),
        rows=[_act_row(one, known) for one in found],
        empty=T("No action fits these filters.")
        if name or action or result
        else T("Actions of operators would be here; nobody did anything yet."),
        more=None if more is None else {"after": str(more)},
    )
    form = Form(
        action="/console/operators",
        method="get",
        button=T("Show"),
        fields=(
            Field(name="name", label=T("Who"), value=name or "", required=False),
            Field(
                name="action",
                label=T("What"),
                value=action or "",
                help=T("The beginning of an action, such as {example}.", example=Code("run")),
                required=False,
            ),
            Field(
                name="result",
                label=T("Result"),
                kind="select",
                value=result or "",
                choices=_RESULTS,
                required=False,
            ),
        ),
    )
    return Panel(name="acts", title=T("What was done"), table=table.sorted_by(view.query), forms=(form,))


def _act_row(one: Did, known: Mapping[str, Value]) -> dict[str, Value]:
    return {
        "entry": Code(str(one.index)),
        "at": Moment(one.at_ms),
        "who": Name(one.name),
        "action": Code(one.action),
        "about": known.get(one.subject or "", Nothing()),
        "subject": Nothing() if one.subject is None else Digest(one.subject),
        "result": State(one.result),
    }


def _proposals(view: View) -> Panel:
    """The newest proposals: who proposed, who stood behind each, by what they proved it."""
    newest = view.services.acts.proposals.newest(view.session)[:PAGE]
    rows: list[dict[str, Value]] = []
    for one in newest:
        behind = ", ".join(f"{each.name} ({each.how})" for each in one.behind)
        rows.append(
            {
                "proposal": Link(Code(one.id), f"/console/proposals/{one.id}"),
                "kind": Code(one.kind),
                "state": State(one.at(view.now_ms).value),
                "proposer": Name(one.proposer),
                "behind": Name(behind) if behind else Nothing(T("nobody yet")),
                "decided": Nothing() if one.decided_by is None else Name(one.decided_by),
                "at": When(one.created_ms),
            }
        )
    table = Table(
        name="proposals",
        caption=T("The newest proposals"),
        columns=(
            Column("proposal", T("Proposal")),
            Column("kind", T("What")),
            Column("state", T("State"), sort=True),
            Column("proposer", T("Proposed by")),
            Column("behind", T("Stand behind it")),
            Column("decided", T("Decided by")),
            Column("at", T("When")),
        ),
        rows=rows,
        empty=T("Nothing was proposed yet."),
    )
    return Panel(name="proposals", title=T("What took two people"), table=table.sorted_by(view.query))


def _people(view: View) -> Panel:
    newest = select(login_session.c.person, func.max(login_session.c.since_ms).label("ms"))
    seen: dict[str, int] = {
        row.person: row.ms for row in view.session.execute(newest.group_by(login_session.c.person))
    }
    rows = [_person_row(one, seen.get(str(one["name"]))) for one in list_people(view.session)]
    floods = view.services.auth.floods
    table = Table(
        name="people",
        caption=T("People"),
        columns=(
            Column("name", T("Name"), sort=True),
            Column("role", T("Role"), sort=True),
            Column("org", T("Organisation")),
            Column("state", T("State"), sort=True),
            Column("passkeys", T("Passkeys")),
            Column("password", T("Password")),
            Column("login", T("Last login")),
            Column("since", T("Since")),
        ),
        rows=rows,
        empty=T(
            "Nobody may log in yet: {command}",
            command=Code("iriai-broker operator add NAME --role operator --dir DIR --key FILE"),
        ),
    )
    facts = (
        Fact("wrong", T("Wrong passwords since the start"), Count(floods.wrong)),
        Fact("paused", T("Counters that make somebody wait now"), Count(floods.paused)),
    )
    return Panel(name="people", title=T("Who may log in"), facts=facts, table=table.sorted_by(view.query))


def _person_row(one: dict[str, Any], login_ms: int | None) -> dict[str, Value]:
    return {
        "name": Name(one["name"]),
        "role": Code(one["role"]),
        "org": Nothing() if one["org"] is None else Code(one["org"]),
        "state": State(one["state"]),
        "passkeys": Count(one["passkeys"]),
        "password": State("yes") if one["password"] else Nothing(),
        "login": Nothing(T("no session is kept")) if login_ms is None else When(login_ms),
        "since": Nothing() if one["since"] is None else Moment(to_ms(one["since"])),
    }
