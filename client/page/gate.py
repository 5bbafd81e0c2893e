# SPDX-License-Identifier: Apache-2.0
"""Who may ask what: the checks of each request in the order of `client.page`, and the headers of each answer.

- ``Host`` first: a page of another site whose name was made to point at 127.0.0.1 is of the same origin for
  the browser, and only its ``Host`` gives it away.
- A link or a cookie in a request that a page of another site made is not enough: links open only for a person
  who came by typing, by a bookmark or from the page itself; everybody else sees one button first.
- A secret that is checked is used up before anything else is done with the request.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from client.page.errors import CrossSiteError, FormError, HostError, RequestError, SessionError

if TYPE_CHECKING:
    from starlette.requests import Request

    from client.page.keys import Keys
    from client.page.sessions import Session, Sessions

__all__ = ["BODY_BYTES", "HEADERS", "Gate"]

BODY_BYTES: Final = 16 * 1024
_FIELDS: Final = 16
_FORM: Final = "application/x-www-form-urlencoded"
_OWN: Final = frozenset({"same-origin", "none"})
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Gate:
    """The checks of one page process."""

    def __init__(self, *, port: int, keys: Keys, sessions: Sessions) -> None:
        self._port = port
        self._keys = keys
        self.sessions = sessions
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})

    def check_host(self, request: Request) -> None:
        """Returns if a request names this machine.

        Raises:
            HostError: It names another host, none, or two.
        """
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise HostError(
                need=f"the address 127.0.0.1:{self._port} or localhost:{self._port}",
                found=", ".join(ascii(one)[1:-1][:80] for one in hosts) or "none",
                remedy="open the link that iriai-node page printed, on this machine",
            )

    def session(self, request: Request) -> Session:
        """The session of a request; its connection is no stranger's from here on.

        Raises:
            SessionError: None, or one that ended.
        """
        found = self.sessions.find(request.cookies.get(self.sessions.cookie))
        if found is None:
            raise SessionError(
                need="a session of this page",
                found="none, or one that ended",
                remedy=f"{self._keys.again} prints a fresh link",
            )
        connection = request.scope.get("state", {}).get("connection")
        if connection is not None:  # there is none where the page is asked in memory
            connection.admitted()
        return found

    def comes_from_elsewhere(self, request: Request) -> bool:
        """Whether a page of another site led here, or a browser that looks ahead."""
        site = request.headers.get("sec-fetch-site", "none")
        return site not in _OWN or "prefetch" in request.headers.get("sec-purpose", "")

    def check_origin(self, request: Request) -> None:
        """Returns if a change is asked for by a page of ours.

        Raises:
            CrossSiteError: Another site's page asks for it, or the browser does not say whose.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = {f"http://{one}" for one in self._hosts}
        named = origin is not None and origin != "null"
        if (site == "same-origin" and (not named or origin in own)) or (site is None and origin in own):
            return
        raise CrossSiteError(
            need="a form of this page",
            found=f"Sec-Fetch-Site {ascii(site)[:40]}, Origin {ascii(origin)[:80]}",
            remedy="open this page itself and use its form",
        )

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form.

        Raises:
            RequestError: Another kind of body, or more than a form of this page has.
        """
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != _FORM:
            raise RequestError(
                need=_FORM, found=ascii(kind)[1:-1][:60] or "nothing", remedy="use the page's form"
            )
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > BODY_BYTES:
                raise RequestError(
                    need=f"at most {BODY_BYTES} bytes", found="more", remedy="use the page's form"
                )
        try:
            pairs = parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=_FIELDS)
        except ValueError as error:
            raise RequestError(
                need="fields of a form", found=type(error).__name__, remedy="use the page's form"
            ) from error
        found = dict(pairs)
        if len(found) != len(pairs):
            raise RequestError(
                need="each field once", found="one that is there twice", remedy="use the page's form"
            )
        return found

    def check_change(self, session: Session, form: dict[str, str]) -> None:
        """Returns if a form is of this session and bears a code, which is used up by this.

        Raises:
            FormError: It is another session's.
            CodeError: No code, or none that is unused.
        """
        given = form.get("form_token", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, session.form_token.encode()):
            raise FormError(
                need="a form of this session",
                found="another one's, or none",
                remedy="reload the page, then try again",
            )
        self._keys.use("code", form.get("code", ""))
