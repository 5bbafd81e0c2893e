# SPDX-License-Identifier: Apache-2.0
"""What contributors say in a negotiation, built and signed as a node does it; and a pool without a broker around it.

`spoken` makes one message for the lane of a view (the answer of ``GET /negotiations/{id}``). `PoolSim` is the real machine alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

from policies.contract import CONTRACT_TYPE, Contract
from policies.contract.lint import lint
from policies.contract.negotiation import (
    Activated,
    Event,
    Opening,
    Pool,
    Received,
    Refused,
    Said,
    Ticked,
    open_pool,
    step,
)
from policies.contract.negotiation.lanes import LaneMessage, new_message_id, open_message, seal_message
from policies.contract.negotiation.pool import Draft, Lane
from policies.encoding import b64
from policies.identity import SigningKey, key_text
from policies.ports import iso_s, to_ms
from policies.signing import Envelope

_NUMBERS = itertools.count(1)


def fresh_id() -> str:
    """An id that no other message of this process has."""
    return new_message_id(next(_NUMBERS).to_bytes(10, "big"))


@functools.cache
def contract_signature(contract: Contract, key: SigningKey) -> str:
    """A contract signature in base64, as a verify carries it."""
    return b64(Envelope.seal(contract.canonical, CONTRACT_TYPE, key).signatures[0][1])


@functools.cache
def warnings_of(contract: Contract) -> tuple[str, ...]:
    """Ids of the lint warnings of a contract, sorted."""
    return tuple(sorted({one.id for one in lint(contract) if one.severity != "error"}))


def draft_of(contract: Contract) -> Draft:
    """The contract as the machine sees it."""
    return Draft(
        digest=contract.digest,
        sign_by_ms=to_ms(contract.sign_by),
        parties={one.party: one.key for one in contract.contributors},
        warnings=warnings_of(contract),
    )


def message_for(view: Mapping[str, Any], kind: str, *, now_ms: int, **changes: Any) -> LaneMessage:
    """The next message of a view's own lane."""
    lane = view["lane"]
    fields = {
        "id": fresh_id(),
        "negotiation": view["id"],
        "pid": lane["pid"],
        "round": lane["round"],
        "party": lane["party"],
        "sender": "contributor",
        "type": kind,
        "digest": lane["digest"],
        "prev": lane["last_hash"],
        "at": iso_s(now_ms),
    }
    if kind == "verify":
        fields["acknowledged"] = tuple(sorted(one["id"] for one in view["lint"]))
    if kind == "terminate":
        fields["code"] = "price-too-high"
    return LaneMessage(**(fields | changes))


def spoken(view: Mapping[str, Any], kind: str, key: SigningKey, *, now_ms: int, **changes: Any) -> Envelope:
    """`message_for`, signed."""
    return seal_message(message_for(view, kind, now_ms=now_ms, **changes), key)


class PoolSim:
    """A pool of the real machine with its contributors' keys, driven by names; nothing is stored.

    `say` makes the party's next message, `give` hands any message over. ``effects`` are those of the last event.
    Two of the broker's people approve each text as soon as it is open, unless ``held``.
    """

    def __init__(
        self, contract: Contract, keys: Mapping[str, SigningKey], *, now_ms: int, held: bool = False
    ) -> None:
        self.held = held
        self.keys = keys
        self.contracts = {contract.digest: contract}
        self.now_ms = now_ms
        opening = Opening(
            id="neg_" + "a" * 16,
            contract_id=contract.contract_id,
            version=contract.version,
            supersedes=contract.supersedes,
            seed="5e" * 16,
            draft=draft_of(contract),
        )
        self.pool, self.effects = open_pool(opening, at_ms=now_ms)
        self._approve()
        self.sent: list[Received] = []
        self.numbers = itertools.count(1)

    def lane(self, party: str) -> Lane:
        return next(one for one in self.pool.lanes if one.party == party)

    def states(self) -> dict[str, str]:
        return {one.party: one.state.value for one in self.pool.lanes}

    def message(self, party: str, kind: str, **changes: Any) -> LaneMessage:
        lane = changes.pop("lane", None) or self.lane(party)
        view = {"id": self.pool.id, "lane": dataclasses.asdict(lane)}
        view["lint"] = [{"id": one} for one in self.pool.draft.warnings]
        own = {"id": new_message_id(next(self.numbers).to_bytes(10, "big"))}
        return message_for(view, kind, now_ms=self.now_ms, **(own | changes))

    def say(self, party: str, kind: str, counter: Contract | None = None, **changes: Any) -> list[Any]:
        """Hands over the party's next message, signed and read as the broker reads it; the effects."""
        if counter is not None:
            self.contracts[counter.digest] = counter
            changes = {"digest": counter.digest} | changes
        return self.give(party, self.message(party, kind, **changes), counter)

    def give(self, party: str, message: LaneMessage, counter: Contract | None = None) -> list[Any]:
        key = self.keys[party]
        signature = None
        if message.type == "verify":
            signature = contract_signature(self.contracts[message.digest], key)
        event = Received(
            message=open_message(seal_message(message, key), key.public),
            key=key_text(key.public),
            at_ms=self.now_ms,
            counter=None if counter is None else draft_of(counter),
            signature=signature,
        )
        self.sent.append(event)
        return self.do(event)

    def do(self, event: Event) -> list[Any]:
        """Any event; afterwards the pool is what a restarted broker would read."""
        self.pool, self.effects = step(self.pool, event)
        self._approve()
        self.pool = Pool.from_bytes(self.pool.to_bytes())
        return list(self.effects)

    def _approve(self) -> None:
        if not self.held:
            activated = Activated(at_ms=self.now_ms, digest=self.pool.draft.digest)
            self.pool, more = step(self.pool, activated)
            self.effects = (*self.effects, *more)

    def tick(self) -> list[Any]:
        return self.do(Ticked(at_ms=self.now_ms))

    def code(self) -> str | None:
        """Code of the refusal among the last effects."""
        return next((one.error.code for one in self.effects if isinstance(one, Refused)), None)

    def said(self, party: str) -> list[tuple[str, str | None]]:
        """Types and codes of what the broker said to a party in the last event."""
        return [
            (one.message.type, one.message.code)
            for one in self.effects
            if isinstance(one, Said) and one.message.party == party
        ]
