# SPDX-License-Identifier: Apache-2.0
"""Routes of runs, candidates, votes, releases and models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import StringConstraints
from starlette.responses import FileResponse, Response

from broker.api.bodies import Body
from broker.api.once import JSON, Answer
from broker.api.problems import problem_response
from broker.api.signed import MemberCall, OperatorCall, PartyCall, json_response
from policies.encoding import Json  # noqa: TC001  a field of a model
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.delivery.service import Delivered
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class RunBody(Body):
    """Which recipe of which contract shall run."""

    contract: _Digest
    recipe: Annotated[str, StringConstraints(min_length=1, max_length=80)]


class VoteBody(Body):
    """A member's envelope ``vote.cast``."""

    envelope: dict[str, Json]


@router.post("/operator/runs")
async def open_run(call: OperatorCall) -> Response:
    """Opens a run of a recipe; the round runner takes it from there."""
    body = call.read(RunBody)
    services = call.services
    contract = services.contracts.get(body.contract)
    recipe = services.runs.recipe_of(contract, body.recipe)
    opened: list[str] = []

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.runs.open(
            session, tx, contract=contract, recipe=recipe, operator=call.operator, request=call.digest
        )
        opened.append(done["run"])
        return Answer(status=201, body=done, after=(wake,))

    def wake() -> None:
        if services.runner is not None:
            services.runner.opened(opened[-1])

    return await call.change(effect)


@router.get("/runs")
@router.get("/operator/runs")
async def runs(call: PartyCall) -> Response:
    """Runs of the caller's contracts; all of them for operators."""
    with call.services.store.read() as session:
        return json_response({"runs": call.services.runs.list_for(session, call.known)})


@router.get("/runs/{run_id}")
@router.get("/operator/runs/{run_id}")
async def run(call: PartyCall, run_id: str) -> Response:
    """One run and its rounds."""
    with call.services.store.read() as session:
        return json_response(call.services.runs.show(session, run_id, call.known))


@router.get("/candidates")
async def candidates(call: PartyCall) -> Response:
    """Models that wait, or waited, at the release gate."""
    with call.services.store.read() as session:
        return json_response({"candidates": call.services.delivery.candidates(session, call.known)})


@router.post("/candidates/{digest}/votes")
async def vote(call: MemberCall, digest: str) -> Response:
    """Takes a vote; it counts until the candidate is decided."""
    services = call.services
    ballot = services.delivery.read_vote(
        digest, call.member, Envelope.from_json(call.read(VoteBody).envelope)
    )

    def effect(session: Session, tx: LogTx) -> Answer:
        done, index, refusal = services.delivery.cast(session, tx, member=call.member, ballot=ballot)
        if refusal is not None:
            return Answer.refused(refusal, index)
        return Answer(body=done, indexes=(index,), after=(wake,))

    def wake() -> None:
        if services.runner is not None:
            services.runner.voted(digest)

    return await call.change(effect)


@router.get("/releases")
async def releases(call: PartyCall) -> Response:
    """Released models of the caller's contracts."""
    with call.services.store.read() as session:
        return json_response({"releases": call.services.delivery.releases(session, call.known)})


@router.get("/statements/{digest}")
async def statement(call: PartyCall, digest: str) -> Response:
    """The privacy statement of a release, as it was signed."""
    with call.services.store.read() as session:
        data = call.services.delivery.statement(session, digest, call.known)
    return Response(data, headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.get("/models/{digest}/weights")
async def weights(call: MemberCall, digest: str) -> Response:
    """The bytes of a model, if the contract lets this party have it; the decision is logged either way."""
    services = call.services

    def work(session: Session, tx: LogTx) -> Delivered:
        return services.delivery.deliver(session, tx, name=digest, member=call.member, request=call.digest)

    found, _ = await services.writer.run(work)
    if found.refusal is not None:
        return problem_response(found.refusal)
    path = services.delivery.checked(found.path, digest)
    return FileResponse(
        path,
        media_type="application/octet-stream",
        headers={"Cache-Control": "no-store", "Iriai-Tier": found.tier},
    )
