# SPDX-License-Identifier: Apache-2.0
"""The broker's side of negotiations with one member, in memory: honest, unless a test plants a lie.

    lanes.offer(digest, party="kita")              opens a negotiation, its lane OFFERED
    lanes.others_accept = False                    nobody else accepts until `agree`
    lanes.counter(talk, digest)                    another party's counter-offer takes the lane's place
    lanes.lies.append(lambda view: {**view, …})    what the member is shown instead

It says what a test makes it say, in any order; the machine that an honest broker runs is in `tests/lanesim.py`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from policies.contract import CONTRACT_TYPE, parse
from policies.contract.lint import lint
from policies.contract.negotiation.lanes import (
    BROKER,
    CONTRIBUTOR,
    LaneMessage,
    open_message,
    read_message,
    seal_message,
)
from policies.contract.negotiation.pool import TRANSITIONS, LaneState
from policies.encoding import digest, new_id, unb64
from policies.errors import IriaiError
from policies.identity import SigningKey
from policies.log.entries import alias, from_envelope
from policies.log.envelope import open_envelope
from policies.ports import iso_s
from policies.signing import Envelope

INTO = {
    "request": LaneState.REQUESTED,
    "offer": LaneState.OFFERED,
    "accept": LaneState.ACCEPTED,
    "agree": LaneState.AGREED,
    "verify": LaneState.VERIFIED,
    "finalize": LaneState.FINALIZED,
    "terminate": LaneState.TERMINATED,
}


class RefusedInLaneError(IriaiError):
    """What the simulated broker refuses in a lane."""

    code = "negotiation.bad-transition"
    exit_code = 3
    http_status = 409


@dataclass
class Talk:
    """One negotiation with the member."""

    id: str
    contract_id: str
    version: int
    party: str
    digest: str
    pid: str
    round: int = 1
    state: str = "open"
    lane: LaneState | None = None
    lines: list[Envelope] = field(default_factory=list)
    last: LaneMessage | None = None
    closed: dict[str, Any] | None = None


@dataclass
class NodeLanes:
    """See the module; ``broker`` is a `tests.nodesim.BrokerSim`."""

    broker: Any
    talks: dict[str, Talk] = field(default_factory=dict)
    others_accept: bool = True
    lies: list[Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)
    drawn: int = 0

    def copy(self, broker: Any) -> NodeLanes:
        return NodeLanes(broker, talks=copy.deepcopy(self.talks), drawn=self.drawn)

    def _id(self, prefix: str) -> str:
        self.drawn += 1
        return new_id(prefix, hashlib.sha256(f"{prefix} {self.drawn}".encode()).digest()[:10])

    # --- what the broker does ---

    def offer(self, name: str, *, party: str = "kita") -> str:
        """Opens a negotiation of a contract that the broker holds."""
        contract = parse(self.broker.contracts[name])
        talk = Talk(
            id=self._id("neg"),
            contract_id=contract.contract_id,
            version=contract.version,
            party=party,
            digest=name,
            pid=self._id("lane"),
        )
        self.talks[talk.id] = talk
        self.say(talk, "offer")
        return talk.id

    def of(self, name: str) -> Talk | None:
        """The negotiation whose open text this is."""
        return next((one for one in reversed(self.talks.values()) if one.digest == name), None)

    def say(self, talk: Talk, kind: str, *, key: SigningKey | None = None, **changes: Any) -> LaneMessage:
        """The broker's next message, taken over whatever it says."""
        envelope = self.sealed(talk, kind, key=key, **changes)
        message = read_message(envelope.payload)
        talk.lines.append(envelope)
        self._take(talk, message)
        return message

    def sealed(self, talk: Talk, kind: str, *, key: SigningKey | None = None, **changes: Any) -> Envelope:
        """A message of the broker, not said."""
        facts = {
            "id": self._id("msg"),
            "negotiation": talk.id,
            "pid": talk.pid,
            "round": talk.round,
            "party": talk.party,
            "digest": talk.digest,
            "prev": None if talk.last is None else talk.last.hash,
            "at": iso_s(self.broker.clock.ms),
            "sender": BROKER,
            "type": kind,
        }
        return seal_message(LaneMessage(**facts | changes), key or self.broker.key)

    def _take(self, talk: Talk, message: LaneMessage) -> None:
        talk.last, talk.lane = message, INTO[message.type]
        talk.digest, talk.pid, talk.round = message.digest, message.pid, message.round
        if message.type == "terminate":
            talk.state = "terminated"
            talk.closed = {
                "code": message.code,
                "clause": message.clause,
                "text": message.text,
                "party": message.party if message.sender == CONTRIBUTOR else None,
            }
        if message.type == "finalize":
            talk.state = "finalized"

    def agree(self, talk: Talk) -> None:
        """All others have accepted: the broker signs, and agrees."""
        own = Envelope.seal(self.broker.contracts[talk.digest], CONTRACT_TYPE, self.broker.key)
        self.broker.partial[talk.digest] = own
        self.say(talk, "agree")

    def counter(self, talk: Talk, name: str) -> None:
        """Another party countered: this lane ends, a new one holds the new text."""
        self.say(talk, "terminate", code=f"superseded-by-round-{talk.round + 1}")
        talk.state, talk.closed, talk.last = "open", None, None
        talk.pid, talk.round, talk.digest = self._id("lane"), talk.round + 1, name
        self.say(talk, "offer")

    # --- what the member asks ---

    def view(self, name: str, after: int = 0) -> dict[str, Any]:
        """What the member is shown, lies included."""
        shown: Any = self.truth(name, after)
        for lie in self.lies:
            shown = lie(shown)
        return shown

    def truth(self, name: str, after: int = 0) -> dict[str, Any]:
        talk = self._known(name)
        assert talk.last is not None
        ended = talk.lane in {LaneState.FINALIZED, LaneState.TERMINATED}
        contract = parse(self.broker.contracts[talk.digest])
        return {
            "id": talk.id,
            "contract_id": talk.contract_id,
            "version": talk.version,
            "round": talk.round,
            "state": talk.state,
            "digest": talk.digest,
            "sign_by": contract.sign_by,
            "lanes": {one.party: str(talk.lane) for one in contract.contributors},
            "waiting_for": [] if ended else [talk.party],
            "lane": {
                "pid": talk.pid,
                "party": talk.party,
                "round": talk.round,
                "state": str(talk.lane),
                "digest": talk.digest,
                "deadline_ms": None if ended else self.broker.clock.ms + 86_400_000,
                "last_hash": talk.last.hash,
            },
            "closed": talk.closed,
            "messages": [
                {"seq": number, "message": one.to_json()}
                for number, one in enumerate(talk.lines, start=1)
                if number > after
            ],
            "diff": [],
            "lint": [one.to_json() for one in lint(contract)],
        }

    def _known(self, name: str) -> Talk:
        if name not in self.talks:
            raise RefusedInLaneError(need="a negotiation", found=name, remedy="none")
        return self.talks[name]

    def message(self, name: str, body: dict[str, Any], raw: bytes) -> dict[str, Any]:
        """Takes the member's message as a broker does: signature, chain, table, text."""
        talk, key = self._known(name), next(iter(self.broker.members))
        self.posted.append(raw)
        envelope = Envelope.from_json(body["message"])
        message = open_message(envelope, key)
        if any(read_message(one.payload).id == message.id for one in talk.lines):
            return self.view(name)
        step = (talk.lane, INTO[message.type], CONTRIBUTOR)
        assert talk.last is not None
        if step not in TRANSITIONS or (message.prev, message.pid) != (talk.last.hash, talk.pid):
            raise RefusedInLaneError(need="what may follow", found=message.type, remedy="reload")
        if message.type != "request" and message.digest != talk.digest:
            raise RefusedInLaneError(need=talk.digest, found=message.digest, remedy="reload")
        if message.type == "verify":
            self._signed(talk, key, message, body)
        talk.lines.append(envelope)
        self._take(talk, message)
        if message.type == "request":
            self._countered(talk, message, body)
        elif message.type == "accept" and self.others_accept:
            self.agree(talk)
        return self.view(name)

    def _countered(self, talk: Talk, message: LaneMessage, body: dict[str, Any]) -> None:
        data = body["contract"].encode()
        assert digest(data) == message.digest
        self.broker.contracts[message.digest] = data
        for one in map(unb64, body["recipes"]):
            self.broker.annexes[digest(one)] = one
        talk.round += 1
        self.say(talk, "offer", digest=message.digest)

    def _signed(self, talk: Talk, key: bytes, message: LaneMessage, body: dict[str, Any]) -> None:
        contract = parse(self.broker.contracts[talk.digest])
        if {one.id for one in lint(contract)} - set(message.acknowledged):
            raise RefusedInLaneError(need="each warning", found="not all", remedy="acknowledge")
        envelope, signature = Envelope.from_json(body["envelope"]), unb64(body["signature"])
        payload = open_envelope(envelope, key)
        actor = alias(unb64(self.broker.member()["alias_key"]), payload["scope"], None, None)
        own = {"contract": talk.digest, "party": actor, "acknowledged": list(message.acknowledged)}
        assert payload["body"] == {name: value for name, value in own.items() if value}
        unsigned = Envelope(payload_type=CONTRACT_TYPE, payload=contract.canonical, signatures=())
        unsigned.with_signature(key, signature)
        self.broker.log.add(from_envelope(envelope, payload, actor=actor))
        self.broker.signatures.setdefault(talk.digest, []).append((key, signature))


def reseal(message: Any, key: SigningKey, **changes: Any) -> dict[str, Any]:
    """A message (DSSE as JSON) with other fields, signed by some key."""
    return seal_message(replace(read_message(Envelope.from_json(message).payload), **changes), key).to_json()
