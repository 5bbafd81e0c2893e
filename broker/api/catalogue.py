# SPDX-License-Identifier: Apache-2.0
"""Routes of the catalogue: signed descriptors in, descriptors and what they fit out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.bodies import read_document
from broker.api.once import Answer
from broker.api.signed import MemberCall, PartyCall, json_response
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()


@router.post("/catalogue/descriptors")
async def publish(call: MemberCall) -> Response:
    """Publishes the descriptor of one data set; a newer one replaces it."""
    found = call.services.catalogue.read(call.member, Envelope.from_json(read_document(call.body)))

    def effect(session: Session, _tx: LogTx) -> Answer:
        return Answer(body=call.services.catalogue.publish(session, call.member, found))

    return await call.change(effect)


@router.get("/catalogue")
async def catalogue(call: PartyCall) -> Response:
    """Every data set: one's own in full, of others which recipes they fit; in full for operators."""
    with call.services.store.read() as session:
        return json_response({"datasets": call.services.catalogue.list_for(session, call.known)})
