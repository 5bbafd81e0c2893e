# SPDX-License-Identifier: Apache-2.0
"""Routes of runs, candidates, votes, releases and models."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import StringConstraints
from starlette.responses import FileResponse, Response

from broker.api.answers.runs import (
    Candidates,
    Releases,
    Report,
    RunMoved,
    RunOpened,
    Runs,
    RunShown,
    Statement,
    VoteTaken,
)
from broker.api.bodies import Body
from broker.api.declared import BINARY, gives
from broker.api.once import JSON, Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.problems import problem_response
from broker.api.signed import MemberCall, OperatorCall, PartyCall, json_response
from broker.federation.affording import check_affordable, rounds_left
from broker.log.errors import LogFrozenError
from policies.contract.errors import RefusedError
from policies.encoding import Json  # noqa: TC001  a field of a model
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.contracts.queries import Asked as View
    from broker.delivery.service import Delivered
    from broker.log import LogTx
    from broker.services import Services
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
@gives(RunOpened, status=201, takes=RunBody)
async def open_run(call: OperatorCall) -> Response:
    """Opens a run of a recipe that the caps can hold; the round runner takes it from there."""
    body = call.read(RunBody)
    services = call.services
    contract = services.contracts.get(body.contract)
    opened: list[str] = []

    def effect(session: Session, tx: LogTx) -> Answer:
        recipe = services.runs.recipe_of(contract, body.recipe)
        left = rounds_left(session, contract, recipe)
        check_affordable(session, services.contracts, contract, recipe)
        done = services.runs.open(
            session, tx, contract=contract, recipe=recipe, operator=call.operator, request=call.digest
        )
        opened.append(done["run"])
        return Answer(status=201, body=done | {"rounds_left": left}, after=(wake,))

    def wake() -> None:
        if services.runner is not None:
            services.runner.opened(opened[-1])

    return await call.change(effect)


@router.post("/operator/runs/{run_id}/stop")
@gives(RunMoved, status=202)
async def stop_run(call: OperatorCall, run_id: str) -> Response:
    """Ends a run once its open round is closed; the round runner closes it."""
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.runs.stop(session, tx, run_id=run_id, operator=call.operator, request=call.digest)
        return Answer(status=202, body=done)

    return await call.change(effect)


@router.post("/operator/runs/{run_id}/resume")
@gives(RunMoved, status=202)
async def resume_run(call: OperatorCall, run_id: str) -> Response:
    """Lets a run go on that waits because silos rejected its models; an operator answers for it."""
    services = call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        done = services.runs.resume(session, tx, run_id=run_id, operator=call.operator, request=call.digest)
        return Answer(status=202, body=done)

    return await call.change(effect)


@router.get("/runs")
@router.get("/operator/runs")
@gives(Runs)
async def runs(call: PartyCall, asked: Asked) -> Response:
    """Runs of the caller's contracts; all of them for operators. Views that a contract refuses are named."""
    services = call.services
    with services.store.read() as session:
        rows = services.runs.views.rows_of(session, call.known)
        page = asked.of("runs", rows, key=lambda one: (one["opened_ms"], one["run_id"]), newest=True)
        shown = services.runs.views.shown(session, page.rows, call.known)
        news = [view for one in shown for view in one.asked if services.queries.is_news(session, view)]
    await _record(services, news)
    refused: list[Json] = [
        {"run": one.asked[0].run, "contract": one.asked[0].judgement.contract, **_against(one.asked[0])}
        for one in shown
        if one.body is None
    ]
    answer: dict[str, Json] = {"runs": [one.body for one in shown if one.body is not None]}
    return json_response(answer | ({"refused": refused} if refused else {}) | page.more)


@router.get("/runs/{run_id}")
@router.get("/operator/runs/{run_id}")
@gives(RunShown)
async def run(call: PartyCall, run_id: str) -> Response:
    """One run and its rounds, as far as its contract lets the caller see them."""
    services = call.services
    with services.store.read() as session:
        shown = services.runs.views.show(session, run_id, call.known)
        news = [asked for asked in shown.asked if services.queries.is_news(session, asked)]
    await _record(services, news)
    if shown.body is None:
        shown.asked[0].judgement.decision.require()
    return json_response(shown.body)


async def _record(services: Services, news: Sequence[View]) -> None:
    """Logs decisions about views that are news; a frozen log takes none, and reads go on."""

    def work(session: Session, tx: LogTx) -> None:
        for one in news:
            services.queries.record(session, tx, one)

    if news:
        with contextlib.suppress(LogFrozenError):
            await services.writer.run(work)


def _against(asked: View) -> dict[str, Json]:
    """Code and clause by which a view was refused."""
    try:
        asked.judgement.decision.require()
    except RefusedError as error:
        return {"code": error.code, "clause": error.clause}
    return {"code": RefusedError.code, "clause": None}


@router.get("/candidates")
@gives(Candidates)
async def candidates(call: PartyCall, asked: Asked) -> Response:
    """Models that wait, or waited, at the release gate."""
    delivery = call.services.delivery
    with call.services.store.read() as session:
        rows = delivery.candidate_rows(session, call.known)
        page = asked.of(
            "candidates", rows, key=lambda one: (one.opened_ms, one.run_id, one.digest), newest=True
        )
        shown = delivery.candidates(session, call.known, page.rows)
    return json_response({"candidates": shown, **page.more})


@router.post("/candidates/{digest}/votes")
@gives(VoteTaken, takes=VoteBody)
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
@gives(Releases)
async def releases(call: PartyCall, asked: Asked) -> Response:
    """Released models of the caller's contracts."""
    delivery = call.services.delivery
    with call.services.store.read() as session:
        rows = delivery.release_rows(session, call.known)
        page = asked.of("releases", rows, key=lambda one: (one.at_ms, one.model, one.tier), newest=True)
        shown = delivery.releases(session, call.known, page.rows)
    return json_response({"releases": shown, **page.more})


@router.get("/statements/{digest}")
@gives(Statement)
async def statement(call: PartyCall, digest: str) -> Response:
    """The privacy statement of a release, as it was signed."""
    with call.services.store.read() as session:
        data = call.services.delivery.statement(session, digest, call.known)
    return Response(data, headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.get("/reports/{digest}")
@gives(Report)
async def report(call: PartyCall, digest: str) -> Response:
    """The evaluation report of a candidate: who judged it, and what the tests for leaks found."""
    with call.services.store.read() as session:
        data = call.services.delivery.report(session, digest, call.known)
    return Response(data, headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.get("/models/{digest}/weights")
@gives(media=BINARY)
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
