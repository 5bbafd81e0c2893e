# SPDX-License-Identifier: Apache-2.0
"""What holds for every route alike, around the application: ``HEAD``, and headers of routes that end.

- ``HEAD`` is served as ``GET`` and answered without a body; a signature covers ``HEAD``, the method that was
  asked (`asked_method`). Everything else happens as for ``GET``, entries in the log included.
- Which methods a path has, for ``Allow``: `allowed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path

from broker.api.ending import headers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Edge", "allowed", "asked_method"]

_ASKED: Final = "iriai.method"
_METHOD_NAMES: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def asked_method(request: Request) -> str:
    """The method that the caller sent, and signed."""
    return str(request.scope.get(_ASKED, request.method))


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; everything else passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        if is_head:
            scope = {**scope, "method": "GET", _ASKED: "HEAD"}

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and (more := headers_of(scope["path"])):
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            elif message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, told)


def allowed(app: FastAPI) -> Callable[[str], tuple[str, ...]]:
    """What gives the methods of a path, in a fixed order; the routes are read at its first call."""
    known: list[tuple[Callable[[str], object], frozenset[str]]] = []

    def of(path: str) -> tuple[str, ...]:
        if not known:
            known.extend(
                (compile_path(one.path)[0].match, frozenset(one.methods))
                for one in iter_route_contexts(app.routes)
                if one.path is not None and one.methods
            )
        found = frozenset[str]().union(*(methods for match, methods in known if match(path)))
        found |= {"HEAD"} if "GET" in found else frozenset()
        return tuple(name for name in _METHOD_NAMES if name in found)

    return of
