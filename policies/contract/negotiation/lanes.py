# SPDX-License-Identifier: Apache-2.0
"""Messages of a negotiation: what one contributor and the broker say to each other in one lane.

A message is a DSSE envelope (payload type `LANE_TYPE`) with exactly one signature, over canonical bytes::

    {"schema":"iriai-lane/1","id":"msg_…","negotiation":"neg_…","pid":"lane_…","round":n,
     "party":short name,"sender":"contributor"|"broker","type":..,"digest":contract digest,
     "prev":digest|null,"at":"2026-11-01T08:00:00Z","code":reason code|null,"clause":id|null,
     "text":one line|null,"acknowledged":[lint warning ids, sorted]}

- ``digest`` is the contract that the message is about: the offered one, or for a request the
  counter-offer.
- ``prev`` is the hash of the lane's message before this one, whoever sent it; null for the first. A
  message that was left out, doubled or moved therefore shows at once.
- The hash of a message is the digest of its payload. Two messages are the same if id and hash are.
- ``code``, ``clause`` and ``text`` say why a lane ends: only ``terminate`` has them, and always a code.
  ``acknowledged`` belongs to ``verify``.
- ``keyid`` decides nothing: a contributor's message is tried under the key that the contract pins, the
  broker's under the pinned one. It must still be the id of that key, so that no byte can change unseen.

Which message may follow which is in `policies.contract.negotiation`.

    envelope = seal_message(message, key)
    message = open_message(envelope, key.public)        # raises unless exactly this key signed it
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import LaneMessageError
from policies.contract.grammar import strange_character
from policies.encoding import canonical, digest, new_id, parse
from policies.identity import SigningKey, key_id
from policies.limits import LANE_MESSAGE_BYTES, LANE_TEXT_CHARS, NEGOTIATION_ROUNDS
from policies.log.kinds import CLAUSE, DIGEST, REASON, WARNINGS, Kind, enum, nullable
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BROKER",
    "CONTRIBUTOR",
    "LANE_TYPE",
    "SCHEMA",
    "TYPES",
    "LaneMessage",
    "check_reason",
    "new_message_id",
    "open_message",
    "read_message",
    "seal_message",
]

Json = Any  # a JSON value

LANE_TYPE: Final = "application/vnd.iriai.lane.v1+json"
SCHEMA: Final = "iriai-lane/1"
CONTRIBUTOR: Final = "contributor"
BROKER: Final = "broker"
TYPES: Final = MappingProxyType(
    {
        CONTRIBUTOR: ("accept", "request", "terminate", "verify"),
        BROKER: ("agree", "finalize", "offer", "terminate"),
    }
)
"""Who says what."""

_CODE_CHARS = 100
_REMEDY = "answer with iriai-node contract sign, counter or refuse; send messages unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneMessage:
    """One message of a lane, read strictly.

    Attributes:
        id: ``msg_…``, made by the sender; the same message keeps it when it is sent again.
        negotiation: ``neg_…``.
        pid: ``lane_…``; a lane that has ended is never used again.
        round: Round of the negotiation, from 1.
        party: Short name of the lane's contributor.
        sender: `CONTRIBUTOR` or `BROKER`.
        type: One of the sender's `TYPES`.
        digest: Contract that the message is about.
        prev: Hash of the lane's message before, None for the first.
        at: When it was made, by the sender's clock.
        code: Reason code of a terminate; else None.
        clause: Clause that is the reason, or None.
        text: One line for people, or None.
        acknowledged: Ids of the lint warnings that the sender accepts, of a verify; else empty.
    """

    id: str
    negotiation: str
    pid: str
    round: int
    party: str
    sender: str
    type: str
    digest: str
    prev: str | None
    at: str
    code: str | None = None
    clause: str | None = None
    text: str | None = None
    acknowledged: tuple[str, ...] = ()

    @property
    def payload(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical(
            {"schema": SCHEMA, **dataclasses.asdict(self), "acknowledged": list(self.acknowledged)}
        )

    @property
    def hash(self) -> str:
        """Digest of the payload: the next message's ``prev``."""
        return digest(self.payload)


def new_message_id(random10: bytes) -> str:
    """``msg_…`` of 80 random bits."""
    return new_id("msg", random10)


def seal_message(message: LaneMessage, key: SigningKey) -> Envelope:
    """The signed message.

    Raises:
        LaneMessageError: A field is not of the format.
    """
    read_message(message.payload)
    return Envelope.seal(message.payload, LANE_TYPE, key)


def open_message(envelope: Envelope, public_key: bytes) -> LaneMessage:
    """The message, once exactly this key has signed it.

    1. payload type and signature; 2. exactly one signature, whose ``keyid`` is this key's; 3. size,
    canonical form and fields.

    Raises:
        SignatureInvalidError: Step 1.
        LaneMessageError: Steps 2 and 3.
        EncodingError: Step 3, the payload is not canonical.
    """
    # 1.
    envelope.open_as(LANE_TYPE, public_key)
    # 2.
    if [hint for hint, _ in envelope.signatures] != [key_id(public_key)]:
        raise _refuse("one signature with the key's own id", "other signatures or ids")
    # 3.
    return read_message(envelope.payload)


def read_message(payload: bytes) -> LaneMessage:
    """The message in a payload. Says nothing about who sent it: see `open_message`.

    Raises:
        LaneMessageError: Too large, or a field is not of the format.
        EncodingError: Not canonical.
    """
    if len(payload) > LANE_MESSAGE_BYTES:
        raise _refuse(f"at most {LANE_MESSAGE_BYTES} bytes", f"{len(payload)}")
    tree = parse(payload)
    if not isinstance(tree, dict) or set(tree) != set(_FIELDS):
        raise _refuse("the fields " + " ".join(_FIELDS), "other fields")
    for name, kind in _FIELDS.items():
        if not kind.holds(tree[name]):
            raise _refuse(f"{name}: {kind.name}", ascii(tree[name])[:80])
    _check_together(tree)
    fields = {name: value for name, value in tree.items() if name != "schema"}
    return LaneMessage(**fields | {"acknowledged": tuple(tree["acknowledged"])})


def check_reason(code: str, clause: str | None, text: str | None) -> None:
    """Refuses what no lane may end with.

    Raises:
        LaneMessageError: Code, clause or text are not of the format.
    """
    for name, value in (("code", code), ("clause", clause), ("text", text)):
        if not _FIELDS[name].holds(value) or (name == "code" and value is None):
            raise _refuse(f"{name}: {_FIELDS[name].name}", ascii(value)[:80])


def _check_together(tree: Mapping[str, Json]) -> None:
    if tree["type"] not in TYPES[tree["sender"]]:
        raise _refuse(f"a {tree['sender']}'s message: " + " ".join(TYPES[tree["sender"]]), tree["type"])
    if (tree["code"] is not None) != (tree["type"] == "terminate"):
        raise _refuse("a code in terminate and only there", f"{tree['type']} with code {tree['code']}")
    if tree["code"] is None and (tree["clause"] is not None or tree["text"] is not None):
        raise _refuse("clause and text in terminate only", str(tree["type"]))
    if tree["acknowledged"] and tree["type"] != "verify":
        raise _refuse("acknowledged warnings in verify only", str(tree["type"]))


def _is_time(value: Json) -> bool:
    try:
        return isinstance(value, str) and len(value) == len("2026-11-01T08:00:00Z") and to_ms(value) >= 0
    except ValueError:
        return False


def _is_line(value: Json) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= LANE_TEXT_CHARS or value != value.strip():
        return False
    return strange_character(value) is None


def _is_word(pattern: str, value: Json) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _word(name: str, pattern: str) -> Kind:
    return Kind(name, lambda value: _is_word(pattern, value))


_FIELDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "schema": enum(SCHEMA),
        "id": _word("msg_ and 16 of base32", r"msg_[a-z2-7]{16}"),
        "negotiation": _word("neg_ and 16 of base32", r"neg_[a-z2-7]{16}"),
        "pid": _word("lane_ and 16 of base32", r"lane_[a-z2-7]{16}"),
        "round": Kind(
            f"1 to {NEGOTIATION_ROUNDS}",
            lambda value: type(value) is int and 1 <= value <= NEGOTIATION_ROUNDS,
        ),
        "party": _word("a short name", r"[a-z][a-z0-9-]{0,31}"),
        "sender": enum(CONTRIBUTOR, BROKER),
        "type": enum(*sorted({one for types in TYPES.values() for one in types})),
        "digest": DIGEST,
        "prev": nullable(DIGEST),
        "at": Kind("a time, 2026-11-01T08:00:00Z", _is_time),
        "code": nullable(
            Kind("reason code", lambda value: REASON.holds(value) and len(value) <= _CODE_CHARS)
        ),
        "clause": nullable(CLAUSE),
        "text": nullable(Kind(f"one line of at most {LANE_TEXT_CHARS} characters", _is_line)),
        "acknowledged": WARNINGS,
    }
)


def _refuse(need: str, found: str) -> LaneMessageError:
    return LaneMessageError(need=need, found=found, remedy=_REMEDY)
