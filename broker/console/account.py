# SPDX-License-Identifier: Apache-2.0
"""One's own account: what one logs in with, where one is logged in, the language.

Whoever has a way to log in confirms that it is them before they add or remove one; the confirmation holds for
`STEP_UP_MIN`. Passwords are never part of what makes a form happen once: their digests are kept nowhere. Who
has a passkey confirms with that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.auth.credentials import PASSKEY
from broker.auth.passwords import DIFFERENT_MIN
from broker.console.screens import (
    ALL_PEOPLE,
    Ceremony,
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
from broker.console.values import Code, Count, Foreign, Moment, Name, Nothing, State, T, Value, When
from broker.errors import NotFoundError
from policies.limits import CREDENTIAL_LABEL_CHARS, PASSWORD_CHARS_MIN, STEP_UP_MIN

if TYPE_CHECKING:
    from broker.auth.credentials import Credential
    from broker.auth.service import Login
    from broker.console.acting import Act
    from broker.console.viewing import View

__all__ = ["room"]

room = Room("account")
PLACE = "/console/account"
_HOW = {
    "passkey": T("a passkey"),
    "password": T("a password"),
    "link": T("a one-time link"),
    "oidc": T("the identity provider"),
}


@room.screen(PLACE, name="account", title=T("Your account"), roles=ALL_PEOPLE, sees=Sees.SELF)
def account(view: View) -> Screen:
    """Oneself."""
    login, auth = view.signed_in, view.services.auth
    held = auth.holdings.of(login.person.name)
    may = not held or auth.confirmations.stepped(login)
    panels = [_who(login)]
    if not may:
        panels.append(_step(view, held))
    panels += [_passkeys(view, held, may=may), _password(held, may=may), _sessions(view), _language(login)]
    return Screen(panels=panels)


@room.act(f"{PLACE}/confirm", name="account-confirm", roles=ALL_PEOPLE, sees=Sees.SELF)
async def confirm(act: Act) -> Done:
    """Shows once more that it is them."""
    await act.services.auth.confirmations.step_up(
        act.login,
        ticket=act.form.get("ticket", ""),
        assertion=act.form.get("assertion", ""),
        password=act.form.get("password", ""),
        address=act.address,
    )
    return Done(PLACE, T("Confirmed for {minutes} minutes.", minutes=Count(STEP_UP_MIN)))


@room.act(f"{PLACE}/passkey", name="passkey-add", roles=ALL_PEOPLE, sees=Sees.SELF)
async def add_passkey(act: Act) -> Done:
    """Adds a passkey."""
    await act.services.auth.account.add_passkey(
        act.login,
        act.form.get("ticket", ""),
        act.form.get("assertion", ""),
        label=act.field("label", most=CREDENTIAL_LABEL_CHARS),
        request=act.request,
        once=act.spend,
    )
    return Done(PLACE, T("The passkey is added."))


@room.act(f"{PLACE}/passkey/remove", name="passkey-remove", roles=ALL_PEOPLE, sees=Sees.SELF)
async def remove_passkey(act: Act) -> Done:
    """Removes a passkey."""
    await act.services.auth.account.remove_passkey(
        act.login, act.field("passkey"), request=act.request, once=act.spend
    )
    return Done(PLACE, T("The passkey is removed."))


@room.act(f"{PLACE}/password", name="password-set", roles=ALL_PEOPLE, sees=Sees.SELF)
async def set_password(act: Act) -> Done:
    """Sets a password."""
    await act.services.auth.account.set_password(
        act.login, act.form.get("new_password", ""), request=act.request, once=act.spend
    )
    return Done(PLACE, T("The password is set; your other sessions have ended."))


@room.act(f"{PLACE}/session/end", name="session-end", roles=ALL_PEOPLE, sees=Sees.SELF)
async def end_session(act: Act) -> Done:
    """Ends one session, or all others."""
    wanted = act.field("session")
    which = None if wanted == "others" else wanted
    ended = await act.services.auth.account.end_sessions(act.login, which, request=act.request)
    if which is None:
        return Done(PLACE, T("{n} sessions have ended.", n=Count(ended)))
    if not ended:
        raise NotFoundError(
            need="a session of yours", found="no such", remedy="reload the page; it may have ended"
        )
    return Done(PLACE, T("The session has ended."))


@room.act(f"{PLACE}/language", name="language-set", roles=ALL_PEOPLE, sees=Sees.SELF)
async def set_language(act: Act) -> Done:
    """Keeps the language."""
    await act.services.auth.account.set_lang(act.login, act.form.get("lang") or None)
    return Done(PLACE, T("Your language is kept."))


def _who(login: Login) -> Panel:
    person = login.person
    facts = [
        Fact("name", T("Name"), Name(person.name)),
        Fact("role", T("Role"), Code(person.role)),
        Fact("organisation", T("Organisation"), Code(person.org) if person.org else Nothing()),
        Fact("how", T("Signed in by"), _HOW[login.how]),
        Fact("since", T("Signed in since"), When(login.since_ms)),
        Fact("until", T("Signed in until, at the latest"), Moment(login.until_ms)),
    ]
    return Panel(name="who", title=T("Who you are here"), facts=facts)


def _step(view: View, held: list[Credential]) -> Panel:
    """Asks for a confirmation in person."""
    auth, forms = view.services.auth, []
    if auth.passkeys.there and any(one.kind == PASSKEY for one in held):
        options, ticket = auth.confirmations.ask_step(view.signed_in)
        forms.append(
            Form(
                action=f"{PLACE}/confirm",
                button=T("Confirm with a passkey"),
                fields=(Field(name="ticket", kind="hidden", value=ticket),),
                ceremony=Ceremony("get", options),
            )
        )
    if not any(one.kind == PASSKEY for one in held):
        forms.append(
            Form(
                action=f"{PLACE}/confirm",
                button=T("Confirm with the password"),
                fields=(Field(name="password", label=T("Your password"), kind="password"),),
            )
        )
    why = T("To change how you sign in, show first that it is you. Who has a passkey does that with it.")
    nowhere = T("Your passkey works only where this console has a name. Without it, ask for a new link.")
    prose = (why,) if forms else (why, nowhere)
    return Panel(name="confirm", title=T("Confirm that it is you"), prose=prose, forms=forms)


def _passkeys(view: View, held: list[Credential], *, may: bool) -> Panel:
    auth = view.services.auth
    mine = [one for one in held if one.kind == PASSKEY]
    table = Table(
        name="passkeys",
        caption=T("Passkeys"),
        columns=(
            Column("label", T("Called")),
            Column("added", T("Added")),
            Column("used", T("Used last")),
        ),
        rows=[
            {
                "label": Name(one.label),
                "added": When(one.at_ms),
                "used": When(one.used_ms) if one.used_ms else Nothing(),
            }
            for one in mine
        ],
        empty=T("None yet. A passkey signs what you approve; a password only says that you were here."),
    )
    if not auth.passkeys.there:
        why = T("Passkeys need an address with a name; this console has a number. Use a password here.")
        return Panel(name="passkeys", title=T("Passkeys"), table=table, prose=(why,))
    forms = [_add_passkey_form(view), *_remove_passkey_form(mine)] if may else []
    return Panel(name="passkeys", title=T("Passkeys"), table=table, forms=forms)


def _add_passkey_form(view: View) -> Form:
    options, ticket = view.services.auth.account.ask_passkey(view.signed_in)
    return Form(
        action=f"{PLACE}/passkey",
        button=T("Add a passkey"),
        fields=(
            Field(name="label", label=T("What you call it"), help=T("Such as: phone, blue key.")),
            Field(name="ticket", kind="hidden", value=ticket),
        ),
        ceremony=Ceremony("create", options),
    )


def _remove_passkey_form(mine: list[Credential]) -> list[Form]:
    if not mine:
        return []
    choices = [(one.id, Name(one.label)) for one in mine]
    field = Field(name="passkey", label=T("Passkey"), kind="select", choices=choices)
    return [
        Form(
            action=f"{PLACE}/passkey/remove",
            button=T("Remove this passkey"),
            fields=(field,),
            danger=True,
            effect=(T("It opens nothing here any more; what it signed stays valid."),),
        )
    ]


def _password(held: list[Credential], *, may: bool) -> Panel:
    there = next((one for one in held if one.kind != PASSKEY), None)
    fact = Fact("password", T("Set"), When(there.at_ms) if there else Nothing())
    form = Form(
        action=f"{PLACE}/password",
        button=T("Set this password"),
        fields=(
            Field(
                name="new_password",
                label=T("New password"),
                kind="password",
                help=T(
                    "At least {n} characters of any kind, {different} of them different.",
                    n=Count(PASSWORD_CHARS_MIN),
                    different=Count(DIFFERENT_MIN),
                ),
            ),
        ),
        effect=(T("Your other sessions end."),),
    )
    return Panel(name="password", title=T("Password"), facts=(fact,), forms=(form,) if may else ())


def _sessions(view: View) -> Panel:
    login = view.signed_in
    found = view.services.auth.sessions.of(login.person.name)
    rows: list[dict[str, Any]] = [
        {
            "where": Foreign(one.agent) if one.agent else Nothing(),
            "how": _HOW[one.how],
            "since": When(one.since_ms),
            "seen": When(one.seen_ms),
            "this": State("yes") if one.id == login.id else Nothing(),
        }
        for one in found
    ]
    table = Table(
        name="sessions",
        caption=T("Where you are signed in"),
        columns=(
            Column("where", T("Browser")),
            Column("how", T("Signed in by")),
            Column("since", T("Since")),
            Column("seen", T("Seen last")),
            Column("this", T("This one")),
        ),
        rows=rows,
        empty=T("Nowhere."),
    )
    others = [one for one in found if one.id != login.id]
    choices: list[tuple[str, Value]] = [
        ("others", T("all others")),
        *((one.id, When(one.since_ms)) for one in others),
    ]
    field = Field(name="session", label=T("Session, by when it began"), kind="select", choices=choices)
    form = Form(action=f"{PLACE}/session/end", button=T("End it"), fields=(field,), danger=True)
    return Panel(
        name="sessions", title=T("Where you are signed in"), table=table, forms=(form,) if others else ()
    )


def _language(login: Login) -> Panel:
    choices: list[tuple[str, Value]] = [
        ("", T("as the browser says")),
        ("en", Foreign("English", "en")),
        ("ja", Foreign("日本語", "ja")),
    ]
    field = Field(
        name="lang", label=T("Language"), kind="select", choices=choices, value=login.person.lang or ""
    )
    form = Form(action=f"{PLACE}/language", button=T("Keep this language"), fields=(field,))
    return Panel(name="language", title=T("Language"), forms=(form,))
