# SPDX-License-Identifier: Apache-2.0
"""Serves what the rooms registered: who may have it, in which language, in which form. The one web part.

A screen (GET), in this order:

1. The login behind the cookie, if there is one; it ends by itself after 30 idle minutes or 12 hours.
2. The role fits the route. Nobody signed in: to the login page, which keeps the way back. Another role:
   ``console.role``, and the log says that it was asked for.
3. One read of the database, the screen's own function, the answer (`broker.console.pages`).
4. Confidential reads are logged, once per login and object, and decisions about views that are news.

An act (POST): `broker.console.acting` says what is checked; then the act, then 303 to where it leads. What it
has to say is kept in memory for the login and shown once.

Refusals are pages with the same facts as the API's problem documents. Paths below ours that do not exist are
too. Nothing of an unexpected exception is shown; its traceback goes to the process's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, compile_path
from starlette.routing import Route as WebRoute

from broker.console.acting import Act
from broker.console.compressing import compressed
from broker.console.doors import Door
from broker.console.errors import CrossSiteError, FormError, LoginNeededError, RoleError
from broker.console.formtoken import fits
from broker.console.headers import PAGE_HEADERS, STATIC_HEADERS
from broker.console.languages import LANGUAGES, chosen
from broker.console.pages import ERROR_ROUTE, Shell, answer, refusal
from broker.console.rendering import STATIC, asset
from broker.console.rooms import ROOMS
from broker.console.screens import Done, Route, Screen
from broker.console.viewing import View, caller_of
from broker.errors import BodyTooLargeError, BodyTooSlowError, NotFoundError
from broker.log.errors import LogError
from broker.membership.directory import Operator
from broker.membership.records import console_action
from policies.encoding import digest_of
from policies.errors import IriaiError
from policies.limits import BODY_READ_S

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable

    from broker.auth.service import Login
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["COOKIE", "LANG_COOKIE", "all_routes", "routes"]

COOKIE: Final = "__Host-iriai"
LANG_COOKIE: Final = "__Host-iriai-lang"
_FORM_BYTES: Final = 262_144
_FLASHES: Final = 1_000
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_log = logging.getLogger(__name__)


class InternalError(IriaiError):
    """Our bug; the process's log has the traceback."""

    code = "console.internal"
    exit_code = 1
    http_status = 500


def all_routes() -> tuple[Route, ...]:
    """Every screen, act, stream and file of the console, in the order of the navigation."""
    return tuple(route for room in ROOMS for route in room.routes)


def routes() -> list[BaseRoute]:
    """The same for the application; services are taken from ``app.state``."""
    made: list[BaseRoute] = [
        WebRoute("/console/static/{hash}/{name:path}", _static, methods=["GET"], name="console-static")
    ]
    serve = {"screen": _screen, "act": _act, "events": _events, "file": _file, "door": _door}
    for route in all_routes():
        methods = {"act": ["POST"], "door": ["GET", "POST"]}.get(route.kind, ["GET"])
        made.append(WebRoute(route.path, serve[route.kind](route), methods=methods, name=route.name))
    made.extend(
        WebRoute(place, _unknown, methods=["GET", "POST"], name="console-unknown")
        for place in ("/console/{rest:path}", "/audit/{rest:path}")
    )
    return made


class _Visit:
    """One request, as all kinds of routes need it."""

    def __init__(self, request: Request, route: Route) -> None:
        self.request = request
        self.route = route
        self.services: Services = request.app.state.services
        self.query = _query(request)
        self.login: Login | None = self.services.auth.find(request.cookies.get(COOKIE))
        self.lang = chosen(
            self.query.get("lang"),
            request.cookies.get(LANG_COOKIE),
            self.login.person.lang if self.login else None,
            accept=request.headers.get("accept-language", ""),
        )

    @property
    def address(self) -> str:
        """Where the request came from, for counting failed logins."""
        return self.request.client.host if self.request.client else ""

    def shell(self, said: Done | None = None) -> Shell:
        """What stands around the screen."""
        role = self.login.person.role if self.login else "anyone"
        return Shell(
            route=self.route,
            nav=[one for one in all_routes() if one.nav and (role in one.roles or "anyone" in one.roles)],
            login=self.login,
            lang=self.lang,
            now_ms=self.services.clock.now_ms(),
            path=self.request.url.path,
            query=self.query,
            once=self.services.entropy.token_bytes(16).hex(),
            mask=self.services.entropy.token_bytes(43),
            origin=self.services.writer.origin,
            said=said,
            counts=self._counts,
        )

    def _counts(self) -> int | None:
        return None if self.login is None else self.services.auth.password_counts(self.login)

    async def check_role(self) -> None:
        """Step 2.

        Raises:
            LoginNeededError: Nobody is signed in.
            RoleError: Somebody whose role it is not for; the log has it.
        """
        if "anyone" in self.route.roles:
            return
        if self.login is None:
            raise LoginNeededError(
                need="somebody who is signed in", found="nobody, or a login that has ended", remedy="sign in"
            )
        if self.login.person.role not in self.route.roles:
            await self._note_refused()
            raise RoleError(
                need="a person with the role " + " or ".join(sorted(self.route.roles)),
                found=f"role {self.login.person.role}",
                remedy="ask somebody who has it",
            )

    async def _note_refused(self) -> None:
        """Logs, once per login and route, that a role asked for what is not for it; see `REFUSALS_NOTED`."""
        login = self.login
        if login is None or not self.services.auth.may_note_refused(login, self.route.name):
            return
        event = console_action(
            Operator(name=login.person.name, key=b"", active=True),
            f"console.{self.route.name}",
            subject=digest_of([self.route.path]),
            request=digest_of(["refused", login.id, self.route.name]),
            result="refused",
        )

        def work(_session: Session, tx: LogTx) -> None:
            tx.add(event)

        with contextlib.suppress(LogError):
            await self.services.writer.run(work)
            self.services.auth.noted_refused(login, self.route.name)

    def view(self, session: Session) -> View:
        """What the screen's function gets."""
        return View(
            services=self.services,
            session=session,
            login=self.login,
            path={name: str(value) for name, value in self.request.path_params.items()},
            query=self.query,
            now_ms=self.services.clock.now_ms(),
            lang=self.lang,
        )

    async def note_reads(self, view: View) -> None:
        """Step 4."""
        await self._note_later(view)
        if self.login is None or not view.reads:
            return
        login = self.login

        def work(session: Session, tx: LogTx) -> None:
            for what, subject in view.reads:
                self.services.auth.note_read(session, tx, login, what, subject)

        if self.services.auth.unread(login, view.reads):
            with contextlib.suppress(LogError):
                await self.services.writer.run(work)
                self.services.auth.noted(login, view.reads)

    async def _note_later(self, view: View) -> None:
        """Logs the decisions behind what was shown; a frozen log takes none, and reads go on."""

        def work(session: Session, tx: LogTx) -> None:
            for one in view.later:
                one(session, tx)

        if view.later:
            with contextlib.suppress(LogError):
                await self.services.writer.run(work)


def _screen(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        async def make(visit: _Visit) -> Response:
            await visit.check_role()
            with visit.services.store.read() as session:
                view = visit.view(session)
                screen = route.endpoint(view)
                assert isinstance(screen, Screen)  # noqa: S101  what a room registers
                response = answer(visit.shell(_flash(visit)), screen)
            await visit.note_reads(view)
            return response

        return await _guarded(request, route, make)

    return serve


def _file(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        async def make(visit: _Visit) -> Response:
            await visit.check_role()
            with visit.services.store.read() as session:
                view = visit.view(session)
                response = await route.endpoint(view)  # type: ignore[misc]  # registered as a coroutine
            await visit.note_reads(view)
            assert isinstance(response, Response)  # noqa: S101
            for name, value in PAGE_HEADERS.items():
                response.headers[name] = value
            return response

        return await _guarded(request, route, make)

    return serve


def _events(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        async def make(visit: _Visit) -> Response:
            await visit.check_role()
            with visit.services.store.read() as session:
                response = route.endpoint(visit.view(session), request.headers.get("last-event-id", ""))
            assert isinstance(response, Response)  # noqa: S101
            for name, value in PAGE_HEADERS.items():
                response.headers[name] = value
            return response

        return await _guarded(request, route, make)

    return serve


def _act(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        async def make(visit: _Visit) -> Response:
            _check_site(visit)
            form = await _form(request)
            await visit.check_role()
            if visit.login is None or not fits(form.get("csrf", ""), visit.login.csrf):
                raise CrossSiteError(
                    need="the token of this login",
                    found="another one",
                    remedy="reload the page and send it again",
                )
            act = Act(
                services=visit.services,
                login=visit.login,
                name=route.name,
                path={name: str(value) for name, value in request.path_params.items()},
                form=form,
                address=visit.address,
                lang=visit.lang,
            )
            done = await route.endpoint(act)  # type: ignore[misc]  # registered as a coroutine
            assert isinstance(done, Done)  # noqa: S101
            _keep_flash(visit, done)
            return _redirect(done.to)

        return await _guarded(request, route, make)

    return serve


def _is_screen(path: str) -> bool:
    """Whether a decoded path is that of a screen: what is registered first for a path has it."""
    return next((kind for form, kind in _forms() if form.match(path)), None) == "screen"


@cache
def _forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((compile_path(one.path)[0], one.kind) for one in all_routes())


def _door(route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        async def make(visit: _Visit) -> Response:
            form: dict[str, str] = {}
            if request.method == "POST":
                _check_site(visit)
                form = await _form(request)
            door = Door(
                services=visit.services,
                shell=visit.shell(),
                login=visit.login,
                method=request.method,
                headers=request.headers,
                cookies=request.cookies,
                path={name: str(value) for name, value in request.path_params.items()},
                query=visit.query,
                form=form,
                address=visit.address,
                leads=_is_screen,
            )
            response = await route.endpoint(door)  # type: ignore[misc]  # registered as a coroutine
            assert isinstance(response, Response)  # noqa: S101  what a room registers
            return response

        return await _guarded(request, route, make)

    return serve


async def _guarded(request: Request, route: Route, make: Callable[[_Visit], Awaitable[Response]]) -> Response:
    """Runs a route; what it refuses becomes a page."""
    visit = _Visit(request, route)
    try:
        response = await make(visit)
    except LoginNeededError as error:
        if visit.query.get("format") == "json" or route.kind == "events" or request.method == "POST":
            response = refusal(visit.shell(), error)
        else:
            back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            response = _redirect(f"/console/login?to={quote(back, safe='')}")
    except IriaiError as error:
        await _note_denied(visit, error)
        response = refusal(visit.shell(), error)
    except Exception:  # noqa: BLE001  the edge: whatever it is becomes a page that says nothing of it
        _log.exception("console: %s %s", request.method, route.name)
        response = refusal(
            visit.shell(),
            InternalError(
                need="this page", found="a fault of ours", remedy="see the broker's log; reload the page"
            ),
        )
    if visit.query.get("lang") in LANGUAGES:
        response.set_cookie(
            LANG_COOKIE, visit.lang, max_age=31_536_000, path="/", secure=True, httponly=True, samesite="lax"
        )
    return compressed(request, response)


async def _note_denied(visit: _Visit, error: IriaiError) -> None:
    """Logs an act that the policy denied to one of our people, as the API does."""
    if visit.route.kind != "act" or visit.login is None or isinstance(error, (CrossSiteError, RoleError)):
        return
    if error.exit_code != _DENIED:
        return
    with contextlib.suppress(IriaiError):
        person = caller_of(visit.services, visit.login)
        if not isinstance(person, Operator):
            return
        event = console_action(
            person,
            f"console.{visit.route.name}",
            subject=digest_of([error.code, getattr(error, "clause", None)]),
            request=digest_of(["denied", visit.login.id, visit.shell().once]),
            result="refused",
        )

        def work(_session: Session, tx: LogTx) -> None:
            tx.add(event)

        await visit.services.writer.run(work)


_DENIED: Final = 4  # exit code of what the policy denies


def _check_site(visit: _Visit) -> None:
    """A form must come from a page of ours.

    Raises:
        CrossSiteError: It came from elsewhere, or does not say where from.
    """
    headers = visit.request.headers
    site = headers.get("sec-fetch-site")
    ours = {_origin(visit.services.settings.console), _origin(visit.services.settings.public_url)}
    fits = site == "same-origin" if site is not None else headers.get("origin") in ours
    if not fits:
        raise CrossSiteError(
            need="a form that was sent from a page of this console",
            found=f"one from elsewhere ({(site or 'no origin')[:20]})",
            remedy="open the console itself and do it there",
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def _form(request: Request) -> dict[str, str]:
    """Fields of a form; the last one of a name counts.

    Raises:
        BodyTooLargeError: More than a form may hold.
        BodyTooSlowError: It did not arrive.
        FormError: No form.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_READ_S):
            async for piece in request.stream():
                data += piece
                if len(data) > _FORM_BYTES:
                    raise BodyTooLargeError(
                        need=f"at most {_FORM_BYTES} bytes",
                        found="more",
                        remedy="use the command for large files",
                    )
    except (TimeoutError, ClientDisconnect) as error:
        raise BodyTooSlowError(
            need=f"the whole form within {BODY_READ_S} s",
            found="a part of it",
            remedy="check the network, then send it again",
        ) from error
    try:
        pairs = parse_qsl(data.decode("utf-8"), keep_blank_values=True, max_num_fields=200)
    except ValueError as error:
        raise FormError(
            need="a form in UTF-8", found="something else", remedy="send it from the page"
        ) from error
    return {name: value for name, value in pairs if "\0" not in name + value}


def _query(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if "\0" not in name + value}


def _redirect(to: str) -> Response:
    """To a path of ours, never elsewhere."""
    safe = to if to.startswith("/") and not to.startswith(("//", "/\\")) else "/console"
    return RedirectResponse(safe, 303, headers=dict(PAGE_HEADERS))


def _flashes(visit: _Visit) -> OrderedDict[str, Done]:
    state = visit.request.app.state
    if not hasattr(state, "flashes"):
        state.flashes = OrderedDict()
    kept: OrderedDict[str, Done] = state.flashes
    return kept


def _keep_flash(visit: _Visit, done: Done) -> None:
    kept = _flashes(visit)
    if visit.login is not None:
        kept[visit.login.id] = done
        while len(kept) > _FLASHES:
            kept.popitem(last=False)


def _flash(visit: _Visit) -> Done | None:
    if (
        visit.login is None
        or visit.query.get("format", "html") != "html"
        or visit.request.headers.get("hx-request")
    ):
        return None
    return _flashes(visit).pop(visit.login.id, None)


async def _static(request: Request) -> Response:
    """A static file, by its hash."""
    name = str(request.path_params["name"])
    path = (STATIC / name).resolve()
    if not path.is_relative_to(STATIC.resolve()) or not path.is_file() or path.suffix == ".toml":
        return Response(status_code=404, headers={**STATIC_HEADERS, "Cache-Control": "no-store"})
    if request.url.path != asset(name):
        return Response(status_code=404, headers={**STATIC_HEADERS, "Cache-Control": "no-store"})
    media = _TYPES.get(path.suffix.lstrip("."), "application/octet-stream")
    return compressed(request, Response(path.read_bytes(), headers=dict(STATIC_HEADERS), media_type=media))


async def _unknown(request: Request) -> Response:
    async def make(visit: _Visit) -> Response:
        raise NotFoundError(
            need="a screen of this console",
            found=ascii(visit.request.url.path)[:120],
            remedy="use the navigation",
        )

    return await _guarded(request, ERROR_ROUTE, make)
