# SPDX-License-Identifier: Apache-2.0
"""Serves what the rooms registered: who may have it, in which language, in which form. The one web part.

A screen (GET), in this order:

1. The login behind the cookie, if there is one; it ends by itself after 30 idle minutes or 12 hours. Its
   person pays for the request (`broker.admission`); who asks too often gets a page that costs nothing.
2. The role fits the route. Nobody signed in: to the login page, which keeps the way back. Another role:
   ``console.role``, and the log says that it was asked for.
3. One read of the database, the screen's own function, the answer (`broker.console.pages`). What has to wait
   for something else, a bundle for its witnesses, does so when that read has ended.
4. Confidential reads are logged, once per login and object, and decisions about views that are news.

An act (POST): `broker.console.acting` says what is checked; then the act, then 303 to where it leads. What it
has to say is kept in memory for the login and shown once.

The port's own address (``/``) leads a browser to the console, whose login decides further; whoever does not
ask for a page gets what every path that does not exist gives.

Refusals are pages with the same facts as the API's problem documents; where no connection to the database is
free, the page of `broker.console.busy`. Paths below ours that do not exist are
too. Nothing of an unexpected exception is shown; its traceback goes to the process's log.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request  # noqa: TC002  part of a signature that Starlette reads
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, compile_path
from starlette.routing import Route as WebRoute

from broker.console.acting import Act
from broker.console.busy import busy
from broker.console.compressing import compressed
from broker.console.doors import Door
from broker.console.errors import CrossSiteError, LoginNeededError
from broker.console.forms import check_site, read_form
from broker.console.formtoken import fits
from broker.console.headers import PAGE_HEADERS
from broker.console.languages import LANGUAGES
from broker.console.pages import ERROR_ROUTE, answer, refusal
from broker.console.rooms import all_routes
from broker.console.statics import static
from broker.console.visits import LANG_COOKIE, Visit
from broker.errors import NotFoundError, RequestRateError
from broker.store import StoreBusyError
from policies.errors import IriaiError

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Mapping

    from broker.console.screens import Done, Route

    _Serve = Callable[[Visit], Awaitable[Response]]

__all__ = ["routes"]

_FLASHES: Final = 1_000
_ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_log = logging.getLogger(__name__)


class InternalError(IriaiError):
    """Our bug; the process's log has the traceback."""

    code = "console.internal"
    exit_code = 1
    http_status = 500


def routes() -> list[BaseRoute]:
    """Every route of the console for the application; services are taken from ``app.state``."""
    made: list[BaseRoute] = [
        WebRoute("/", _root, methods=list(_ANY_METHOD), name="console-root"),
        WebRoute("/console/static/{hash}/{name:path}", static, methods=["GET"], name="console-static"),
    ]
    for route in all_routes():
        serve, methods = _KINDS[route.kind]
        made.append(WebRoute(route.path, _web(route, serve), methods=list(methods), name=route.name))
    made.extend(
        WebRoute(place, _web(ERROR_ROUTE, _unknown), methods=["GET", "POST"], name="console-unknown")
        for place in ("/console/{rest:path}", "/audit/{rest:path}")
    )
    return made


async def _root(request: Request) -> Response:
    """To the console, for whoever wants to see a page; for everybody else there is nothing here.

    Raises:
        HTTPException: 404, answered as any other path that does not exist.
    """
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return _redirect("/console")
    raise HTTPException(404)


def _web(route: Route, serve: _Serve) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await _guarded(request, route, serve)

    return endpoint


async def _screen(visit: Visit) -> Response:
    await visit.check_role()
    with visit.services.store.read() as session:
        view = visit.view(session)
        response = answer(visit.shell(_flash(visit)), visit.route.endpoint(view))
    await visit.note_reads(view)
    return response


async def _file(visit: Visit) -> Response:
    await visit.check_role()
    with visit.services.store.read() as session:
        view = visit.view(session)
        given: Response | Awaitable[Response] = visit.route.endpoint(view)
    response = given if isinstance(given, Response) else await given  # no read is held meanwhile
    await visit.note_reads(view)
    response.headers.update(PAGE_HEADERS)
    return response


async def _events(visit: Visit) -> Response:
    await visit.check_role()
    after = visit.request.headers.get("last-event-id", "")
    with visit.services.store.read() as session:
        response: Response = visit.route.endpoint(visit.view(session), after)
    response.headers.update(PAGE_HEADERS)
    return response


async def _act(visit: Visit) -> Response:
    check_site(visit.request, visit.services)
    form = await read_form(visit.request)
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
        name=visit.route.name,
        path=visit.path,
        form=form,
        address=visit.address,
        lang=visit.lang,
    )
    done: Done = await visit.route.endpoint(act)
    _keep_flash(visit, done)
    return _redirect(done.to)


async def _door(visit: Visit) -> Response:
    request = visit.request
    form: Mapping[str, str] = {}
    if request.method == "POST":
        check_site(request, visit.services)
        form = await read_form(request)
    door = Door(
        services=visit.services,
        shell=visit.shell(),
        login=visit.login,
        method=request.method,
        headers=request.headers,
        cookies=request.cookies,
        path=visit.path,
        query=visit.query,
        form=form,
        address=visit.address,
        leads=_is_screen,
    )
    response: Response = await visit.route.endpoint(door)
    return response


async def _unknown(visit: Visit) -> Response:
    raise NotFoundError(
        need="a screen of this console",
        found=ascii(visit.request.url.path)[:120],
        remedy="use the navigation",
    )


_KINDS: Final[Mapping[str, tuple[_Serve, tuple[str, ...]]]] = {
    "screen": (_screen, ("GET",)),
    "file": (_file, ("GET",)),
    "events": (_events, ("GET",)),
    "act": (_act, ("POST",)),
    "door": (_door, ("GET", "POST")),
}


def _is_screen(path: str) -> bool:
    """Whether a decoded path is that of a screen: what is registered first for a path has it."""
    return next((kind for form, kind in _forms() if form.match(path)), None) == "screen"


@cache
def _forms() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((compile_path(one.path)[0], one.kind) for one in all_routes())


async def _guarded(request: Request, route: Route, serve: _Serve) -> Response:
    """Runs a route; what it refuses becomes a page."""
    try:
        visit = Visit(request, route)
    except StoreBusyError as error:
        return busy(request.scope, error, request.app.state.services.clock.now_ms())
    try:
        visit.pay()
        response = await serve(visit)
    except (RequestRateError, StoreBusyError) as error:
        return busy(request.scope, error, visit.services.clock.now_ms())
    except LoginNeededError as error:
        response = _to_login(visit, error)
    except IriaiError as error:
        await visit.note_denied(error)
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


def _to_login(visit: Visit, error: LoginNeededError) -> Response:
    """To the login page, which keeps the way back; programs, streams and forms get the refusal itself."""
    url, kind = visit.request.url, visit.route.kind
    if visit.query.get("format") == "json" or kind == "events" or visit.request.method == "POST":
        return refusal(visit.shell(), error)
    back = url.path + (f"?{url.query}" if url.query else "")
    return _redirect(f"/console/login?to={quote(back, safe='')}")


def _redirect(to: str) -> Response:
    """To a path of ours, never elsewhere."""
    safe = to if to.startswith("/") and not to.startswith(("//", "/\\")) else "/console"
    return RedirectResponse(safe, 303, headers=dict(PAGE_HEADERS))


def _flashes(visit: Visit) -> OrderedDict[str, Done]:
    state = visit.request.app.state
    if not hasattr(state, "flashes"):
        state.flashes = OrderedDict()
    kept: OrderedDict[str, Done] = state.flashes
    return kept


def _keep_flash(visit: Visit, done: Done) -> None:
    kept = _flashes(visit)
    if visit.login is not None:
        kept[visit.login.id] = done
        while len(kept) > _FLASHES:
            kept.popitem(last=False)


def _flash(visit: Visit) -> Done | None:
    if (
        visit.login is None
        or visit.query.get("format", "html") != "html"
        or visit.request.headers.get("hx-request")
    ):
        return None
    return _flashes(visit).pop(visit.login.id, None)
