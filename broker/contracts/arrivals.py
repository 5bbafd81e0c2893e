# SPDX-License-Identifier: Apache-2.0
"""A contributor's message as it arrives: read and checked before any transaction; nothing is changed here.

- What can be wrong with a message by itself is refused here: its sender, its signatures, the text that it
  brings. Whether it may follow in its lane is the machine's to say (`policies.contract.negotiation`).
- A counter-offer is read by the rules of an offer. Recipes and annexes that the negotiation holds need not
  come again.

    arrived = arrivals.read(member, name, Parts(message=envelope))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from broker.contracts.errors import OfferConflictError
from broker.contracts.pools import find_pool, no_negotiation
from broker.errors import RequestInvalidError
from policies.contract import CONTRACT_TYPE
from policies.contract.errors import BadTransitionError, DigestMismatchError
from policies.contract.negotiation.lanes import LaneMessage, open_message
from policies.encoding import unb64
from policies.identity import key_text
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.contracts.offers import Offers, Proposal
    from broker.contracts.service import Contracts
    from broker.membership.directory import Member
    from broker.store import Store
    from policies.contract import Contract
    from policies.contract.negotiation.pool import Pool

__all__ = ["Arrivals", "Arrived", "Parts", "signed_event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a contributor sends: the message, and what its type needs besides."""

    message: Envelope
    signature: str | None = None
    envelope: Envelope | None = None
    text: str | None = None
    recipes: Sequence[bytes] = ()
    annexes: Sequence[bytes] = ()
    prose: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A message that its sender signed, and what it brought: a text that can be offered, or signatures."""

    member: Member
    message: LaneMessage
    envelope: Envelope
    proposal: Proposal | None = None
    signature: str | None = None
    event: Event | None = None


class Arrivals:
    """The service; see the module."""

    def __init__(self, *, contracts: Contracts, offers: Offers, store: Store) -> None:
        self._contracts = contracts
        self._offers = offers
        self._store = store

    def read(self, member: Member, name: str, parts: Parts) -> Arrived:
        """A message as it would be taken; before any transaction, nothing is changed.

        1. the sender has, or had, a lane here; 2. its signature and form; 3. it is about this
        negotiation and brings what its type needs, nothing else; 4. a counter-offer can be offered,
        under the same name and version; 5. both signatures of a verify hold, over the text of the
        sender's lane, and its entry for the log acknowledges the warnings that the message does.

        Raises:
            NotPartyError: Step 1.
            SignatureInvalidError, LaneMessageError, EncodingError: Step 2.
            BadTransitionError, RequestInvalidError: Step 3.
            IriaiError: Step 4, see `Offers.read`; OfferConflictError: another name, version or
            predecessor.
            DigestMismatchError, SignatureInvalidError, MemberEnvelopeError: Step 5.
        """
        # 1.
        with self._store.read() as session:
            pool = find_pool(session, name)
            lanes = pool.lanes_of_key(key_text(member.key))
            if not lanes:
                raise no_negotiation(name)
            held = self._contracts.held(session, lanes[-1].digest)
        # 2.
        message = open_message(parts.message, member.key)
        # 3.
        _check_parts(name, message, parts)
        arrived = Arrived(member=member, message=message, envelope=parts.message)
        if parts.text is not None:
            # 4.
            proposal = self._offers.read(
                parts.text, recipes=parts.recipes, annexes=parts.annexes, prose=parts.prose, held=held
            )
            _check_same_name(pool, proposal.contract)
            return replace(arrived, proposal=proposal)
        if parts.signature is not None and parts.envelope is not None:
            # 5.
            if message.digest not in {one.digest for one in lanes}:
                raise DigestMismatchError(
                    need=lanes[-1].digest, found=message.digest, remedy="sign the text that the lane holds"
                )
            contract = self._contracts.for_caller(message.digest, member)
            event = signed_event(
                contract, member, parts.signature, parts.envelope, acknowledged=message.acknowledged
            )
            return replace(arrived, signature=parts.signature, event=event)
        return arrived


def _check_parts(name: str, message: LaneMessage, parts: Parts) -> None:
    if message.negotiation != name:
        raise BadTransitionError(
            need=f"a message of {name}", found=message.negotiation, remedy="send it to its own negotiation"
        )
    there = {
        "signature": parts.signature is not None,
        "envelope": parts.envelope is not None,
        "contract": parts.text is not None,
        "recipes": bool(parts.recipes),
        "annexes": bool(parts.annexes),
        "prose": parts.prose is not None,
    }
    needed = {"verify": {"signature", "envelope"}, "request": {"contract"}}.get(message.type, set())
    allowed = needed | ({"recipes", "annexes", "prose"} if message.type == "request" else set())
    sent = {part for part, here in there.items() if here}
    if not needed <= sent <= allowed:
        raise RequestInvalidError(
            need=f"with {message.type}: " + (" and ".join(sorted(needed)) or "the message alone"),
            found=" and ".join(sorted(sent)) or "the message alone",
            remedy="see docs/reference/http-api.md",
        )


def _check_same_name(pool: Pool, contract: Contract) -> None:
    wanted = (pool.contract_id, pool.version, pool.supersedes)
    found = (contract.contract_id, contract.version, contract.supersedes)
    if found != wanted:
        raise OfferConflictError(
            need=f"{wanted[0]} version {wanted[1]}, superseding {wanted[2]}",
            found=f"{found[0]} version {found[1]}, superseding {found[2]}",
            remedy="leave contract_id, version and supersedes as they are in the open offer",
        )


def signed_event(
    contract: Contract,
    member: Member,
    signature: str,
    envelope: Envelope,
    *,
    acknowledged: Iterable[str],
) -> Event:
    """The ``contract.signed`` event of a member, once both signatures hold.

    1. the member's signature over the contract's bytes; 2. over the envelope; 3. the envelope is about this
    contract, by the sender's alias; 4. it acknowledges the same warnings as what it came with.

    Raises:
        SignatureInvalidError: Step 1 or 2: another key's, or over other bytes.
        MemberEnvelopeError: Step 3 or 4: the envelope says something else.
    """
    ids = list(acknowledged)
    # 1.
    Envelope(payload_type=CONTRACT_TYPE, payload=contract.canonical, signatures=()).with_signature(
        member.key, unb64(signature)
    )
    # 2.
    payload = open_envelope(envelope, member.key)
    # 3.
    actor = alias(member.alias_key, contract.digest, None, None)
    says = (payload["kind"], payload["scope"], payload["run"], payload["round"])
    body = dict(payload["body"])
    said = body.pop("acknowledged", [])
    if says != (EntryType.CONTRACT_SIGNED.value, contract.digest, None, None) or body != {
        "contract": contract.digest,
        "party": actor,
    }:
        raise MemberEnvelopeError(
            need=f"contract.signed of {contract.digest} by this organisation's alias",
            found="another envelope",
            remedy="sign with iriai-node contract sign",
        )
    # 4.
    if said != ids or ("acknowledged" in payload["body"]) != bool(ids):
        raise MemberEnvelopeError(
            need="the entry for the log acknowledges what the message does: "
            + (", ".join(ids) or "nothing, and has no such field"),
            found="another list",
            remedy="sign with iriai-node contract sign, which writes both from one consent",
        )
    return from_envelope(envelope, payload, actor=actor)
