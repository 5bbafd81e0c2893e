# SPDX-License-Identifier: Apache-2.0
"""The first screen: is anything wrong, or waiting for me? Each line leads to where it is settled.

What is looked at stands in `broker.console.operator.attention`. A person of a member sees what waits for its
organisation, and nothing of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from broker.backup.remembered import record
from broker.console.operator.attention import Line, certificate_until_ms, lines_for
from broker.console.operator.nodes import standing_of, standings
from broker.console.operator.texts import PARTIES, contract_rows, stands
from broker.console.screens import Column, Fact, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Link,
    Moment,
    Name,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.membership.directory import Member
from broker.store.tables import run
from policies.limits import WITNESS_MAX_AGE_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.viewing import View

__all__ = ["room"]

room = Room("overview")


@room.screen(
    "/console",
    name="overview",
    title=T("Overview"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker status --dir DIR --key FILE",
    nav=True,
)
def overview(view: View) -> Screen:
    """Is anything wrong, or waiting for me?"""
    if isinstance(view.party, Member):
        return _of_member(view, view.party)
    return Screen(
        panels=(
            _attention(view, lines_for(view)),
            view.panel("pool", T("The pool"), lambda: _pool(view)),
            view.panel("log", T("Log and witnesses"), lambda: _log_panel(view)),
            view.panel("backup", T("Backup"), lambda: _backup_panel(view)),
        ),
        refresh_s=15,
    )


def _attention(view: View, lines: Sequence[Line]) -> Panel:
    order = ("bad", "warning", "wait")
    ranked = sorted(lines, key=lambda one: order.index(one.word))
    signs = {"bad": "wrong", "warning": "warning", "wait": "waits"}
    table = Table(
        name="attention",
        caption=T("What is wrong first, then what waits"),
        columns=(
            Column("sign", T("State")),
            Column("what", T("Finding or task")),
            Column("since", T("Since")),
        ),
        rows=[
            {"sign": State(signs[one.word]), "what": Link(one.what, one.href), "since": _since(one)}
            for one in ranked
        ],
        empty=T("Nothing has to be done. What has to be done appears here, with a link to where."),
    )
    wrong, waits = (sum(one.word in words for one in lines) for words in (("bad", "warning"), ("wait",)))
    told = (
        T(
            "Wrong or to be looked at: {wrong}. Waiting for you: {waits}.",
            wrong=Count(wrong),
            waits=Count(waits),
        )
        if lines
        else T("All is well, as of {when}: nothing is wrong, and nothing waits.", when=Moment(view.now_ms))
    )
    return Panel(
        name="attention",
        title=T("Is anything wrong, or waiting?"),
        prose=(told,),
        table=table,
    )


def _since(line: Line) -> Value:
    """A dash where a finding has no beginning: what was never done is so from the start."""
    return Nothing(Name("—")) if isinstance(line.since, Nothing) else line.since


def _pool(view: View) -> Panel:
    members = view.services.directory.members()
    words = [one.word for one in standings(view.services, view.session, members).values()]
    open_runs = view.session.scalar(select(func.count()).select_from(run).where(run.c.outcome.is_(None)))
    return Panel(
        name="pool",
        title=T("The pool"),
        facts=(
            Fact(
                "members",
                T("Organisations that take part"),
                Link(Count(sum(one.active for one in members)), "/console/members"),
            ),
            Fact("online", T("Nodes online"), Count(words.count("online")), as_of_ms=view.now_ms),
            Fact("runs", T("Open runs"), Link(Count(open_runs or 0), "/console/runs")),
        ),
        wide=False,
    )


def _log_panel(view: View) -> Panel:
    services = view.services
    seen: dict[str, Any] = services.witnessing.status()
    heard = len([one for one in seen["witnesses"] if not one["missing"]])
    age_s = seen["age_s"]
    return Panel(
        name="log",
        title=T("Log and witnesses"),
        facts=(
            Fact("log", T("The log"), State("frozen" if services.writer.frozen else "growing")),
            Fact("size", T("Entries"), Count(services.writer.head().size)),
            Fact(
                "quorum",
                T("Witnesses that are needed"),
                T("{k} of {n}", k=Count(int(seen["k"])), n=Count(int(seen["n"]))),
            ),
            Fact(
                "heard",
                T("Witnesses heard"),
                Count(heard),
                note=T("in the last {n} minutes", n=Count(WITNESS_MAX_AGE_MIN)),
            ),
            Fact(
                "quorum_age",
                T("Newest size with a quorum"),
                Nothing(T("none yet")) if age_s is None else Count(int(seen["size"] or 0)),
                as_of_ms=None if age_s is None else view.now_ms - int(age_s) * 1000,
                fresh_s=WITNESS_MAX_AGE_MIN * 60,
            ),
        ),
        wide=False,
    )


def _backup_panel(view: View) -> Panel:
    facts = record(view.services.settings)
    return Panel(
        name="backup",
        title=T("Backup"),
        facts=(
            Fact("backup", T("Last backup"), _at(None if facts.last is None else facts.last.at_ms)),
            Fact(
                "tested", T("Last tested restore"), _at(None if facts.tested is None else facts.tested.at_ms)
            ),
            Fact("certificate", T("The certificate ends"), When(certificate_until_ms(view))),
        ),
        wide=False,
    )


def _at(at_ms: int | None) -> Value:
    return Nothing(T("never")) if at_ms is None else When(at_ms)


# --- a person of a member ---


def _of_member(view: View, member: Member) -> Screen:
    standing = standing_of(view.services, view.session, member)
    lines, rules = [], 0
    if standing.word in {"stale", "never-seen"}:
        told = T("Your node does not answer. Start it there: {command}", command=Code("iriai-node run"))
        lines.append(Line("warning", told, standing.since, "/console/contracts"))
    for contract, row in contract_rows(view):
        rules += stands(row).word == "active"
        page = f"/console/contracts/{contract.digest}"
        if row["party"] in row["waiting_for"]:
            told = T("{title} waits for your organisation.", title=Name(contract.title))
            lines.append(Line("wait", told, Nothing(), f"/console/negotiations/{row['negotiation']}"))
        if row["standing"] == "HALTED":
            told = T("{title} is halted.", title=Name(contract.title))
            lines.append(Line("bad", told, Nothing(), page))
    own = Panel(
        name="own",
        title=T("Your organisation"),
        facts=(
            Fact("name", T("Legal name"), Name(member.legal_name)),
            Fact("state", T("State of the node"), standing.state, as_of_ms=view.now_ms),
            Fact("since", T("Since"), standing.since),
            Fact("contracts", T("Contracts that rule now"), Link(Count(rules), "/console/contracts")),
        ),
    )
    return Screen(panels=(_attention(view, lines), own), command="iriai-node status", refresh_s=15)
