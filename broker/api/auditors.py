# SPDX-License-Identifier: Apache-2.0
"""Routes by which operators keep the house of audits: auditors, grants, erasures, time stamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from sqlalchemy import select
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.audit import (
    AuditorEnded,
    AuditorMade,
    Auditors,
    Erased,
    GrantEnded,
    GrantMade,
    Grants,
    Stamped,
)
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.signed import OperatorCall, json_response
from broker.auditing.timestamps import check_imprint, keep_reply, text_of
from broker.errors import NotFoundError
from broker.store.tables import log_checkpoint
from policies.encoding import Json, unb64
from policies.identity import parse_key
from policies.limits import ERASURE_ENTRIES, GRANT_DAYS, GRANT_FIELDS, INTEGER_MAX, TSA_REPLY_BYTES

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
_FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
_Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$", max_length=80)]
_Index = Annotated[int, Field(ge=0, le=INTEGER_MAX)]


class AuditorBody(Body):
    """Who audits from now on, and under which key."""

    name: _Name
    key: Annotated[str, StringConstraints(max_length=100)]


class LeaveBody(Body):
    """Why an auditor's access ends, as a reason code."""

    reason: _Reason


class GrantBody(Body):
    """What an auditor may be shown; null for every field, and for no end."""

    grantee: _Name
    fields: Annotated[list[_FieldName], Field(min_length=1, max_length=GRANT_FIELDS)] | None
    from_index: _Index = 0
    days: Annotated[int, Field(ge=1, le=GRANT_DAYS)] | None = None


class ErasureBody(Body):
    """Which confidential fields of which entries are erased, and why."""

    indexes: Annotated[list[_Index], Field(min_length=1, max_length=ERASURE_ENTRIES)]
    fields: Annotated[list[_FieldName], Field(min_length=1, max_length=GRANT_FIELDS)]
    reason: _Reason


class TimestampBody(Body):
    """What an authority answered about the checkpoint of a size, in base64."""

    size: _Index
    reply: Annotated[str, StringConstraints(max_length=2 * TSA_REPLY_BYTES)]


@router.get("/operator/auditors")
@gives(Auditors)
async def auditors(call: OperatorCall) -> Response:
    """Everybody who was enrolled as an auditor."""
    with call.services.store.read() as session:
        return json_response({"auditors": call.services.auditors.list_all(session)})


@router.post("/operator/auditors")
@gives(AuditorMade, status=201, takes=AuditorBody)
async def enrol(call: OperatorCall) -> Response:
    """Enrols an auditor with a key of their own."""
    body = call.read(AuditorBody)
    key = parse_key(body.key)
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.auditors.add(
            session, tx, name=body.name, key=key, operator=call.operator, request=call.digest
        )
        return Answer(status=201, body=done, after=(services.refresh,))

    return await call.change(effect)


@router.post("/operator/auditors/{name}/revoke")
@gives(AuditorEnded, takes=LeaveBody)
async def revoke(call: OperatorCall, name: str) -> Response:
    """Ends an auditor's access at once, and every grant with it; a vote of its witness takes two to end."""
    body = call.read(LeaveBody)
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        services.auditors.revoke(
            session, tx, name=name, reason=body.reason, operator=call.operator, request=call.digest
        )
        ended = services.grants.revoke_all(session, tx, grantee=name, request=call.digest)
        voter = services.witnessing.keys.voter(session, name)
        done: dict[str, Json] = {"name": name, "grants_ended": ended, "votes_on": voter}
        return Answer(body=done, after=(services.refresh,))

    return await call.change(effect)


@router.get("/operator/audit/grants")
@gives(Grants)
async def grants(call: OperatorCall) -> Response:
    """Every grant that there was, and whether it is in force."""
    with call.services.store.read() as session:
        return json_response({"grants": call.services.grants.list_all(session)})


@router.post("/operator/audit/grants")
@gives(GrantMade, status=201, takes=GrantBody)
async def grant(call: OperatorCall) -> Response:
    """Lets an auditor be shown confidential fields."""
    body = call.read(GrantBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.grants.grant(
            session,
            tx,
            grantee=body.grantee,
            fields=None if body.fields is None else frozenset(body.fields),
            from_index=body.from_index,
            days=body.days,
            operator=call.operator,
            request=call.digest,
        )
        return Answer(status=201, body=done)

    return await call.change(effect)


@router.post("/operator/audit/grants/{name}/revoke")
@gives(GrantEnded)
async def end_grant(call: OperatorCall, name: str) -> Response:
    """Ends a grant at once; what was shown stays told."""

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.grants.revoke(
            session, tx, name=name, operator=call.operator, request=call.digest
        )
        return Answer(body=done)

    return await call.change(effect)


@router.post("/operator/audit/erasures")
@gives(Erased, takes=ErasureBody)
async def erase(call: OperatorCall) -> Response:
    """Erases confidential values: on record first, then out of the database and its files.

    Bundles that are being written end before, so that none lacks a value without the entry that says why.
    """
    body = call.read(ErasureBody)
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.erasure.order(
            session,
            tx,
            indexes=body.indexes,
            fields=body.fields,
            reason=body.reason,
            operator=call.operator,
            request=call.digest,
        )
        return Answer(body=done)

    async with services.exports.quiet():
        await services.writer.run(services.erasure.finish)  # one that was cut short
        answer = await call.change(effect)
        await services.writer.run(services.erasure.finish)
    return answer


@router.post("/operator/audit/timestamps")
@gives(Stamped, status=(200, 201), takes=TimestampBody)
async def timestamp(call: OperatorCall) -> Response:
    """Keeps a time stamp over a checkpoint, as an authority outside the pool gave it."""
    body = call.read(TimestampBody)
    reply = unb64(body.reply)
    stamped_ms = check_imprint(reply, text_of(_note(call.services, body.size)))

    def effect(session: Session, tx: LogTx) -> Answer:
        kept = keep_reply(
            session, tx, size=body.size, reply=reply, operator=call.operator, request=call.digest
        )
        return Answer(
            status=201 if kept else 200, body={"size": body.size, "stamped_ms": stamped_ms, "kept": kept}
        )

    return await call.change(effect)


def _note(services: Services, size: int) -> str:
    """The log-signed note of a size that was published."""
    head = services.writer.head()
    if size == head.size:
        return head.note
    with services.store.read() as session:
        note = session.scalar(select(log_checkpoint.c.note).where(log_checkpoint.c.size == size))
    if note is None:
        raise NotFoundError(
            need="the size of a published checkpoint",
            found=str(size),
            remedy="stamp what /log/checkpoint shows",
        )
    return str(note)
