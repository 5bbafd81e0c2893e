# SPDX-License-Identifier: Apache-2.0
"""Routes of a contract's life: notices of its parties, the broker's own halt. Who is no party gets 404."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from broker.api.answers.contracts import Lifecycle, Notices, NoticeTaken
from broker.api.answers.values import Dsse
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.matching import check_match, etag_of
from broker.api.once import JSON, Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.signed import MemberCall, OperatorCall, PartyCall, json_response
from broker.federation.earlier import add_earlier, read_earlier
from policies.contract.notices import REASON_CODE
from policies.encoding import Json  # noqa: TC001  a field of a model
from policies.limits import NOTICE_TEXT_CHARS, REPLY_ENVELOPES
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()


class NoticeBody(Body):
    """A signed notice, and the contributor's log envelope behind its entry; null where there is none.

    ``earlier``: the node's envelopes with smaller numbers that have no receipt yet, oldest first.
    """

    notice: dict[str, Json]
    envelope: dict[str, Json] | None
    earlier: Annotated[list[dict[str, Json]], Field(max_length=REPLY_ENVELOPES)] = Field(default_factory=list)


class HaltBody(Body):
    """Why the broker stops a contract."""

    code: Annotated[str, StringConstraints(pattern=f"^{REASON_CODE}$", max_length=200)]
    clause: Annotated[str, StringConstraints(max_length=60)] | None
    text: Annotated[str, StringConstraints(max_length=NOTICE_TEXT_CHARS)] | None


@router.post("/contracts/{digest}/notices")
@gives(NoticeTaken, takes=NoticeBody)
async def notice(call: MemberCall, digest: str) -> Response:
    """Takes a party's notice: halt, resume, exit, key rotation, attestation, admission."""
    body, services = call.read(NoticeBody), call.services
    contract = services.contracts.for_caller(digest, call.member)
    brought = services.lives.read(
        contract,
        call.member,
        Envelope.from_json(body.notice),
        None if body.envelope is None else Envelope.from_json(body.envelope),
    )

    earlier = read_earlier(call.member, [Envelope.from_json(one) for one in body.earlier])

    def effect(session: Session, tx: LogTx) -> Answer:
        if earlier:
            add_earlier(
                session,
                tx,
                earlier,
                contract=contract,
                party=services.contracts.party_of(contract, call.member),
                member=call.member,
                books=services.books(),
            )
        taken = services.lives.take(session, tx, brought)

        def told() -> None:
            if taken.org is not None:
                services.rekeyed(taken.org)
            services.lives_changed(contract)

        if taken.refusal is not None:
            return Answer.refused(taken.refusal, *taken.indexes)
        return Answer(body=taken.view, indexes=taken.indexes, after=(told,))

    return await call.change(effect)


@router.get("/contracts/{digest}/lifecycle")
@gives(Lifecycle, tagged=True)
async def lifecycle(call: PartyCall, digest: str) -> Response:
    """Where a contract stands, and every notice about it. Whoever asks first after the term has it logged."""
    services = call.services
    contract = services.contracts.for_caller(digest, call.known)
    await services.desk.bring_up_to_date()
    await services.log_ends()
    with services.store.read() as session:
        view = services.lives.view(session, contract)
    return json_response(view, etag=etag_of(view))


@router.get("/contracts/{digest}/notices")
@gives(Notices)
async def notices(call: PartyCall, digest: str, asked: Asked) -> Response:
    """Notices about a contract, oldest first."""
    services = call.services
    contract = services.contracts.for_caller(digest, call.known)
    with services.store.read() as session:
        said = services.lives.view(session, contract)["notices"]
    page = asked.of("notices", said, key=lambda one: (str(one["at"]), str(one["party"]), int(one["seq"])))
    return json_response({"notices": page.rows, **page.more})


@router.get("/contracts/{digest}/notices/{sha256}")
@gives(Dsse)
async def notice_bytes(call: PartyCall, digest: str, sha256: str) -> Response:
    """A notice as its party signed it (DSSE)."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        data = call.services.lives.notice_bytes(session, contract, sha256)
    return Response(data, headers={"Cache-Control": "no-store"}, media_type=JSON)


@router.post("/operator/contracts/{digest}/halt")
@gives(NoticeTaken, status=201, takes=HaltBody, matches="may")
async def halt(call: OperatorCall, digest: str) -> Response:
    """Stops a contract by a notice that the broker signs."""
    body, services = call.read(HaltBody), call.services
    contract = services.contracts.get(digest)

    def effect(session: Session, tx: LogTx) -> Answer:
        check_match(call, etag_of(services.lives.view(session, contract)))
        done = services.lives.halt(
            session,
            tx,
            contract=contract,
            operator=call.operator,
            code=body.code,
            clause=body.clause,
            text=body.text,
            request=call.digest,
        )
        return Answer(status=201, body=done, after=(lambda: services.lives_changed(contract),))

    return await call.change(effect)
