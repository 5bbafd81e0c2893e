# SPDX-License-Identifier: Apache-2.0
"""The one ASGI callable behind the public port.

    /v1/fleet/*    the engine's endpoint: nine paths, its own authentication
    /v1/*          404 with an empty body: Flower's other APIs are not here
    /log/*         the static log (`broker.api.log_static`)
    the rest       the API (``/api/v1``), without interactive documentation

What answers is listed in docs/reference/http-api.md; a test compares the list with the routes. This module
never imports torch, and nothing that it imports does.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI

from broker.api import (
    amendments,
    audit,
    auditors,
    catalogue,
    contracts,
    decisions,
    dryrun,
    dsp,
    incidents,
    lifecycle,
    log,
    log_static,
    membership,
    negotiations,
    problems,
    runs,
    witness,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from broker.services import Services

__all__ = ["API", "PublicPort", "api", "build"]

API: Final = "/api/v1"
_FLEET: Final = "/v1/fleet/"
_FLOWER: Final = "/v1"


def api(services: Services) -> FastAPI:
    """The FastAPI application of ``/api/v1``."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.stop()

    app = FastAPI(title="iriai broker", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.services = services
    problems.install(app, services)
    for room in (
        membership,
        catalogue,
        contracts,
        amendments,
        decisions,
        dryrun,
        negotiations,
        lifecycle,
        runs,
        log,
        audit,
        auditors,
        incidents,
        dsp,
        witness,
    ):
        app.include_router(room.router, prefix=API)
    app.include_router(dsp.operator_router, prefix=API)
    app.include_router(log_static.router)
    return app


class PublicPort:
    """Sends each request to the engine, to the API, or nowhere."""

    def __init__(self, app: FastAPI, fleet: ASGIApp) -> None:
        self.app = app
        self._fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        path = scope.get("path", "")
        if "\0" in path:  # nothing has such a name, and PostgreSQL has no text for it
            path, scope = "/", {**scope, "path": "/", "raw_path": b"/"}
        if scope["type"] == "http" and path.startswith(_FLEET):
            await self._fleet(scope, receive, send)
        elif scope["type"] == "http" and (path == _FLOWER or path.startswith(_FLOWER + "/")):
            await _nothing(send)
        elif scope["type"] in {"http", "lifespan"}:
            await self.app(scope, receive, send)
        else:  # a web socket: refused before it is accepted
            await send({"type": "websocket.close", "code": 1008})


async def _nothing(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def build(services: Services) -> PublicPort:
    """The ASGI callable of a broker."""
    return PublicPort(api(services), services.engine.endpoint)
