# SPDX-License-Identifier: Apache-2.0
"""Stopping a member, ending its membership, letting it in again.

One person suspends at once. It takes two to end a membership or to let a suspended member in again, so the
console proposes that (`broker.acts.organisations`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.console.screens import (
    Done,
    Field,
    Form,
    Panel,
    Room,
    Sees,
)
from broker.console.values import Count, Name, T
from broker.store.tables import run
from policies.rounds import need_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.auth.proposals import Outcome
    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session

__all__ = ["ending_panels", "room"]

room = Room("member-acts")
_OPERATOR: Final = frozenset({"operator"})
_REASON: Final = T("Reason, as a word: operator-decision")


def ending_panels(view: View, found: Member) -> Iterator[Panel]:
    """The forms for an operator, by the state of the member."""
    if found.active:
        yield Panel(
            name="suspend",
            title=T("Stop it at once"),
            prose=(T("One person is enough. Its keys stay, and two people can let it in again."),),
            forms=(
                Form(
                    action=f"/console/members/{found.org}/suspend",
                    button=T("Suspend"),
                    fields=(Field(name="reason", label=_REASON, value="operator-decision"),),
                    effect=_losses(view, found),
                    danger=True,
                ),
            ),
        )
    if found.suspended:
        yield _proposal_panel(found, "restore", T("Let it in again"), T("Propose to let it in again"))
    if not found.revoked:
        yield _proposal_panel(found, "remove", T("End its membership"), T("Propose to end its membership"))


def _proposal_panel(found: Member, kind: str, title: T, button: T) -> Panel:
    ends = kind == "remove"
    fields = [Field(name="reason", label=_REASON, value="operator-decision")]
    if ends:
        label = T("The organisation itself asked for it")
        fields.append(Field(name="left", label=label, kind="checkbox", required=False))
    told = (
        T("Its keys are revoked for good; to come back it needs a new node and a new invitation.")
        if ends
        else T("It takes part again, with the keys that it has.")
    )
    return Panel(
        name=kind,
        title=title,
        prose=(T("It takes a second person to approve it; until then nothing changes."),),
        forms=(
            Form(
                action=f"/console/members/{found.org}/{kind}",
                button=button,
                fields=fields,
                effect=(told,),
                danger=ends,
            ),
        ),
    )


def _losses(view: View, found: Member) -> tuple[T, ...]:
    """What stops when a member stops, in numbers."""
    services, online = view.services, view.services.engine.online()
    lost = short = 0
    rows = view.session.execute(select(run).where(run.c.outcome.is_(None))).mappings().all()
    for row in rows:
        contract = services.contracts.read_in(view.session, row["contract"])
        seats = services.contracts.seats(contract)
        if all(one.member.org != found.org for one in seats):
            continue
        lost += 1
        left = [
            one.member.group for one in seats if one.member.org != found.org and one.member.node in online
        ]
        short += contract.recipe(row["recipe_digest"]) is not None and not need_of(
            contract, row["recipe_digest"]
        ).met_by(left)
    return (
        T("Its node is cut off, and its requests are refused."),
        T("Open runs that go on without it: {n}.", n=Count(lost)),
        T("Of these, with too few groups online from then on, so that they wait: {n}.", n=Count(short)),
    )


@room.act("/console/members/{org}/suspend", name="org-suspend", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def suspend(act: Act) -> Done:
    """Stops an organisation at once, as the API does."""
    org, services = act.path["org"], act.services
    reason, found = act.word("reason"), services.directory.member(org)

    def effect(session: Session, tx: LogTx) -> None:
        services.membership.suspend(
            session, tx, org=org, operator=act.operator, reason=reason, request=act.request
        )

    act.after.append(lambda: services.enrolled(org))
    await act.change(effect)
    return Done(f"/console/members/{org}", T("{name} is suspended.", name=Name(found.legal_name)))


@room.act("/console/members/{org}/remove", name="org-remove", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def remove(act: Act) -> Done:
    """Proposes the end of a membership."""
    left = act.form.get("left") == "1"
    payload = {"org": act.path["org"], "reason": act.word("reason"), "left": left}
    return await _propose(act, "org.remove", payload)


@room.act("/console/members/{org}/restore", name="org-restore", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def restore(act: Act) -> Done:
    """Proposes to let a suspended organisation in again."""
    return await _propose(act, "org.restore", {"org": act.path["org"], "reason": act.word("reason")})


async def _propose(act: Act, kind: str, payload: dict[str, Any]) -> Done:
    made: list[Outcome] = []

    def effect(session: Session, tx: LogTx) -> None:
        made.append(act.services.acts.propose(session, tx, kind, payload, act.operator, act.request))

    await act.change(effect)
    to = f"/console/proposals/{made[0].proposal.id}" if made else "/console/proposals"
    return Done(to, T("It is proposed. Another person has to approve it."))
