# SPDX-License-Identifier: Apache-2.0
"""Once: a signature works one time, and a change happens one time, also across a crash.

- A nonce is remembered until no copy of its request could still be fresh. A key that has used up its room
  is refused. While the log is frozen, nonces are remembered in memory: reads go on, changes are refused.
- The answer of a change is stored in the transaction of its effect, under the caller's key and
  Idempotency-Key, with a digest of the request. The same request gets the stored answer; another one under
  that key is refused.
- An answer is kept for `IDEMPOTENCY_DAYS`. Afterwards it is forgotten (`broker.auditing.upkeep`), and that
  the key was used is not: the same request is refused from then on, never done again, however late it comes.
- Fields that are told once (secrets) are not stored, and receipts are made again, at the newest head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from broker.api.problems import MEDIA_TYPE as PROBLEM
from broker.api.problems import problem_document
from broker.errors import (
    IdempotencyMismatchError,
    IdempotencyMissingError,
    IdempotencyOldError,
    NonceStoreFullError,
)
from broker.log.errors import LogFrozenError
from broker.store.tables import idempotency, nonce
from policies.encoding import Json, canonical
from policies.errors import IriaiError, RequestReplayedError
from policies.limits import FROZEN_NONCES, IDEMPOTENCY_DAYS, IDEMPOTENCY_KEY_CHARS, NONCES_KEPT
from policies.signing import VerifiedHead, VerifiedRequest, parse_envelope_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.log.entries import Event

__all__ = ["Answer", "Slot", "check_unseen", "claim_nonce", "idempotency_key", "store_nonce"]

JSON = "application/json"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one change: whose key, which Idempotency-Key, which request."""

    key_id: str
    idem: str
    request: str

    def stored(self, session: Session) -> Answer | None:
        """The answer that this change was given before.

        Raises:
            IdempotencyMismatchError: The slot was used for another request.
            IdempotencyOldError: It was used so long ago that its answer is forgotten.
        """
        mine = (idempotency.c.key_id == self.key_id) & (idempotency.c.idem == self.idem)
        row = session.execute(select(idempotency).where(mine)).mappings().first()
        if row is None:
            return None
        if row["at_ms"] is None:
            raise IdempotencyOldError(
                need=f"a change that was first sent within the last {IDEMPOTENCY_DAYS} days",
                found="an Idempotency-Key that was used before that; its answer is not kept",
                remedy="look what became of it; a new change needs a new key",
            )
        if row["body_digest"] != self.request:
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

    def keep(self, session: Session, answer: Answer, now_ms: int, *, forget: frozenset[str]) -> None:
        """Stores an answer without the fields that are told once."""
        kept = {name: value for name, value in answer.body.items() if name not in forget}
        stored = {"body": kept, "media_type": answer.media_type, "indexes": list(answer.indexes)}
        session.execute(
            insert(idempotency).values(
                key_id=self.key_id,
                idem=self.idem,
                body_digest=self.request,
                status=answer.status,
                response=canonical(stored),
                at_ms=now_ms,
            )
        )


def idempotency_key(request: VerifiedRequest) -> str:
    """The Idempotency-Key of a change.

    Raises:
        IdempotencyMissingError: None that can be used.
    """
    idem = request.idempotency_key or ""
    if not 0 < len(idem) <= IDEMPOTENCY_KEY_CHARS or not idem.isascii() or not idem.isprintable():
        raise IdempotencyMissingError(
            need=f"an Idempotency-Key of at most {IDEMPOTENCY_KEY_CHARS} plain characters",
            found=f"{len(idem)} characters",
            remedy="give each change a key of its own and keep it when sending again",
        )
    return idem


def claim_nonce(session: Session, request: VerifiedRequest, now_ms: int) -> None:
    """Stores a nonce; those that have expired go.

    Raises:
        RequestReplayedError: It was seen.
        NonceStoreFullError: Too many of this key are remembered.
    """
    session.execute(delete(nonce).where(nonce.c.expires_ms < now_ms))
    check_unseen(session, request)
    mine = nonce.c.key_id == request.key_id
    if (session.scalar(select(func.count()).select_from(nonce).where(mine)) or 0) >= NONCES_KEPT:
        raise _too_many(NONCES_KEPT)
    session.execute(
        insert(nonce).values(key_id=request.key_id, nonce=request.nonce, expires_ms=request.expires_ms)
    )


def check_unseen(session: Session, request: VerifiedRequest | VerifiedHead) -> None:
    """Looks a nonce up and stores nothing.

    Raises:
        RequestReplayedError: It was seen.
    """
    same = (nonce.c.key_id == request.key_id) & (nonce.c.nonce == request.nonce)
    if session.scalar(select(nonce.c.nonce).where(same)) is not None:
        raise RequestReplayedError(
            need="a nonce that was not seen", found=request.nonce, remedy="sign each request afresh"
        )


def _too_many(most: int) -> NonceStoreFullError:
    return NonceStoreFullError(need=f"at most {most} requests a minute", found="more", remedy="wait a minute")


async def store_nonce(services: Services, request: VerifiedRequest, events: Sequence[Event] = ()) -> None:
    """Stores the nonce of a request that changes nothing, durably, before it is answered.

    What the log has to say of its refusal comes with it.

    A frozen log takes no write, but is read all the more: then this process remembers the nonce.

    Raises:
        RequestReplayedError: It was seen.
        NonceStoreFullError: Too many of this key are remembered.
    """
    now_ms = services.clock.now_ms()

    def work(session: Session, tx: LogTx) -> None:
        claim_nonce(session, request, now_ms)
        for one in events:
            tx.add(one)

    try:
        await services.writer.run(work)
    except LogFrozenError:
        _remember(services, request, now_ms)


def _remember(services: Services, request: VerifiedRequest, now_ms: int) -> None:
    with services.store.read() as session:
        check_unseen(session, request)
    if not services.frozen_nonces.claim(request, now_ms):
        raise _too_many(FROZEN_NONCES)
