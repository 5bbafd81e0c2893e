# SPDX-License-Identifier: Apache-2.0
"""Routes of negotiations: a lane per contributor, signed messages in, held polls out. No party, no answer.

- `GET` answers at once if there is a message that the caller does not have, or the round is over; else it
  waits for one, at most `NEGOTIATION_POLL_S`.
- `POST` takes one signed message. A refusal that leaves something behind (an entry of the sender's
  chain, a round that ended, an incident) is stored and answered with receipts; any other changes nothing
  at all.
- Who is overtaken by a counter-offer is told the open text's digest, and the diff to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.apart import apart
from broker.api.answers.contracts import Negotiation, NegotiationTaken
from broker.api.bodies import Body
from broker.api.contracts import Annexes, Base64, ContractText  # noqa: TC001  pydantic reads the annotations
from broker.api.declared import gives
from broker.api.matching import check_match, etag_of
from broker.api.once import Answer
from broker.api.signed import Call, MemberCall, OperatorCall, PartyCall, json_response
from broker.contracts.arrivals import Parts
from broker.contracts.pools import find_pool
from broker.contracts.views import changes_between, view_of
from broker.membership.records import console_action
from policies.contract.errors import OvertakenError
from policies.contract.negotiation.lanes import check_reason
from policies.contract.negotiation.pool import Ended
from policies.encoding import Json, unb64
from policies.identity import key_text
from policies.limits import INTEGER_MAX, NEGOTIATION_POLL_S, PARTIES
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.contracts.negotiations import Done
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_Seq = Annotated[int, Field(ge=0, le=INTEGER_MAX)]


class MessageBody(Body):
    """A lane message (DSSE), and what its type needs: see `broker.contracts.arrivals.Parts`."""

    message: dict[str, Json]
    after: _Seq = 0
    signature: Annotated[str, StringConstraints(max_length=100)] | None = None
    envelope: dict[str, Json] | None = None
    contract: ContractText | None = None
    recipes: Annotated[list[Base64], Field(max_length=PARTIES)] = Field(default_factory=list)
    annexes: Annexes = Field(default_factory=list)
    prose: Base64 | None = None


class EndBody(Body):
    """Why the broker ends a round."""

    code: str
    clause: str | None = None
    text: str | None = None


@router.get("/negotiations/{name}")
@gives(Negotiation, tagged=True)
async def negotiation(
    call: PartyCall,
    name: str,
    after: Annotated[int, Query(ge=0, le=INTEGER_MAX)] = 0,
    wait_s: Annotated[int, Query(ge=0, le=NEGOTIATION_POLL_S)] = 0,
) -> Response:
    """The negotiation as the caller sees it; held until there is something new.

    Its tag is that of where the round stands, whatever the caller has read of it.
    """
    view = await call.services.desk.poll(name, call.known, after=after, wait_s=wait_s)
    return json_response(view, etag=_tag(view))


def _tag(view: dict[str, Json]) -> str:
    """Of where the round stands: its text, its lanes, who approved."""
    return etag_of({name: view[name] for name in ("id", "round", "state", "digest", "lanes", "approved")})


@router.post("/negotiations/{name}/messages")
@gives(NegotiationTaken, takes=MessageBody)
async def message(call: MemberCall, name: str) -> Response:
    """Takes one message of a contributor; the last signature makes the contract final."""
    body, services = call.read(MessageBody), call.services
    arrived = await apart(lambda: services.arrivals.read(call.member, name, _parts(body)))

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.negotiations.receive(session, tx, arrived)
        after = (lambda: services.desk.changed(name),)
        if done.refusal is None:
            view = view_of(session, services.contracts, done.pool, call.member, after=body.after)
            return Answer(body=view, indexes=done.indexes, after=after)
        if not done.lasting:
            raise done.refusal
        refused = Answer.refused(done.refusal, *done.indexes)
        return Answer(
            status=refused.status,
            body={**refused.body, **_overtaken(session, call, done)},
            media_type=refused.media_type,
            indexes=refused.indexes,
            after=after,
        )

    return await call.change(effect)


def _parts(body: MessageBody) -> Parts:
    return Parts(
        message=Envelope.from_json(body.message),
        signature=body.signature,
        envelope=None if body.envelope is None else Envelope.from_json(body.envelope),
        text=body.contract,
        recipes=[unb64(one) for one in body.recipes],
        annexes=[unb64(one) for one in body.annexes],
        prose=None if body.prose is None else unb64(body.prose),
    )


def _overtaken(session: Session, call: Call, done: Done) -> dict[str, Json]:
    """The open text and the way to it, for a contributor of it whose lane ended by a counter-offer."""
    if not isinstance(done.refusal, OvertakenError):
        return {}
    lanes = done.pool.lanes_of_key(key_text(call.member.key))
    if lanes[-1] not in done.pool.lanes:
        return {}
    former = [one.digest for one in lanes[:-1]]
    open_text = done.pool.draft.digest
    changes = changes_between(session, call.services.contracts, former[-1] if former else None, open_text)
    return {"digest": open_text, "round": done.pool.round, "diff": changes}


@router.post("/operator/negotiations/{name}/terminate")
@gives(NegotiationTaken, takes=EndBody, matches="may")
async def end(call: OperatorCall, name: str) -> Response:
    """Ends the round for all."""
    body, services = call.read(EndBody), call.services
    check_reason(body.code, body.clause, body.text)
    ended = Ended(code=body.code, clause=body.clause, text=body.text)

    def effect(session: Session, tx: LogTx) -> Answer:
        pool = find_pool(session, name)
        check_match(call, _tag(view_of(session, services.contracts, pool, call.operator, after=0)))
        subject = pool.draft.digest
        tx.add(console_action(call.operator, "contract.withdraw", subject=subject, request=call.digest))
        pool = services.negotiations.withdraw(session, tx, name, ended)
        view = view_of(session, services.contracts, pool, call.operator, after=0)
        return Answer(body=view, after=(lambda: services.desk.changed(name),))

    return await call.change(effect)
