# SPDX-License-Identifier: Apache-2.0
"""Negotiations: texts are put to their contributors, messages arrive, time passes.

    offered --accept by all--> broker signs --verify by all--> (held) --two people--> finalized
                                                                             countered, terminated

- The rules are the machine's (`policies.contract.negotiation`). Here stands what the machine cannot
  know: who is a member, what a text says, what time it is. All changes are made in one unit of work of
  the writer.
- Before anything else, every event looks whether a deadline has passed or a contributor is no member any
  more; both end the round.
- A member's ``contract.signed`` gets its entry whatever becomes of the message: it is validly signed,
  and a number that is left out of the member's chain would block it.
- A successor is put to nobody before the contract that rules has let it be opened
  (`broker.contracts.amendments`), an offer and a counter-offer alike.
- A text becomes final only once two of the broker's people approved exactly it (`activate`); until then it
  stays signed, and waits until ``sign_by``. Everybody else's checks are the same as ever.
- A text whose negotiation ended is not put to anybody again, by an offer or by a counter-offer: the log says
  of each text at most once that it ended. A later ``sign_by`` makes another text.

    arrived = arrivals.read(member, name, parts)         # `broker.contracts.arrivals`: no transaction yet
    done = negotiations.receive(session, tx, arrived)    # what follows, or why nothing does
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.errors import OfferConflictError
from broker.contracts.pool_book import PoolBook, Write
from broker.contracts.pools import find_pool, open_pool_of, pool_of_text
from broker.contracts.service import FINALIZED, OFFERED, TERMINATED, VOID, state_of
from broker.store.tables import contract_document, lane_message
from policies.contract.errors import MessageConflictError, OvertakenError
from policies.contract.negotiation import (
    Activated,
    Countered,
    Effect,
    Ended,
    Incident,
    Opening,
    Pool,
    Received,
    Refused,
    Ticked,
    Withdrawn,
    open_pool,
    step,
)
from policies.contract.negotiation.pool import OPEN
from policies.encoding import new_id
from policies.identity import key_text

if TYPE_CHECKING:
    from broker.contracts.amendments import Amendments
    from broker.contracts.arrivals import Arrived
    from broker.contracts.offers import Offers, Proposal
    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.errors import IriaiError
    from policies.ports import Entropy

__all__ = ["Done", "Negotiations"]

_ID_BYTES: Final = 10
_SEED_BYTES: Final = 16
_ENDED: Final = {
    TERMINATED: "which ended without a contract",
    FINALIZED: "which is final",
    VOID: "which was final and never took effect",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a message.

    Attributes:
        pool: The negotiation now.
        indexes: Entries whose receipts the sender gets.
        refusal: Why the message changes nothing, or None.
        lasting: Whether something is to be kept even so: an entry, a round that ended, an incident.
    """

    pool: Pool
    indexes: tuple[int, ...]
    refusal: IriaiError | None
    lasting: bool


class Negotiations:
    """The service; see the module. Methods that take a session are units of work of the writer."""

    def __init__(
        self,
        *,
        contracts: Contracts,
        offers: Offers,
        book: PoolBook,
        amendments: Amendments,
        entropy: Entropy,
    ) -> None:
        self._amendments = amendments
        self._contracts = contracts
        self._offers = offers
        self._entropy = entropy
        self.book = book

    # --- the broker's side ---

    def open(
        self, session: Session, tx: LogTx, proposal: Proposal, *, by: str | None = None
    ) -> IriaiError | None:
        """Puts a text to its contributors; the same text again changes nothing.

        Args:
            session: Of the transaction.
            tx: Likewise.
            proposal: The text.
            by: Short name of the contributor that asks for it; the broker if left out.

        Returns:
            Why the contract that rules does not let this successor be opened, which is on record; else None.

        Raises:
            OfferConflictError: It does not fit what was offered before.
            NotASuccessorError: It does not follow the contract that it names.
            DeadlineError: ``sign_by`` is over.
        """
        contract = proposal.contract
        other = open_pool_of(session, contract.contract_id)
        if other is not None:
            other = self.look(session, tx, other.id)
        state = state_of(session, contract.digest)
        if state in {OFFERED, FINALIZED}:
            return None
        _check_fits(session, contract, state, other)
        refusal = self._amendments.opening(session, tx, contract, by=by)
        if refusal is not None:
            return refusal
        pool, effects = open_pool(
            Opening(
                id=new_id("neg", self._entropy.token_bytes(_ID_BYTES)),
                contract_id=contract.contract_id,
                version=contract.version,
                supersedes=contract.supersedes,
                seed=self._entropy.token_bytes(_SEED_BYTES).hex(),
                draft=proposal.draft,
            ),
            at_ms=tx.now_ms,
        )
        self._offers.keep(session, proposal, at_ms=tx.now_ms)
        self.book.write(Write(session=session, tx=tx, before=None, after=pool), effects)
        return None

    def withdraw(self, session: Session, tx: LogTx, name: str, ended: Ended) -> Pool:
        """Ends the round for all, by the broker; a round that has ended stays as it is."""
        before = find_pool(session, name)
        after, effects = step(before, Withdrawn(at_ms=tx.now_ms, ended=ended))
        self.book.write(Write(session=session, tx=tx, before=before, after=after), effects)
        return after

    def activate(self, session: Session, tx: LogTx, name: str, digest: str) -> Pool:
        """Two people approved this text: it is final now, or with the last signature.

        What is not the open text of an open round stays as it is.
        """
        before = self.look(session, tx, name)
        after, effects = step(before, Activated(at_ms=tx.now_ms, digest=digest))
        self.book.write(Write(session=session, tx=tx, before=before, after=after), effects)
        return after

    def open_of_text(self, session: Session, digest: str) -> Pool | None:
        """The open negotiation whose open text this is; None if there is none."""
        found = pool_of_text(session, digest)
        return found if found is not None and found.state == OPEN else None

    def look(self, session: Session, tx: LogTx, name: str) -> Pool:
        """The negotiation, after what time and membership made of it."""
        before = find_pool(session, name)
        after, effects = self._look(session, before, tx.now_ms)
        self.book.write(Write(session=session, tx=tx, before=before, after=after), effects)
        return after

    def _look(self, session: Session, pool: Pool, at_ms: int) -> tuple[Pool, tuple[Effect, ...]]:
        ended = self._left(session, pool)
        if ended is None:
            return step(pool, Ticked(at_ms=at_ms))
        return step(pool, Withdrawn(at_ms=at_ms, ended=ended))

    def _left(self, session: Session, pool: Pool) -> Ended | None:
        if pool.state != OPEN:
            return None
        error = self._offers.left(self._contracts.read_in(session, pool.draft.digest))
        if error is None:
            return None
        text = "this contributor is not the active member any more that the contract pins"
        return Ended(code=error.code, clause=error.clause, text=text)

    def stale(self, session: Session, pool: Pool, now_ms: int) -> bool:
        """Whether `look` would change something."""
        late = pool.deadline_ms is not None and pool.deadline_ms <= now_ms
        return late or self._left(session, pool) is not None

    # --- a contributor's messages ---

    def receive(self, session: Session, tx: LogTx, arrived: Arrived) -> Done:
        """Takes a message; see the module.

        Raises:
            OfferConflictError: A counter-offer of a text whose negotiation has ended; nothing is kept.
        """
        message = arrived.message
        before = find_pool(session, message.negotiation)
        indexes = () if arrived.event is None else (tx.add(arrived.event),)
        seen, looked = self._look(session, before, tx.now_ms)
        pool, effects = self._step(session, seen, arrived, tx.now_ms)
        if arrived.proposal is not None and any(isinstance(one, Countered) for one in effects):
            contract = arrived.proposal.contract
            _check_not_ended(contract, state_of(session, contract.digest))
            barred = self._amendments.opening(session, tx, contract, by=message.party)
            if barred is not None:  # its decision is on record; nothing else of the message is
                self.book.write(Write(session=session, tx=tx, before=before, after=seen), looked)
                return Done(pool=seen, indexes=indexes, refusal=barred, lasting=True)
            self._offers.keep(session, arrived.proposal, at_ms=tx.now_ms)
        effects = (*looked, *effects)
        self.book.write(
            Write(session=session, tx=tx, before=before, after=pool, received=arrived.envelope), effects
        )
        refusal = next((one.error for one in effects if isinstance(one, Refused)), None)
        others = [one for one in effects if not isinstance(one, Refused)]
        lasting = bool(others or indexes) or isinstance(refusal, OvertakenError)
        return Done(pool=pool, indexes=indexes, refusal=refusal, lasting=lasting)

    def _step(
        self, session: Session, pool: Pool, arrived: Arrived, at_ms: int
    ) -> tuple[Pool, tuple[Effect, ...]]:
        message = arrived.message
        used = session.scalar(select(lane_message.c.id).where(lane_message.c.id == message.id))
        if used is not None and message.id not in pool.known:
            error = MessageConflictError(
                need="a message id that no other negotiation has",
                found=message.id,
                remedy="give each message a fresh id",
            )
            return pool, (Incident(kind=error.code), Refused(error=error))
        return step(
            pool,
            Received(
                message=message,
                key=key_text(arrived.member.key),
                at_ms=at_ms,
                counter=None if arrived.proposal is None else arrived.proposal.draft,
                signature=arrived.signature,
            ),
        )


def _check_not_ended(contract: Contract, state: str | None) -> None:
    """A text whose negotiation has ended is put to nobody again, by an offer or by a counter-offer.

    Raises:
        OfferConflictError: It ended without a contract, or with one.
    """
    how = _ENDED.get(str(state))
    if how is not None:
        raise OfferConflictError(
            need="a text whose negotiation has not ended",
            found=f"{contract.digest}, {how}",
            remedy="give it a later sign_by: that is another text",
        )


def _check_fits(session: Session, contract: Contract, state: str | None, other: Pool | None) -> None:
    """1. the text was not closed before; 2. nothing else is open; 3. it follows what is in force."""
    # 1.
    _check_not_ended(contract, state)
    # 2.
    if other is not None and other.state == OPEN:
        raise OfferConflictError(
            need=f"the open text of {contract.contract_id}: {other.draft.digest} in round {other.round}",
            found=contract.digest,
            remedy="answer in that negotiation, or wait until it has ended",
        )
    # 3.
    same = (contract_document.c.contract_id == contract.contract_id) & (
        contract_document.c.state == FINALIZED
    )
    final = session.execute(
        select(contract_document.c.digest, contract_document.c.version)
        .where(same)
        .order_by(contract_document.c.version.desc())
    ).first()
    wanted = (1, None) if final is None else (final.version + 1, final.digest)
    if (contract.version, contract.supersedes) != wanted:
        raise OfferConflictError(
            need=f"version {wanted[0]} of {contract.contract_id}, superseding {wanted[1]}",
            found=f"version {contract.version}, superseding {contract.supersedes}",
            remedy="give the text the next version and the digest of the one in force, or a new contract_id",
        )
