# SPDX-License-Identifier: Apache-2.0
"""Pages for people who are not logged in yet: what a door's function gets, and how it answers.

    @room.door("/console/login", name="login", title=T("Sign in"))
    async def login(door: Door) -> Response:
        return door.page(Screen(panels=(...)))

- A door takes GET and POST. A form was checked to come from a page of ours before the function runs; there
  is no form token, as there is no login it could belong to.
- Whoever comes in gets a fresh cookie; a login that this browser had before ends.
- From here one is led to screens alone (`safe_path`), never to another door, an act, a stream or a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from starlette.responses import RedirectResponse, Response

from broker.auth.devices import DEVICE
from broker.auth.sessions import COOKIE
from broker.console.headers import PAGE_HEADERS
from broker.console.pages import answer
from broker.errors import retry_headers
from policies.limits import DEVICE_DAYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.service import Login, Opened
    from broker.console.pages import Shell
    from broker.console.screens import Screen
    from broker.services import Services
    from policies.errors import IriaiError

__all__ = ["Door", "home_of"]

_DEVICE_S: Final = DEVICE_DAYS * 86_400
_WAYS: Final = frozenset({"none", "same-origin"})  # a browser that says neither is shown a button
_ODD: Final = frozenset({"", ".", ".."})  # parts of a path that browsers take away


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One request at a door; ``form`` is empty but for a POST; ``leads`` knows the paths of screens."""

    services: Services
    shell: Shell
    login: Login | None
    method: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    address: str
    leads: Callable[[str], bool]

    @property
    def agent(self) -> str:
        """What the browser calls itself."""
        return self.headers.get("user-agent", "")

    @property
    def by_hand(self) -> bool:
        """Whether somebody opened the address: no other site sent them, and nothing fetches ahead."""
        site = self.headers.get("sec-fetch-site")
        return self.method == "GET" and site in _WAYS and "sec-purpose" not in self.headers

    def page(self, screen: Screen, *, error: IriaiError | None = None) -> Response:
        """A screen; with an error, its status and, where it says one, when to come again."""
        response = answer(self.shell, screen if error is None else replace(screen, status=error.http_status))
        response.headers.update({} if error is None else retry_headers(error))
        return response

    async def let_in(self, opened: Opened, *, to: str = "") -> Response:
        """Sets the cookie and leads to a page of ours."""
        if self.login is not None:
            await self.services.auth.account.log_out(self.login)
        target = self.safe_path(to) or home_of(opened.login)
        response = RedirectResponse(target, 303, headers=dict(PAGE_HEADERS))
        self.set_login(response, opened)
        return response

    def set_login(self, response: Response, opened: Opened) -> None:
        """Gives the browser its session, until it is closed; the broker ends it before, if it has to.

        The browser is known from now on (`broker.auth.devices`).
        """
        known = self.services.auth.devices.cookie(opened.login.person.name, self.cookies.get(DEVICE, ""))
        response.set_cookie(COOKIE, opened.token, path="/", secure=True, httponly=True, samesite="strict")
        response.set_cookie(
            DEVICE, known, max_age=_DEVICE_S, path="/", secure=True, httponly=True, samesite="strict"
        )

    def safe_path(self, to: str) -> str:
        """The path of a screen of ours; empty for anything else, however a browser would write it."""
        if not (to.startswith("/") and to.isascii() and to.isprintable() and "\\" not in to):
            return ""
        path = unquote(urlsplit(to).path)
        plain = path.isascii() and path.isprintable() and not _ODD & set(path.split("/")[1:])
        return to if plain and "\\" not in path and self.leads(path) else ""


def home_of(login: Login) -> str:
    """Where somebody begins."""
    return "/audit" if login.person.role == "auditor" else "/console"
