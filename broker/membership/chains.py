# SPDX-License-Identifier: Apache-2.0
"""A node's chain of envelopes as the log has it, for a node that lost its own copy.

- `own_envelopes` gives a node what it signed itself and the log took, page by page: it recognises each by its
  own signature, and needs it so that nothing is told twice on a new chain.
- `reset_event` is the one way to a new chain: an envelope ``chain.reset``, the first of its chain, signed by
  the organisation's key in force. That the chain which it gives up is its own, and that nothing more goes on
  that one, are rules of the log (`broker.log.transaction`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.log.rotations import Rotations
from broker.store.tables import log_envelope
from policies.identity import key_id
from policies.limits import OWN_ENVELOPES
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError

if TYPE_CHECKING:
    from broker.membership.directory import Member
    from broker.store import Session
    from policies.signing import Envelope

__all__ = ["own_envelopes", "reset_event"]


def own_envelopes(session: Session, member: Member, *, after: int) -> list[tuple[int, bytes]]:
    """Index and bytes (DSSE) of the next envelopes that a member's line of keys has signed."""
    line = Rotations.read(session).line(key_id(member.key))
    query = (
        select(log_envelope.c.idx, log_envelope.c.dsse)
        .where((log_envelope.c.idx > after) & log_envelope.c.signer.in_(line))
        .order_by(log_envelope.c.idx)
        .limit(OWN_ENVELOPES)
    )
    return [(row.idx, row.dsse) for row in session.execute(query)]


def reset_event(envelope: Envelope, member: Member) -> Event:
    """The event of a ``chain.reset``, once it is one of this member.

    1. the key in force signed it; 2. it is a ``chain.reset``, about no contract, run or round; 3. it begins
    its chain.

    Raises:
        SignatureInvalidError: Step 1.
        MemberEnvelopeError, EncodingError: Steps 1 to 3, another form.
    """
    payload = open_envelope(envelope, member.key)  # 1.
    place = (payload["kind"], payload["scope"], payload["run"], payload["round"])
    if place != (EntryType.CHAIN_RESET.value, None, None, None):  # 2.
        raise _refuse("an envelope chain.reset, about no contract, run or round", str(payload["kind"]))
    if payload["seq"] != 0:  # 3.
        raise _refuse("the first envelope of a chain", f"seq {payload['seq']}")
    return from_envelope(envelope, payload, actor=alias(member.alias_key, None, None, None))


def _refuse(need: str, found: str) -> MemberEnvelopeError:
    return MemberEnvelopeError(need=need, found=found, remedy="iriai-node chain reset makes it")
