# SPDX-License-Identifier: Apache-2.0
"""People: who may sign in, how, and the acts by which operators keep them; and failed logins, counted.

What one operator may do alone, and what takes two, says `broker.acts.people`. Whoever adds somebody or makes
a link confirms first that it is them (`STEP_UP_MIN`); to stop somebody takes no confirmation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.acts.people import ADD, add_one, addition_of, disable, reset
from broker.auth.errors import StepUpError
from broker.auth.people import ROLES, list_people, takes_two
from broker.console.screens import (
    OPERATORS,
    Column,
    Done,
    Fact,
    Field,
    Form,
    Panel,
    Room,
    Screen,
    Sees,
    Table,
)
from broker.console.values import Code, Count, Name, Nothing, State, T, Value
from policies.limits import LINK_TTL_H, STEP_UP_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.log import LogTx
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["room"]

room = Room("people")
PLACE: Final = "/console/people"
_OPERATOR: Final = frozenset({"operator"})


@room.screen(
    PLACE,
    name="people",
    title=T("People"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker operator list --dir DIR --key FILE",
    nav=True,
)
def people(view: View) -> Screen:
    """Who may sign in."""
    found = list_people(view.session)
    panels = [
        Panel(name="people", title=T("Who may sign in"), table=_table(found).sorted_by(view.query)),
        _floods(view),
    ]
    names: list[tuple[str, Value]] = [
        ("", T("choose")),
        *((one["name"], Name(one["name"])) for one in found if one["state"] == "active"),
    ]
    if view.role == "operator":
        panels += [_add_panel(view), _reset_panel(names), _disable_panel(names)]
    else:
        panels.append(_reset_panel(names))
    return Screen(panels=panels)


@room.act(f"{PLACE}/add", name="person-add", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def add(act: Act) -> Done:
    """Adds somebody, or proposes them."""
    _check_stepped(act)
    payload = {
        "name": act.field("name", most=41),
        "role": act.field("role", most=20),
        "org": act.form.get("org", "").strip() or None,
        "sub": act.form.get("sub", "").strip() or None,
    }
    wanted = addition_of(act.services, payload)
    told: dict[str, Json] = {}
    with act.services.store.read() as session:
        two = takes_two(session, wanted.name, wanted.role)

    def effect(session: Session, tx: LogTx) -> None:
        if two:
            made = act.services.acts.propose(session, tx, ADD, payload, act.operator, act.request)
            act.after.extend(made.after)
        else:
            told.update(
                add_one(act.services, session, tx, wanted, operator=act.operator, request=act.request)
            )

    await act.change(effect)
    if two:
        said = T("{name} is proposed; a second person has to approve it.", name=Name(wanted.name))
        return Done("/console/proposals", said)
    return _told(told, wanted.name)


@room.act(f"{PLACE}/reset", name="person-reset", roles=OPERATORS, sees=Sees.EVERYTHING)
async def reset_login(act: Act) -> Done:
    """A new way in for somebody, or one half of it."""
    _check_stepped(act)
    name = act.field("name", most=41)
    told: dict[str, Json] = {}

    def effect(session: Session, tx: LogTx) -> None:
        made = reset(
            act.services,
            session,
            tx,
            name=name,
            operator=act.operator,
            request=act.request,
            by_key=False,
        )
        told.update(made)

    await act.change(effect)
    return _told(told, name)


@room.act(f"{PLACE}/disable", name="person-disable", roles=_OPERATOR, sees=Sees.EVERYTHING)
async def disable_person(act: Act) -> Done:
    """Ends what somebody may do here."""
    name = act.field("name", most=41)
    act.after.append(act.services.refresh)
    await act.change(
        lambda session, tx: disable(session, tx, name=name, operator=act.operator, request=act.request)
    )
    return Done(PLACE, T("{name} may do nothing here any more.", name=Name(name)))


def _check_stepped(act: Act) -> None:
    """Refuses an act of somebody who did not confirm that it is them.

    Raises:
        StepUpError: It is too long ago.
    """
    if not act.services.auth.confirmations.stepped(act.login):
        raise StepUpError(
            need=f"a passkey (a password of who has none) of the last {STEP_UP_MIN} minutes",
            found="another login, or an older one",
            remedy="confirm on /console/account that it is you, then send it again",
        )


def _told(made: Mapping[str, Json], name: str) -> Done:
    if "link" in made and made["needs_code"]:
        said = T(
            "A link for {name}. It works once, with the code that the first operator was told.",
            name=Name(name),
        )
        return Done(PLACE, said, secret=str(made["link"]))
    if "link" in made:
        return Done(PLACE, T("A link for {name}. It works once.", name=Name(name)), secret=str(made["link"]))
    if "code" in made:
        said = T(
            "A code for {name}. A second person now asks for the link on this page; both are needed.",
            name=Name(name),
        )
        return Done(PLACE, said, secret=str(made["code"]))
    return Done(PLACE, T("That was done before, and what it told is kept nowhere."))


def _table(found: list[dict[str, Json]]) -> Table:
    return Table(
        name="people",
        caption=T("People"),
        columns=(
            Column("name", T("Name"), sort=True),
            Column("role", T("Role"), sort=True),
            Column("organisation", T("Organisation"), sort=True),
            Column("state", T("State"), sort=True),
            Column("passkeys", T("Passkeys")),
            Column("password", T("Password")),
            Column("provider", T("Provider")),
        ),
        rows=[_row(one) for one in found],
        empty=T(
            "Nobody. An operator adds people: {command}",
            command=Code("iriai-broker operator add NAME --role ROLE --dir DIR --key FILE"),
        ),
    )


def _row(one: Mapping[str, Any]) -> dict[str, Value]:
    return {
        "name": Name(one["name"]),
        "role": Code(one["role"]),
        "organisation": Code(one["org"]) if one["org"] else Nothing(),
        "state": State(one["state"]),
        "passkeys": Count(one["passkeys"]),
        "password": T("yes") if one["password"] else Nothing(),
        "provider": T("yes") if one["provider"] else Nothing(),
    }


def _floods(view: View) -> Panel:
    floods = view.services.auth.floods
    facts = (
        Fact("wrong-passwords", T("Wrong passwords since the broker started"), Count(floods.wrong)),
        Fact("paused", T("Names and addresses that have to wait now"), Count(floods.paused)),
    )
    return Panel(name="floods", title=T("Failed logins"), facts=facts, wide=False)


def _add_panel(view: View) -> Panel:
    fields = [
        Field(name="name", label=T("Name"), help=T("Small letters, digits and hyphens; never given twice.")),
        Field(name="role", label=T("Role"), kind="select", choices=[(one, Code(one)) for one in ROLES]),
        Field(name="org", label=T("Organisation, of a member"), required=False),
    ]
    if view.services.auth.oidc.there:
        fields.append(Field(name="sub", label=T("Name at the identity provider"), required=False))
    effect = (
        T("An auditor is added at once; you get a link for them."),
        T("Everybody else is proposed, and so is an auditor whose name has a key: it takes a second person."),
    )
    form = Form(action=f"{PLACE}/add", button=T("Add"), fields=fields, effect=effect)
    return Panel(name="add", title=T("Add somebody"), forms=(form,))


def _reset_panel(names: list[tuple[str, Value]]) -> Panel:
    effect = (
        T("Their sessions, passkeys and password end when the link is made."),
        T("The link works once, within {hours} hours.", hours=Count(LINK_TTL_H)),
        T("Except for auditors without a key it takes two: the first gets a code, the second the link."),
    )
    field = Field(name="name", label=T("Whom"), kind="select", choices=names)
    form = Form(
        action=f"{PLACE}/reset", button=T("Make a new way in"), fields=(field,), effect=effect, danger=True
    )
    return Panel(name="reset", title=T("Somebody cannot sign in"), forms=(form,))


def _disable_panel(names: list[tuple[str, Value]]) -> Panel:
    effect = (T("Their sessions end at once, and their key file is worth nothing any more, for ever."),)
    field = Field(name="name", label=T("Whom"), kind="select", choices=names)
    form = Form(action=f"{PLACE}/disable", button=T("Disable"), fields=(field,), effect=effect, danger=True)
    return Panel(name="disable", title=T("Stop somebody"), forms=(form,))
