# SPDX-License-Identifier: Apache-2.0
"""Routes of contracts: offers by operators, bytes and signatures for parties. Who is no party gets 404.

How an offer becomes a contract is said in `broker.api.negotiations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from broker.apart import apart
from broker.api.answers.contracts import ContractDocument, ContractRowTaken, Contracts
from broker.api.answers.values import Dsse
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import JSON, Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.signed import OperatorCall, PartyCall, json_response
from broker.contracts.rows import places_for, row_of
from broker.membership.records import console_action
from policies.encoding import unb64
from policies.limits import BODY_BYTES_JSON, OFFER_ANNEXES, OFFER_BODY_BYTES, PARTIES

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["Annexes", "Base64", "ContractText", "router"]

router = APIRouter()
Base64 = Annotated[str, StringConstraints(max_length=BODY_BYTES_JSON)]
ContractText = Annotated[str, StringConstraints(min_length=1, max_length=BODY_BYTES_JSON)]


Annexes = Annotated[
    list[Annotated[str, StringConstraints(max_length=OFFER_BODY_BYTES)]], Field(max_length=OFFER_ANNEXES)
]
"""Seed sets, consents and start models, base64."""


class OfferBody(Body):
    """A contract as YAML or canonical JSON text, and the bytes of what it names by digest."""

    contract: ContractText
    recipes: Annotated[list[Base64], Field(max_length=PARTIES)]
    annexes: Annexes = Field(default_factory=list)
    prose: Base64 | None = None


def _exact(data: bytes, media_type: str = JSON) -> Response:
    """Bytes that were hashed or signed, as they are."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(data, headers=headers, media_type=media_type)


@router.post("/operator/contracts")
@gives(ContractRowTaken, status=201, takes=OfferBody)
async def offer(call: OperatorCall) -> Response:
    """Puts a contract to its parties: opens its negotiation."""
    body, services = call.read(OfferBody), call.services
    proposal = await apart(
        lambda: services.offers.read(
            body.contract,
            recipes=[unb64(one) for one in body.recipes],
            annexes=[unb64(one) for one in body.annexes],
            prose=None if body.prose is None else unb64(body.prose),
            full=True,
        )
    )
    contract = proposal.contract

    def effect(session: Session, tx: LogTx) -> Answer:
        tx.add(console_action(call.operator, "contract.offer", subject=contract.digest, request=call.digest))
        refusal = services.negotiations.open(session, tx, proposal)
        if refusal is not None:
            return Answer.refused(refusal)
        services.acts.offered(session, tx, contract.digest, by=call.operator, request=call.digest)
        row = row_of(session, services.contracts, contract, call.operator)
        name = str(row["negotiation"])
        return Answer(status=201, body=row, after=(lambda: services.desk.changed(name),))

    return await call.change(effect)


@router.get("/contracts")
@gives(Contracts)
async def contracts(call: PartyCall, asked: Asked) -> Response:
    """The caller's contracts; all of them for operators."""
    known = call.services.contracts
    await call.services.desk.bring_up_to_date()
    with call.services.store.read() as session:
        places = places_for(session, known, call.known)
        page = asked.of("contracts", places, key=lambda one: one)
        rows = [row_of(session, known, known.read_in(session, name), call.known) for _, name in page.rows]
    return json_response({"contracts": rows, **page.more})


@router.get("/contracts/{digest}")
@gives(ContractDocument)
async def document(call: PartyCall, digest: str) -> Response:
    """The contract's canonical bytes."""
    return _exact(call.services.contracts.for_caller(digest, call.known).canonical)


@router.get("/contracts/{digest}/envelope")
@gives(Dsse)
async def envelope(call: PartyCall, digest: str) -> Response:
    """The contract with the signatures that the caller may see (DSSE)."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        found = call.services.contracts.envelope_for(session, contract, call.known)
    return _exact(found.to_bytes())


@router.get("/contracts/{digest}/annexes/{sha256}")
@gives(media="*/*")
async def annex(call: PartyCall, digest: str, sha256: str) -> Response:
    """The bytes of a recipe, seed set, consent or start model that travels with the contract."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        return _exact(call.services.contracts.annex(session, contract, sha256))


@router.get("/contracts/{digest}/prose")
@gives(media="*/*")
async def prose(call: PartyCall, digest: str) -> Response:
    """The text for people that the contract binds, if it was sent along."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        data = call.services.contracts.prose(session, contract)
    return _exact(data, "application/octet-stream" if contract.prose is None else contract.prose.media_type)
