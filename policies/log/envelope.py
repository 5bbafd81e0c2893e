# SPDX-License-Identifier: Apache-2.0
"""A member's envelope: what a node signs about itself, numbered so that leaving one out is visible.

Payload (RFC 8785 bytes, DSSE payload type `PAYLOAD_TYPE`)::

    {"v":1,"log":origin,"kind":entry type,"chain":16 hex digits,"seq":n,"prev":digest|null,
     "seen":{"size":n,"root":b64},"nonce":32 hex digits,"time":RFC 3339 ms,"scope":..,"run":..,"round":..,
     "ack":{"index":n,"leaf_hash":b64}|null,"body":{...}}

- The body holds exactly the ``pub`` and ``sd`` fields of the entry type; ``chain``, ``seq`` and ``at`` are
  not among them.
- ``seq`` starts at 0, whose ``prev`` is null. One chain per node, strictly in order.
- ``seen`` is the last checkpoint that this node verified as consistent with all it saw before; it never
  shrinks.
- DSSE's ``keyid`` decides nothing. It must still be the id of the signing key, so that no byte of an
  envelope can change unseen.
- `ChainState` is the state machine of one chain; broker, node and auditor run the same one.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.encoding import canonical, digest
from policies.identity import SigningKey, key_id
from policies.log.errors import (
    ChainError,
    MemberEnvelopeError,
    SeenError,
    SeqGapError,
    SlotTakenError,
)
from policies.log.kinds import ALIAS, DIGEST, ID, INTEGER, ORIGIN, TIME_MS, Kind, nullable, record
from policies.log.schema import MEMBER_SET, SCHEMA, EntryType
from policies.ports import iso_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PAYLOAD_TYPE", "ChainState", "Seen", "check_payload", "open_envelope", "seal_envelope"]

Json = Any
PAYLOAD_TYPE = "application/vnd.iriai.envelope.v1+json"
NONCE_BYTES = 16
CHAIN_BYTES = 8
_REMEDY = "build envelopes with policies.log.envelope; send them unchanged"


def _is_hash(value: Json) -> bool:
    """Base64 of 32 bytes, in its one canonical spelling."""
    if not isinstance(value, str) or len(value) != 44:  # noqa: PLR2004  base64 of 32 bytes
        return False
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return len(raw) == 32 and base64.b64encode(raw).decode("ascii") == value  # noqa: PLR2004  SHA-256


_HASH = Kind("base64 of 32 bytes", _is_hash)
_NONCE = Kind(
    "32 hex digits",
    lambda value: (
        isinstance(value, str) and len(value) == 2 * NONCE_BYTES and set(value) <= set("0123456789abcdef")
    ),
)
_PAYLOAD: Mapping[str, Kind] = {
    "v": Kind("1", lambda value: value == 1 and not isinstance(value, bool)),
    "log": ORIGIN,
    "kind": Kind(
        "a type that members make",
        lambda value: isinstance(value, str) and value in SCHEMA and SCHEMA[EntryType(value)].member_made,
    ),
    "chain": Kind("16 hex digits", ALIAS.holds),
    "seq": INTEGER,
    "prev": nullable(DIGEST),
    "seen": record({"size": INTEGER, "root": _HASH}),
    "nonce": _NONCE,
    "time": TIME_MS,
    "scope": nullable(DIGEST),
    "run": nullable(ID),
    "round": nullable(INTEGER),
    "ack": nullable(record({"index": INTEGER, "leaf_hash": _HASH})),
    "body": Kind("an object", lambda value: isinstance(value, dict)),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that a node verified: size of the tree and its root (32 bytes)."""

    size: int
    root: bytes

    def to_json(self) -> dict[str, Json]:
        """As it stands in a payload."""
        return {"size": self.size, "root": base64.b64encode(self.root).decode("ascii")}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Seen:
        """Of a checked payload's ``seen``."""
        return cls(value["size"], base64.b64decode(value["root"], validate=True))


def _refuse(need: str, found: str) -> MemberEnvelopeError:
    return MemberEnvelopeError(need=need, found=ascii(found)[1:-1][:120], remedy=_REMEDY)


def check_payload(payload: Json) -> dict[str, Json]:
    """The payload, if it has exactly the fields of the format and its body those of its entry type.

    Raises:
        MemberEnvelopeError: With the field.
    """
    if not isinstance(payload, dict) or set(payload) != set(_PAYLOAD):
        raise _refuse("fields " + " ".join(_PAYLOAD), "other fields")
    for name, kind in _PAYLOAD.items():
        if not kind.holds(payload[name]):
            raise _refuse(f"{name}: {kind.name}", "another value")
    if (payload["seq"] == 0) != (payload["prev"] is None):
        raise _refuse("prev null for seq 0 and only there", f"seq {payload['seq']}")
    schema, body = SCHEMA[EntryType(payload["kind"])], payload["body"]
    stated = {name: kind for name, kind in schema.sd.items() if name not in MEMBER_SET}
    needed = {**schema.pub, **stated}
    for name, kind in needed.items():
        if name not in body:
            raise _refuse(f"body.{name}: {kind.name}", "nothing")
    for name, value in body.items():
        kind_or_none = needed.get(name) or schema.sd_optional.get(name)
        if kind_or_none is None or not kind_or_none.holds(value):
            raise _refuse(
                f"body.{name}: {kind_or_none.name if kind_or_none else 'no such field'}", "another value"
            )
    return payload


def seal_envelope(
    key: SigningKey,
    *,
    log: str,
    kind: EntryType,
    chain: str,
    seq: int,
    prev: str | None,
    seen: Seen,
    time_ms: int,
    nonce: bytes,
    scope: str | None,
    run: str | None,
    round: int | None,  # noqa: A002  the format's own word
    ack: Mapping[str, Json] | None,
    body: Mapping[str, Json],
) -> Envelope:
    """Signs one envelope of a chain.

    Args:
        key: Of the node.
        log: Origin of the log.
        kind: Entry type.
        chain: 16 hex digits, the node's own.
        seq: Number in the chain, from 0.
        prev: Digest of the previous payload, None for number 0.
        seen: Last verified checkpoint.
        time_ms: Of the node's clock.
        nonce: 16 fresh random bytes; they keep the payload's digest from being guessed.
        scope: Contract digest, or None.
        run: Run id, or None.
        round: Round number, or None.
        ack: ``{"index", "leaf_hash"}`` of the last own entry known to be in the log, or None.
        body: The type's ``pub`` and ``sd`` fields.

    Raises:
        MemberEnvelopeError: A field is not of the format.
        EncodingError: A value has no canonical form.
    """
    payload = check_payload(
        {
            "v": 1,
            "log": log,
            "kind": str(kind),
            "chain": chain,
            "seq": seq,
            "prev": prev,
            "seen": seen.to_json(),
            "nonce": nonce.hex(),
            "time": iso_ms(time_ms),
            "scope": scope,
            "run": run,
            "round": round,
            "ack": None if ack is None else dict(ack),
            "body": dict(body),
        }
    )
    return Envelope.seal(canonical(payload), PAYLOAD_TYPE, key)


def open_envelope(envelope: Envelope, public_key: bytes) -> dict[str, Json]:
    """The checked payload of an envelope signed by this key.

    1. payload type and signature; 2. exactly one signature, whose ``keyid`` is this key's; 3. canonical
    payload; 4. its fields.

    Raises:
        SignatureInvalidError: Step 1.
        MemberEnvelopeError: Steps 2 and 4.
        EncodingError: Step 3.
    """
    payload = envelope.open_as(PAYLOAD_TYPE, public_key)
    if [hint for hint, _ in envelope.signatures] != [key_id(public_key)]:
        raise _refuse("one signature with the key's own id", "other signatures or ids")
    return check_payload(payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """Where one chain stands: next number, digest it must name, largest checkpoint it has shown.

    Start with ``ChainState(chain=...)``; `accept` gives the state after one more payload.
    """

    chain: str
    next_seq: int = 0
    prev: str | None = None
    seen_size: int = 0

    def accept(self, payload: Mapping[str, Json]) -> ChainState:
        """The state after this payload.

        1. same chain; 2. the next number; 3. ``prev`` is the digest of the payload before; 4. ``seen`` did
        not shrink.

        Args:
            payload: As `open_envelope` returned it.

        Raises:
            ChainError: Step 1 or 3. SlotTakenError: Step 2, the number is behind us (the same payload again
                is the caller's case: it knows the digest). SeqGapError: Step 2, a number is missing;
                ``need`` names the next one. SeenError: Step 4.
        """
        if payload["chain"] != self.chain:
            raise ChainError(
                need=f"chain {self.chain}", found=str(payload["chain"]), remedy="use its own chain"
            )
        return self.after(
            seq=payload["seq"],
            prev=payload["prev"],
            seen_size=payload["seen"]["size"],
            digest=lambda: payload_digest(payload),
        )

    def after(
        self, *, seq: int, prev: str | None, seen_size: int, digest: str | Callable[[], str]
    ) -> ChainState:
        """Steps 2 to 4 of `accept`, for a payload of this chain of which only these fields are at hand.

        Args:
            seq: Its number.
            prev: What it names as the digest of the payload before.
            seen_size: What it had seen.
            digest: Its own digest, or what computes it once everything else holds.

        Raises:
            SlotTakenError, SeqGapError, ChainError, SeenError: As for `accept`.
        """
        if seq < self.next_seq:
            raise SlotTakenError(
                need=f"seq {self.next_seq}",
                found=str(seq),
                remedy="was the outbox restored from a backup? compare it with the receipts; tell the others",
            )
        if seq > self.next_seq:
            raise SeqGapError(
                need=f"seq {self.next_seq}", found=str(seq), remedy="send the missing envelope first"
            )
        if prev != self.prev:
            raise ChainError(
                need=f"prev {self.prev}",
                found=str(prev),
                remedy="the chain forked: compare the outbox with the receipts",
            )
        if seen_size < self.seen_size:
            raise SeenError(
                need=f"seen.size >= {self.seen_size}",
                found=str(seen_size),
                remedy="the node's checkpoint store went back: restore it",
            )
        own = digest if isinstance(digest, str) else digest()
        return ChainState(chain=self.chain, next_seq=seq + 1, prev=own, seen_size=seen_size)


def payload_digest(payload: Mapping[str, Json]) -> str:
    """Digest of a payload, which is the entry's ``env`` and the next payload's ``prev``."""
    return digest(canonical(dict(payload)))
