# SPDX-License-Identifier: Apache-2.0
"""Routes of membership: who the broker is, joining, invitations, approvals, suspensions, removals."""

from __future__ import annotations

import unicodedata
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter
from fastapi import Query as QueryParam
from pydantic import AfterValidator, StringConstraints
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.membership import (
    Approved,
    EnvelopesShown,
    InviteMade,
    Joined,
    Logged,
    Membership,
    Organisation,
    Organisations,
    Suspended,
)
from broker.api.answers.proposals import ProposalMade
from broker.api.answers.values import Dsse
from broker.api.bodies import Body
from broker.api.declared import gives
from broker.api.matching import check_match, etag_of
from broker.api.once import Answer
from broker.api.paging import Asked  # noqa: TC001  FastAPI reads the annotations
from broker.api.proposals import proposed
from broker.api.signed import MemberCall, OperatorCall, WaitingCall, joining, json_response, services_of
from broker.errors import NotFoundError
from broker.membership.chains import own_envelopes, reset_event
from broker.membership.directory import ACTIVE
from broker.membership.service import JoinRequest
from policies.encoding import Json, b64, canonical
from policies.identity import key_text, parse_key
from policies.limits import FLEET_KEY_CHARS, INTEGER_MAX, LEGAL_NAME_CHARS, OWN_ENVELOPES
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.api.signed import Call
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["BROKER_TYPE", "router"]

BROKER_TYPE: Final = "application/vnd.iriai.broker.v1+json"
router = APIRouter()


def _writable(text: str) -> str:
    """A name that a contract can hold: nothing invisible, one spelling."""
    if not text.isprintable() or text != text.strip() or not unicodedata.is_normalized("NFC", text):
        raise ValueError("a printable name in normalisation form C")
    return text


_Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
_Org = Annotated[str, StringConstraints(pattern=r"^org_[a-z2-7]{16}$")]
_Node = Annotated[str, StringConstraints(pattern=r"^node_[a-z2-7]{16}$")]
_KeyText = Annotated[str, StringConstraints(max_length=100)]
_LegalName = Annotated[
    str, StringConstraints(min_length=1, max_length=LEGAL_NAME_CHARS), AfterValidator(_writable)
]
_Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
_Group = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
_Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}$", max_length=80)]
_Signature = Annotated[str, StringConstraints(max_length=100)]


class JoinBody(Body):
    """What a node sends to join; names that it leaves out are the invitation's."""

    invite_secret: _Hex64
    org: _Org
    node: _Node
    node_key: _KeyText
    fleet_key_pem: Annotated[str, StringConstraints(max_length=FLEET_KEY_CHARS)]
    legal_name: _LegalName | None = None
    country: _Country | None = None
    group: _Group | None = None


class InviteBody(Body):
    """Whom an invitation is for."""

    legal_name: _LegalName
    country: _Country
    group: _Group


class ApproveBody(Body):
    """An operator's approval."""

    subject_digest: _Digest
    signature: _Signature


class ChainBody(Body):
    """A member's envelope ``chain.reset``."""

    envelope: dict[str, Json]


class SuspendBody(Body):
    """Why an organisation is stopped, as a reason code."""

    reason: _Reason


class RestoreBody(Body):
    """Why it is let in again, as a reason code."""

    reason: _Reason = "operator-decision"


class RevokeBody(Body):
    """Why a membership ends, as a reason code; ``left``: the organisation itself asked for it."""

    reason: _Reason
    left: bool = False


@router.get("/broker")
@gives(Dsse, role="anyone")
async def broker(request: Request) -> Response:
    """Who this broker is, signed by its key. For anyone: it is what the invitation lets a node check."""
    services = services_of(request)
    document = {
        "origin": services.settings.origin,
        "url": services.settings.public_url,
        "broker_key": key_text(services.keys.broker.public),
        "log_vkey": services.keys.log_vkey,
        "tls_chain_pem": services.keys.tls_chain_pem.decode("ascii"),
        "version": version("iriai"),
    }
    return json_response(Envelope.seal(canonical(document), BROKER_TYPE, services.keys.broker).to_json())


@router.post("/membership/join")
@gives(Joined, takes=JoinBody, role="invited", refuses=(410,))
async def join(request: Request) -> Response:
    """Uses an invitation; signed by the joining key itself."""
    call, body = await joining(request, JoinBody, lambda one: parse_key(one.node_key))
    asked = JoinRequest(
        invite_secret=body.invite_secret,
        org=body.org,
        node=body.node,
        node_key=parse_key(body.node_key),
        fleet_key_pem=body.fleet_key_pem,
        legal_name=body.legal_name,
        country=body.country,
        group=body.group,
    )

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.membership.join(session, tx, asked)
        return Answer(body=done, after=(call.services.refresh,))

    return await call.change(effect)


@router.get("/membership/me")
@gives(Membership)
async def me(call: WaitingCall) -> Response:
    """The caller's own membership; the alias key is in it once it is active."""
    member = call.member
    shown = {
        "state": member.state,
        "org": member.org,
        "node": member.node,
        "legal_name": member.legal_name,
        "country": member.country,
        "group": member.group,
        "since_ms": member.since_ms,
        "seen_ms": call.services.engine.seen_ms().get(member.node),
    }
    if member.state == ACTIVE:
        shown["alias_key"] = b64(member.alias_key)
    return json_response(shown)


@router.get("/membership/envelopes")
@gives(EnvelopesShown)
async def envelopes(
    call: MemberCall, after: Annotated[int, QueryParam(ge=-1, le=INTEGER_MAX)] = -1
) -> Response:
    """What the caller's own node signed and the log took, oldest first: for a node that lost its outbox."""
    services = call.services
    size = services.writer.head().size
    with services.store.read() as session:
        rows = own_envelopes(session, call.member, after=after)
    found: list[Json] = [
        {"index": index, "envelope": Envelope.from_bytes(dsse).to_json(), **services.receipt_json(index)}
        for index, dsse in rows
        if index < size
    ]
    more: dict[str, Json] = {"next": rows[-1][0]} if len(rows) == OWN_ENVELOPES else {}
    return json_response({"envelopes": found, **more})


@router.post("/membership/chain")
@gives(Logged, status=201, takes=ChainBody)
async def reset_chain(call: MemberCall) -> Response:
    """Takes a ``chain.reset``: a node that lost its chain begins another one, and says so."""
    event = reset_event(Envelope.from_json(call.read(ChainBody).envelope), call.member)

    def effect(_session: Session, tx: LogTx) -> Answer:
        index = tx.add(event)
        return Answer(status=201, body={"index": index}, indexes=(index,))

    return await call.change(effect)


@router.post("/operator/invites")
@gives(InviteMade, status=201, takes=InviteBody)
async def invite(call: OperatorCall) -> Response:
    """Makes an invitation; its text is in the answer and nowhere else."""
    body = call.read(InviteBody)
    made = call.services.membership.new_invite()

    def effect(session: Session, tx: LogTx) -> Answer:
        call.services.membership.invite(
            session,
            tx,
            made=made,
            expires_ms=to_ms(made.expires),
            operator=call.operator,
            legal_name=body.legal_name,
            country=body.country,
            group=body.group,
            request=call.digest,
        )
        return Answer(status=201, body={"id": made.id, "invite": made.token, "expires": made.expires})

    return await call.change(effect, forget=frozenset({"invite"}))


@router.get("/operator/organisations")
@gives(Organisations)
async def organisations(call: OperatorCall, asked: Asked) -> Response:
    """Everybody enrolled, with what an approval would sign, and when its node was heard last."""
    page = asked.of("organisations", _organisations(call.services), key=lambda one: (str(one["org"]),))
    return json_response({"organisations": page.rows, **page.more})


@router.get("/operator/organisations/{org}")
@gives(Organisation, tagged=True)
async def organisation(call: OperatorCall, org: str) -> Response:
    """One organisation; its tag changes with its state, its keys and its approvals."""
    found = next((one for one in _organisations(call.services) if one["org"] == org), None)
    if found is None:
        raise _no_organisation(org)
    return json_response(found, etag=_tag(found))


def _organisations(services: Services) -> list[dict[str, Json]]:
    """Everybody enrolled, by id."""
    with services.store.read() as session:
        listed = services.membership.list_members(session)
    online, seen = services.engine.online(), services.engine.seen_ms()
    return [one | {"online": one["node"] in online, "seen_ms": seen.get(str(one["node"]))} for one in listed]


def _tag(one: dict[str, Json]) -> str:
    """Of what an operator decides about; not of when its node was heard."""
    return etag_of({name: value for name, value in one.items() if name not in {"online", "seen_ms"}})


def _check_seen(call: Call, session: Session, org: str) -> None:
    """Returns if the organisation is as the caller saw it, or the caller did not say how."""
    listed = call.services.membership.list_members(session)
    found = next((one for one in listed if one["org"] == org), None)
    if found is not None:  # who is not there is refused by the change itself
        check_match(call, _tag(found))


def _no_organisation(org: str) -> NotFoundError:
    return NotFoundError(
        need="an organisation that joined",
        found=ascii(org)[1:-1][:60],
        remedy="GET /api/v1/operator/organisations lists them",
    )


@router.post("/operator/organisations/{org}/approve")
@gives(Approved, takes=ApproveBody)
async def approve(call: OperatorCall, org: str) -> Response:
    """One operator's approval; the second one, by another key, makes the organisation active."""
    body = call.read(ApproveBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        done = call.services.membership.approve(
            session,
            tx,
            org=org,
            operator=call.operator,
            subject=body.subject_digest,
            signature=body.signature,
            request=call.digest,
        )
        return Answer(body=done, after=(lambda: call.services.enrolled(org),))

    return await call.change(effect)


@router.post("/operator/organisations/{org}/suspend")
@gives(Suspended, takes=SuspendBody, matches="may")
async def suspend(call: OperatorCall, org: str) -> Response:
    """Stops an organisation at once, until it is restored: its node is refused, its keys stay."""
    body = call.read(SuspendBody)

    def effect(session: Session, tx: LogTx) -> Answer:
        _check_seen(call, session, org)
        done = call.services.membership.suspend(
            session, tx, org=org, operator=call.operator, reason=body.reason, request=call.digest
        )
        return Answer(body=done, after=(lambda: call.services.enrolled(org),))

    return await call.change(effect)


@router.post("/operator/organisations/{org}/restore")
@gives(ProposalMade, status=202, takes=RestoreBody)
async def restore(call: OperatorCall, org: str) -> Response:
    """Proposes that a suspended organisation takes part again; a second person approves it."""
    body = call.read(RestoreBody)
    return await proposed(call, "org.restore", {"org": org, "reason": body.reason})


@router.post("/operator/organisations/{org}/revoke")
@gives(ProposalMade, status=202, takes=RevokeBody)
async def revoke(call: OperatorCall, org: str) -> Response:
    """Proposes the end of a membership; a second person approves it. To stop somebody now: suspend."""
    body = call.read(RevokeBody)
    return await proposed(call, "org.remove", {"org": org, "reason": body.reason, "left": body.left})
