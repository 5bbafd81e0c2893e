# SPDX-License-Identifier: Apache-2.0
"""The page for whoever asks too often: made once a minute for each language, to cost next to nothing.

While all connections to the database are in use, people get it too. It knows nobody and reads nothing: no
login, no database, no path but the console's own. Programs that ask for ``format=json`` get the same facts as
on any refusal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from broker.console.headers import PAGE_HEADERS
from broker.console.languages import chosen
from broker.console.pages import ERROR_ROUTE, Shell, answer
from broker.console.rooms import all_routes
from broker.console.screens import ANYONE, Panel, Screen
from broker.console.values import T
from broker.console.visits import LANG_COOKIE
from broker.errors import RequestRateError, retry_headers
from broker.store import StoreBusyError
from policies.encoding import canonical

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["busy", "is_ours"]

_ROOMS: Final = ("/console", "/audit", "/models", "/docs")
_KEPT: Final = 64
_MINUTE_MS: Final = 60_000


def is_ours(path: str) -> bool:
    """Whether people read what is below a path."""
    return any(path == room or path.startswith(room + "/") for room in _ROOMS)


def busy(scope: Scope, error: RequestRateError | StoreBusyError, now_ms: int) -> Response:
    """The refusal of a request of a person."""
    request = Request(scope)
    headers = {**PAGE_HEADERS, **retry_headers(error)}
    if request.query_params.get("format") == "json":
        body = canonical({"screen": "refused", "error": error.as_dict()})
        return Response(body, error.http_status, headers=headers, media_type="application/json")
    lang = chosen(
        request.query_params.get("lang"),
        request.cookies.get(LANG_COOKIE),
        accept=request.headers.get("accept-language", ""),
    )
    page = _page(
        lang,
        error.need,
        error.found,
        error.remedy,
        now_ms - now_ms % _MINUTE_MS,
        of_store=isinstance(error, StoreBusyError),
    )
    return Response(page, error.http_status, headers=headers, media_type="text/html; charset=utf-8")


@lru_cache(maxsize=_KEPT)
def _page(lang: str, need: str, found: str, remedy: str, now_ms: int, *, of_store: bool) -> bytes:
    error: RequestRateError | StoreBusyError
    if of_store:
        error = StoreBusyError(need=need, found=found, remedy=remedy)
        said = T("All connections to the broker's database were in use.")
        then = T("Load the page again in a moment; a form may be sent again as it is.")
    else:
        error = RequestRateError(need=need, found=found, remedy=remedy)
        said = T("More requests came from your address, or with your login, than are answered at a time.")
        then = T(
            "Nothing was done. Wait a moment, then load the page again; a form may be sent again as it is."
        )
    words = Panel(name="busy", title=T("Too many requests"), prose=(said, then))
    why = Panel(name="refusal", title=T("Why, and what to do"), error=error)
    shell = Shell(
        route=ERROR_ROUTE,
        nav=[one for one in all_routes() if one.nav and ANYONE in one.roles],
        login=None,
        lang=lang,
        now_ms=now_ms,
        path="/console",
        query={},
        once="",
        mask=b"",
        origin="",
    )
    return bytes(answer(shell, Screen(panels=(words, why), status=error.http_status)).body)
