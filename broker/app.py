# SPDX-License-Identifier: Apache-2.0
"""The one ASGI callable behind the public port.

    /console/*     people's screens, /audit/* the auditor's, /models for anybody (`broker.console.frame`)
    /v1/fleet/*    the engine's endpoint: nine paths, its own authentication
    /v1/*          404 with an empty body: Flower's other APIs are not here
    /log/*         the static log (`broker.api.log_static`)
    /healthz       and /readyz: for whoever keeps the machine (`broker.api.health`)
    the rest       the API (``/api/v1``), without interactive documentation

How much an address or a key may ask is looked at first (`broker.admission`).

What answers is listed in docs/reference/http-api.md; a test compares the list with the routes. This module
never imports torch, and nothing that it imports does.
"""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fastapi import Depends, FastAPI

from broker.api import (
    amendments,
    audit,
    auditors,
    catalogue,
    contracts,
    decisions,
    dryrun,
    dsp,
    health,
    incidents,
    lifecycle,
    log,
    log_static,
    membership,
    negotiations,
    people,
    problems,
    proposals,
    runs,
    upkeep,
    witness,
)
from broker.api.document import document, reference_rows
from broker.api.edge import Edge
from broker.api.parameters import only_named
from broker.api.problems import problem_response
from broker.console import frame as console
from broker.console.busy import busy, is_ours
from broker.errors import RequestRateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from broker.admission import Admission
    from broker.services import Services
    from policies.ports import Clock

__all__ = ["API", "ROOMS", "ROOT_ROOMS", "PublicPort", "api", "bare", "build"]

API: Final = "/api/v1"
ROOMS: Final = (
    membership.router,
    people.router,
    proposals.router,
    catalogue.router,
    contracts.router,
    amendments.router,
    decisions.router,
    dryrun.router,
    negotiations.router,
    lifecycle.router,
    runs.router,
    upkeep.router,
    log.router,
    audit.router,
    auditors.router,
    incidents.router,
    dsp.router,
    witness.router,
    dsp.operator_router,
)
"""Below `API`, in this order. A new room is one line here; documents and tests read this list."""
ROOT_ROOMS: Final = (health.router, log_static.router)
"""Beside it."""
_FORM: Final[dict[str, Any]] = {
    "title": "iriai broker",
    "docs_url": None,
    "redoc_url": None,
    "openapi_url": None,
    "redirect_slashes": False,  # a name has one spelling; a redirect would repeat the caller's Host
}
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

    app = FastAPI(lifespan=lifespan, **_FORM)
    app.state.services = services
    problems.install(app, services)
    _take_in(app)
    app.router.routes.extend(console.routes())
    services.reference = _Reference()
    return app


class _Reference:
    """What the API says of itself, made once it is asked for."""

    @functools.cache  # noqa: B019  one for each application, which lives as long as the process
    def document(self) -> dict[str, Any]:
        return document(bare())

    @functools.cache  # noqa: B019
    def rows(self) -> tuple[dict[str, str], ...]:
        return tuple(
            {
                name: value if isinstance(value, str) else ", ".join(value)
                for name, value in asdict(one).items()
            }
            for one in reference_rows(self.document())
        )


def bare() -> FastAPI:
    """The same routes with nothing behind them, for documents."""
    app = FastAPI(**_FORM)
    _take_in(app)
    return app


def _take_in(app: FastAPI) -> None:
    for router in ROOMS:
        app.include_router(router, prefix=API, dependencies=[Depends(only_named)])
    for router in ROOT_ROOMS:
        app.include_router(router)


class PublicPort:
    """Sends each request to the engine, to the API, or nowhere."""

    def __init__(self, app: FastAPI, fleet: ASGIApp) -> None:
        self.app = app
        self._edge = Edge(app)
        self._fleet = fleet
        self._admission: Admission = app.state.services.admission
        self._clock: Clock = app.state.services.clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        path = scope.get("path", "")
        if "\0" in path:  # nothing has such a name, and PostgreSQL has no text for it
            path, scope = "/", {**scope, "path": "/", "raw_path": b"/"}
        if scope["type"] == "http" and path.startswith(_FLEET):
            await self._engine(scope, receive, send)
        elif scope["type"] == "http" and (path == _FLOWER or path.startswith(_FLOWER + "/")):
            await _nothing(send)
        elif scope["type"] == "http":
            await self._known(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._edge(scope, receive, send)
        else:  # a web socket: refused before it is accepted
            await send({"type": "websocket.close", "code": 1008})

    async def _known(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admission.arrived(scope)
        except RequestRateError as error:
            now_ms = self._clock.now_ms()
            refused = busy(scope, error, now_ms) if is_ours(scope["path"]) else problem_response(error)
            await refused(scope, receive, send)
            return
        await self._edge(scope, receive, send)

    async def _engine(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The engine's requests are not counted: what it refuses is. Flower's client asks again after 503."""
        if wait_ms := self._admission.fleet_wait_ms(scope):
            await _nothing(send, status=503, more=((b"retry-after", b"%d" % -(-wait_ms // 1_000)),))
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._admission.fleet_answered(scope, message["status"])
            await send(message)

        await self._fleet(scope, receive, told)


async def _nothing(send: Send, *, status: int = 404, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    headers = [(b"content-length", b"0"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def build(services: Services) -> PublicPort:
    """The ASGI callable of a broker."""
    return PublicPort(api(services), services.engine.endpoint)
