# SPDX-License-Identifier: Apache-2.0
"""Routes of the evaluator: what it decided about the caller, what it would decide, and where it can refuse.

A hypothetical request is evaluated by the contract as it stands now. It has no effect and no entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from fastapi import Query as QueryParam
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.contracts import Decisions, DecisionShown, Enforcement, Evaluated
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import store_nonce
from broker.api.signed import Call, PartyCall, json_response
from broker.contracts.decided import decisions_of, one_decision
from broker.membership.directory import Member
from policies.contract import enforcement_map, evaluate, request_from_json, state_to_json
from policies.encoding import Json  # noqa: TC001  a field of a model
from policies.limits import INTEGER_MAX, LIST_ROWS

if TYPE_CHECKING:
    from policies.contract import Contract

__all__ = ["router"]

router = APIRouter()


class QuestionBody(Body):
    """A request as decisions record it: its type and every fact, null for what is not known."""

    request: dict[str, Json]


@router.post("/contracts/{digest}/evaluate")
@gives(Evaluated, takes=QuestionBody)
async def question(call: PartyCall, digest: str) -> Response:
    """What the contract says now about a hypothetical request; nothing happens and nothing is logged."""
    services = call.services
    contract = services.contracts.for_caller(digest, call.known)
    asked = request_from_json(call.read(QuestionBody).request)
    await store_nonce(services, call.request)
    state = services.contracts.state(contract)
    found = evaluate(contract, state, asked)
    return json_response(
        {
            "allow": found.allow,
            "clauses": list(found.clauses),
            "findings": [one.to_json() for one in found.findings],
            "state": state_to_json(state),
        }
    )


@router.get("/contracts/{digest}/decisions")
@gives(Decisions)
async def decisions(
    call: PartyCall,
    digest: str,
    after: Annotated[int, QueryParam(ge=-1, le=INTEGER_MAX)] = -1,
    limit: Annotated[int, QueryParam(ge=1, le=LIST_ROWS)] = LIST_ROWS,
) -> Response:
    """Decisions about the caller, oldest first; all of them for operators.

    A page looks at ``limit`` of the contract's decisions and shows those that the caller may see;
    ``next`` is the ``after`` of the following page.
    """
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        return json_response(
            decisions_of(session, contract, _about(call, contract), after=after, limit=limit)
        )


@router.get("/contracts/{digest}/decisions/{name}")
@gives(DecisionShown)
async def decision(call: PartyCall, digest: str, name: str) -> Response:
    """One decision with its findings, and what it takes to make it again."""
    contract = call.services.contracts.for_caller(digest, call.known)
    with call.services.store.read() as session:
        return json_response(one_decision(session, contract, _about(call, contract), name))


@router.get("/contracts/{digest}/enforcement")
@gives(Enforcement)
async def enforcement(call: PartyCall, digest: str) -> Response:
    """For each clause, where code can refuse by it, and what is left to people and courts."""
    contract = call.services.contracts.for_caller(digest, call.known)
    shown: list[Json] = [
        {"clause": one.clause, "kind": one.kind, "label": one.label, "points": list(one.points)}
        for one in enforcement_map(contract)
    ]
    return json_response({"contract": contract.digest, "clauses": shown})


def _about(call: Call, contract: Contract) -> str | None:
    """Whom the caller may read about: itself, or everybody for operators."""
    if isinstance(call.caller, Member):
        return call.services.contracts.party_of(contract, call.caller).party
    return None
