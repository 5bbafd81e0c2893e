# SPDX-License-Identifier: Apache-2.0
"""Whether a contributor's message may be taken, and if not, why. Pure; nothing is changed here.

`check_message` looks in this order:

1. its id is new;
2. it is in a lane of its sender;
3. no counter-offer took the lane's place;
4. the round is open, or the contributor ends a lane in AGREED;
5. it follows the lane's last message;
6. the transition exists;
7. it is about the text that the lane holds, a counter-offer about another one;
8. what its type needs: a counter-offer keeps its sender, a round is left and there is time to sign; a
   signature was checked and acknowledges every warning.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from policies.contract.errors import (
    BadTransitionError,
    DeadlineError,
    DigestMismatchError,
    MessageConflictError,
    OvertakenError,
    UnacknowledgedError,
)
from policies.contract.negotiation.lanes import CONTRIBUTOR
from policies.contract.negotiation.pool import OPEN, TRANSITIONS, Lane, LaneState, Pool
from policies.limits import NEGOTIATION_ROUNDS
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from policies.contract.negotiation.events import Received

__all__ = ["LEADS_TO", "check_message", "too_late"]

_S = LaneState
LEADS_TO: Final[Mapping[str, LaneState]] = MappingProxyType(
    {
        "request": _S.REQUESTED,
        "accept": _S.ACCEPTED,
        "verify": _S.VERIFIED,
        "terminate": _S.TERMINATED,
    }
)
"""Where each message of a contributor leads."""


def check_message(pool: Pool, event: Received) -> Lane:
    """The lane that the message moves; see the module.

    Raises:
        MessageConflictError: Step 1.
        BadTransitionError: Steps 2, 4, 5, 6 and 8.
        OvertakenError: Step 3.
        DeadlineError: Steps 4 and 8.
        DigestMismatchError: Steps 7 and 8.
        UnacknowledgedError: Step 8.
    """
    _new(pool, event)
    lane = _own_lane(pool, event)
    for check in _IN_LANE:
        check(pool, lane, event)
    return lane


def _new(pool: Pool, event: Received) -> None:
    """1."""
    if event.message.id not in pool.known:
        return
    raise MessageConflictError(
        need=f"the bytes of {event.message.id} as they came first: {pool.known[event.message.id]}",
        found=event.message.hash,
        remedy="give new content a new message id; was the node restored from a backup?",
    )


def _own_lane(pool: Pool, event: Received) -> Lane:
    """2."""
    message = event.message
    lane = pool.find(message.pid)
    if (
        lane is not None
        and message.sender == CONTRIBUTOR
        and (message.negotiation, message.party) == (pool.id, lane.party)
        and event.key == lane.key
    ):
        return lane
    raise BadTransitionError(
        need="a message of the lane's own contributor in its own lane",
        found=f"{message.sender} {message.party} in {message.pid} of {message.negotiation}",
        remedy="reload the lane and answer in it",
    )


def _not_overtaken(pool: Pool, lane: Lane, _event: Received) -> None:
    """3."""
    if lane in pool.lanes:
        return
    raise OvertakenError(
        need=f"a message in round {pool.round}, which is about {pool.draft.digest}",
        found=f"one in round {lane.round}, which is over",
        remedy="read the diff; accept the new text, or write your counter-offer against it",
    )


def _round_open(pool: Pool, lane: Lane, event: Received) -> None:
    """4."""
    if pool.state == OPEN or (lane.state is _S.AGREED and event.message.type == "terminate"):
        return
    if pool.closed is not None and (pool.closed.code, pool.closed.party) == (DeadlineError.code, None):
        raise too_late(pool.draft.sign_by_ms, event.at_ms, pool.closed.text)
    why = "FINALIZED" if pool.closed is None else f"TERMINATED: {pool.closed.code}"
    raise BadTransitionError(
        clause=pool.closed.clause if pool.closed is not None else None,
        need="an open round",
        found=why,
        remedy="nothing can be added to it; a new offer opens a new negotiation",
    )


def _follows(_pool: Pool, lane: Lane, event: Received) -> None:
    """5."""
    message = event.message
    if (message.prev, message.round) == (lane.last_hash, lane.round):
        return
    raise BadTransitionError(
        need=f"round {lane.round} and prev {lane.last_hash}",
        found=f"round {message.round} and prev {message.prev}",
        remedy="reload the lane: a message before this one is missing, or another came first",
    )


def _in_table(_pool: Pool, lane: Lane, event: Received) -> None:
    """6."""
    to = LEADS_TO[event.message.type]
    if (lane.state, to, CONTRIBUTOR) in TRANSITIONS:
        return
    may = sorted(name for name, end in LEADS_TO.items() if (lane.state, end, CONTRIBUTOR) in TRANSITIONS)
    raise BadTransitionError(
        need=f"in {lane.state.value}: " + (" or ".join(may) or "nothing, the broker is next"),
        found=event.message.type,
        remedy="reload the lane, answer what is open now",
    )


def _right_text(_pool: Pool, lane: Lane, event: Received) -> None:
    """7."""
    message = event.message
    if (message.digest == lane.digest) == (message.type != "request"):
        return
    raise DigestMismatchError(
        need=lane.digest if message.type != "request" else f"another text than the open one, {lane.digest}",
        found=message.digest,
        remedy="reload the lane, read the text that it holds, answer that",
    )


def _type_needs(pool: Pool, lane: Lane, event: Received) -> None:
    """8."""
    if event.message.type == "request":
        _counter_fits(pool, lane, event)
    elif event.message.type == "verify":
        _signature_counts(pool, event)


def _counter_fits(pool: Pool, lane: Lane, event: Received) -> None:
    draft = event.counter
    if draft is None or draft.digest != event.message.digest:
        raise DigestMismatchError(
            need=f"the text of {event.message.digest}",
            found="none" if draft is None else draft.digest,
            remedy="send the text that the message names",
        )
    if draft.parties.get(lane.party) != lane.key:
        raise BadTransitionError(
            need=f"a counter-offer with {lane.party} as a contributor, under the same key",
            found="one without",
            remedy="to leave the negotiation, refuse: iriai-node contract refuse",
        )
    if pool.round >= NEGOTIATION_ROUNDS:
        raise BadTransitionError(
            need=f"at most {NEGOTIATION_ROUNDS} rounds",
            found=f"a counter-offer in round {pool.round}",
            remedy="settle the text by another way; then ask the operators for a new offer",
        )
    if event.at_ms >= draft.sign_by_ms:
        raise too_late(draft.sign_by_ms, event.at_ms)


def _signature_counts(pool: Pool, event: Received) -> None:
    if event.signature is None:
        raise BadTransitionError(
            need=f"a signature over {event.message.digest}", found="none", remedy="send it with the message"
        )
    missing = [one for one in pool.draft.warnings if one not in event.message.acknowledged]
    if not missing:
        return
    raise UnacknowledgedError(
        clause=missing[0].rpartition(":")[2] or None,
        need="every lint warning acknowledged: " + ", ".join(missing),
        found=", ".join(event.message.acknowledged) or "none",
        remedy="read the warnings and acknowledge each by its id, or make a counter-offer",
    )


_IN_LANE: Final[tuple[Callable[[Pool, Lane, Received], None], ...]] = (
    _not_overtaken,
    _round_open,
    _follows,
    _in_table,
    _right_text,
    _type_needs,
)


def too_late(sign_by_ms: int, at_ms: int, why: str | None = None) -> DeadlineError:
    """The refusal of what comes after a deadline."""
    return DeadlineError(
        need=f"an answer in time, and signatures before {iso_s(sign_by_ms)}",
        found=iso_s(at_ms) + (f"; {why}" if why else ""),
        remedy="ask the operators for a new offer with a later sign_by",
    )
