# SPDX-License-Identifier: Apache-2.0
"""Routes of an audit: bundles, confidential values that a grant opens, and the auditor's conclusion.

- A bundle is written whole, then logged with its digest, then sent. It reaches up to the newest checkpoint
  with the quorum that the broker's policy asks for.
- It is always whole: an audit hashes the log from its first entry. ``since`` says what the caller has audited
  already, and stands in the entry.
- An operator's bundle opens every confidential value; an auditor's, what grants in force open, and without a
  grant there is none; a member's, its own.
- Whatever is confidential leaves the broker only once the log says so. Of a frozen log operators and members
  still get what they would get; an auditor's bundle then opens nothing. ``Iriai-Log: frozen`` says that the
  bundle is not on record.
- An auditor's bundle reaches beyond the newest word on its grants: else what it opens and keeps back would
  look wrong. A grant that ends while the bundle is made ends the bundle too.
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as QueryParam
from starlette.responses import FileResponse, Response

from broker.api.apart import apart
from broker.api.bodies import read_document
from broker.api.once import Answer
from broker.api.signed import AssessorCall, AuditorCall, Call, OperatorCall, ReaderCall, json_response
from broker.auditing.conclusions import conclusion
from broker.auditing.disclosures import read_page, record
from broker.auditing.errors import ConcludedAlreadyError, GrantUnknownError
from broker.auditing.grants import check_in_force, newest_word, used
from broker.contracts.errors import NotPartyError
from broker.errors import RequestInvalidError, WrongRoleError
from broker.federation.secure.files import Transcripts
from broker.log.bundle import Exported, View, export
from broker.log.errors import LogFrozenError, LogUnavailableError
from broker.membership.directory import Auditor, Member, Operator
from broker.membership.records import console_action
from policies.encoding import digest
from policies.limits import EXPORT_SEND_S, INTEGER_MAX, WITNESS_RECEIPT_S
from policies.log.entries import EntryType, Event
from policies.log.errors import SlotTakenError
from policies.log.policy import Policy, policy_text
from policies.log.vkeys import VerifierKey
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from broker.auditing.exports import Exports
    from broker.log import Head, LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.log.access import Grant

    _Work = Callable[[Session, LogTx, Exported], None]

__all__ = ["router"]

router = APIRouter()

_Size = Annotated[int, QueryParam(ge=0, le=INTEGER_MAX)]


@router.get("/operator/audit/policy")
async def policy(call: OperatorCall) -> Response:
    """The text of a policy file as this broker sees itself; an auditor compares it by another way."""
    return json_response({"policy": call.services.policy})


@router.get("/operator/audit/bundle")
async def bundle(call: OperatorCall, *, signed: bool = False) -> Response:
    """Everything that an offline audit needs, as one file; that it was taken is logged afterwards.

    A frozen log is handed out as well, up to its newest signed head; that it was taken cannot be logged then,
    and the header ``Iriai-Log: frozen`` says so. With ``signed`` the newest signed head counts, although too
    few witnesses have cosigned it.
    """
    services = call.services
    head = services.writer.head() if signed else services.witnessing.checkpoint()

    def work(_session: Session, tx: LogTx, taken: Exported) -> None:
        tx.add(console_action(call.operator, "audit.bundle", subject=taken.digest, request=call.digest))

    contracts = services.contracts.documents()
    return await _bundle(call, head=head, view=View(), contracts=contracts, since=0, work=work)


@router.get("/audit/bundle")
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
        theirs = _contracts_of(services, caller)
        return await _bundle(call, head=head, view=view, contracts=theirs, since=since, work=_nothing_more)
    head, grants = await _granted(services, caller.name, head)
    view = View(grade=fits, grants=() if services.writer.frozen is not None else grants)

    def work(session: Session, tx: LogTx, _taken: Exported) -> None:
        check_in_force(session, grants, tx.now_ms)
        for one in grants:
            tx.add(used(one, call.digest))

    contracts = services.contracts.documents()
    return await _bundle(call, head=head, view=view, contracts=contracts, since=since, work=work)


async def _granted(services: Services, name: str, head: Head) -> tuple[Head, tuple[Grant, ...]]:
    """Grants of an auditor, and a checkpoint that covers the newest word on them.

    Raises:
        GrantUnknownError: There is none in force.
        LogUnavailableError: No checkpoint covers it yet; a frozen log, which opens nothing, waits for none.
    """
    with services.store.read() as session:
        grants = services.grants.of(session, name)
        index = newest_word(session, name, start=head.size)
    if not grants:
        raise GrantUnknownError(
            need="a grant in force",
            found=f"none for {name}",
            remedy="ask an operator: iriai-broker audit grant NAME --fields …",
        )
    if index is None or services.writer.frozen is not None:
        return head, grants
    head = await services.witnessing.covering(index, wait_s=WITNESS_RECEIPT_S)
    if head.size <= index:
        missing = ", ".join(services.witnessing.missing())
        raise LogUnavailableError(
            need=f"a checkpoint that covers the grants of {name}, at entry {index}",
            found=f"one of {head.size} entries" + (f"; not heard of: {missing}" if missing else ""),
            remedy="try again when these witnesses are back; an operator: iriai-broker status"
            if missing
            else "try again in a moment, when witnesses have cosigned a newer one",
        )
    return head, grants


def _nothing_more(_session: Session, _tx: LogTx, _taken: Exported) -> None:
    """A member's own view leaves the entry of the export, and no other."""


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


async def _bundle(
    call: Call,
    *,
    head: Head,
    view: View,
    contracts: Sequence[tuple[bytes, Envelope]],
    since: int,
    work: _Work,
) -> Response:
    """Writes a bundle, logs it, and sends it; whatever fails before that leaves no file."""
    services = call.services
    place = services.exports.room(call.request.key_id, is_operator=isinstance(call.caller, Operator))
    async with place as path:
        taken = await apart(
            lambda: export(
                services.store,
                services.writer,
                path,
                policy=services.policy,
                first_policy=_first_policy(services),
                software=version("iriai"),
                contracts=contracts,
                transcript=Transcripts(services.settings.dir).read,
                head=head,
                view=view,
            )
        )

        def logged(session: Session, tx: LogTx) -> None:
            work(session, tx, taken)
            tx.add(_exported(taken, view.grade, since))

        headers = {"Cache-Control": "no-store"}
        try:
            await services.writer.run(logged)
        except LogFrozenError:
            if view.grants:
                raise  # it froze meanwhile: what grants open never leaves unsaid
            headers["Iriai-Log"] = "frozen"
    return _Sent(services.exports, path, headers)


def _first_policy(services: Services) -> str:
    """The policy before there were witnesses, which the log's first entry names."""
    logs = (VerifierKey.parse(services.keys.log_vkey),)
    return policy_text(Policy(logs=logs, broker=services.keys.broker.public))


def _exported(taken: Exported, grade: str, since: int) -> Event:
    sizes = {"from_size": since, "to_size": taken.entries}
    pub = {**sizes, "grade": grade, "bundle": taken.digest}
    return Event(type=EntryType.EXPORT_AUDIT_BUNDLE, pub=pub)


class _Sent(FileResponse):
    """A bundle that is gone once it was sent, was cut, or took longer than `EXPORT_SEND_S`."""

    def __init__(self, exports: Exports, path: Path, headers: dict[str, str]) -> None:
        super().__init__(path, media_type="application/zip", headers=headers)
        self._exports = exports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file; the server closes the connection where it ends early."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXPORT_SEND_S):
                    await super().__call__(scope, receive, send)
        finally:
            self._exports.release(Path(self.path))


@router.get("/audit/disclosures")
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
