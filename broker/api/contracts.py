# SPDX-License-Identifier: Apache-2.0
"""Routes of contracts: offers by operators, bytes and signatures for parties. Who is no party gets 404."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from broker.api.bodies import Body
from broker.api.once import JSON, Answer
from broker.api.signed import MemberCall, OperatorCall, PartyCall, json_response
from policies.encoding import Json, unb64
from policies.limits import BODY_BYTES_JSON, PARTIES
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_Base64 = Annotated[str, StringConstraints(max_length=BODY_BYTES_JSON)]


class OfferBody(Body):
    """A contract as YAML or canonical JSON text, and the bytes of its recipes in base64."""

    contract: Annotated[str, StringConstraints(min_length=1, max_length=BODY_BYTES_JSON)]
    recipes: Annotated[list[_Base64], Field(max_length=PARTIES)]


class SignBody(Body):
    """A party's signature over the contract, and its envelope ``contract.signed`` for the log."""

    signature: Annotated[str, StringConstraints(max_length=100)]
    envelope: dict[str, Json]


def _exact(data: bytes) -> Response:
    """Bytes that were hashed or signed, as they are."""
    return Response(data, headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.post("/operator/contracts")
async def offer(call: OperatorCall) -> Response:
    """Offers a contract to its parties."""
    body = call.read(OfferBody)
    contract, annexes = call.services.offers.read_offer(body.contract, [unb64(one) for one in body.recipes])

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.offers.offer(
            session,
            tx,
            contract=contract,
            annexes=annexes,
            operator=call.operator,
            request=call.digest,
        )
        return Answer(status=201, body=done)

    return await call.change(effect)


@router.get("/contracts")
async def contracts(call: PartyCall) -> Response:
    """The caller's contracts; all of them for operators."""
    with call.services.store.read() as session:
        return json_response({"contracts": call.services.contracts.list_for(session, call.known)})


@router.get("/contracts/{digest}")
async def document(call: PartyCall, digest: str) -> Response:
    """The contract's canonical bytes."""
    return _exact(call.services.contracts.for_caller(digest, call.known).canonical)


@router.get("/contracts/{digest}/envelope")
async def envelope(call: PartyCall, digest: str) -> Response:
    """The contract with the signatures so far (DSSE)."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        return _exact(call.services.contracts.envelope(session, contract).to_bytes())


@router.get("/contracts/{digest}/annexes/{sha256}")
async def annex(call: PartyCall, digest: str, sha256: str) -> Response:
    """The bytes of a recipe that travels with the contract."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        return _exact(call.services.contracts.annex(session, contract, sha256))


@router.post("/contracts/{digest}/signatures")
async def sign(call: MemberCall, digest: str) -> Response:
    """Takes a contributor's signature; the last one makes the contract final."""
    body = call.read(SignBody)
    offers = call.services.offers
    contract = call.services.contracts.for_caller(digest, call.member)
    event = offers.read_signature(contract, call.member, body.signature, Envelope.from_json(body.envelope))

    def effect(session: Session, tx: LogTx) -> Answer:
        done, index, refusal = offers.sign(
            session, tx, contract=contract, member=call.member, signature=body.signature, event=event
        )
        if refusal is not None:
            return Answer.refused(refusal, index)
        return Answer(body=done, indexes=(index,))

    return await call.change(effect)
