# SPDX-License-Identifier: Apache-2.0
"""One member: who it is, what it is a party of, and the approval of whoever has just joined.

An approval is a person's word for exactly the subject's bytes (`broker.membership.approvals`): name, country,
group and both keys of the node.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.console.operator.nodes import standing_of
from broker.console.screens import (
    OPERATORS,
    Column,
    Done,
    Fact,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import Code, Count, Digest, Link, Name, Nothing, State, T, Value, When
from broker.contracts.errors import NotPartyError
from broker.contracts.service import COUNTERED
from broker.membership.service import subject_of
from broker.store.tables import approval, contract_document
from policies.encoding import b64, digest
from policies.identity import fingerprint, key_text
from policies.limits import APPROVALS_NEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.services import Services
    from broker.store import Session
    from policies.contract import Contract

from broker.console.operator.member_acts import ending_panels

__all__ = ["room"]

room = Room("member")
PAGE: Final = 50


@room.screen(
    "/console/members/{org}",
    name="member",
    title=T("Member"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker org show ORG --dir DIR --key FILE",
)
def member(view: View) -> Screen:
    """One organisation: who it is, what it is party of, what may be done about it."""
    found = view.services.directory.member(view.path["org"])
    panels = [_who(view, found), view.panel("contracts", T("Contracts"), lambda: _contracts(view, found))]
    if found.state == "waiting-approval":
        panels.append(_approval(view, found))
    elif view.role == "operator":
        panels.extend(ending_panels(view, found))
    return Screen(
        panels=panels,
        title=Name(found.legal_name),
        trail=((T("Members and nodes"), "/console/members"),),
        command=f"iriai-broker org show {found.org} --dir DIR --key FILE",
    )


def _who(view: View, found: Member) -> Panel:
    standing = standing_of(view.services, view.session, found)
    return Panel(
        name="who",
        title=T("Who it is"),
        facts=(
            Fact("state", T("State"), standing.state, as_of_ms=view.now_ms),
            Fact("since", T("Since"), standing.since),
            Fact("heard", T("Heard last"), standing.heard),
            Fact("legal_name", T("Legal name"), Name(found.legal_name)),
            Fact("country", T("Country"), Code(found.country)),
            Fact("group", T("Group"), Code(found.group), note=T("Members of one group count once.")),
            Fact("org", T("Id"), Code(found.org)),
            Fact("node", T("Node"), Code(found.node)),
            Fact("fingerprint", T("Fingerprint of the node's key"), Code(fingerprint(found.key))),
            Fact("key", T("Key of the node"), Digest(key_text(found.key))),
            Fact("versions", T("Versions"), Nothing(T("the node does not tell them"))),
        ),
    )


def _contracts(view: View, found: Member) -> Panel:
    rows: list[Mapping[str, Value]] = [
        {
            "title": Link(Name(contract.title), f"/console/contracts/{contract.digest}"),
            "party": Name(party),
            "version": Count(contract.version),
            "state": State(view.services.contracts.standing(contract, view.session).lower()),
        }
        for contract, party in _party_of(view.services, view.session, found)
    ]
    table = Table(
        name="contracts",
        caption=T("Contracts that it is a party of"),
        columns=(
            Column("title", T("Contract")),
            Column("party", T("Short name in it")),
            Column("version", T("Version")),
            Column("state", T("State")),
        ),
        rows=rows[:PAGE],
        empty=T(
            "It is no party of a contract yet. An operator offers one: {command}",
            command=Code("iriai-broker contract offer FILE --dir DIR --key FILE"),
        ),
        total=len(rows),
    )
    return Panel(name="contracts", title=T("Contracts"), table=table)


def _party_of(services: Services, session: Session, found: Member) -> Iterator[tuple[Contract, str]]:
    """Contracts that an organisation is a party of, the newest first, with its name in each."""
    names = session.scalars(
        select(contract_document.c.digest)
        .where(contract_document.c.state != COUNTERED)
        .order_by(contract_document.c.at_ms.desc(), contract_document.c.digest)
    ).all()
    for one in names:
        contract = services.contracts.read_in(session, one)
        with suppress(NotPartyError):
            yield contract, services.contracts.party_of(contract, found).party


# --- approving ---


def _approval(view: View, found: Member) -> Panel:
    rows = view.session.execute(
        select(approval.c.operator, approval.c.at_ms)
        .where(approval.c.org_id == found.org)
        .order_by(approval.c.at_ms)
    ).all()
    names = [row.operator for row in rows]
    own = view.signed_in.person.name in names
    said: list[Value] = [
        T("Approved by {who}, {when}.", who=Name(row.operator), when=When(row.at_ms)) for row in rows
    ]
    if own:
        said.append(T("You have approved it. Another person has to approve it too."))
    else:
        said.append(
            T(
                "Ask the organisation by another way for the fingerprint that iriai-node shows, "
                "and compare: {fingerprint}",
                fingerprint=Code(fingerprint(found.key)),
            )
        )
    forms = () if own else (_approve_form(found, missing=APPROVALS_NEEDED - len(names)),)
    facts = (
        Fact("approvals", T("Approvals"), T("{n} of {of}", n=Count(len(names)), of=Count(APPROVALS_NEEDED))),
        Fact("subject", T("What is approved"), Digest(digest(subject_of(found)))),
    )
    return Panel(name="approval", title=T("Approval"), prose=said, facts=facts, forms=forms)


def _approve_form(found: Member, *, missing: int) -> Form:
    return Form(
        action=f"/console/members/{found.org}/approve",
        button=T("I compared it: approve"),
        effect=(
            T("It takes part from now on, with this key.")
            if missing <= 1
            else T("Approvals by other people that are still missing then: {n}.", n=Count(missing - 1)),
        ),
        subject=subject_of(found),
    )


@room.act("/console/members/{org}/approve", name="org-approve", roles=OPERATORS, sees=Sees.EVERYTHING)
async def approve(act: Act) -> Done:
    """One person's approval, as `broker.api.membership` takes one by key file."""
    org, services = act.path["org"], act.services
    found = services.directory.member(org)
    confirmed = await act.confirmed(subject_of(found))

    def evidence(document: bytes) -> str:
        said = confirmed(document)
        return f"{said.how}:{b64(said.data)}"

    def effect(session: Session, tx: LogTx) -> None:
        services.membership.approve(
            session,
            tx,
            org=org,
            operator=act.operator,
            subject=act.form["subject"],
            evidence=evidence,
            request=act.request,
        )

    act.after.append(lambda: services.enrolled(org))
    await act.change(effect)
    active = services.directory.member(org).active
    name = Name(found.legal_name)
    said = (
        T("{name} takes part now.", name=name) if active else T("Your approval of {name} is kept.", name=name)
    )
    return Done(f"/console/members/{org}", said)
