# SPDX-License-Identifier: Apache-2.0
"""Entries of the log: their bytes, their ids, and what stands behind salted commitments.

- An entry is the RFC 8785 bytes of one object; its leaf hash is taken over these bytes, and verifiers hash
  bytes, never values.
- In clear stand only enums, digests, ids, aliases, integers, decimals and minutes. Everything else is a
  commitment in ``sd``: ``HMAC-SHA256(salt16, field || 0x00 || canonical(value))``. To disclose is to hand
  over (index, field, salt, value).
- Actors are ``broker``, ``auditor`` or an alias. An alias is made from the organisation's alias key and the
  entry's scope, run and round, so that nobody else can follow one contributor from round to round.
- An event of a member has the first 16 bytes of its envelope's digest as id; an event of the broker the
  hash of its type and the fields that identify it (`policies.log.schema`). The same event therefore always
  has the same id, whoever repeats it and when.

Order of calls: build an `Event` (for members `from_envelope`), take `event_id`, draw one salt for each of
`private_values`, then `entry_body`. A reader calls `check_entry` on the bytes.

Digests are written ``sha256:<64 hex>`` everywhere, chains and aliases as 16 hex digits, nonces as 32.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.encoding import canonical, digest, parse, sha256
from policies.limits import LOG_BODY_MAX
from policies.log.errors import BodyTooLargeError, EntryError
from policies.log.kinds import ALIAS, DIGEST, ID, INTEGER, MINUTE, ORIGIN, REFS_MAX, Kind, many, nullable
from policies.log.schema import MEMBER_SET, SCHEMA, EntryType, Schema
from policies.log.shapes import read_shape
from policies.ports import iso_minute, iso_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.signing import Envelope

__all__ = [
    "Entry",
    "EntryType",
    "Event",
    "alias",
    "check_entry",
    "commitment",
    "entry_body",
    "event_id",
    "from_envelope",
    "known_entry",
    "private_values",
    "request_digest",
]

Json = Any
SALT_BYTES = 16
ALIAS_KEY_BYTES = 32
_REMEDY = "build entries with policies.log.entries; an unknown field or type needs a newer iriai"
_HEX64 = re.compile(r"[0-9a-f]{64}")
_HMAC = Kind("commitment", lambda value: isinstance(value, str) and _is_hex64(value))
_ACTOR = Kind("actor", lambda value: value in ("broker", "auditor") or ALIAS.holds(value))
_FRAME: Mapping[str, Kind] = {
    "v": Kind("1", lambda value: value == 1 and not isinstance(value, bool)),
    "log": ORIGIN,
    "type": Kind("entry type", lambda value: isinstance(value, str) and value in SCHEMA),
    "ts": MINUTE,
    "scope": nullable(DIGEST),
    "run": nullable(ID),
    "round": nullable(INTEGER),
    "actor": _ACTOR,
    "refs": many(INTEGER, REFS_MAX),
    "env": nullable(DIGEST),
}


def _is_hex64(text: str) -> bool:
    return _HEX64.fullmatch(text) is not None


def alias(alias_key: bytes, scope: str | None, run: str | None, round: int | None) -> str:  # noqa: A002
    """Name of an organisation in entries of this scope, run and round: 16 hex digits.

    Args:
        alias_key: 32 bytes that the organisation and the broker know, and the auditor is told.
        scope: Contract digest of the entry, or None.
        run: Run id of the entry, or None.
        round: Round of the entry, or None.
    """
    parts = (scope or "", run or "", "" if round is None else str(round))
    message = b"iriai/alias/1\x00" + b"\x00".join(part.encode("ascii") for part in parts)
    return hmac.digest(alias_key, message, "sha256").hex()[:16]


def commitment(salt16: bytes, name: str, value: Json) -> str:
    """What stands in ``sd`` for a confidential value: 64 hex digits."""
    message = name.encode("ascii") + b"\x00" + canonical(value)
    return hmac.digest(salt16, message, "sha256").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, before it has an index, a time and salts.

    Attributes:
        type: What happened.
        actor: ``broker``, ``auditor`` or an alias.
        scope: Contract digest, or None.
        run: Run id, or None.
        round: Round number, or None.
        refs: Indexes of earlier entries.
        envelope: Member's signed envelope, or None for the broker's own events.
        pub: Fields in clear, exactly those of the type's schema.
        private: Confidential fields and their values, without ``at``.
    """

    type: EntryType
    actor: str = "broker"
    scope: str | None = None
    run: str | None = None
    round: int | None = None
    refs: tuple[int, ...] = ()
    envelope: Envelope | None = None
    pub: Mapping[str, Json] = field(default_factory=dict)
    private: Mapping[str, Json] = field(default_factory=dict)

    @property
    def env(self) -> str | None:
        """Digest of the envelope's payload."""
        return None if self.envelope is None else digest(self.envelope.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A checked entry of the log. ``body`` are the bytes that were hashed."""

    body: bytes
    log: str
    type: EntryType
    ts: str
    scope: str | None
    run: str | None
    round: int | None
    actor: str
    refs: tuple[int, ...]
    env: str | None
    pub: Mapping[str, Json]
    sd: Mapping[str, str]

    @property
    def schema(self) -> Schema:
        """Schema of the entry's type."""
        return SCHEMA[self.type]

    @property
    def id(self) -> bytes:
        """Event id, 16 bytes, derived from the entry alone."""
        if self.env is not None:
            return bytes.fromhex(self.env.removeprefix("sha256:"))[:16]
        return _broker_id(self.type, self)


def _key_part(source: Event | Entry, name: str) -> str:
    if name == "ref":
        return str(source.refs[0]) if source.refs else ""
    value = getattr(source, name) if name in ("run", "round", "scope") else source.pub[name]
    return canonical(value).decode("utf-8")


def _broker_id(kind: EntryType, source: Event | Entry) -> bytes:
    parts = [_key_part(source, name) for name in SCHEMA[kind].key]
    natural = "/".join(parts).encode("utf-8")
    return sha256(b"iriai/event/1\x00" + kind.encode("ascii") + b"\x00" + natural)[:16]


def event_id(event: Event) -> bytes:
    """Id of an event, 16 bytes: equal for every repetition of it."""
    env = event.env
    if env is not None:
        return bytes.fromhex(env.removeprefix("sha256:"))[:16]
    return _broker_id(event.type, event)


def request_digest(event: Event) -> bytes:
    """Digest that tells a repetition from another event of the same id: 32 bytes, no time, no salts.

    Confidential values of the broker's events are left out: an unsalted digest would give small ones away.
    """
    if event.envelope is not None:
        return sha256(event.envelope.payload)
    frame = [event.type.value, event.actor, event.scope, event.run, event.round, list(event.refs)]
    return sha256(canonical([*frame, dict(event.pub)]))


def private_values(event: Event, now_ms: int) -> dict[str, Json]:
    """Every confidential field of the event with its value, ``at`` included: one salt is needed for each."""
    return {**event.private, "at": iso_ms(now_ms)}


def from_envelope(
    envelope: Envelope, payload: Mapping[str, Json], *, actor: str, refs: tuple[int, ...] = ()
) -> Event:
    """The event behind a member's envelope, once `policies.log.envelope.open_envelope` has checked it.

    The body of an envelope holds exactly the type's ``pub`` and ``sd`` fields; ``chain`` and ``seq`` come
    from its header.

    Args:
        envelope: As received.
        payload: What `open_envelope` returned for it.
        actor: The sender's alias for the payload's scope, run and round, or ``auditor``.
        refs: Indexes of earlier entries.

    Raises:
        EntryError: The type is not one that members make, or the body has other fields.
    """
    kind = EntryType(payload["kind"])
    schema, body = SCHEMA[kind], payload["body"]
    private = {name: value for name, value in body.items() if name not in schema.pub}
    header = {name: payload[name] for name in MEMBER_SET if name in schema.sd}
    event = Event(
        type=kind,
        actor=actor,
        scope=payload["scope"],
        run=payload["run"],
        round=payload["round"],
        refs=refs,
        envelope=envelope,
        pub={name: body[name] for name in schema.pub if name in body},
        private=private | header,
    )
    _check_fields(schema, event.pub, event.private)
    return event


def _refuse(need: str, found: str) -> EntryError:
    return EntryError(need=need, found=ascii(found)[1:-1][:120], remedy=_REMEDY)


def _check_names(schema: Schema, names: set[str]) -> None:
    """The ``sd`` names of a type, without ``at``."""
    missing = set(schema.sd) - names
    extra = names - set(schema.sd) - set(schema.sd_optional)
    if missing or extra:
        raise _refuse(
            "sd fields " + (" ".join(sorted(schema.sd)) or "none"),
            f"missing {' '.join(sorted(missing)) or 'none'}, unknown {' '.join(sorted(extra)) or 'none'}",
        )


def _check_pub(schema: Schema, pub: Mapping[str, Json]) -> None:
    if set(pub) != set(schema.pub):
        raise _refuse(
            "pub fields " + (" ".join(sorted(schema.pub)) or "none"), " ".join(sorted(pub)) or "none"
        )
    for name, kind in schema.pub.items():
        if not kind.holds(pub[name]):
            raise _refuse(f"pub.{name}: {kind.name}", repr(pub[name]))


def _check_fields(schema: Schema, pub: Mapping[str, Json], private: Mapping[str, Json]) -> None:
    _check_pub(schema, pub)
    _check_names(schema, set(private))
    for name, value in private.items():
        kind = schema.sd_kind(name)
        if kind is None or not kind.holds(value):
            raise _refuse(
                f"{name}: {kind.name if kind else 'no such field'}", "another value"
            )  # never shown: confidential


def _check_maker(schema: Schema, kind: str, actor: str, env: str | None) -> None:
    """Who made it fits the type: the broker without envelope, a member or the auditor with one."""
    if actor == "broker":
        allowed = "B" in schema.by and env is None
    elif actor == "auditor":
        allowed = schema.by == "A" and env is not None
    else:
        allowed = "M" in schema.by and env is not None
    if not allowed:
        raise _refuse(
            f"{kind} by {schema.by}",
            f"actor {actor} {'with' if env else 'without'} envelope",
        )


def entry_body(event: Event, *, log: str, now_ms: int, salts: Mapping[str, bytes]) -> bytes:
    """Canonical bytes of the entry for an event.

    Args:
        event: What happened.
        log: Origin of the log.
        now_ms: Time of the broker's clock; the entry shows the minute, ``at`` commits to the millisecond.
        salts: One salt of 16 bytes for each field of `private_values`.

    Returns:
        The body, at most `LOG_BODY_MAX` bytes.

    Raises:
        EntryError: The event does not fit the schema of its type, or a salt is missing.
        BodyTooLargeError: More bytes than an entry may have.
    """
    schema = SCHEMA[event.type]
    _check_fields(schema, event.pub, event.private)
    _check_maker(schema, event.type, event.actor, event.env)
    values = private_values(event, now_ms)
    if set(salts) != set(values) or any(len(salt) != SALT_BYTES for salt in salts.values()):
        raise _refuse("a salt of 16 bytes for each of " + " ".join(sorted(values)), " ".join(sorted(salts)))
    body = {
        "v": 1,
        "log": log,
        "type": event.type.value,
        "ts": iso_minute(now_ms),
        "scope": event.scope,
        "run": event.run,
        "round": event.round,
        "actor": event.actor,
        "refs": list(event.refs),
        "env": event.env,
        "pub": dict(event.pub),
        "sd": {name: commitment(salts[name], name, value) for name, value in values.items()},
    }
    _check_frame(body)
    data = canonical(body)
    if len(data) > LOG_BODY_MAX:
        raise BodyTooLargeError(
            need=f"at most {LOG_BODY_MAX} bytes",
            found=f"{len(data)}",
            remedy="put the digest in and ship the thing itself elsewhere",
        )
    return data


def _check_frame(body: Mapping[str, Json]) -> None:
    if set(body) != {*_FRAME, "pub", "sd"}:
        raise _refuse("fields " + " ".join([*_FRAME, "pub", "sd"]), " ".join(sorted(body)))
    for name, kind in _FRAME.items():
        if not kind.holds(body[name]):
            raise _refuse(f"{name}: {kind.name}", repr(body[name]))


def check_entry(data: bytes) -> Entry:
    """The entry behind stored bytes.

    1. at most `LOG_BODY_MAX` bytes; 2. canonical; 3. the frame has exactly its fields; 4. the type's
    ``pub`` and ``sd`` have exactly theirs;
    5. the maker fits the type.

    Of most entries one expression says steps 2 to 4 at once (`policies.log.shapes`).

    Raises:
        BodyTooLargeError: Step 1.
        EncodingError: Step 2.
        EntryError: Steps 3 to 5.
    """
    if len(data) > LOG_BODY_MAX:
        raise BodyTooLargeError(
            need=f"at most {LOG_BODY_MAX} bytes", found=f"{len(data)}", remedy="the log is not one of iriai"
        )
    body = read_shape(data)
    if body is None:
        body = _read(data)
    kind = body["type"]
    _check_maker(SCHEMA[kind], kind, body["actor"], body["env"])
    return _entry(data, body)


def known_entry(data: bytes) -> Entry:
    """The entry behind bytes that passed `check_entry` before; whatever else they are, nothing checks it."""
    body = read_shape(data)
    if body is None:
        body = json.loads(data)
        body["type"] = EntryType(body["type"])
    return _entry(data, body)


def _read(data: bytes) -> dict[str, Json]:
    """Steps 2 to 4 of `check_entry`, one by one."""
    body = parse(data)
    if not isinstance(body, dict):
        raise _refuse("an object", type(body).__name__)
    _check_frame(body)
    body["type"] = EntryType(body["type"])
    schema, pub, sd = SCHEMA[body["type"]], body["pub"], body["sd"]
    if not isinstance(pub, dict) or not isinstance(sd, dict):
        raise _refuse("objects pub and sd", "another value")
    _check_pub(schema, pub)
    if "at" not in sd:
        raise _refuse("sd.at", "none")
    _check_names(schema, set(sd) - {"at"})
    if not all(_HMAC.holds(value) for value in sd.values()):
        raise _refuse("commitments of 64 hex digits", "another value")
    return body


def _entry(data: bytes, body: Mapping[str, Json]) -> Entry:
    return Entry(
        body=data,
        log=body["log"],
        type=body["type"],
        ts=body["ts"],
        scope=body["scope"],
        run=body["run"],
        round=body["round"],
        actor=body["actor"],
        refs=tuple(body["refs"]),
        env=body["env"],
        pub=body["pub"],
        sd=body["sd"],
    )
