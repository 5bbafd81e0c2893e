# SPDX-License-Identifier: Apache-2.0
"""Signing in: by passkey, by password, by one-time link, at the identity provider; and signing out.

- Everything works without script but the passkey. Its question stands in the page, its ticket in a cookie of
  its own (`ASK`); the answer comes back as a form.
- A one-time link that was typed, pasted or clicked outside of a browser is used up at once. One that another
  site leads to, that is fetched ahead, or of which the browser does not say how it was opened, shows a button
  instead. So does every link while somebody is signed in: nobody becomes somebody else without noticing.
- The way to the provider and back has a cookie of its own (`STATE`), Lax and short, because the browser
  keeps Strict cookies back on the way from another site. For the same reason the page where it ends asks for
  the console once more, by itself.
- What is wrong with a name, a password or a person is told to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response

from broker.auth.devices import DEVICE
from broker.auth.errors import AuthError
from broker.auth.oidc import CALLBACK
from broker.console.doors import Door, home_of
from broker.console.headers import PAGE_HEADERS
from broker.console.screens import ALL_PEOPLE, Ceremony, Done, Field, Form, Panel, Room, Screen, Sees
from broker.console.values import Code, Link, Name, T
from broker.errors import NotFoundError
from policies.limits import CHALLENGE_S, LINK_TTL_H, OIDC_STATE_S

if TYPE_CHECKING:
    from broker.console.acting import Act
    from policies.errors import IriaiError

__all__ = ["room"]

room = Room("entering")
ASK: Final = "__Host-iriai-ask"
STATE: Final = "__Host-iriai-oidc"
_LOGIN: Final = T("Sign in")


@room.door("/console/login", name="login", title=_LOGIN)
async def login(door: Door) -> Response:
    """The page, and what it sends."""
    if door.method == "GET":
        return _login_page(door)
    auth, form = door.services.auth, door.form
    try:
        if form.get("assertion"):
            opened = await auth.log_in_with(
                door.cookies.get(ASK, ""), form["assertion"], address=door.address, agent=door.agent
            )
        else:
            opened = await auth.log_in(
                form.get("username", ""),
                form.get("password", ""),
                address=door.address,
                agent=door.agent,
                device=door.cookies.get(DEVICE, ""),
            )
    except AuthError as error:
        return _login_page(door, error)
    response = await door.let_in(opened, to=form.get("to", ""))
    response.delete_cookie(ASK, path="/", secure=True, httponly=True, samesite="strict")
    return response


@room.door("/console/enter/{secret}", name="enter", title=T("Your one-time link"))
async def enter(door: Door) -> Response:
    """Uses a link up, or asks whether it is wanted."""
    auth, secret = door.services.auth, door.path["secret"]
    asks = auth.needs_code(secret)
    if door.method == "GET" and (asks or not door.by_hand or door.login is not None):
        return door.page(_enter_screen(door, asks=asks))
    try:
        opened = await auth.enter(secret, code=door.form.get("code"), agent=door.agent)
    except AuthError as error:
        return door.page(Screen(panels=(_refused(error),)), error=error)
    return await door.let_in(opened)


@room.door("/console/oidc/go", name="oidc-go", title=_LOGIN)
async def go(door: Door) -> Response:
    """Leads to the identity provider."""
    _check_provider(door)
    url, ticket = await door.services.auth.ask_provider()
    response = RedirectResponse(url, 303, headers=dict(PAGE_HEADERS))
    response.set_cookie(
        STATE, ticket, max_age=OIDC_STATE_S, path="/", secure=True, httponly=True, samesite="lax"
    )
    return response


@room.door(CALLBACK, name="oidc-back", title=T("Signed in"))
async def back(door: Door) -> Response:
    """Where the provider leads back to."""
    _check_provider(door)
    try:
        opened = await door.services.auth.enter_from(
            door.cookies.get(STATE, ""), door.query, agent=door.agent
        )
    except AuthError as error:
        return door.page(Screen(panels=(_refused(error),)), error=error)
    home = home_of(opened.login)
    told = T("You are signed in. {link}", link=Link(T("Go on"), home))
    response = door.page(Screen(panels=(Panel(name="in", title=T("Signed in"), prose=(told,)),)))
    response.headers["Refresh"] = f"0; url={home}"
    door.set_login(response, opened)
    response.delete_cookie(STATE, path="/", secure=True, httponly=True, samesite="lax")
    return response


@room.act("/console/logout", name="logout", roles=ALL_PEOPLE, sees=Sees.SELF)
async def logout(act: Act) -> Done:
    """Ends this login."""
    await act.services.auth.account.log_out(act.login)
    return Done("/console/login", T("You are signed out."))


def _check_provider(door: Door) -> None:
    """Refuses the way to a provider where there is none.

    Raises:
        NotFoundError: No setting ``oidc``.
    """
    if not door.services.auth.oidc.there:
        raise NotFoundError(need="an identity provider", found="none is set up", remedy="sign in otherwise")


def _login_page(door: Door, error: IriaiError | None = None) -> Response:
    auth = door.services.auth
    to = door.safe_path(door.form.get("to") or door.query.get("to", ""))
    panels = [_refused(error)] if error is not None else []
    ticket = None
    if auth.passkeys.there:
        options, ticket = auth.ask_login()
        panels.append(_passkey_panel(door, options, to))
    panels.append(_password_panel(door, to))
    if auth.oidc.there:
        link = T("Sign in at {provider}", provider=Code(auth.oidc.settings.issuer))
        panels.append(
            Panel(name="provider", title=T("At your provider"), prose=(Link(link, "/console/oidc/go"),))
        )
    panels.append(_help_panel(passkeys=auth.passkeys.there))
    response = door.page(Screen(panels=panels), error=error)
    if ticket is not None:
        response.set_cookie(
            ASK, ticket, max_age=CHALLENGE_S, path="/", secure=True, httponly=True, samesite="strict"
        )
    return response


def _passkey_panel(door: Door, options: dict[str, object], to: str) -> Panel:
    form = Form(
        action="/console/login",
        button=T("Sign in with a passkey"),
        fields=(Field(name="to", kind="hidden", value=to),),
        ceremony=Ceremony("get", options),
    )
    home = door.services.settings.console
    elsewhere = door.headers.get("host", "") != urlsplit(home).netloc
    where = T("Passkeys work only at {url}; open the console there.", url=Code(home))
    return Panel(
        name="passkey", title=T("With a passkey"), prose=(where,) if elsewhere else (), forms=(form,)
    )


def _password_panel(door: Door, to: str) -> Panel:
    form = Form(
        action="/console/login",
        button=T("Sign in with a password"),
        fields=(
            Field(name="username", label=T("Your name here"), value=door.form.get("username", "")[:41]),
            Field(name="password", label=T("Password"), kind="password"),
            Field(name="to", kind="hidden", value=to),
        ),
    )
    return Panel(name="password", title=T("With a password"), forms=(form,))


def _help_panel(*, passkeys: bool) -> Panel:
    first = T(
        "Operators get a link of their own with their key file: {command}",
        command=Code("iriai-broker operator reset-login NAME --dir DIR --key FILE"),
    )
    second = T("Everybody else asks an operator for one.")
    third = T("Passkeys need an address with a name; this console has a number. Use a password here.")
    return Panel(
        name="help",
        title=T("If you cannot sign in"),
        prose=(first, second) if passkeys else (first, second, third),
    )


def _enter_screen(door: Door, *, asks: bool) -> Screen:
    code = Field(
        name="code",
        label=T("The code, second half of this link"),
        help=T(
            "Two operators asked for this way in: the first was told a code, the second this link. "
            "Where one command printed both, the code stands beside the link."
        ),
    )
    fields = [code] if asks else []
    form = Form(action=f"/console/enter/{door.path['secret']}", button=T("Use this link now"), fields=fields)
    why = T("This link lets one person in, once, within {hours} hours.", hours=Code(str(LINK_TTL_H)))
    prose = [why, T("A wrong code ends the link.")] if asks else [why]
    if door.login is not None:
        name = Name(door.login.person.name)
        prose.append(T("You are signed in as {name}; that login ends when you use it.", name=name))
    return Screen(panels=(Panel(name="link", title=T("Come in"), prose=prose, forms=(form,)),))


def _refused(error: IriaiError) -> Panel:
    return Panel(name="refused", title=T("You were not let in"), error=error)
