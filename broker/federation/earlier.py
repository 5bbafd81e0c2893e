# SPDX-License-Identifier: Apache-2.0
"""Envelopes of a node that a reply should have brought, and did not: they come before one that cannot wait.

A node's envelopes are numbered. Under a halt nobody asks it for a round, so what a lost reply held would keep
its resume out of the log for ever. So a notice may bring them along. They are logged by the rules of replies
(`broker.federation.envelopes`): late contributions are refused, budget is counted, votes are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.federation.envelopes import add_envelopes, store_votes
from broker.federation.participants import Participant
from broker.federation.replies import NodeReply
from broker.federation.signed import ABOUT_CONTRACTS, CARRIED, Signed
from policies.identity import key_text
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.federation.books import Books
    from broker.log import LogTx
    from broker.membership.directory import Member
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import PartyClause
    from policies.signing import Envelope

__all__ = ["add_earlier", "read_earlier"]


def read_earlier(member: Member, envelopes: Iterable[Envelope]) -> tuple[Signed, ...]:
    """The envelopes, once each is the member's and of a kind that replies carry; before any transaction.

    Raises:
        SignatureInvalidError, MemberEnvelopeError: One is not.
    """
    found = tuple(Signed(envelope=one, payload=open_envelope(one, member.key)) for one in envelopes)
    for one in found:
        if one.kind not in CARRIED | ABOUT_CONTRACTS or one.payload["scope"] is None:
            raise MemberEnvelopeError(
                need="envelopes that a reply would bring",
                found=one.kind.value,
                remedy="send the oldest first",
            )
    return found


def add_earlier(
    session: Session,
    tx: LogTx,
    signed: tuple[Signed, ...],
    *,
    contract: Contract,
    party: PartyClause,
    member: Member,
    books: Books,
) -> None:
    """Logs what `read_earlier` gave, in its order.

    Raises:
        EnvelopesRefusedError: The log does not take one of them.
    """
    sender = Participant(
        party=party.party,
        group=party.group,
        key=key_text(member.key),
        node=member.node,
        node_key=member.key,
        alias_key=member.alias_key,
        dataset="",
    )
    reply = NodeReply(raw=b"", signed=signed, decision=None, submission=None, spend=None)
    slot = ("", None, None)
    add_envelopes(session, tx, sender, reply, contract=contract.digest, slot=slot, books=books)
    store_votes(session, tx, sender, reply, contract=contract.digest)
