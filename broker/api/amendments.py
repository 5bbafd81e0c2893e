# SPDX-License-Identifier: Apache-2.0
"""Routes of amendments: a contributor asks for a successor of a contract. Who is no party gets 404.

- ``tighten``: proven here, signed by the contributor and the broker, final at once
  (`broker.contracts.tightening`). Its ``contract.signed`` gets its entry whatever becomes of it.
- ``change``: opens a negotiation with the contributor's text; everybody has to sign it
  (`broker.api.negotiations`).

A refusal by the contract that rules is a decision, and stays on record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from broker.apart import apart
from broker.api.answers.contracts import ContractRowTaken, Verdict
from broker.api.bodies import Body
from broker.api.contracts import Annexes, Base64, ContractText  # noqa: TC001  pydantic reads the annotations
from broker.api.declared import gives
from broker.api.once import JSON, Answer
from broker.api.signed import MemberCall, PartyCall  # noqa: TC001  FastAPI reads the annotations
from broker.contracts.rows import row_of
from broker.contracts.tightening import Parts
from broker.errors import RequestInvalidError
from policies.contract.amendment.succession import check_succession
from policies.contract.errors import RefusedError
from policies.encoding import Json, unb64
from policies.limits import PARTIES
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.api.signed import Call
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract

__all__ = ["router"]

router = APIRouter()


class AmendmentBody(Body):
    """A successor, and who signs what: signature and envelope come with a tightening, and only with it."""

    kind: Literal["tighten", "change"]
    contract: ContractText
    recipes: Annotated[list[Base64], Field(max_length=PARTIES)] = Field(default_factory=list)
    annexes: Annexes = Field(default_factory=list)
    prose: Base64 | None = None
    signature: Annotated[str, StringConstraints(max_length=100)] | None = None
    envelope: dict[str, Json] | None = None


@router.post("/contracts/{digest}/amendments")
@gives(ContractRowTaken, status=201, takes=AmendmentBody)
async def amend(call: MemberCall, digest: str) -> Response:
    """A contributor tightens a contract, or asks all parties for a change of it."""
    body = call.read(AmendmentBody)
    old = call.services.contracts.for_caller(digest, call.member)
    await call.services.desk.bring_up_to_date()
    if body.kind == "tighten":
        return await _tighten(call, old, body)
    return await _change(call, old, body)


async def _tighten(call: Call, old: Contract, body: AmendmentBody) -> Response:
    services = call.services
    if body.signature is None or body.envelope is None or body.prose is not None:
        raise RequestInvalidError(
            need="with tighten: signature and envelope, and no prose, which stays as it is",
            found="something else",
            remedy="iriai-node contract amend --kind tighten",
        )
    parts = Parts(
        text=body.contract,
        recipes=[unb64(one) for one in body.recipes],
        annexes=[unb64(one) for one in body.annexes],
        signature=body.signature,
        envelope=Envelope.from_json(body.envelope),
    )
    brought = await apart(lambda: services.tightenings.read(old, call.member, parts))

    def effect(session: Session, tx: LogTx) -> Answer:
        taken = services.tightenings.take(session, tx, brought)
        if taken.refusal is not None:
            return Answer.refused(taken.refusal, *taken.indexes)

        def told() -> None:
            if taken.ended is not None:
                services.desk.changed(taken.ended)
            services.desk.stir()

        new = services.contracts.read_in(session, taken.contract)
        row = row_of(session, services.contracts, new, call.member)
        return Answer(status=201, body=row, indexes=taken.indexes, after=(told,))

    return await call.change(effect)


async def _change(call: Call, old: Contract, body: AmendmentBody) -> Response:
    services = call.services
    if body.signature is not None or body.envelope is not None:
        raise RequestInvalidError(
            need="with change: the text alone; signatures come with the negotiation",
            found="a signature or an envelope",
            remedy="iriai-node contract amend --kind change",
        )
    party = services.contracts.party_of(old, call.member)
    if party.role != "contributor":
        raise RefusedError(
            need="a contributor",
            found=party.role,
            remedy="let a contributor or the operators ask for it",
            clause=old.amendment.clause,
        )
    with services.store.read() as session:
        held = services.contracts.held(session, old.digest)
    proposal = await apart(
        lambda: services.offers.read(
            body.contract,
            recipes=[unb64(one) for one in body.recipes],
            annexes=[unb64(one) for one in body.annexes],
            prose=None if body.prose is None else unb64(body.prose),
            held=held,
        )
    )
    check_succession(old, proposal.contract)

    def effect(session: Session, tx: LogTx) -> Answer:
        refusal = services.negotiations.open(session, tx, proposal, by=party.party)
        if refusal is not None:
            return Answer.refused(refusal)
        text = proposal.contract.digest
        services.acts.offered(session, tx, text, by=party.party, request=call.digest)
        row = row_of(session, services.contracts, proposal.contract, call.member)
        return Answer(status=201, body=row, after=(lambda: services.desk.changed(str(row["negotiation"])),))

    return await call.change(effect)


@router.get("/contracts/{digest}/verdict")
@gives(Verdict)
async def verdict(call: PartyCall, digest: str) -> Response:
    """The verdict that a tightening is no looser, as its bytes; everybody finds it again before use."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        data = call.services.tightenings.verdict(session, contract)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(data, headers=headers, media_type=JSON)
