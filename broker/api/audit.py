# SPDX-License-Identifier: Apache-2.0
"""Routes of an audit: bundles, confidential values that a grant opens, and the auditor's conclusion.

A bundle is always whole: an audit hashes the log from its first entry. ``since`` says what the caller has
audited already, and stands in the entry. What a bundle opens to whom: `broker.acts.bundles`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as QueryParam
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.acts.bundles import Order, auditors_order, operators_order, sent
from broker.apart import apart
from broker.api.answers.audit import Disclosures, PolicyText
from broker.api.answers.membership import Logged
from broker.api.answers.values import Dsse
from broker.api.bodies import read_document
from broker.api.declared import ZIP, gives
from broker.api.once import Answer
from broker.api.signed import AssessorCall, AuditorCall, OperatorCall, ReaderCall, json_response
from broker.auditing.conclusions import conclusion
from broker.auditing.disclosures import read_page, record
from broker.auditing.errors import ConcludedAlreadyError
from broker.contracts.errors import NotPartyError
from broker.errors import RequestInvalidError, WrongRoleError
from broker.log.bundle import View
from broker.membership.directory import Auditor, Member
from broker.membership.records import console_action
from policies.encoding import digest
from policies.limits import INTEGER_MAX
from policies.log.errors import SlotTakenError
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()

_Size = Annotated[int, QueryParam(ge=0, le=INTEGER_MAX)]


@router.get("/operator/audit/policy")
@gives(PolicyText)
async def policy(call: OperatorCall) -> Response:
    """The text of a policy file as this broker sees itself; an auditor compares it by another way."""
    return json_response({"policy": call.services.policy})


@router.get("/operator/audit/bundle")
@gives(media=ZIP)
async def bundle(call: OperatorCall, *, signed: bool = False) -> Response:
    """Everything that an offline audit needs, as one file; that it was taken is logged afterwards.

    A frozen log is handed out as well, up to its newest signed head; that it was taken cannot be logged then,
    and the header ``Iriai-Log: frozen`` says so. With ``signed`` the newest signed head counts, although too
    few witnesses have cosigned it.
    """
    order = operators_order(call.services, call.operator, signed=signed, request=call.digest)
    return await sent(call.services, order, holder=call.request.key_id, is_operator=True)


@router.get("/audit/bundle")
@gives(media=ZIP, refuses=(404,))
async def own_bundle(
    call: ReaderCall, since: _Size = 0, grade: Literal["auditor", "member"] | None = None
) -> Response:
    """A bundle for the caller: an auditor's view, or a member's own."""
    services, caller = call.services, call.caller
    fits = "auditor" if isinstance(caller, Auditor) else "member"
    if not isinstance(caller, Auditor | Member) or grade not in {None, fits}:
        raise WrongRoleError(
            need="an auditor's key for the grade auditor, a node's for the grade member",
            found="a key for something else",
            remedy="operators: iriai-broker audit bundle, without --as-auditor",
        )
    head = services.witnessing.checkpoint()
    if since > head.size:
        raise RequestInvalidError(
            need=f"since of at most {head.size}",
            found=str(since),
            remedy="give the size that you audited last",
        )
    if isinstance(caller, Member):
        view = View(grade=fits, org=caller.org, alias_key=caller.alias_key)
        order = Order(head=head, view=view, contracts=_contracts_of(services, caller), since=since)
    else:
        order = await auditors_order(services, caller.name, head=head, since=since, request=call.digest)
    return await sent(services, order, holder=call.request.key_id)


def _contracts_of(services: Services, member: Member) -> list[tuple[bytes, Envelope]]:
    """Contracts that a member is a party of, with the signatures that it may see."""
    mine, contracts = [], services.contracts
    with services.store.read() as session:
        for text, _ in contracts.documents():
            try:
                contract = contracts.for_caller(digest(text), member)
            except NotPartyError:
                continue
            mine.append((text, contracts.envelope_for(session, contract, member)))
    return mine


@router.get("/audit/disclosures")
@gives(Disclosures, refuses=(404,))
async def disclosures(
    call: AuditorCall, start: Annotated[int, QueryParam(alias="from", ge=0, le=INTEGER_MAX)] = 0
) -> Response:
    """Confidential values that grants in force open, of 256 entries; what was shown is logged before."""
    services = call.services
    size = services.writer.head().size
    with services.store.read() as session:
        grants = services.grants.of(session, call.auditor.name)
    page = await apart(lambda: read_page(services.store, grants, start=start, size=size))
    if page.values:
        await services.writer.run(lambda session, tx: record(session, tx, page, call.digest))
    return json_response(page.to_json())


@router.post("/audit/conclusions")
@gives(Logged, status=201, takes=Dsse)
async def conclude(call: AssessorCall) -> Response:
    """An auditor's conclusion, signed by the auditor; an operator may hand it in."""
    envelope = Envelope.from_json(read_document(call.body))
    caller, services = call.caller, call.services

    def effect(session: Session, tx: LogTx) -> Answer:
        keys = (caller.key,) if isinstance(caller, Auditor) else services.auditors.keys(session)
        event = conclusion(envelope, keys)
        if not isinstance(caller, Auditor):
            subject = digest(envelope.payload)
            action = console_action(call.operator, "audit.conclude", subject=subject, request=call.digest)
            tx.add(action)
        try:
            index = tx.add(event)
        except SlotTakenError as error:
            raise ConcludedAlreadyError(
                need="a conclusion on a bundle without one of yours",
                found="this bundle was concluded already",
                remedy="take a newer bundle, audit it, and conclude on that one",
            ) from error
        return Answer(status=201, body={"index": index}, indexes=(index,))

    return await call.change(effect)
