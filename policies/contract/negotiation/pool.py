# SPDX-License-Identifier: Apache-2.0
"""State of one negotiation: its lanes, its open text, what was said. Frozen, and the same after a restart.

- One lane per contributor and round. States and senders are those of the Dataspace Protocol 2025-1; every
  step of a lane is a row of `TRANSITIONS`, nothing else exists.
- A lane that has ended keeps its pid for good. Lanes of earlier rounds stay in ``past``, so that a message
  to one of them can be answered.
- A lane belongs to a key, not to a name: a counter-offer may give a name to somebody else.
- ``known`` holds the hash of every message that was taken, by id: the same message again changes nothing.
- ``activated`` names the text that two of the broker's people approved; only that one becomes final. Another
  text in its place is not approved.
- ``seed`` makes ids of lanes and of the broker's messages. It is secret, so that nobody can use an id
  first.

`to_bytes` and `from_bytes` are inverse; the bytes are canonical JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policies.contract.negotiation.lanes import BROKER, CONTRIBUTOR
from policies.encoding import canonical, new_id
from policies.encoding import parse as parse_canonical
from policies.limits import ACCEPTED_DAYS, AGREED_DAYS, OFFERED_DAYS, REQUESTED_DAYS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEADLINE_MS",
    "ENDED",
    "FINALIZED",
    "OPEN",
    "TERMINATED",
    "TRANSITIONS",
    "Draft",
    "Ended",
    "Lane",
    "LaneState",
    "Pool",
    "made_id",
]

Json = Any  # a JSON value

OPEN: Final = "open"
FINALIZED: Final = "finalized"
TERMINATED: Final = "terminated"
_DAY_MS = 86_400_000


class LaneState(StrEnum):
    """Where a lane stands."""

    REQUESTED = "REQUESTED"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    AGREED = "AGREED"
    VERIFIED = "VERIFIED"
    FINALIZED = "FINALIZED"
    TERMINATED = "TERMINATED"


_S = LaneState
_C, _P = CONTRIBUTOR, BROKER

TRANSITIONS: Final[frozenset[tuple[LaneState | None, LaneState, str]]] = frozenset(
    {
        (None, _S.REQUESTED, _C),
        (None, _S.OFFERED, _P),
        (_S.REQUESTED, _S.OFFERED, _P),
        (_S.REQUESTED, _S.AGREED, _P),  # for bilateral clients; the pool waits until all have accepted
        (_S.OFFERED, _S.REQUESTED, _C),
        (_S.OFFERED, _S.ACCEPTED, _C),
        (_S.ACCEPTED, _S.AGREED, _P),
        (_S.AGREED, _S.VERIFIED, _C),
        (_S.VERIFIED, _S.FINALIZED, _P),
        (_S.REQUESTED, _S.TERMINATED, _C),
        (_S.REQUESTED, _S.TERMINATED, _P),
        (_S.OFFERED, _S.TERMINATED, _C),
        (_S.OFFERED, _S.TERMINATED, _P),
        (_S.ACCEPTED, _S.TERMINATED, _P),
        (_S.AGREED, _S.TERMINATED, _C),
        (_S.VERIFIED, _S.TERMINATED, _P),
    }
)
"""(from, to, sender); None is the start."""

ENDED: Final = frozenset({_S.FINALIZED, _S.TERMINATED})
DEADLINE_MS: Final[Mapping[LaneState, int]] = MappingProxyType(
    {
        _S.REQUESTED: REQUESTED_DAYS * _DAY_MS,
        _S.OFFERED: OFFERED_DAYS * _DAY_MS,
        _S.ACCEPTED: ACCEPTED_DAYS * _DAY_MS,
        _S.AGREED: AGREED_DAYS * _DAY_MS,
    }
)
"""How long a lane may stand in a state; a lane in VERIFIED, and every other one too, until ``sign_by``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Why a round ended. ``party`` is the contributor who ended it, None for the broker."""

    code: str
    clause: str | None = None
    text: str | None = None
    party: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the pool needs to know about an offered text.

    Attributes:
        digest: Of the contract.
        sign_by_ms: From then on a signature is worthless.
        parties: The pinned key of each contributor, by short name.
        warnings: Ids of its lint warnings, sorted; a signature acknowledges each.
    """

    digest: str
    sign_by_ms: int
    parties: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One contributor's conversation with the broker.

    Attributes:
        pid: ``lane_…``, never used again.
        party: Short name in the text that the lane holds.
        key: Pinned key of the contributor.
        round: Round that the lane is in.
        state: Where it stands.
        digest: The text that it holds.
        deadline_ms: When it ends by itself; None in a state that is an end.
        last_hash: Hash of the newest message.
        signature: The contributor's signature over the text (base64), from VERIFIED on.
    """

    pid: str
    party: str
    key: str
    round: int
    state: LaneState
    digest: str
    deadline_ms: int | None
    last_hash: str
    signature: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The whole negotiation of one version of one contract.

    Attributes:
        id: ``neg_…``.
        contract_id: ``ctr_…`` of all its texts.
        version: Of all its texts.
        supersedes: Of all its texts.
        seed: 32 hex digits; see the module.
        round: Present round, from 1.
        state: `OPEN`, `FINALIZED` or `TERMINATED`.
        draft: The open text.
        lanes: Of the present round, by party.
        past: Ended lanes of earlier rounds, in the order of their end.
        counts: Messages per party so far, over all rounds.
        known: Hash of each message that was taken, by id.
        closed: Why the round ended, once it did without a contract.
        activated: Digest of the text that two of the broker's people approved; None before.
    """

    id: str
    contract_id: str
    version: int
    supersedes: str | None
    seed: str
    round: int
    state: str
    draft: Draft
    lanes: tuple[Lane, ...]
    past: tuple[Lane, ...]
    counts: Mapping[str, int]
    known: Mapping[str, str]
    closed: Ended | None
    activated: str | None = None

    @property
    def approved(self) -> bool:
        """Whether two of the broker's people approved the open text; what is final, was."""
        return self.state == FINALIZED or self.activated == self.draft.digest

    @property
    def held(self) -> bool:
        """Whether everybody has signed, and the text waits for the broker's people alone."""
        signed = all(one.state is _S.VERIFIED for one in self.lanes)
        return self.state == OPEN and signed and not self.approved

    @property
    def deadline_ms(self) -> int | None:
        """When something ends by itself next; None if nothing will."""
        if self.state != OPEN:
            return None
        return min((one.deadline_ms for one in self.lanes if one.deadline_ms is not None), default=None)

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Contributors who have something to say."""
        if self.state != OPEN:
            return ()
        return tuple(one.party for one in self.lanes if one.state in {_S.OFFERED, _S.AGREED})

    def find(self, pid: str) -> Lane | None:
        """The lane of a pid, of whatever round."""
        return next((one for one in (*self.lanes, *self.past) if one.pid == pid), None)

    def lanes_of_key(self, key: str) -> tuple[Lane, ...]:
        """All lanes of a contributor, the newest last."""
        return tuple(one for one in (*self.past, *self.lanes) if one.key == key)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        tree = dataclasses.asdict(self)
        tree["draft"]["warnings"] = list(self.draft.warnings)
        return canonical(tree)

    @classmethod
    def from_bytes(cls, data: bytes) -> Pool:
        """The pool that `to_bytes` wrote.

        Raises:
            EncodingError: Other bytes.
        """
        tree: dict[str, Any] = parse_canonical(data)
        draft = tree["draft"]
        return cls(
            **{name: tree[name] for name in tree if name not in {"draft", "lanes", "past", "closed"}},
            draft=Draft(**draft | {"warnings": tuple(draft["warnings"])}),
            lanes=tuple(_lane(one) for one in tree["lanes"]),
            past=tuple(_lane(one) for one in tree["past"]),
            closed=None if tree["closed"] is None else Ended(**tree["closed"]),
        )


def _lane(tree: dict[str, Any]) -> Lane:
    return Lane(**tree | {"state": LaneState(tree["state"])})


def made_id(seed: str, prefix: str, *parts: Json) -> str:
    """An id that follows from the seed and the place that it names; nobody else can tell it before."""
    made = hmac.new(bytes.fromhex(seed), canonical([prefix, *parts]), hashlib.sha256).digest()
    return new_id(prefix, made[:10])
