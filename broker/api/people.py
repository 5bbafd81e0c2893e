# SPDX-License-Identifier: Apache-2.0
"""Routes of people: who may log in to the console, as operators keep them with their own keys.

Links and codes are in the answer once and stored nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter
from pydantic import StringConstraints
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.acts.people import ADD, add_one, addition_of, disable, reset
from broker.api.answers.people import LoginMade, People, PersonAdded, PersonDisabled
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.once import Answer
from broker.api.signed import OperatorCall, json_response
from broker.auth.people import list_people, takes_two

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()
_TOLD_ONCE = frozenset({"link", "code"})
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
_Org = Annotated[str, StringConstraints(pattern=r"^org_[a-z2-7]{16}$")]
_Sub = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class PersonBody(Body):
    """A person to be; ``sub``: their name at the identity provider, where one is configured."""

    name: _Name
    role: Annotated[str, StringConstraints(pattern=r"^(operator|approver|auditor|member)$")]
    org: _Org | None = None
    sub: _Sub | None = None


class NothingBody(Body):
    """Nothing to say."""


@router.get("/operator/people")
@gives(People)
async def people(call: OperatorCall) -> Response:
    """Everybody who may log in, or could once."""
    with call.services.store.read() as session:
        return json_response({"people": list_people(session), "you": call.operator.name})


@router.post("/operator/people")
@gives(PersonAdded, status=(201, 202), takes=PersonBody, refuses=(403,))
async def add(call: OperatorCall) -> Response:
    """Adds an auditor; everybody else, and an auditor whose name has a key, is proposed to a second one."""
    body = call.read(PersonBody)
    payload: dict[str, Any] = {"name": body.name, "role": body.role, "org": body.org, "sub": body.sub}
    wanted = addition_of(call.services, payload)

    def propose(session: Session, tx: LogTx) -> Answer:
        made = call.services.acts.propose(session, tx, ADD, payload, call.operator, call.digest)
        shown = made.proposal.to_json(tx.now_ms)
        return Answer(status=202, body={"name": body.name, "proposal": shown}, after=made.after)

    def effect(session: Session, tx: LogTx) -> Answer:
        if takes_two(session, wanted.name, wanted.role):
            return propose(session, tx)
        made = add_one(call.services, session, tx, wanted, operator=call.operator, request=call.digest)
        return Answer(status=201, body=made)

    return await call.change(effect, forget=_TOLD_ONCE)


@router.post("/operator/people/{name}/disable")
@gives(PersonDisabled, takes=NothingBody)
async def end(call: OperatorCall, name: str) -> Response:
    """Ends what somebody may do here, at once: sessions, passkeys, key file. One operator is enough."""
    call.read(NothingBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        done = disable(session, tx, name=name, operator=call.operator, request=call.digest)
        return Answer(body=done, after=(call.services.refresh,))

    return await call.change(effect)


@router.post("/operator/people/{name}/reset-login")
@gives(LoginMade, takes=NothingBody, refuses=(403,))
async def reset_login(call: OperatorCall, name: str) -> Response:
    """A one-time link for oneself or an auditor; for anybody else, half of what two have to ask for."""
    call.read(NothingBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        made = reset(
            call.services,
            session,
            tx,
            name=name,
            operator=call.operator,
            request=call.digest,
            by_key=True,
        )
        return Answer(body=made)

    return await call.change(effect, forget=_TOLD_ONCE)
