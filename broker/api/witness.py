# SPDX-License-Identifier: Apache-2.0
"""Routes of the log's witnesses: their keys, the head to cosign, what they signed, what they complain of.

- A key is registered by a member's node for its own organisation, by an auditor for itself, or by an operator
  on an auditor's behalf; the statement inside is signed by the owner's key in every case. An auditor's waits
  for two people: an operator who brings it proposes that (`broker.acts.witnesses`).
- Head, cosignatures and complaints need no signed request: notes and lines authenticate themselves. They are
  bounded, verified before anything is stored, and tell nothing that is not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Query
from pydantic import StringConstraints
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.acts.witnesses import propose_vote
from broker.api.answers.log import Complained, Cosigned, HeadShown, KeyRegistered, WitnessKeys
from broker.api.bodies import Body, read_body, read_raw
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.signed import Call, ReaderCall, json_response, services_of
from broker.errors import RequestInvalidError
from broker.membership.directory import Auditor, Member, Operator
from broker.membership.records import console_action
from broker.witnessing.keys import Owner, auditor_owner
from policies.encoding import Json, digest, digest_of, parse
from policies.limits import INTEGER_MAX, WITNESS_LINES, WITNESS_POLL_S
from policies.log.checkpoint import NOTE_BYTES
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()

_LINE_CHARS: Final = 4_096  # an ML-DSA-44 signature has 3,236 characters in base64
_NOTES: Final = 2
_Line = Annotated[str, StringConstraints(max_length=_LINE_CHARS)]
_Note = Annotated[str, StringConstraints(max_length=NOTE_BYTES)]
_Hash = Annotated[str, StringConstraints(max_length=44)]
_Size = Annotated[int, Query(ge=0, le=INTEGER_MAX)]


class KeyBody(Body):
    """The statement that ties a witness key to its owner: a DSSE envelope."""

    statement: dict[str, Json]


class CosignaturesBody(Body):
    """Signature lines over the note of one size."""

    size: int
    lines: list[_Line]


class ComplaintBody(Body):
    """Notes that this log's key signed and that its history does not hold; the proof is for people."""

    notes: list[_Note]
    proof: list[_Hash] | None = None


@router.post("/witness/keys")
@gives(KeyRegistered, takes=KeyBody)
async def register(call: ReaderCall) -> Response:
    """Takes a statement about a witness key; the same again changes nothing. An auditor's waits for two."""
    envelope = Envelope.from_json(call.read(KeyBody).statement)
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        owner = _owner(call, session, envelope)
        news = services.witnessing.keys.register(session, tx, envelope, owner)
        if news and isinstance(call.caller, Operator):
            subject, once = digest(envelope.payload), digest_of([call.digest, "auditor.witness"])
            tx.add(console_action(call.caller, "auditor.witness", subject=subject, request=once))
        waits = services.witnessing.keys.waits(session, owner.name)
        proposal = None
        if waits is not None and isinstance(call.caller, Operator):
            found = propose_vote(services, session, tx, waits, operator=call.caller, request=call.digest)
            proposal = found.to_json(tx.now_ms)
        body: dict[str, Json] = {"owner": owner.name, "registered": True, "news": news}
        body |= {"votes": waits is None, "proposal": proposal}
        return Answer(body=body, after=(services.witnessing.load,))

    return await call.change(effect)


def _owner(call: Call, session: Session, envelope: Envelope) -> Owner:
    """Whose key it is: the caller's own, or the auditor's that the statement names.

    Raises:
        RequestInvalidError: An operator brings the statement of nobody who is enrolled as an auditor.
    """
    if isinstance(call.caller, Member):
        return Owner.of(call.caller)
    name = call.caller.name if isinstance(call.caller, Auditor) else _named(envelope)
    owner = auditor_owner(session, name)
    if owner is None:
        raise RequestInvalidError(
            need="the statement of an auditor who is enrolled here",
            found=ascii(name)[1:-1][:60],
            remedy="iriai-broker auditor add NAME --auditor-key ed25519:…; nodes register themselves",
        )
    return owner


def _named(envelope: Envelope) -> str:
    """What an unverified statement says about its owner; the owner's key decides afterwards."""
    payload = parse(envelope.payload)
    return str(payload.get("org", "")) if isinstance(payload, dict) else ""


@router.get("/witness/keys")
@gives(WitnessKeys)
async def keys(call: ReaderCall) -> Response:
    """Every statement in force: whoever reads them believes a key only through a key that it knows."""
    witnessing = call.services.witnessing
    found: list[Json] = [
        {
            "owner": one.owner,
            "vkey": one.key.text(),
            "statement": Envelope.from_bytes(one.statement).to_json(),
        }
        for one in witnessing.keys.everybody()
    ]
    return json_response({"witnesses": found, "policy": witnessing.keys.text})


@router.get("/log/head")
@gives(HeadShown, role="anyone")
async def head(
    request: Request,
    after: _Size = 0,
    witnessed: _Size = INTEGER_MAX,
    wait: Annotated[int, Query(ge=0, le=WITNESS_POLL_S)] = 0,
) -> Response:
    """The head to cosign, and the newest one with a quorum; held until one of them is larger than these."""
    found = await services_of(request).witnessing.poll(after=after, witnessed=witnessed, wait_s=wait)
    return json_response(found)


@router.post("/witness/cosignatures")
@gives(Cosigned, takes=CosignaturesBody, role="anyone", refuses=(403, 404, 409))
async def cosignatures(request: Request) -> Response:
    """Verifies cosignatures of a head that was offered, and stores them."""
    body = read_body(await read_raw(request, most=WITNESS_LINES * _LINE_CHARS), CosignaturesBody)
    if not 0 < len(body.lines) <= WITNESS_LINES:
        raise _count("lines", WITNESS_LINES, len(body.lines))
    return json_response(await services_of(request).witnessing.take(body.size, body.lines))


@router.post("/witness/complaints")
@gives(Complained, takes=ComplaintBody, role="anyone", refuses=(409,))
async def complaints(request: Request) -> Response:
    """Takes notes of this log that its history does not hold: it is frozen then, and an incident."""
    body = read_body(await read_raw(request, most=(_NOTES + 1) * NOTE_BYTES), ComplaintBody)
    if not 0 < len(body.notes) <= _NOTES:
        raise _count("notes", _NOTES, len(body.notes))
    return json_response(await services_of(request).witnessing.complain(body.notes))


def _count(what: str, most: int, found: int) -> RequestInvalidError:
    return RequestInvalidError(
        need=f"1 to {most} {what}", found=str(found), remedy="send what there is, in several requests"
    )
