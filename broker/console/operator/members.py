# SPDX-License-Identifier: Apache-2.0
"""Members and their nodes: who is in, in which state, since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.console.operator.nodes import standings
from broker.console.screens import (
    OPERATORS,
    Column,
    Fact,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import Code, Count, Link, Name, State, T, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View

__all__ = ["room"]

room = Room("members")
PAGE: Final = 50
_STATES: Final = ("online", "stale", "never-seen", "waiting-approval", "suspended", "revoked")


@room.screen(
    "/console/members",
    name="members",
    title=T("Members and nodes"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker org list --dir DIR --key FILE",
    nav=True,
)
def members(view: View) -> Screen:
    """Who is in, last seen when."""
    everybody = view.services.directory.members()
    state_of = standings(view.services, view.session, everybody)
    wanted, sought = view.query.get("state", ""), view.query.get("name", "").casefold()
    shown = [
        one
        for one in everybody
        if wanted in {"", state_of[one.org].word} and sought in one.legal_name.casefold()
    ]
    page = [one for one in shown if one.org > view.query.get("after", "")]
    rows: list[Mapping[str, Value]] = [
        {
            "name": Link(Name(one.legal_name), f"/console/members/{one.org}"),
            "state": state_of[one.org].state,
            "since": state_of[one.org].since,
            "group": Code(one.group),
            "country": Code(one.country),
            "org": Code(one.org),
        }
        for one in page[:PAGE]
    ]
    table = Table(
        name="members",
        caption=T("Organisations, each with its node"),
        columns=(
            Column("name", T("Organisation"), sort=True),
            Column("state", T("State of the node"), sort=True),
            Column("since", T("Since")),
            Column("group", T("Group"), sort=True),
            Column("country", T("Country"), sort=True),
            Column("org", T("Id")),
        ),
        rows=rows,
        empty=T(
            "No organisation has joined yet. Make {invitation}; whoever gets it runs {command}.",
            invitation=Link(T("an invitation"), "/console/invitations"),
            command=Code("iriai-node join URL INVITE"),
        )
        if not everybody
        else T("No organisation is like this. Leave the filter empty to see all."),
        more={"after": page[PAGE - 1].org} if len(page) > PAGE else None,
        total=len(shown),
    ).sorted_by(view.query)
    words = [one.word for one in state_of.values()]
    return Screen(
        panels=(
            Panel(
                name="now",
                title=T("Now"),
                prose=(_now(words),),
                facts=(
                    Fact("enrolled", T("Organisations that take part"), Count(_taking_part(words))),
                    Fact("online", T("Nodes online"), Count(words.count("online")), as_of_ms=view.now_ms),
                    Fact("waiting", T("Wait for approval"), Count(words.count("waiting-approval"))),
                ),
            ),
            Panel(
                name="list",
                title=T("Who is in"),
                table=table,
                forms=(_filter(wanted, view.query.get("name", "")),) if everybody else (),
            ),
        ),
        refresh_s=30,
    )


def _taking_part(words: list[str]) -> int:
    return sum(words.count(one) for one in ("online", "stale", "never-seen"))


def _now(words: list[str]) -> T:
    if not words:
        return T("Nobody has joined yet.")
    return T(
        "{online} of {all} nodes are online.",
        online=Count(words.count("online")),
        all=Count(_taking_part(words)),
    )


def _filter(state: str, name: str) -> Form:
    choices: list[tuple[str, Value]] = [("", T("any")), *((one, State(one)) for one in _STATES)]
    return Form(
        action="/console/members",
        button=T("Show"),
        method="get",
        fields=(
            Field(name="name", label=T("Name contains"), value=name, required=False),
            Field(name="state", label=T("State"), kind="select", value=state, choices=choices),
        ),
    )
