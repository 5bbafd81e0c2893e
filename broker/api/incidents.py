# SPDX-License-Identifier: Apache-2.0
"""Routes of incidents: what the log declares, and an operator's word that it is dealt with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path
from pydantic import StringConstraints
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.audit import IncidentClosed, Incidents
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.paging import Asked, indexed
from broker.api.signed import OperatorCall, json_response
from broker.auditing.incidents import close_incident, since
from policies.limits import INTEGER_MAX

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_Index = Annotated[int, Path(ge=0, le=INTEGER_MAX)]
_Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$", max_length=80)]


class CloseBody(Body):
    """How it was dealt with, as a reason code."""

    reason: _Reason


@router.get("/operator/incidents")
@gives(Incidents)
async def incidents(call: OperatorCall, asked: Asked) -> Response:
    """Every incident that the log declares, and which entry closed it."""
    with call.services.store.read() as session:
        found, more = since(session, limit=asked.limit, after=asked.after("incidents"))
    page = indexed("incidents", found, last=int(str(found[-1]["index"])) if more else None)
    return json_response({"incidents": page.rows, **page.more})


@router.post("/operator/incidents/{index}/close")
@gives(IncidentClosed, takes=CloseBody)
async def close(call: OperatorCall, index: _Index) -> Response:
    """Writes down that an incident is dealt with; whoever is out of a run by it stays out of that run."""
    body = call.read(CloseBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        done = close_incident(
            session, tx, index=index, reason=body.reason, operator=call.operator, request=call.digest
        )
        return Answer(body=done)

    return await call.change(effect)
