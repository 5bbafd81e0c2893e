# SPDX-License-Identifier: Apache-2.0
"""The edge of the API: who asks, that no signature works twice, and that a change happens once.

Every route takes a `Call`; none can get at an unverified request. In this order:
1. The body is read up to the bound of JSON bodies; more is refused before it is read.
2. The key is found by its id; nobody's key, a revoked one and one that waits for approval are refused.
Joining is signed by the
   key in its own body.
3. `policies.signing.verify_request`: signature, digest of the body, age, nonce, all against the configured
public URL.
4. The role fits the route.
5. Reads store their nonce in a transaction of their own. Changes store it in the transaction of their
effect, beside their answer
   under the Idempotency-Key (`Call.change`): the same key and request give the same answer and no second
   effect. A change that is
   refused stores its nonce too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import delete, func, insert, select
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response

from broker.api.problems import MEDIA_TYPE as PROBLEM
from broker.api.problems import problem_document
from broker.errors import (
    BodyTooLargeError,
    IdempotencyMismatchError,
    IdempotencyMissingError,
    NonceStoreFullError,
    RequestInvalidError,
    WrongRoleError,
)
from broker.log import LogTx
from broker.log.errors import LogError
from broker.membership.directory import Member, Operator
from broker.membership.errors import NotActiveError
from broker.services import Services  # noqa: TC001  a field of a call
from broker.store import Session
from broker.store.tables import idempotency, nonce
from policies.encoding import Json, canonical, digest, digest_of
from policies.errors import IriaiError, RequestReplayedError
from policies.identity import key_id
from policies.limits import BODY_BYTES_JSON, IDEMPOTENCY_KEY_CHARS, NONCES_KEPT
from policies.signing import WRITES, VerifiedRequest, claimed_key_id, parse_envelope_json, verify_request

__all__ = [
    "Answer",
    "Body",
    "Call",
    "MemberCall",
    "OperatorCall",
    "PartyCall",
    "WaitingCall",
    "joining",
    "json_response",
    "read_body",
    "read_document",
    "services_of",
]

JSON = "application/json"


class Body(BaseModel):
    """Base of request bodies: exactly the named fields, exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_B = TypeVar("_B", bound=Body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a change answers.

    Attributes:
        status: HTTP status.
        body: JSON document.
        media_type: Of the body; problems have their own.
        indexes: Log entries whose receipts go along.
        after: Steps that follow the commit; each must be repeatable, because a crash may come between.
    """

    status: int = 200
    body: dict[str, Json] = field(default_factory=dict)
    media_type: str = JSON
    indexes: tuple[int, ...] = ()
    after: tuple[Callable[[], None], ...] = ()

    @classmethod
    def refused(cls, error: IriaiError, *indexes: int) -> Answer:
        """A refusal that is itself on record: its entries stay, the caller gets their receipts."""
        return cls(
            status=error.http_status,
            body=problem_document(error),
            media_type=PROBLEM,
            indexes=indexes,
        )


Effect = Callable[[Session, LogTx], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A verified request."""

    services: Services
    caller: Member | Operator | None
    request: VerifiedRequest
    method: str
    target: str
    body: bytes

    @property
    def known(self) -> Member | Operator:
        """Who asks, enrolled as a member or an operator.

        Raises:
            WrongRoleError: Nobody who is enrolled.
        """
        if self.caller is None:
            raise _wrong_role("an enrolled key")
        return self.caller

    @property
    def member(self) -> Member:
        """The member who asks.

        Raises:
            WrongRoleError: It is an operator.
        """
        if not isinstance(self.caller, Member):
            raise _wrong_role("a node's key")
        return self.caller

    @property
    def operator(self) -> Operator:
        """The operator who asks.

        Raises:
            WrongRoleError: It is a node.
        """
        if not isinstance(self.caller, Operator):
            raise _wrong_role("an operator's key")
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
            RequestReplayedError: The nonce was seen.
        """
        idem = self.request.idempotency_key or ""
        if not 0 < len(idem) <= IDEMPOTENCY_KEY_CHARS or not idem.isascii() or not idem.isprintable():
            raise IdempotencyMissingError(
                need=f"an Idempotency-Key of at most {IDEMPOTENCY_KEY_CHARS} plain characters",
                found=f"{len(idem)} characters",
                remedy="give each change a key of its own and keep it when sending again",
            )
        now_ms = self.services.clock.now_ms()

        def work(session: Session, tx: LogTx) -> Answer:
            claim_nonce(session, self.request, now_ms)
            return self._once(session, idem) or self._apply(session, tx, idem, effect, forget)

        try:
            answer, _ = await self.services.writer.run(work)
        except RequestReplayedError:
            raise
        except IriaiError:
            with contextlib.suppress(
                LogError
            ):  # the refusal stands, whether or not its nonce could be stored
                await store_nonce(self.services, self.request)
            raise
        for step in answer.after:
            step()
        return self._respond(answer)

    def _once(self, session: Session, idem: str) -> Answer | None:
        """The stored answer of the same request under this key."""
        mine = (idempotency.c.key_id == self.request.key_id) & (idempotency.c.idem == idem)
        row = session.execute(select(idempotency).where(mine)).mappings().first()
        if row is None:
            return None
        if row["body_digest"] != self._fixed_digest:
            raise IdempotencyMismatchError(
                need="the request that this Idempotency-Key was first used for",
                found="another one",
                remedy="use a new key for a new change",
            )
        stored = parse_envelope_json(row["response"])
        return Answer(
            status=row["status"],
            body=stored["body"],
            media_type=stored["media_type"],
            indexes=tuple(stored["indexes"]),
        )

    def _apply(
        self, session: Session, tx: LogTx, idem: str, effect: Effect, forget: frozenset[str]
    ) -> Answer:
        answer = effect(session, tx)
        kept = {name: value for name, value in answer.body.items() if name not in forget}
        stored = {"body": kept, "media_type": answer.media_type, "indexes": list(answer.indexes)}
        session.execute(
            insert(idempotency).values(
                key_id=self.request.key_id,
                idem=idem,
                body_digest=self._fixed_digest,
                status=answer.status,
                response=canonical(stored),
            )
        )
        return answer

    @property
    def _fixed_digest(self) -> str:
        return digest_of([self.method, self.target, digest(self.body)])

    def _respond(self, answer: Answer) -> Response:
        body = answer.body
        if answer.indexes:
            body = {**body, "receipts": [self.services.receipt_json(index) for index in answer.indexes]}
        return json_response(body, status=answer.status, media_type=answer.media_type)


def json_response(body: Json, *, status: int = 200, media_type: str = JSON) -> Response:
    """A JSON answer in canonical bytes, never cached."""
    return Response(canonical(body), status, headers={"Cache-Control": "no-store"}, media_type=media_type)


def services_of(request: Request) -> Services:
    """The composition of this application."""
    services: Services = request.app.state.services
    return services


def read_document(body: bytes) -> Json:
    """A body as JSON, in canonical bytes.

    Raises:
        EncodingError: It is not.
    """
    return parse_envelope_json(body)


def read_body(body: bytes, model: type[_B]) -> _B:
    """A body as a model; see `Call.read`."""
    tree = read_document(body)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        where = "; ".join(
            ".".join(str(part) for part in one["loc"]) + ": " + one["type"] for one in error.errors()[:5]
        )
        raise RequestInvalidError(
            need="the fields " + ", ".join(model.model_fields),
            found=ascii(where)[1:-1][:300],
            remedy="see docs/reference/http-api.md",
        ) from error


async def _read(request: Request) -> bytes:
    """The raw body, up to the bound.

    Raises:
        BodyTooLargeError: Announced or sent more.
    """
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > BODY_BYTES_JSON:
        raise _too_large(announced)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_BYTES_JSON:
            raise _too_large("more")
        parts.append(part)
    return b"".join(parts)


def _too_large(found: str) -> BodyTooLargeError:
    return BodyTooLargeError(
        need=f"at most {BODY_BYTES_JSON} bytes", found=ascii(found)[:40], remedy="send less in one request"
    )


def claim_nonce(session: Session, request: VerifiedRequest, now_ms: int) -> None:
    """Stores a nonce; those that have expired go.

    Raises:
        RequestReplayedError: It was seen.
        NonceStoreFullError: Too many of this key are remembered.
    """
    session.execute(delete(nonce).where(nonce.c.expires_ms < now_ms))
    mine = nonce.c.key_id == request.key_id
    if session.scalar(select(nonce.c.nonce).where(mine & (nonce.c.nonce == request.nonce))) is not None:
        raise RequestReplayedError(
            need="a nonce that was not seen", found=request.nonce, remedy="sign each request afresh"
        )
    if (session.scalar(select(func.count()).select_from(nonce).where(mine)) or 0) >= NONCES_KEPT:
        raise NonceStoreFullError(
            need=f"at most {NONCES_KEPT} requests a minute", found="more", remedy="wait a minute"
        )
    session.execute(
        insert(nonce).values(key_id=request.key_id, nonce=request.nonce, expires_ms=request.expires_ms)
    )


async def store_nonce(services: Services, request: VerifiedRequest) -> None:
    """Stores the nonce of a request that changes nothing, durably, before it is answered."""
    now_ms = services.clock.now_ms()

    def work(session: Session, _tx: LogTx) -> None:
        claim_nonce(session, request, now_ms)

    await services.writer.run(work)


def _verify(services: Services, request: Request, body: bytes, public_key: bytes) -> VerifiedRequest:
    raw_path = request.scope.get("raw_path") or request.url.path.encode("ascii")
    query = request.scope["query_string"]
    url = (
        services.settings.public_url
        + raw_path.decode("ascii")
        + ("?" + query.decode("ascii") if query else "")
    )
    return verify_request(
        method=request.method,
        url=url,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body,
        now_ms=services.clock.now_ms(),
        public_key=public_key,
        store_nonce=lambda _key, _nonce, _expires: (
            True
        ),  # stored in a transaction, by `Call.change` or `store_nonce`
    )


async def _call(request: Request) -> Call:
    """Steps 1 to 3, and for reads 5."""
    services = services_of(request)
    body = await _read(request)
    caller = services.directory.find(claimed_key_id(request.headers))
    verified = _verify(services, request, body, caller.key)
    call = Call(
        services=services,
        caller=caller,
        request=verified,
        method=request.method,
        target=request.url.path,
        body=body,
    )
    if request.method not in WRITES:
        await store_nonce(services, verified)
    return call


async def _waiting(request: Request) -> Call:
    call = await _call(request)
    _ = call.member  # an operator is refused
    return call


async def _member(request: Request) -> Call:
    call = await _call(request)
    if not call.member.active:
        raise _not_active()
    return call


async def _operator(request: Request) -> Call:
    call = await _call(request)
    _ = call.operator  # a node is refused
    return call


async def _party(request: Request) -> Call:
    call = await _call(request)
    if isinstance(call.caller, Member) and not call.caller.active:
        raise _not_active()
    return call


async def joining(request: Request, model: type[_B], key_of: Callable[[_B], bytes]) -> tuple[Call, _B]:
    """A request that is signed by the key in its own body, of somebody who is not enrolled yet.

    Raises:
        WeakKeyError: A signature under the key proves nothing.
        SignatureInvalidError: The key's owner did not sign.
    """
    services = services_of(request)
    body = await _read(request)
    claimed = claimed_key_id(request.headers)
    document = read_body(body, model)
    key = key_of(document)
    if claimed != key_id(key):
        raise RequestInvalidError(
            need="a signature by the key in the body", found=claimed, remedy="sign with the joining key"
        )
    verified = _verify(services, request, body, key)
    call = Call(
        services=services,
        caller=None,
        request=verified,
        method=request.method,
        target=request.url.path,
        body=body,
    )
    return call, document


def _wrong_role(need: str) -> WrongRoleError:
    return WrongRoleError(need=need, found="a key for something else", remedy="use the other command line")


def _not_active() -> NotActiveError:
    return NotActiveError(
        need="an organisation that two operators approved",
        found="one that waits",
        remedy="ask the operators to compare fingerprints and approve",
    )


WaitingCall = Annotated[Call, Depends(_waiting)]
"""Called by a node that may still wait for approval."""
MemberCall = Annotated[Call, Depends(_member)]
"""Called by an active member's node."""
OperatorCall = Annotated[Call, Depends(_operator)]
"""Called by an operator."""
PartyCall = Annotated[Call, Depends(_party)]
"""Called by an active member's node or an operator; the route looks at who it is."""
ROLES: dict[Any, str] = {_waiting: "waiting", _member: "member", _operator: "operator", _party: "party"}
