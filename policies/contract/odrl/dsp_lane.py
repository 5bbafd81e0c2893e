# SPDX-License-Identifier: Apache-2.0
"""A negotiation with one connector: what the consumer may say, and what the provider then does. Pure.

States and senders are the rows of `policies.contract.negotiation.pool.TRANSITIONS`, the same table as for
lanes. Unlike a
lane, nothing is negotiated here: the contract exists, and this only says under which of its pairs a connector
comes. So the provider's move follows from facts:

1. what the contract no longer allows, and what is overdue, ends, where the provider may end it
2. a request for exactly our terms is agreed; any other request gets our terms, unchanged, as an offer
3. an accepted offer is agreed, a verified agreement is final

Steps 2 and 3 wait while the contract is not in force yet or halted: an offer may be made, nothing is
concluded.

    heard(lane.state, LaneState.ACCEPTED)                      # raises unless the consumer may
    move = answer(lane, facts, now_ms=now)                     # None: it is the consumer's turn, or we wait
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policies.contract.errors import BadTransitionError
from policies.contract.lifecycle import ACTIVE, EXPIRED, PENDING, SUPERSEDED, TERMINATED
from policies.contract.negotiation.lanes import BROKER, CONTRIBUTOR
from policies.contract.negotiation.pool import DEADLINE_MS, ENDED, TRANSITIONS, LaneState
from policies.limits import NEGOTIATION_ROUNDS
from policies.ports import iso_s

__all__ = ["DspLane", "Facts", "Move", "answer", "deadline_after", "heard"]

_S = LaneState
_CONCLUDING: Final = frozenset({PENDING, ACTIVE})
_OVER: Final = {
    EXPIRED: ("contract.expired", "the contract's term is over"),
    SUPERSEDED: ("contract.superseded", "a later version took the contract's place"),
    TERMINATED: ("contract.terminated", "the contract has ended"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DspLane:
    """Where a negotiation stands.

    Attributes:
        state: Of the Dataspace Protocol.
        rounds: Requests of the consumer so far.
        deadline_ms: When it ends by itself, or None.
    """

    state: LaneState
    rounds: int
    deadline_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the provider knows when it moves.

    Attributes:
        standing: Of the contract (`policies.contract.lifecycle.standing`).
        open: Whether the pair is still open to this connector.
        same_terms: Whether the consumer's last request was exactly our offer.
    """

    standing: str
    open: bool
    same_terms: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A move of the provider; code and reason where it ends the negotiation."""

    to: LaneState
    code: str | None = None
    reason: str | None = None


def heard(state: LaneState | None, to: LaneState) -> LaneState:
    """The next state, if the consumer may bring it about.

    Raises:
        BadTransitionError: Not from here, or not by the consumer.
    """
    if (state, to, CONTRIBUTOR) not in TRANSITIONS:
        may = sorted(there for here, there, who in TRANSITIONS if here == state and who == CONTRIBUTOR)
        raise BadTransitionError(
            need="one of " + " ".join(may) if may else f"nothing: in {state} it is not the consumer's turn",
            found=to,
            remedy="ask for the negotiation's state and send what may follow",
        )
    return to


def answer(lane: DspLane, facts: Facts, *, now_ms: int) -> Move | None:
    """What the provider does now, in the order of the module."""
    # 1.
    ended = _ended(lane, facts, now_ms)
    if ended is not None:
        return ended if (lane.state, _S.TERMINATED, BROKER) in TRANSITIONS else None
    # 2.
    concluding = facts.standing in _CONCLUDING
    if lane.state is _S.REQUESTED:
        return Move(to=_S.AGREED if concluding and facts.same_terms else _S.OFFERED)
    # 3.
    follows = {_S.ACCEPTED: _S.AGREED, _S.VERIFIED: _S.FINALIZED}.get(lane.state)
    return Move(to=follows) if follows is not None and concluding else None


def _ended(lane: DspLane, facts: Facts, now_ms: int) -> Move | None:
    if lane.state in ENDED:
        return None
    if lane.deadline_ms is not None and lane.deadline_ms <= now_ms:
        late = f"{lane.state} was to be over by {iso_s(lane.deadline_ms)}"
        return Move(to=_S.TERMINATED, code="negotiation.deadline", reason=late)
    if facts.standing in _OVER:
        code, reason = _OVER[facts.standing]
        return Move(to=_S.TERMINATED, code=code, reason=reason)
    if not facts.open:
        return Move(to=_S.TERMINATED, code="contract.not-entitled", reason="the offer is not open any more")
    if lane.rounds > NEGOTIATION_ROUNDS:
        most = f"more than {NEGOTIATION_ROUNDS} requests; the terms do not change"
        return Move(to=_S.TERMINATED, code="negotiation.rounds", reason=most)
    return None


def deadline_after(state: LaneState, *, now_ms: int, before_ms: int | None) -> int | None:
    """When a negotiation in this state ends by itself; a verified one keeps the deadline that it had."""
    if state is _S.VERIFIED:
        return before_ms
    allowed = DEADLINE_MS.get(state)
    return None if allowed is None else now_ms + allowed
