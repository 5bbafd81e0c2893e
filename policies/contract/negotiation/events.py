# SPDX-License-Identifier: Apache-2.0
"""What can happen to a negotiation, and what follows: the words of `policies.contract.negotiation`.

Events come from outside. Effects go out, in the order in which they happen; the caller stores them with
the pool in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.errors import NegotiationError
    from policies.contract.negotiation.lanes import LaneMessage
    from policies.contract.negotiation.pool import Draft, Ended

__all__ = [
    "Activated",
    "Agreed",
    "Closed",
    "Countered",
    "Effect",
    "Event",
    "Finalized",
    "Heard",
    "Incident",
    "Opened",
    "Opening",
    "Received",
    "Refused",
    "Repeated",
    "RoundClosed",
    "Said",
    "Ticked",
    "Verified",
    "Withdrawn",
]

# --- events ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a negotiation starts from; ``seed`` is 16 fresh random bytes in hex."""

    id: str
    contract_id: str
    version: int
    supersedes: str | None
    seed: str
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A contributor's message.

    Attributes:
        message: As `policies.contract.negotiation.lanes.open_message` returned it.
        key: Text of the key that it was opened under.
        at_ms: When it arrived.
        counter: Of a request: its text, which loads, lints and names this contract.
        signature: Of a verify: the signature over the contract in base64, which holds under ``key``.
    """

    message: LaneMessage
    key: str
    at_ms: int
    counter: Draft | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """Time went on."""

    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """The broker ends the round."""

    at_ms: int
    ended: Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """Two of the broker's people stand behind exactly this text."""

    at_ms: int
    digest: str


Event = Received | Ticked | Withdrawn | Activated

# --- effects, in the order in which they happen ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A contributor's message was taken: keep its envelope under this number of the party."""

    message: LaneMessage
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The broker says this: seal it, keep it, hand it out."""

    message: LaneMessage
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A text was put to the contributors."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Countered:
    """A counter-offer took the place of a text; the new one is open in ``round``."""

    old: str
    new: str
    party: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """All accepted: the broker signs this contract."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A contributor's signature counts."""

    digest: str
    party: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalized:
    """All signed this contract: it is final, in the transaction that keeps this."""

    digest: str
    signatures: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The round ended without a contract."""

    digest: str
    ended: Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed:
    """This contributor alone can end its lane, and shall, with the code ``round-closed``."""

    party: str
    pid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The message that arrived is one that a correct node never sends: it is evidence."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The message changes nothing, and why."""

    error: NegotiationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The message was taken before."""

    id: str


Effect = (
    Heard
    | Said
    | Opened
    | Countered
    | Agreed
    | Verified
    | Finalized
    | Closed
    | RoundClosed
    | Incident
    | Refused
    | Repeated
)
