# SPDX-License-Identifier: Apache-2.0
"""Invitations: who is half-way in, which step comes next, and for whom.

The steps: invited, joined (its node showed its keys), approved by one, approved by two. The secret of an
invitation is shown once, after it was made, and kept nowhere; whoever lost it makes another one.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from broker.console.errors import FormError
from broker.console.screens import OPERATORS, Column, Done, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Link, Name, State, T, Value, When
from broker.membership.directory import member_of_row
from broker.membership.service import approved_by
from broker.store.tables import invite, organisation
from policies.limits import APPROVALS_NEEDED, INVITE_TTL_H, LEGAL_NAME_CHARS
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.membership.invites import Invite
    from broker.store import Session

__all__ = ["room"]

room = Room("invitations")
PAGE: Final = 50
_OPERATOR: Final = frozenset({"operator"})
_TTL_MS: Final = INVITE_TTL_H * 3_600_000
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_GROUP: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


@room.screen(
    "/console/invitations",
    name="invitations",
    title=T("Invitations"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker invite list --dir DIR --key FILE",
    nav=True,
)
def invitations(view: View) -> Screen:
    """Who is half-way in."""
    query = select(invite).order_by(invite.c.expires_ms.desc(), invite.c.id).limit(PAGE + 1)
    after = view.query.get("after", "")
    if after:
        expires_ms = view.session.scalar(select(invite.c.expires_ms).where(invite.c.id == after)) or 0
        query = query.where(
            (invite.c.expires_ms < expires_ms) | ((invite.c.expires_ms == expires_ms) & (invite.c.id > after))
        )
    found = view.session.execute(query).mappings().all()
    joined = _joined(view.session, view.now_ms)
    rows = [_row(view, one, joined.get(_whom(one))) for one in found[:PAGE]]
    table = Table(
        name="invitations",
        caption=T("Invitations, the newest first"),
        columns=(
            Column("name", T("For"), sort=True),
            Column("step", T("Step reached")),
            Column("next", T("Next step")),
            Column("by", T("Invited by"), sort=True),
            Column("made", T("Made")),
            Column("expires", T("Expires")),
            Column("country", T("Country")),
            Column("group", T("Group")),
            Column("id", T("Id")),
        ),
        rows=rows,
        empty=T("No invitation was made yet. Make the first one below."),
        more={"after": str(found[PAGE - 1]["id"])} if len(found) > PAGE else None,
    ).sorted_by(view.query)
    still = view.session.scalar(
        select(func.count())
        .select_from(invite)
        .where((invite.c.state == "open") & (invite.c.expires_ms > view.now_ms))
    )
    panels = [
        Panel(
            name="list",
            title=T("Who is half-way in"),
            prose=(_first_line(still or 0),),
            table=table,
            forms=[
                _revoke_form(one)
                for one in found[:PAGE]
                if view.role == "operator" and one["state"] == "open" and one["expires_ms"] > view.now_ms
            ],
        )
    ]
    if view.role == "operator":
        panels.append(Panel(name="new", title=T("Invite an organisation"), forms=(_new_form(),)))
    return Screen(panels=panels)


def _first_line(still: int) -> T:
    if not still:
        return T("No invitation waits to be used.")
    return T("Invitations that wait to be used: {n}.", n=Count(still))


def _whom(row: RowMapping) -> tuple[str, str, str | None]:
    return row["legal_name"], row["country"], row["grp"]


def _joined(session: Session, now_ms: int) -> dict[tuple[str, str, str | None], tuple[str, str, int]]:
    """Whoever joined, by what their invitation said: organisation id, state, approvals so far."""
    rows = session.execute(select(organisation).order_by(organisation.c.created_ms)).mappings()
    return {
        _whom(one): (one["org_id"], one["state"], len(approved_by(session, member_of_row(one), now_ms)))
        for one in rows
    }


def _row(view: View, one: RowMapping, org: tuple[str, str, int] | None) -> Mapping[str, Value]:
    step, following = _steps(one, org, view.now_ms)
    return {
        "name": Name(one["legal_name"]),
        "step": step,
        "next": following,
        "by": Name(one["created_by"]),
        "made": When(one["expires_ms"] - _TTL_MS),
        "expires": When(one["expires_ms"]),
        "country": Code(one["country"]),
        "group": Code(one["grp"] or ""),
        "id": Code(one["id"]),
    }


def _steps(one: RowMapping, org: tuple[str, str, int] | None, now_ms: int) -> tuple[Value, Value]:
    """The step that was reached, and the next one with who takes it."""
    if one["state"] == "open":
        if one["expires_ms"] <= now_ms:
            return State("expired"), T("An operator makes a new invitation.")
        return State("open"), T(
            "The organisation runs {command}.", command=Code("iriai-node join URL INVITE")
        )
    if one["state"] != "used" or org is None:
        return State(one["state"]), T("Nothing follows.")
    name, state, approvals = org
    page = f"/console/members/{name}"
    if state == "waiting-approval":
        missing = APPROVALS_NEEDED - approvals
        said = T("Compare the fingerprint and approve; approvals that are missing: {n}.", n=Count(missing))
        return State(state), Link(said, page)
    return State(state), T("Nothing: it was let in, as {org}.", org=Link(Code(name), page))


def _revoke_form(one: RowMapping) -> Form:
    return Form(
        action=f"/console/invitations/{one['id']}/revoke",
        button=T("Take it back"),
        effect=(T("The invitation for {name} cannot be used any more.", name=Name(one["legal_name"])),),
        danger=True,
    )


def _new_form() -> Form:
    return Form(
        action="/console/invitations",
        button=T("Make an invitation"),
        fields=(
            Field(name="legal_name", label=T("Legal name"), help=T("As a contract will write it.")),
            Field(name="country", label=T("Country"), help=T("Two capital letters: JP, DE.")),
            Field(
                name="group",
                label=T("Group"),
                help=T(
                    "One word in small letters. Organisations under one owner have the same; they count once."
                ),
            ),
        ),
        effect=(
            T("One organisation can join with it, once, within {n} hours.", n=Count(INVITE_TTL_H)),
            T("Its text is shown once. Hand it over by a way that you trust."),
        ),
    )


@room.act("/console/invitations", name="invite-create", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def create(act: Act) -> Done:
    """Makes an invitation, as the API does; its text is told once."""
    whom = _checked(act.field("legal_name"), act.field("country"), act.field("group"))
    made: Invite = act.services.membership.new_invite()
    stored: list[Invite] = []

    def effect(session: Session, tx: LogTx) -> None:
        act.services.membership.invite(
            session,
            tx,
            made=made,
            expires_ms=to_ms(made.expires),
            operator=act.operator,
            legal_name=whom[0],
            country=whom[1],
            group=whom[2],
            request=act.request,
        )
        stored.append(made)

    await act.change(effect)
    name = Name(whom[0])
    if not stored:
        return Done("/console/invitations", T("This form was sent before; nothing was done again."))
    return Done("/console/invitations", T("The invitation for {name} is made.", name=name), secret=made.token)


def _checked(name: str, country: str, group: str) -> tuple[str, str, str]:
    """The fields as a contract can hold them.

    Raises:
        FormError: One has another form.
    """
    fits = name.isprintable() and unicodedata.is_normalized("NFC", name) and len(name) <= LEGAL_NAME_CHARS
    wrong = (
        ("a printable legal name in normalisation form C", name)
        if not fits
        else ("a country of two capital letters", country)
        if not _COUNTRY.fullmatch(country)
        else ("a group of small letters, digits and hyphens", group)
        if not _GROUP.fullmatch(group)
        else None
    )
    if wrong is not None:
        raise FormError(
            need=wrong[0], found=ascii(wrong[1])[1:-1][:80], remedy="go back, correct it, send it again"
        )
    return name, country, group


@room.act("/console/invitations/{id}/revoke", name="invite-revoke", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def revoke(act: Act) -> Done:
    """Takes an invitation back that nobody used."""
    name = act.path["id"]

    def effect(session: Session, tx: LogTx) -> None:
        act.services.membership.revoke_invite(
            session, tx, name=name, operator=act.operator, request=act.request
        )

    await act.change(effect)
    return Done("/console/invitations", T("The invitation is taken back."))
