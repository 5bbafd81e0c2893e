# SPDX-License-Identifier: Apache-2.0
"""The page as an ASGI application: routes, forms of answers, and what a refusal looks like.

Screens run in threads: they read files and may wait a moment for the broker. Which screen a path is, and in
which order the checks of a request come, is in `client.page`.
"""

from __future__ import annotations

import hashlib
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from client.page import gate as gates
from client.page.acts import ACTS
from client.page.errors import NoPageError, RequestError, SourceError
from client.page.keys import Keys
from client.page.panels import Asked, problem_of
from client.page.reading import Heard, Site
from client.page.rendering import Painter, csv_of, json_of
from client.page.screens.benefit import benefit
from client.page.screens.budget import budget
from client.page.screens.contract import contract
from client.page.screens.data import data
from client.page.screens.dataset import dataset
from client.page.screens.doctor import doctor
from client.page.screens.home import home as home_screen
from client.page.screens.models import models
from client.page.screens.outbox import outbox
from client.page.screens.refusals import refusals
from client.page.screens.withdraw import withdraw
from client.page.sessions import Sessions
from client.page.typed import typed
from client.page.values import Moment, Text, msg
from client.page.words import LANGUAGES, language, words_of
from policies.errors import IriaiError
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx
    from markupsafe import Markup
    from starlette.requests import Request

    from client.page.sessions import Session
    from client.page.values import Screen, Table, Value
    from client.settings import Home
    from policies.ports import Clock, Entropy

__all__ = ["NAVIGATION", "SCREENS", "Page", "page_app"]

SCREENS: Final[dict[str, Callable[[Site, Asked], Screen]]] = {
    "/": home_screen,
    "/outbox": outbox,
    "/contract": contract,
    "/data": data,
    "/budget": budget,
    "/benefit": benefit,
    "/models": models,
    "/refusals": refusals,
    "/doctor": doctor,
    "/withdraw": withdraw,
}
NAVIGATION: Final = (
    ("/", "home", msg("Home")),
    ("/outbox", "outbox", msg("Outbox")),
    ("/contract", "contract", msg("My contract")),
    ("/data", "data", msg("Data")),
    ("/budget", "budget", msg("Budget")),
    ("/benefit", "benefit", msg("Benefit")),
    ("/models", "models", msg("Models")),
    ("/refusals", "refusals", msg("Refusals")),
    ("/doctor", "doctor", msg("Doctor")),
)
_UNDER: Final = {"dataset": "data", "withdraw": "home"}
_NAMES: Final = {"en": "English", "ja": "日本語"}
_COOKIE_S: Final = 12 * 3600


def page_app(
    home: Home,
    *,
    port: int,
    clock: Clock,
    entropy: Entropy,
    transport: httpx.BaseTransport | None = None,
    say: Callable[[str], str] = str,
) -> Starlette:
    """The application.

    Args:
        home: The node's folder.
        port: At which it is asked: part of what ``Host`` must name.
        clock: Ages, sessions and ends of secrets.
        entropy: Cookies and form tokens.
        transport: To the broker, where that is an application in the same process.
        say: Completes the commands that screens show.
    """
    return Page(home, port=port, clock=clock, entropy=entropy, transport=transport, say=say).app


class Page:
    """One page process; `app` is its application."""

    def __init__(
        self,
        home: Home,
        *,
        port: int,
        clock: Clock,
        entropy: Entropy,
        transport: httpx.BaseTransport | None = None,
        say: Callable[[str], str] = str,
    ) -> None:
        self._clock, self._say = clock, say
        self.keys = Keys(home, clock=clock, entropy=entropy)
        sessions = Sessions(port=port, clock=clock, entropy=entropy)
        self._gate = gates.Gate(port=port, keys=self.keys, sessions=sessions)
        self._heard = Heard(clock)
        self._site = partial(Site, home, self._heard, clock=clock, entropy=entropy, transport=transport)
        self._style = files("client.page").joinpath("static", "page.css").read_bytes()
        self._style_path = f"/static/{hashlib.sha256(self._style).hexdigest()[:16]}.css"
        self._templates = Environment(
            loader=PackageLoader("client.page"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals["again"] = self.keys.again
        self._templates.tests["text"] = lambda one: isinstance(one, Text)
        self.app = Starlette(routes=self._routes())

    def _routes(self) -> list[Route]:
        screens = [Route(path, self._get(partial(self._screen, path)), methods=["GET"]) for path in SCREENS]
        return [
            *screens,
            Route("/data/{name:path}", self._get(partial(self._screen, "/data/")), methods=["GET"]),
            Route("/open/{token}", self._get(self._open), methods=["GET", "POST"]),
            Route("/act/{act}", self._get(self._act), methods=["POST"]),
            Route("/close", self._get(self._close), methods=["POST"]),
            Route("/static/{name}", self._get(self._static), methods=["GET"]),
            Route(
                "/{rest:path}",
                self._get(self._unknown),
                methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"],
            ),
        ]

    def _get(
        self, work: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: host first, headers last, and no error without its code."""

        async def answer(request: Request) -> Response:
            try:
                self._gate.check_host(request)
                found = await work(request)
            except IriaiError as error:
                found = self._refused(request, error)
            except Exception as error:  # noqa: BLE001  the edge of the process: no traceback leaves it
                told = SourceError(
                    need="an answer",
                    found=type(error).__name__,
                    remedy="report it with the address of the page",
                )
                found = self._refused(request, told)
            for name, value in gates.HEADERS.items():
                found.headers.setdefault(name, value)
            return found

        return answer

    # --- what is asked for ---

    async def _screen(self, path: str, request: Request) -> Response:
        session = self._gate.session(request)
        asked = Asked(
            query=dict(request.query_params),
            lang=self._lang(request),
            name=request.path_params.get("name", ""),
        )
        make = dataset if path == "/data/" else SCREENS[path]
        screen = await run_in_threadpool(self._made, make, asked)
        form = asked.query.get("format")
        if form == "json":
            found = json_of(screen, at=iso_s(self._clock.now_ms()))
            return Response(found, media_type="application/json; charset=utf-8")
        if form == "csv":
            return _csv(screen, asked.query.get("panel"))
        return self._shown(request, screen, session)

    def _made(self, make: Callable[[Site, Asked], Screen], asked: Asked) -> Screen:
        with self._site() as site:
            return typed(make(site, asked), self._say)

    async def _open(self, request: Request) -> Response:
        """Uses a link up; a page of another site that leads here only gets as far as a button."""
        token = request.path_params["token"]
        if request.method == "HEAD":  # it would use the link up, and show nothing
            raise RequestError(need="GET", found="HEAD", remedy="open the link in a browser")
        if request.method == "GET" and self._gate.comes_from_elsewhere(request):
            return self._door(request, status=200, token=token, problem=None)
        if request.method == "POST":
            self._gate.check_origin(request)
        self.keys.use("link", token)
        value, _ = self._gate.sessions.open()
        found = RedirectResponse(Painter(words_of("en"), now_ms=0, asked=self._asked(request)).href("/"), 303)
        found.set_cookie(
            self._gate.sessions.cookie, value, max_age=_COOKIE_S, path="/", httponly=True, samesite="strict"
        )
        return found

    async def _act(self, request: Request) -> Response:
        session = self._gate.session(request)
        self._gate.check_origin(request)
        form = await self._gate.form(request)
        act = ACTS.get(request.path_params["act"])
        if act is None:
            raise NoPageError(need="an act of this page", found="another one", remedy="use the page's form")
        self._gate.check_change(session, form)

        def work() -> None:
            with self._site() as site:
                session.told.append(typed(act.told(act.work(site, form)), self._say))

        try:
            await run_in_threadpool(work)
        finally:
            self._heard.forget()
        return RedirectResponse(self._painter(request).href(act.back), 303)

    async def _close(self, request: Request) -> Response:
        self._gate.session(request)
        self._gate.check_origin(request)
        self._gate.sessions.close(request.cookies.get(self._gate.sessions.cookie))
        found = self._door(request, status=200, token=None, problem=None)
        found.delete_cookie(self._gate.sessions.cookie, path="/", httponly=True, samesite="strict")
        return found

    async def _static(self, request: Request) -> Response:
        if request.url.path != self._style_path:
            raise _unknown()
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self._style, media_type="text/css; charset=utf-8", headers=kept)

    async def _unknown(self, request: Request) -> Response:
        if request.method not in {"GET", "HEAD", "POST"}:
            raise RequestError(need="GET or POST", found=request.method, remedy="use the page itself")
        self._gate.session(request)
        raise _unknown()

    # --- how it is answered ---

    def _asked(self, request: Request) -> str | None:
        asked = request.query_params.get("lang")
        return asked if asked in LANGUAGES else None

    def _lang(self, request: Request) -> str:
        return language(self._asked(request), request.headers.get("accept-language", ""))

    def _painter(self, request: Request) -> Painter:
        words = words_of(self._lang(request))
        return Painter(words, now_ms=self._clock.now_ms(), asked=self._asked(request))

    def _html(self, request: Request, name: str, *, status: int = 200, **values: object) -> Response:
        painter = self._painter(request)

        def told(msgid: str, **given: Value) -> Markup:
            return painter.html(Text(msgid, given))

        text = self._templates.get_template(name).render(
            _=told,
            paint=painter,
            lang=painter.words.lang,
            style=self._style_path,
            languages=[(one, _NAMES[one], _with(request, lang=one)) for one in LANGUAGES],
            **values,
        )
        return HTMLResponse(text, status)

    def _shown(self, request: Request, screen: Screen, session: Session) -> Response:
        told, session.told = session.told, []
        return self._html(
            request,
            "page.html",
            screen=screen,
            navigation=NAVIGATION,
            current=_UNDER.get(screen.name, screen.name),
            token=session.form_token,
            told=told,
            json_path=_with(request, format="json"),
            csv_path=partial(_with, request, format="csv"),
            moment=Moment(self._clock.now_ms()),
        )

    def _door(self, request: Request, *, status: int, token: str | None, problem: object) -> Response:
        return self._html(request, "door.html", status=status, open_token=token, problem=problem)

    def _refused(self, request: Request, error: IriaiError) -> Response:
        if request.query_params.get("format") in {"json", "csv"}:
            text = {"schema": "1", "status": "error", "error": error.as_dict()}
            from starlette.responses import JSONResponse

            return JSONResponse(text, error.http_status)
        return self._door(
            request, status=error.http_status, token=None, problem=typed(problem_of(error), self._say)
        )


def _unknown() -> NoPageError:
    return NoPageError(
        need="a page of this node", found="another address", remedy="go back to the home screen"
    )


def _with(request: Request, **changes: str) -> str:
    """The address of a request with other values in its query."""
    query = {name: value for name, value in request.query_params.items() if name not in {"format", "panel"}}
    return Painter(words_of("en"), now_ms=0).href(request.url.path, {**query, **changes})


def _csv(screen: Screen, wanted: str | None) -> Response:
    """The table of a panel; of the first one that has a table, where none is named."""
    tables: dict[str, Table] = {one.name: one.table for one in screen.panels if one.table is not None}
    name = wanted or next(iter(tables), "")
    if name not in tables:
        raise NoPageError(
            need="a panel with a table: " + (", ".join(tables) or "this page has none now"),
            found=ascii(name)[1:-1][:40] or "none",
            remedy="?format=json has everything that the page shows",
        )
    told = {"Content-Disposition": f'attachment; filename="{screen.name}-{name}.csv"'}
    return Response(csv_of(tables[name]), media_type="text/csv; charset=utf-8", headers=told)
