# SPDX-License-Identifier: Apache-2.0
"""The edge of the API: who asks, that no signature works twice, and that a change happens once.

Every route takes a `Call`; none can get at an unverified request. In this order:

1. The key is found by its id; nobody's key and a revoked one are refused.
2. `policies.signing.verify_head`: signature and age, for the configured public URL; its nonce is new. From
   here on the key pays for the request, not the address (`broker.admission`).
3. The role fits the route; who waits for approval is refused.
4. Only now is the body read, up to its bounds (`broker.api.bodies`), one large body of a key at a time. It is
   the one whose digest was signed.
5. Reads store their nonce in a transaction of their own. Changes store it in the transaction of their
   effect, beside their answer (`Call.change`, `broker.api.once`). A change that is refused stores its nonce
   too, and what the policy denies an operator stands in the log as their action, refused. A frozen log
   refuses changes and answers reads.

Joining is signed by the key in its own body, which is small and read first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response

from broker.api.bodies import Body, largest_body, read_body, read_raw
from broker.api.edge import asked_method
from broker.api.once import JSON, Answer, Slot, check_unseen, claim_nonce, idempotency_key, store_nonce
from broker.errors import RequestInvalidError, WrongRoleError
from broker.log import LogTx
from broker.log.errors import LogError
from broker.membership.directory import Auditor, Enrolled, Member, Operator
from broker.membership.errors import NotActiveError, SuspendedError
from broker.membership.records import console_action
from broker.services import Services  # noqa: TC001  a field of a call
from broker.store import Session
from policies.encoding import Json, canonical, digest, digest_of
from policies.errors import IriaiError, RequestReplayedError
from policies.identity import key_id
from policies.limits import BODY_BYTES_JSON
from policies.log.entries import Event  # noqa: TC001  a result of a method
from policies.signing import (
    WRITES,
    VerifiedHead,
    VerifiedRequest,
    check_body,
    claimed_key_id,
    verify_head,
)

__all__ = [
    "AssessorCall",
    "AuditorCall",
    "Call",
    "MemberCall",
    "OperatorCall",
    "PartyCall",
    "ReaderCall",
    "WaitingCall",
    "joining",
    "json_response",
    "services_of",
]

_B = TypeVar("_B", bound=Body)
DENIED: Final = 4  # exit code of what the policy denies
Effect = Callable[[Session, LogTx], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verified request; its ``name`` is that of the route."""

    services: Services
    caller: Enrolled | None
    request: VerifiedRequest
    method: str
    target: str
    body: bytes
    name: str = "request"
    if_match: str | None = None

    @property
    def known(self) -> Member | Operator:
        """Who asks, enrolled as a member or an operator.

        Raises:
            WrongRoleError: Somebody else.
        """
        if self.caller is None or isinstance(self.caller, Auditor):
            raise _wrong_role("a node's or an operator's key")
        return self.caller

    @property
    def member(self) -> Member:
        """The member who asks.

        Raises:
            WrongRoleError: It is somebody else.
        """
        if not isinstance(self.caller, Member):
            raise _wrong_role("a node's key")
        return self.caller

    @property
    def operator(self) -> Operator:
        """The operator who asks.

        Raises:
            WrongRoleError: It is somebody else.
        """
        if not isinstance(self.caller, Operator):
            raise _wrong_role("an operator's key")
        return self.caller

    @property
    def auditor(self) -> Auditor:
        """The auditor who asks.

        Raises:
            WrongRoleError: It is somebody else.
        """
        if not isinstance(self.caller, Auditor):
            raise _wrong_role("an auditor's key")
        return self.caller

    @property
    def digest(self) -> str:
        """Names this request and its repetitions under one idempotency key: ``request`` in log entries."""
        once = self.request.idempotency_key or self.request.nonce
        return digest_of([self.request.key_id, self.method, self.target, once, digest(self.body)])

    def read(self, model: type[_B]) -> _B:
        """The body as a model.

        Raises:
            EncodingError: No canonical JSON.
            RequestInvalidError: Other fields or types; the values are never shown.
        """
        return read_body(self.body, model)

    async def change(self, effect: Effect, *, forget: frozenset[str] = frozenset()) -> Response:
        """Runs an effect once, in one transaction with its nonce, its answer and its log entries.

        Args:
            effect: Changes rows and adds entries; what it returns is stored and answered.
            forget: Fields of the answer that are told once and never stored (secrets); a repetition lacks
                them.

        Raises:
            IdempotencyMissingError: No usable Idempotency-Key.
            IdempotencyMismatchError: It was used for another request.
            IdempotencyOldError: It was used too long ago to answer it again.
            RequestReplayedError: The nonce was seen.
        """
        slot = Slot(
            key_id=self.request.key_id,
            idem=idempotency_key(self.request),
            request=digest_of([self.method, self.target, digest(self.body)]),
        )
        now_ms = self.services.clock.now_ms()

        def work(session: Session, tx: LogTx) -> Answer:
            claim_nonce(session, self.request, now_ms)
            answer = slot.stored(session)
            if answer is None:
                answer = effect(session, tx)
                slot.keep(session, answer, now_ms, forget=forget)
            return answer

        try:
            answer, _ = await self.services.writer.run(work)
        except RequestReplayedError:
            raise
        except IriaiError as error:
            with contextlib.suppress(LogError):  # the refusal stands, even if its nonce cannot be stored
                await store_nonce(self.services, self.request, self._refused(error))
            raise
        for step in answer.after:
            step()
        body = answer.body
        if answer.indexes:
            body = {**body, "receipts": [self.services.receipt_json(index) for index in answer.indexes]}
        return json_response(body, status=answer.status, media_type=answer.media_type)

    def _refused(self, error: IriaiError) -> tuple[Event, ...]:
        """What the log says of a change that the policy denied to an operator; nothing of other refusals."""
        if not isinstance(self.caller, Operator) or error.exit_code != DENIED:
            return ()
        return (
            console_action(
                self.caller,
                self.name,
                subject=digest_of([error.code, getattr(error, "clause", None)]),
                request=digest_of([self.digest, self.request.nonce]),  # the same may be allowed later
                result="refused",
            ),
        )


def json_response(
    body: Json, *, status: int = 200, media_type: str = JSON, etag: str | None = None
) -> Response:
    """A JSON answer in canonical bytes, never cached; with the tag of its state, if it has one."""
    headers = {"Cache-Control": "no-store"} | ({} if etag is None else {"ETag": etag})
    return Response(canonical(body), status, headers=headers, media_type=media_type)


def services_of(request: Request) -> Services:
    """The composition of this application."""
    services: Services = request.app.state.services
    return services


def _name(request: Request) -> str:
    """Name of the route as actions are called: ``runs.open-run``."""
    endpoint = request.scope["endpoint"]
    room = str(endpoint.__module__).rpartition(".")[2]
    return f"{room}.{endpoint.__name__}".replace("_", "-")


def _verify(services: Services, request: Request, public_key: bytes) -> VerifiedHead:
    raw_path = request.scope.get("raw_path") or request.url.path.encode("ascii")
    query = request.scope["query_string"]
    url = (
        services.settings.public_url
        + raw_path.decode("ascii")
        + ("?" + query.decode("ascii") if query else "")
    )
    return verify_head(
        method=asked_method(request),
        url=url,
        headers={name.lower(): value for name, value in request.headers.items()},
        now_ms=services.clock.now_ms(),
        public_key=public_key,
    )


async def _call(request: Request, fits: Callable[[Enrolled], None]) -> Call:
    """Steps 1 to 4, and for reads 5."""
    services = services_of(request)
    caller = services.directory.find(claimed_key_id(request.headers))
    head = _verify(services, request, caller.key)
    with services.store.read() as session:
        check_unseen(session, head)  # a copy is refused before its body too; `claim_nonce` decides
    services.admission.proved(request.scope, head.key_id)  # a copy is paid by whoever sent it
    fits(caller)
    body = await _read(services, request, head)
    call = Call(
        services=services,
        caller=caller,
        request=check_body(head, body),
        method=asked_method(request),
        target=request.url.path,
        body=body,
        name=_name(request),
        if_match=request.headers.get("if-match"),
    )
    if request.method not in WRITES:
        await store_nonce(services, call.request)
    return call


async def _read(services: Services, request: Request, head: VerifiedHead) -> bytes:
    """The body; while a key sends a large one, its next large one waits, unread."""
    most = largest_body(request.method, request.url.path)
    if most <= BODY_BYTES_JSON:
        return await read_raw(request, most=most)
    async with services.large_bodies.turn(head.key_id):
        return await read_raw(request, most=most)


def _waiting_fits(caller: Enrolled) -> None:
    if not isinstance(caller, Member):
        raise _wrong_role("a node's key")


def _member_fits(caller: Enrolled) -> None:
    _waiting_fits(caller)
    _reader_fits(caller)


def _operator_fits(caller: Enrolled) -> None:
    if not isinstance(caller, Operator):
        raise _wrong_role("an operator's key")


def _auditor_fits(caller: Enrolled) -> None:
    if not isinstance(caller, Auditor):
        raise _wrong_role("an auditor's key")


def _assessor_fits(caller: Enrolled) -> None:
    if isinstance(caller, Member):
        raise _wrong_role("an auditor's or an operator's key")


def _party_fits(caller: Enrolled) -> None:
    if isinstance(caller, Auditor):
        raise _wrong_role("a node's or an operator's key")
    _reader_fits(caller)


def _reader_fits(caller: Enrolled) -> None:
    if isinstance(caller, Member) and not caller.active:
        raise _suspended() if caller.suspended else _not_active()


async def _waiting(request: Request) -> Call:
    return await _call(request, _waiting_fits)


async def _member(request: Request) -> Call:
    return await _call(request, _member_fits)


async def _operator(request: Request) -> Call:
    return await _call(request, _operator_fits)


async def _party(request: Request) -> Call:
    return await _call(request, _party_fits)


async def _auditor(request: Request) -> Call:
    return await _call(request, _auditor_fits)


async def _assessor(request: Request) -> Call:
    return await _call(request, _assessor_fits)


async def _reader(request: Request) -> Call:
    return await _call(request, _reader_fits)


async def joining(request: Request, model: type[_B], key_of: Callable[[_B], bytes]) -> tuple[Call, _B]:
    """A request that is signed by the key in its own body, of somebody who is not enrolled yet.

    Raises:
        WeakKeyError: A signature under the key proves nothing.
        SignatureInvalidError: The key's owner did not sign.
    """
    services = services_of(request)
    body = await read_raw(request)
    claimed = claimed_key_id(request.headers)
    document = read_body(body, model)
    key = key_of(document)
    if claimed != key_id(key):
        raise RequestInvalidError(
            need="a signature by the key in the body", found=claimed, remedy="sign with the joining key"
        )
    verified = check_body(_verify(services, request, key), body)
    call = Call(
        services=services,
        caller=None,
        request=verified,
        method=asked_method(request),
        target=request.url.path,
        body=body,
    )
    return call, document


def _wrong_role(need: str) -> WrongRoleError:
    return WrongRoleError(
        need=need,
        found="a key for something else",
        remedy="use the other command line; with an auditor's key: iriai-broker audit bundle --as-auditor",
    )


def _not_active() -> NotActiveError:
    return NotActiveError(
        need="an organisation that two operators approved",
        found="one that waits",
        remedy="ask the operators to compare fingerprints and approve",
    )


def _suspended() -> SuspendedError:
    return SuspendedError(
        need="an organisation that takes part",
        found="one that the operators suspended",
        remedy="ask the operators why; nothing is lost, and its keys stay as they are",
    )


WaitingCall = Annotated[Call, Depends(_waiting)]
"""Called by a node that may still wait for approval."""
MemberCall = Annotated[Call, Depends(_member)]
"""Called by an active member's node."""
OperatorCall = Annotated[Call, Depends(_operator)]
"""Called by an operator."""
PartyCall = Annotated[Call, Depends(_party)]
"""Called by an active member's node or an operator; the route looks at who it is."""
AuditorCall = Annotated[Call, Depends(_auditor)]
"""Called by an auditor."""
AssessorCall = Annotated[Call, Depends(_assessor)]
"""Called by an auditor, or by an operator on an auditor's behalf."""
ReaderCall = Annotated[Call, Depends(_reader)]
"""Called by an active member's node, an auditor or an operator: whoever may read the log's entries."""
ROLES: dict[Any, str] = {
    _waiting: "waiting",
    _member: "member",
    _operator: "operator",
    _party: "party",
    _auditor: "auditor",
    _assessor: "assessor",
    _reader: "reader",
}
