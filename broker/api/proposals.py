# SPDX-License-Identifier: Apache-2.0
"""Routes of what takes two people: proposed by one operator, approved or refused by another.

An approval is two signatures: the request's, and one over exactly the subject's bytes (DSSE, payload type
`PROPOSAL_TYPE`), which is kept beside the proposal as evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import StringConstraints
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.proposals import ProposalDone, ProposalMade, Proposals, ProposalShown
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.matching import check_match, etag_of
from broker.api.once import Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.signed import OperatorCall, json_response
from broker.auth.proposals import signed_by
from policies.encoding import Json  # noqa: TC001  pydantic reads the annotations

if TYPE_CHECKING:
    from broker.api.signed import Call
    from broker.auth.proposals import Outcome
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["proposed", "router"]

router = APIRouter()
_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Kind = Annotated[str, StringConstraints(pattern=r"^[a-z]+\.[a-z-]+$", max_length=40)]
_Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$", max_length=80)]


class ProposalBody(Body):
    """An act that takes two people, and what it is asked with."""

    kind: _Kind
    payload: dict[str, Json]


class ApprovalBody(Body):
    """The digest of the subject that the operator saw, and their signature over its bytes (base64)."""

    digest: _Digest
    signature: Annotated[str, StringConstraints(max_length=100)]


class RefusalBody(Body):
    """Why, as a reason code."""

    reason: _Reason = "operator-decision"


@router.get("/operator/proposals")
@gives(Proposals)
async def proposals(call: OperatorCall, asked: Asked) -> Response:
    """What was proposed: what waits for a second person, and what became of the rest."""
    services = call.services
    now_ms = services.clock.now_ms()
    with services.store.read() as session:
        found = services.acts.proposals.newest(session)
    page = asked.of("proposals", found, key=lambda one: (one.created_ms, one.id), newest=True)
    return json_response({"proposals": [one.to_json(now_ms) for one in page.rows], **page.more})


@router.get("/operator/proposals/{name}")
@gives(ProposalShown, tagged=True)
async def proposal(call: OperatorCall, name: str) -> Response:
    """One proposal; its tag changes with its state and with who stands behind it."""
    services = call.services
    with services.store.read() as session:
        found = services.acts.proposals.find(session, name)
    shown = found.to_json(services.clock.now_ms())
    return json_response(shown, etag=_tag(shown))


def _tag(shown: dict[str, Json]) -> str:
    return etag_of({name: shown[name] for name in ("id", "state", "digest", "behind")})


@router.post("/operator/proposals")
@gives(ProposalMade, status=202, takes=ProposalBody)
async def propose(call: OperatorCall) -> Response:
    """Proposes an act; another person has to approve it before anything happens."""
    body = call.read(ProposalBody)
    return await proposed(call, body.kind, body.payload)


async def proposed(call: Call, kind: str, payload: dict[str, Json]) -> Response:
    """The answer of a request that proposes something."""

    def effect(session: Session, tx: LogTx) -> Answer:
        made = call.services.acts.propose(session, tx, kind, payload, call.operator, call.digest)
        return Answer(status=202, body={"proposal": made.proposal.to_json(tx.now_ms)}, after=made.after)

    return await call.change(effect)


@router.post("/operator/proposals/{name}/approve")
@gives(ProposalDone, takes=ApprovalBody, refuses=(410,))
async def approve(call: OperatorCall, name: str) -> Response:
    """Approves exactly what the digest names; with two people it happens, in the same transaction."""
    body = call.read(ApprovalBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.acts.approve(
            session,
            tx,
            name,
            call.operator,
            call.digest,
            digest=body.digest,
            evidence=signed_by(call.operator.key, body.signature),
        )
        return _answer(done, tx.now_ms)

    return await call.change(effect)


@router.post("/operator/proposals/{name}/refuse")
@gives(ProposalDone, takes=RefusalBody, refuses=(410,), matches="may")
async def refuse(call: OperatorCall, name: str) -> Response:
    """Ends a proposal; also by who made it."""
    body = call.read(RefusalBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        check_match(call, _tag(call.services.acts.proposals.find(session, name).to_json(tx.now_ms)))
        done = call.services.acts.refuse(session, tx, name, call.operator, call.digest, reason=body.reason)
        return _answer(done, tx.now_ms)

    return await call.change(effect)


def _answer(done: Outcome, now_ms: int) -> Answer:
    if done.refusal is not None:
        return Answer.refused(done.refusal)
    result = None if done.result is None else dict(done.result)
    return Answer(body={"proposal": done.proposal.to_json(now_ms), "result": result}, after=done.after)
