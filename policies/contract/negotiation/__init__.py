# SPDX-License-Identifier: Apache-2.0
"""The negotiation as a machine: state and event in, state and effects out. No clock, no I/O, no dice.

One lane per contributor::

    OFFERED -> ACCEPTED -> AGREED -> VERIFIED -> FINALIZED        TERMINATED
       |  ^                                                          from most states (`pool.TRANSITIONS`)
       v  |
    REQUESTED                                                     a counter-offer

- All lanes ACCEPTED → the broker agrees in all. All lanes VERIFIED, and the text approved by two of the
  broker's people (`Activated`, before or after) → FINALIZED in all, in one step: there is no state in which
  one lane is final and another is not.
- An approval is of one text: after a counter-offer the new one needs its own.
- A counter-offer starts the next round: the countering lane goes on with the new text, every other lane
  ends with ``superseded-by-round-<n>`` and its contributor gets a new lane. The first one counts; a
  second one finds its lane ended.
- Any other end of a lane closes the round for all. The broker ends the lanes that it may; a lane in AGREED
  only its contributor can end, who is told (`RoundClosed`).
- Deadlines are looked at before each event. A missed one closes the round, and so does ``sign_by``.
- A refusal is an effect, not an exception, because what the deadline did before it stays done.
- The same message again changes nothing; a used id with other bytes is refused and is an incident.

How a message is checked is in `policies.contract.negotiation.checks`.

    pool, effects = open_pool(Opening(...), at_ms=now)
    pool, effects = step(pool, Received(message=message, key=key_text, at_ms=now))
    pool, effects = step(pool, Ticked(at_ms=later))

The caller stores pool and effects in one transaction. It has checked the message's signature, a contract
signature (``signature``) and that a counter-offer loads and lints (``counter``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from policies.contract.errors import DeadlineError, MessageConflictError, NegotiationError
from policies.contract.negotiation.checks import LEADS_TO, check_message, too_late
from policies.contract.negotiation.events import (
    Activated,
    Agreed,
    Closed,
    Countered,
    Effect,
    Event,
    Finalized,
    Heard,
    Incident,
    Opened,
    Opening,
    Received,
    Refused,
    Repeated,
    RoundClosed,
    Said,
    Ticked,
    Verified,
    Withdrawn,
)
from policies.contract.negotiation.lanes import BROKER, LaneMessage
from policies.contract.negotiation.pool import (
    DEADLINE_MS,
    FINALIZED,
    OPEN,
    TERMINATED,
    TRANSITIONS,
    Draft,
    Ended,
    Lane,
    LaneState,
    Pool,
    made_id,
)
from policies.errors import invariant
from policies.ports import iso_s

__all__ = [
    "Activated",
    "Agreed",
    "Closed",
    "Countered",
    "Draft",
    "Effect",
    "Ended",
    "Event",
    "Finalized",
    "Heard",
    "Incident",
    "Lane",
    "LaneState",
    "Opened",
    "Opening",
    "Pool",
    "Received",
    "Refused",
    "Repeated",
    "RoundClosed",
    "Said",
    "Ticked",
    "Verified",
    "Withdrawn",
    "open_pool",
    "step",
]

DEADLINE: Final = DeadlineError.code
ROUND_CLOSED: Final = "round-closed"
_HELD: Final = "everybody signed; waited for the approval of the broker's second person"
_S = LaneState


def open_pool(opening: Opening, *, at_ms: int) -> tuple[Pool, tuple[Effect, ...]]:
    """A negotiation in its first round: every contributor has the text.

    Raises:
        DeadlineError: The time to sign is over.
    """
    if at_ms >= opening.draft.sign_by_ms:
        raise too_late(opening.draft.sign_by_ms, at_ms)
    pool = Pool(
        id=opening.id,
        contract_id=opening.contract_id,
        version=opening.version,
        supersedes=opening.supersedes,
        seed=opening.seed,
        round=1,
        state=OPEN,
        draft=opening.draft,
        lanes=(),
        past=(),
        counts={},
        known={},
        closed=None,
    )
    turn = _Turn(pool, at_ms)
    turn.effects.append(Opened(digest=opening.draft.digest))
    turn.offer_to_all()
    return turn.pool, tuple(turn.effects)


def step(pool: Pool, event: Event) -> tuple[Pool, tuple[Effect, ...]]:
    """The pool after an event, and what follows from it; see the module."""
    turn = _Turn(pool, event.at_ms)
    turn.look_at_deadlines()
    if isinstance(event, Received):
        turn.receive(event)
    elif isinstance(event, Withdrawn) and turn.pool.state == OPEN:
        turn.close(event.ended)
    elif isinstance(event, Activated):
        turn.activate(event.digest)
    return turn.pool, tuple(turn.effects)


class _Turn:
    """One event on its way: the pool so far, and the effects so far."""

    def __init__(self, pool: Pool, at_ms: int) -> None:
        self.pool = pool
        self.at_ms = at_ms
        self.effects: list[Effect] = []

    # --- the events ---

    def look_at_deadlines(self) -> None:
        """Closes the round if a lane has stood too long."""
        late = [
            one for one in self.pool.lanes if one.deadline_ms is not None and one.deadline_ms <= self.at_ms
        ]
        if self.pool.state == OPEN and late:
            names = " ".join(one.party for one in late)[:300]
            waited = _HELD if self.pool.held else f"waited for {names} in {late[0].state.value}"
            self.close(Ended(code=DEADLINE, text=waited))

    def activate(self, digest: str) -> None:
        """Two of the broker's people approved a text: it counts if it is the open one."""
        if self.pool.state == OPEN and digest == self.pool.draft.digest:
            self.pool = replace(self.pool, activated=digest)
            self.finalize()

    def receive(self, event: Received) -> None:
        """Takes a message, or says why not."""
        message = event.message
        if self.pool.known.get(message.id) == message.hash:
            self.effects.append(Repeated(id=message.id))
            return
        try:
            lane = check_message(self.pool, event)
        except NegotiationError as error:
            if isinstance(error, MessageConflictError):
                self.effects.append(Incident(kind=error.code))
            self.effects.append(Refused(error=error))
            return
        lane = self.hear(lane, message, signature=event.signature)
        if message.type == "request" and event.counter is not None:
            self.counter(lane, event.counter)
        elif message.type == "accept":
            self.agree()
        elif message.type == "verify" and event.signature is not None:
            self.effects.append(Verified(digest=lane.digest, party=lane.party, signature=event.signature))
            self.finalize()
        elif self.pool.state == OPEN:
            code = message.code or ROUND_CLOSED
            self.close(Ended(code=code, clause=message.clause, text=message.text, party=lane.party))

    # --- what follows ---

    def agree(self) -> None:
        """Once all have accepted the same text, the broker agrees in every lane."""
        if self._all(_S.ACCEPTED):
            self.effects.append(Agreed(digest=self.pool.draft.digest))
            for lane in self.pool.lanes:
                self.say(lane, "agree", _S.AGREED)

    def finalize(self) -> None:
        """Once all have signed the text and the broker's people approved it, it is final in every lane."""
        if not self._all(_S.VERIFIED) or not self.pool.approved:
            return
        signatures = {one.party: one.signature for one in self.pool.lanes if one.signature is not None}
        invariant(signatures.keys() == self.pool.draft.parties.keys(), "one signature of each contributor")
        for lane in self.pool.lanes:
            self.say(lane, "finalize", _S.FINALIZED)
        self.pool = replace(self.pool, state=FINALIZED)
        self.effects.append(Finalized(digest=self.pool.draft.digest, signatures=signatures))

    def _all(self, state: LaneState) -> bool:
        here = {(one.state, one.digest) for one in self.pool.lanes}
        return here == {(state, self.pool.draft.digest)}

    def counter(self, lane: Lane, draft: Draft) -> None:
        """The next round, with another text."""
        number = self.pool.round + 1
        reason = Ended(
            code=f"superseded-by-round-{number}", text=f"{lane.party} made a counter-offer", party=lane.party
        )
        for other in self.pool.lanes:
            if other.pid != lane.pid:
                self.say(other, "terminate", _S.TERMINATED, reason)
        old = self.pool.draft.digest
        self.pool = replace(
            self.pool,
            round=number,
            draft=draft,
            past=(*self.pool.past, *(one for one in self.pool.lanes if one.pid != lane.pid)),
            lanes=tuple(
                replace(one, round=number, digest=draft.digest)
                for one in self.pool.lanes
                if one.pid == lane.pid
            ),
        )
        self.effects.append(Countered(old=old, new=draft.digest, party=lane.party, round=number))
        self.offer_to_all()

    def offer_to_all(self) -> None:
        """Puts the open text to every contributor: a lane goes on, or a new one begins."""
        draft = self.pool.draft
        for party, key in sorted(draft.parties.items()):
            lane = next((one for one in self.pool.lanes if one.party == party), None)
            if lane is not None:
                self.say(lane, "offer", _S.OFFERED)
                continue
            pid = made_id(self.pool.seed, "lane", party, self.pool.round)
            fresh = Lane(
                pid=pid,
                party=party,
                key=key,
                round=self.pool.round,
                state=_S.OFFERED,
                digest=draft.digest,
                deadline_ms=None,
                last_hash="",
            )
            lanes = sorted((*self.pool.lanes, fresh), key=lambda one: one.party)
            self.pool = replace(self.pool, lanes=tuple(lanes))
            self.say(fresh, "offer", _S.OFFERED, begins=True)

    def close(self, ended: Ended) -> None:
        """Ends the round for all; see the module."""
        self.pool = replace(self.pool, state=TERMINATED, closed=ended)
        self.effects.append(Closed(digest=self.pool.draft.digest, ended=ended))
        reason = ended
        if ended.party is not None:
            text = f"{ended.party} ended the round: {ended.code}"
            reason = Ended(code=ROUND_CLOSED, clause=ended.clause, text=text)
        for lane in self.pool.lanes:
            if lane.state is _S.AGREED:
                self.effects.append(RoundClosed(party=lane.party, pid=lane.pid))
            elif not lane.ended:
                self.say(lane, "terminate", _S.TERMINATED, reason)

    # --- single messages ---

    def hear(self, lane: Lane, message: LaneMessage, *, signature: str | None) -> Lane:
        """Moves the lane of a contributor's message."""
        moved = self._moved(lane, message, LEADS_TO[message.type])
        if message.type == "verify":
            moved = replace(moved, signature=signature)
        self.effects.append(Heard(message=message, seq=self._keep(moved, message)))
        return moved

    def say(
        self, lane: Lane, kind: str, to: LaneState, ended: Ended | None = None, *, begins: bool = False
    ) -> None:
        """Says something in a lane and moves it."""
        message = LaneMessage(
            id=made_id(self.pool.seed, "msg", lane.party, self.pool.counts.get(lane.party, 0) + 1),
            negotiation=self.pool.id,
            pid=lane.pid,
            round=lane.round,
            party=lane.party,
            sender=BROKER,
            type=kind,
            digest=lane.digest,
            prev=None if begins else lane.last_hash,
            at=iso_s(self.at_ms),
            code=ended.code if ended else None,
            clause=ended.clause if ended else None,
            text=ended.text if ended else None,
        )
        moved = self._moved(lane, message, to, begins=begins)
        self.effects.append(Said(message=message, seq=self._keep(moved, message)))

    def _moved(self, lane: Lane, message: LaneMessage, to: LaneState, *, begins: bool = False) -> Lane:
        """The lane after a message; every step is one of the table."""
        row = (None if begins else lane.state, to, message.sender)
        invariant(row in TRANSITIONS, f"a transition of the table, not {row}")
        until = self.pool.draft.sign_by_ms
        if to in DEADLINE_MS:
            until = min(until, self.at_ms + DEADLINE_MS[to])
        moved = replace(lane, state=to, last_hash=message.hash, deadline_ms=until)
        return replace(moved, deadline_ms=None) if moved.ended else moved

    def _keep(self, lane: Lane, message: LaneMessage) -> int:
        """Puts a lane and its newest message into the pool; the message's number of the party."""
        number = self.pool.counts.get(lane.party, 0) + 1
        self.pool = replace(
            self.pool,
            lanes=tuple(lane if one.pid == lane.pid else one for one in self.pool.lanes),
            counts={**self.pool.counts, lane.party: number},
            known={**self.pool.known, message.id: message.hash},
        )
        return number
