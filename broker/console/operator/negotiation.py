# SPDX-License-Identifier: Apache-2.0
"""A negotiation: who said what when, the open text, the deadlines, who is waited for; and its end.

Of the others' lanes a person of a member sees the state and nothing else, and of its own every message
(`broker.contracts.views`). Operators see who said which kind of thing when, and no message's words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.console.operator.comparison import changes_table
from broker.console.operator.texts import PARTIES, names_of, spoken_in
from broker.console.screens import Column, Done, Fact, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    Foreign,
    Link,
    Moment,
    Name,
    Nothing,
    State,
    T,
    Value,
    When,
)
from broker.contracts.offers import warnings_of
from broker.contracts.pools import find_pool
from broker.contracts.views import view_of
from broker.membership.directory import Member
from broker.membership.records import console_action
from broker.store.tables import lane_message
from policies.contract.lint import finding_words
from policies.contract.negotiation.lanes import check_reason, read_message
from policies.contract.negotiation.pool import OPEN, Ended
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract.negotiation.pool import Lane, Pool

__all__ = ["room"]

room = Room("negotiation")
_OPERATOR: Final = frozenset({"operator"})
_NEXT: Final = {
    "OFFERED": T("accept, counter or refuse"),
    "AGREED": T("sign"),
    "REQUESTED": T("the broker offers"),
    "ACCEPTED": T("the others accept"),
    "VERIFIED": T("the others sign"),
}


@room.screen(
    "/console/negotiations/{id}",
    name="negotiation",
    title=T("Negotiation"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker contract status DIGEST --dir DIR --key FILE",
)
def negotiation(view: View) -> Screen:
    """Who said what, and who is waited for."""
    pool = find_pool(view.session, view.path["id"])
    seen = view_of(view.session, view.services.contracts, pool, view.party, after=0)
    text = view.services.contracts.read_in(view.session, str(seen["digest"]))
    former = seen["sign_by"] is None  # a lane of an earlier round: the open text is others' business
    panels = [_standing(view, seen), _lanes(view, pool, seen), _said(view, pool, seen)]
    if not former:
        panels += [
            Panel(
                name="diff",
                title=T("What changed"),
                prose=(T("From what you were shown before to the open text, or from the version before."),),
                table=changes_table(list(seen["diff"])),
            ),
            _warnings(view, str(seen["digest"])),
        ]
    if view.role == "operator" and seen["state"] == OPEN:
        panels.append(_end_panel(pool))
    return Screen(
        panels=panels,
        title=T("Negotiation of {title}", title=Name(text.title)),
        trail=((T("Contracts"), "/console/contracts"),),
        command=f"iriai-broker contract status {seen['digest']} --dir DIR --key FILE",
        refresh_s=10 if seen["state"] == OPEN else 0,
    )


def _standing(view: View, seen: Mapping[str, Any]) -> Panel:
    digest = str(seen["digest"])
    facts = [
        Fact("state", T("State"), State(str(seen["state"]).lower())),
        Fact("round", T("Round"), Count(int(seen["round"]))),
        Fact("text", T("Open text"), Link(Digest(digest), f"/console/contracts/{digest}")),
        Fact("version", T("Version"), Count(int(seen["version"]))),
        Fact("waiting", T("Waits for"), names_of(seen["waiting_for"], view)),
        Fact(
            "approved",
            T("Approved by two of the broker"),
            State("yes" if seen["approved"] else "no"),
        ),
    ]
    if seen["sign_by"] is not None:
        facts.append(Fact("sign_by", T("To be signed by"), Moment(to_ms(str(seen["sign_by"])))))
    closed = seen["closed"]
    if closed is not None:
        facts.append(Fact("code", T("Reason of the end"), Code(str(closed["code"]))))
        if closed["clause"]:
            facts.append(Fact("clause", T("Clause"), Code(str(closed["clause"]))))
        if closed["text"]:
            facts.append(Fact("words", T("Words"), Name(str(closed["text"]))))
    return Panel(name="stands", title=T("How it stands"), prose=(_first(view, seen),), facts=facts)


def _first(view: View, seen: Mapping[str, Any]) -> T:
    if seen["state"] != OPEN:
        return T("It is over: nobody is waited for.")
    waiting = seen["waiting_for"]
    if not waiting:
        return T("Nobody is waited for.")
    return T("It waits for {names}.", names=names_of(waiting, view))


def _lanes(view: View, pool: Pool, seen: Mapping[str, Any]) -> Panel:
    lanes = {one.party: one for one in pool.lanes}
    whole = not isinstance(view.party, Member)
    own = None if seen["lane"] is None else seen["lane"]["party"]
    last = _last_words(view, pool) if whole else {}
    rows: list[Mapping[str, Value]] = []
    for party, state in seen["lanes"].items():
        lane, told = lanes.get(party), whole or party == own
        rows.append(
            {
                "party": Name(party),
                "state": Code(state),
                "next": _NEXT.get(state, T("nothing")) if party in seen["waiting_for"] else T("nothing"),
                "deadline": _deadline(lane) if told else Nothing(T("the others' deadlines are not shown")),
                "said": last.get(party, Nothing()),
            }
        )
    table = Table(
        name="lanes",
        caption=T("One lane for each contributor"),
        columns=(
            Column("party", T("Contributor")),
            Column("state", T("State of the lane")),
            Column("next", T("Next, by it")),
            Column("deadline", T("Ends by itself")),
            *((Column("said", T("Last word")),) if whole else ()),
        ),
        rows=rows,
        empty=T("No lane is open."),
    )
    return Panel(name="lanes", title=T("Who is waited for"), table=table)


def _deadline(lane: Lane | None) -> Value:
    return Nothing() if lane is None or lane.deadline_ms is None else When(lane.deadline_ms)


def _last_words(view: View, pool: Pool) -> dict[str, Value]:
    return {party: When(at_ms) for party, _sender, _type, at_ms in _metadata(view, pool)}


def _metadata(view: View, pool: Pool) -> Iterator[tuple[str, str, str, int]]:
    """Lane, sender, kind and time of each message of every round, in order; no content."""
    lanes = {one.pid: one.party for one in (*pool.past, *pool.lanes)}
    rows = view.session.execute(
        select(lane_message.c.pid, lane_message.c.sender, lane_message.c.type, lane_message.c.at_ms)
        .where(lane_message.c.pid.in_(lanes))
        .order_by(lane_message.c.at_ms, lane_message.c.pid, lane_message.c.seq)
    )
    for row in rows:
        yield lanes[row.pid], row.sender, row.type, row.at_ms


def _said(view: View, pool: Pool, seen: Mapping[str, Any]) -> Panel:
    member = isinstance(view.party, Member)
    rows = list(_own_messages(seen)) if member else list(_kinds(view, pool))
    table = Table(
        name="messages",
        caption=T("Messages, the newest first"),
        columns=(
            Column("at", T("When")),
            Column("lane", T("Lane of")),
            Column("from", T("From")),
            Column("type", T("Kind")),
            *(
                (
                    Column("digest", T("About")),
                    Column("code", T("Reason")),
                    Column("clause", T("Clause")),
                    Column("text", T("Words")),
                )
                if member
                else ()
            ),
        ),
        rows=rows[::-1][:200],
        empty=T(
            "Nothing was said yet. A node answers with {command}.",
            command=Code("iriai-node contract sign DIGEST"),
        ),
        total=len(rows),
    )
    told = (
        T("Every message of your own lane, as it was signed.")
        if member
        else T("Who said what kind of thing when. The words of a lane are between its party and the broker.")
    )
    return Panel(name="messages", title=T("Who said what"), prose=(told,), table=table)


def _kinds(view: View, pool: Pool) -> Iterator[Mapping[str, Value]]:
    for party, sender, kind, at_ms in _metadata(view, pool):
        yield {"at": When(at_ms), "lane": Name(party), "from": Code(sender), "type": Code(kind)}


def _own_messages(seen: Mapping[str, Any]) -> Iterator[Mapping[str, Value]]:
    for one in seen["messages"]:
        said = read_message(Envelope.from_json(one["message"]).payload)
        yield {
            "at": When(to_ms(said.at)),
            "lane": Name(said.party),
            "from": Code(said.sender),
            "type": Code(said.type),
            "digest": Digest(said.digest),
            "code": Nothing() if said.code is None else Code(said.code),
            "clause": Nothing() if said.clause is None else Code(said.clause),
            "text": Nothing() if said.text is None else Name(said.text),
        }


def _warnings(view: View, digest: str) -> Panel:
    lang = spoken_in(view)
    rows: list[Mapping[str, Value]] = []
    for one in warnings_of(view.services.contracts.read_in(view.session, digest)):
        need, found, remedy = finding_words(one, lang)
        rows.append(
            {
                "clause": Code(one.clause),
                "rule": Code(one.rule),
                "need": Foreign(need, lang),
                "found": Foreign(found, "en"),
                "remedy": Foreign(remedy, lang),
            }
        )
    table = Table(
        name="warnings",
        caption=T("What a signature has to acknowledge"),
        columns=(
            Column("clause", T("Clause")),
            Column("rule", T("Rule")),
            Column("need", T("What was needed")),
            Column("found", T("What was found")),
            Column("remedy", T("What to do")),
        ),
        rows=rows,
        empty=T("The linter has no warning about the open text."),
    )
    return Panel(name="warnings", title=T("Warnings"), table=table)


# --- ending it ---


def _end_panel(pool: Pool) -> Panel:
    form = Form(
        action=f"/console/negotiations/{pool.id}/end",
        button=T("End this round for all"),
        fields=(
            Field(name="code", label=T("Reason, as a word: operator-decision"), value="operator-decision"),
            Field(name="text", label=T("One line for its parties"), required=False),
        ),
        effect=(
            T("Lanes that end: {n}.", n=Count(sum(not one.ended for one in pool.lanes))),
            T(
                "Signatures that are worth nothing from then on: {n}.",
                n=Count(sum(one.signature is not None for one in pool.lanes)),
            ),
        ),
        danger=True,
    )
    return Panel(name="end", title=T("Take the offer back"), forms=(form,))


@room.act("/console/negotiations/{id}/end", name="negotiation-end", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def end(act: Act) -> Done:
    """Ends the round for all, as the API does."""
    name, services = act.path["id"], act.services
    code, text = act.word("code"), act.form.get("text", "").strip() or None
    check_reason(code, None, text)
    ended = Ended(code=code, clause=None, text=text)

    def effect(session: Session, tx: LogTx) -> None:
        subject = find_pool(session, name).draft.digest
        tx.add(console_action(act.operator, "contract.withdraw", subject=subject, request=act.request))
        services.negotiations.withdraw(session, tx, name, ended)

    act.after.append(lambda: services.desk.changed(name))
    await act.change(effect)
    return Done(f"/console/negotiations/{name}", T("The round has ended."))
