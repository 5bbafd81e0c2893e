# SPDX-License-Identifier: Apache-2.0
"""Two questions that whoever keeps the machine asks without a key; nothing else is told.

    /healthz   200: the process answers. It looks at nothing.
    /readyz    200, or 503 with the names of what is not ready:
               start     the broker still starts
               stop      it is being stopped
               database  its database cannot be read, or all connections that read it are in use
               log       the log is frozen: reads go on, changes are refused

Who restarts a process looks at the first, who sends requests to it at the second: a frozen log is no reason
to restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.declared import Shown, gives
from broker.api.signed import json_response, services_of
from broker.store.errors import StoreBusyError
from broker.store.tables import log_head

if TYPE_CHECKING:
    from broker.services import Services

__all__ = ["router"]

router = APIRouter()

_Part = Literal["start", "stop", "database", "log"]
_STAGES: Final[dict[str, _Part]] = {"starting": "start", "stopping": "stop"}
_UNAVAILABLE: Final = 503


class Alive(Shown):
    """That the process answers."""

    alive: Literal[True]


class Ready(Shown):
    """Whether requests should be sent here; the names of what is not ready."""

    ready: bool
    not_ready: list[_Part]


@router.get("/healthz")
@gives(Alive, role="anyone")
async def alive() -> Response:
    """That the process answers; nothing is looked at."""
    return json_response({"alive": True})


@router.get("/readyz")
@gives(Ready, role="anyone", status=(200, _UNAVAILABLE))
async def ready(request: Request) -> Response:
    """Whether changes would be taken now: 503 names what is not ready, and nothing more."""
    found = not_ready(services_of(request))
    return json_response(
        {"ready": not found, "not_ready": list(found)}, status=_UNAVAILABLE if found else 200
    )


def not_ready(services: Services) -> tuple[_Part, ...]:
    """Names of what is not ready, in the order of the module."""
    found: list[_Part] = []
    if services.stage in _STAGES:
        found.append(_STAGES[services.stage])
    try:
        with services.store.read() as session:
            session.execute(select(log_head.c.size).limit(1)).first()
        frozen = services.writer.frozen is not None
    except (SQLAlchemyError, StoreBusyError, OSError):
        return (*found, "database")
    return (*found, "log") if frozen else tuple(found)
