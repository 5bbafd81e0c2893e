# SPDX-License-Identifier: Apache-2.0
"""A contributor tightens a contract alone: proven here, signed by both, final in one transaction.

- **Proven before anything is written.** The successor allows no request that the contract in force refuses,
  and takes no entitlement from another party (`policies.contract.amendment`). Where only the prover could
  tell and it is not installed here, the answer is ``contract.proof-missing``, never a yes.
- **Signed is signed.** Once both signatures of its initiator hold, its ``contract.signed`` gets its entry,
  also if the rest is refused: a number that is left out of a member's chain would block it.
- **All or nothing.** Text, recipes, both signatures, verdict and every entry are written together.
- Everybody else finds it among its contracts, fetches the verdict if it likes, and proves it again before it
  uses it. It takes effect when its term begins (`broker.contracts.amendments`).
- One successor at a time: an open negotiation of a change ends here, because it would follow a contract that
  is about to be superseded.

    brought = tightenings.read(old, member, Parts(...))          # no transaction yet
    done = tightenings.take(session, tx, brought)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from broker.contracts.amendments import refusal_of
from broker.contracts.arrivals import signed_event
from broker.contracts.errors import NotPartyError, OfferConflictError
from broker.contracts.lineage import final_successor
from broker.contracts.offers import draft_of
from broker.contracts.pools import open_pool_of
from broker.contracts.service import FINALIZED, PROSE, SIGNED, VERDICT, state_of
from broker.store.tables import contract_annex, contract_document, contract_signature, statement
from broker.store.upserts import insert_or_ignore, insert_or_update
from policies.contract import CONTRACT_TYPE, load
from policies.contract.amendment.succession import check_succession
from policies.contract.entering import EFFECT, OPEN, TIGHTEN, no_looser
from policies.contract.errors import DeadlineError, RefusedError
from policies.contract.negotiation.pool import Ended
from policies.encoding import b64, digest, unb64
from policies.errors import IriaiError
from policies.log.entries import EntryType, Event
from policies.ports import iso_s, to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.contracts.amendments import Amendments
    from broker.contracts.negotiations import Negotiations
    from broker.contracts.offers import Offers, Proposal
    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session, Store
    from policies.contract import Contract
    from policies.contract.amendment.verdict import Verdict
    from policies.identity import SigningKey

__all__ = ["Brought", "Parts", "Taken", "Tightenings"]

_OVERTAKEN: Final = "contract.superseded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a contributor sends: the text, its signature (base64), and its ``contract.signed``."""

    text: str
    recipes: Sequence[bytes]
    annexes: Sequence[bytes] = ()
    signature: str
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A tightening as it arrived, signed by who starts it.

    Attributes:
        old: The contract that rules.
        party: Who starts it.
        member: Likewise.
        signature: Over the successor's bytes, base64.
        event: Of its ``contract.signed``.
        proven: The successor, and the verdict that it is no looser.
        refusal: Why it is none; then nothing is proven.
    """

    old: Contract
    party: str
    member: Member
    signature: str
    event: Event
    proven: tuple[Proposal, Verdict] | None
    refusal: IriaiError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of it.

    Attributes:
        indexes: Entries whose receipts its initiator gets.
        contract: Digest of the successor, once it is final.
        refusal: Why it is not final; None if it is.
        ended: Id of the negotiation that ended for it, or None.
    """

    indexes: tuple[int, ...]
    contract: str = ""
    refusal: IriaiError | None = None
    ended: str | None = None


class Tightenings:
    """The service; see the module."""

    def __init__(
        self,
        *,
        contracts: Contracts,
        offers: Offers,
        negotiations: Negotiations,
        amendments: Amendments,
        store: Store,
        broker_key: SigningKey,
    ) -> None:
        self._contracts = contracts
        self._offers = offers
        self._negotiations = negotiations
        self._amendments = amendments
        self._store = store
        self._key = broker_key
        self._proving = threading.Lock()  # the prover's own state is not for two threads at once

    def read(self, old: Contract, member: Member, parts: Parts) -> Brought:
        """A tightening as it would be taken; before any transaction, nothing is changed.

        1. who brings it is a contributor; 2. the text loads; 3. both signatures hold, and the linter's
        warnings are acknowledged; 4. it could be offered, follows the contract that it is to replace, is no
        looser, and takes nothing from others. What step 4 refuses is told, and the entry is logged.

        Raises:
            RefusedError: Step 1.
            ContractError: Step 2.
            SignatureInvalidError, MemberEnvelopeError: Step 3.
        """
        # 1.
        party = self._contracts.party_of(old, member)
        if party.role != "contributor":
            raise RefusedError(
                need="a contributor, who signs what it tightens",
                found=party.role,
                remedy="let a contributor start it, or negotiate it as a change",
                clause=old.amendment.clause,
            )
        # 2.
        new = load(parts.text)
        # 3.
        event = signed_event(
            new, member, parts.signature, parts.envelope, acknowledged=draft_of(new).warnings
        )
        # 4.
        proven, refusal = None, None
        try:
            proven = self._proven(old, parts, party.party)
        except IriaiError as error:
            refusal = error
        return Brought(
            old=old,
            party=party.party,
            member=member,
            signature=parts.signature,
            event=event,
            proven=proven,
            refusal=refusal,
        )

    def _proven(self, old: Contract, parts: Parts, initiator: str) -> tuple[Proposal, Verdict]:
        with self._store.read() as session:
            held = self._contracts.held(session, old.digest)
            rotated = self._contracts.life(old, session).rotated
        present = {one.key: rotated[one.party] for one in old.contributors if one.party in rotated}
        proposal = self._offers.read(
            parts.text, recipes=parts.recipes, annexes=parts.annexes, prose=None, held=held, present=present
        )
        check_succession(old, proposal.contract)
        with self._proving:
            return proposal, no_looser(old, proposal.contract, initiator)

    def take(self, session: Session, tx: LogTx, brought: Brought) -> Taken:
        """Makes a tightening final, or says why not; the same one again changes nothing.

        The contract that rules is asked whether it may be opened, which is recorded, and whether it could
        take effect: that is asked again, and recorded, when the time comes.
        """
        if brought.proven is None:
            return Taken(indexes=(tx.add(brought.event),), refusal=brought.refusal)
        proposal, verdict = brought.proven
        old, new = brought.old, proposal.contract
        if state_of(session, new.digest) == FINALIZED:
            return Taken(indexes=(tx.add(brought.event),), contract=new.digest)
        refusal = _in_the_way(session, old, new, at_ms=tx.now_ms) or self._against(session, tx, brought, new)
        if refusal is not None:
            return Taken(indexes=(tx.add(brought.event),), refusal=refusal)
        tx.add(_proposed(new))
        index = tx.add(brought.event)
        self._keep(session, old, proposal, verdict.to_bytes(), at_ms=tx.now_ms)
        tx.add(_finalized(new, self._sign(session, brought, new)))
        ended = self._end_negotiation(session, tx, new)
        return Taken(indexes=(index,), contract=new.digest, ended=ended)

    def _against(self, session: Session, tx: LogTx, brought: Brought, new: Contract) -> RefusedError | None:
        """What the contract that rules has against it; its answer about the opening is recorded."""
        opening, effect = (
            self._amendments.judged(
                session, brought.old, new, stage=stage, kind=TIGHTEN, party=brought.party, signed=signed
            )
            for stage, signed in ((OPEN, ()), (EFFECT, (brought.party, new.broker.party)))
        )
        opening.record(session, tx)
        return refusal_of(opening) or refusal_of(effect)

    def _keep(
        self, session: Session, old: Contract, proposal: Proposal, verdict: bytes, *, at_ms: int
    ) -> None:
        """Text, recipes, the predecessor's text for people, and the verdict."""
        new = proposal.contract
        self._offers.keep(session, proposal, at_ms=at_ms)
        of = contract_document.c.digest == new.digest
        session.execute(update(contract_document).where(of).values(state=FINALIZED, at_ms=at_ms))
        where = (contract_annex.c.contract == old.digest) & (contract_annex.c.sha256 == PROSE)
        prose: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
        annexes = {VERDICT: verdict} if prose is None else {VERDICT: verdict, PROSE: prose}
        for name, data in annexes.items():
            row = {"contract": new.digest, "sha256": name, "bytes": data}
            insert_or_ignore(session, contract_annex, row)
        insert_or_ignore(session, statement, {"digest": digest(verdict), "bytes": verdict})

    def _sign(self, session: Session, brought: Brought, new: Contract) -> Envelope:
        """Keeps both signatures; gives the envelope."""
        own = Envelope.seal(new.canonical, CONTRACT_TYPE, self._key).signatures[0][1]
        for party, signature in ((brought.party, brought.signature), (new.broker.party, b64(own))):
            row = {"digest": new.digest, "party": party, "kind": SIGNED, "signature_b64": signature}
            insert_or_update(session, contract_signature, row)
        empty = Envelope(payload_type=CONTRACT_TYPE, payload=new.canonical, signatures=())
        first = empty.with_signature(brought.member.key, unb64(brought.signature))
        return first.with_signature(self._key.public, own)

    def _end_negotiation(self, session: Session, tx: LogTx, new: Contract) -> str | None:
        other = open_pool_of(session, new.contract_id)
        if other is None:
            return None
        text = f"version {new.version} is final, as a tightening"
        self._negotiations.withdraw(session, tx, other.id, Ended(code=_OVERTAKEN, clause=None, text=text))
        return other.id

    def verdict(self, session: Session, contract: Contract) -> bytes:
        """Bytes of the verdict behind a tightening.

        Raises:
            NotPartyError: It is none.
        """
        where = (contract_annex.c.contract == contract.digest) & (contract_annex.c.sha256 == VERDICT)
        data: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
        if data is None:
            raise NotPartyError(
                need="a contract that tightens another one",
                found=contract.digest,
                remedy="what everybody signed needs no verdict",
            )
        return data


def _in_the_way(session: Session, old: Contract, new: Contract, *, at_ms: int) -> IriaiError | None:
    """1. too late; 2. what it supersedes is not final; 3. something else supersedes it; 4. it was closed."""
    # 1.
    if to_ms(new.sign_by) <= at_ms:
        return DeadlineError(
            need=f"signatures before {new.sign_by}",
            found=iso_s(at_ms),
            remedy="give the text a later sign_by, and a term that begins after it",
        )
    # 2.
    if state_of(session, old.digest) != FINALIZED:
        return _conflict(
            "a contract that is final", f"{old.digest}, which is not", "refuse the offer instead"
        )
    # 3.
    other = final_successor(session, old.digest)
    if other is not None:
        return _conflict(
            f"no other successor of {old.digest}", f"{other}, which is final", "amend that one once it rules"
        )
    # 4.
    if state_of(session, new.digest) is not None:
        return _conflict(
            "a text that nobody has offered",
            f"{new.digest}, which was",
            "propose it with a later sign_by: that is another text",
        )
    return None


def _conflict(need: str, found: str, remedy: str) -> OfferConflictError:
    return OfferConflictError(need=need, found=found, remedy=remedy)


def _proposed(new: Contract) -> Event:
    return Event(
        type=EntryType.CONTRACT_PROPOSED,
        scope=new.digest,
        pub={"contract": new.digest, "version": new.version, "supersedes": new.supersedes},
    )


def _finalized(new: Contract, envelope: Envelope) -> Event:
    return Event(
        type=EntryType.CONTRACT_FINALIZED,
        scope=new.digest,
        pub={
            "contract": new.digest,
            "signatures": digest(envelope.to_bytes()),
            "prose": None if new.prose is None else f"sha256:{new.prose.sha256}",
        },
    )
