# SPDX-License-Identifier: Apache-2.0
"""Routes by which operators look after the pool: invitations, what one person may stop alone, budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path
from pydantic import StringConstraints
from sqlalchemy import select
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.runs import RunMoved
from broker.api.answers.upkeep import Budgets, Frozen, InviteEnded, Invites
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.signed import OperatorCall, json_response
from broker.federation.budgets import budgets_of
from broker.membership.records import console_action
from broker.store.tables import invite
from policies.encoding import digest

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]
_Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$", max_length=80)]


class FreezeBody(Body):
    """Why the log is frozen, as a reason code."""

    reason: _Reason


@router.get("/operator/invites")
@gives(Invites)
async def invites(call: OperatorCall, asked: Asked) -> Response:
    """Every invitation that was made, what became of it, and who made it; never its secret."""
    with call.services.store.read() as session:
        rows = session.execute(select(invite).order_by(invite.c.expires_ms, invite.c.id)).mappings().all()
    now_ms = call.services.clock.now_ms()
    listed = [
        {
            "id": one["id"],
            "state": "expired" if one["state"] == "open" and one["expires_ms"] < now_ms else one["state"],
            "legal_name": one["legal_name"],
            "country": one["country"],
            "group": one["grp"],
            "expires_ms": one["expires_ms"],
            "created_by": one["created_by"],
        }
        for one in rows
    ]
    page = asked.of("invites", listed, key=lambda one: (one["expires_ms"], one["id"]), newest=True)
    return json_response({"invites": page.rows, **page.more})


@router.post("/operator/invites/{name}/revoke")
@gives(InviteEnded)
async def revoke_invite(call: OperatorCall, name: str) -> Response:
    """Takes back an invitation that nobody used."""

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.membership.revoke_invite(
            session, tx, name=name, operator=call.operator, request=call.digest
        )
        return Answer(body=done)

    return await call.change(effect)


@router.post("/operator/runs/{run_id}/pause")
@gives(RunMoved, status=202)
async def pause_run(call: OperatorCall, run_id: str) -> Response:
    """Lets a run ask nobody once its open round is closed, until an operator resumes it."""

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.runs.pause(
            session, tx, run_id=run_id, operator=call.operator, request=call.digest
        )
        return Answer(status=202, body=done)

    return await call.change(effect)


@router.post("/operator/log/freeze")
@gives(Frozen, takes=FreezeBody)
async def freeze(call: OperatorCall) -> Response:
    """Stops the log: nothing is taken or signed until two operators repair or succeed it. Reads go on.

    The order is on record first; an order that a crash cut short is repeated.
    """
    body = call.read(FreezeBody)
    services = call.services
    told = f"by {call.operator.name}: {body.reason}"

    def effect(_session: Session, tx: LogTx) -> Answer:
        said = digest(body.reason.encode("ascii"))
        tx.add(console_action(call.operator, "log.freeze", subject=said, request=call.digest))
        return Answer(body={"frozen": told, "size": tx.size}, after=(stop,))

    def stop() -> None:
        services.writer.freeze(told)

    return await call.change(effect)


@router.get("/operator/budgets/{contract}")
@gives(Budgets)
async def budgets(call: OperatorCall, contract: _Digest) -> Response:
    """What the parties of a contract spent, what open runs hold, and how much is left to each recipe."""
    services = call.services
    found = services.contracts.get(contract)
    with services.store.read() as session:
        now_ms = services.clock.now_ms()
        budgets = budgets_of(session, services.contracts, services.outlooks, found, now_ms=now_ms)
    return json_response(budgets)
