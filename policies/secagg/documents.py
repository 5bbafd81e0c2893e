# SPDX-License-Identifier: Apache-2.0
"""What members sign: adverts, share headers, masked vectors, confirmations.

Each is canonical JSON under a payload type of its own, signed as DSSE by the Ed25519 key that the contract
pins for the party; nothing else is a key here. Bulk stands beside the JSON, which holds its digest.

- Adverts and share headers travel whole. Whoever reads one (1) checks the signature over the bytes that
  came, then (2) parses them, then (3) compares every field with its own view: a foreign key and a message of
  another round are told apart.
- Of masked vectors and confirmations only the signature travels: the reader writes the payload that it
  expects and looks whether that was signed.

    signature = sign(advert, key)
    document = Advert.open(payload, signature, blob, frame=frame, party="kita", terms=terms)
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from policies.encoding import canonical, parse
from policies.errors import EncodingError, SignatureInvalidError
from policies.identity import verify
from policies.secagg.errors import ContextMismatchError, KeyNotPinnedError
from policies.secagg.labels import KEY_BYTES, hashed
from policies.signing import Envelope, pae

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.identity import SigningKey
    from policies.secagg.contexts import Frame
    from policies.secagg.terms import Terms

__all__ = [
    "SIGNATURE_BYTES",
    "Advert",
    "Confirmation",
    "Document",
    "ShareHeader",
    "SignedBytes",
    "SlotKeys",
    "VectorHeader",
    "check",
    "is_signed",
    "sign",
    "vectors_root",
]

SIGNATURE_BYTES: Final = 64
_VERSION: Final = 1


class Document(Protocol):
    """Something that a member signs."""

    @property
    def payload_type(self) -> str:
        """Of the DSSE envelope."""
        ...

    def payload(self) -> bytes:
        """Canonical JSON."""
        ...


def sign(document: Document, key: SigningKey) -> bytes:
    """64 bytes: the DSSE signature of a document."""
    return Envelope.seal(document.payload(), document.payload_type, key).signatures[0][1]


def is_signed(document: Document, signature: bytes, public: bytes) -> bool:
    """Whether a key signed exactly this."""
    return _holds(document.payload(), document.payload_type, signature, public)


def check(document: Document, signature: bytes, *, party: str, terms: Terms) -> None:
    """Returns if a member signed exactly this.

    Raises:
        ContextMismatchError: It signed something else, or somebody else did.
    """
    if not is_signed(document, signature, terms.member(party).key):
        raise ContextMismatchError(
            need=f"{party}'s signature over the own view of this attempt",
            found="another signature",
            remedy="compare contract, recipe, model and teams of both sides; usually an old message",
        )


def _holds(payload: bytes, payload_type: str, signature: bytes, public: bytes) -> bool:
    try:
        verify(public, signature, pae(payload_type, payload))
    except SignatureInvalidError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedBytes:
    """Bytes that travel: a payload, its signature, and the bulk that the payload holds the digest of."""

    payload: bytes
    signature: bytes
    blob: bytes = field(repr=False)

    def opened(self, payload_type: str, *, party: str, expected: Mapping[str, Any], free: set[str]) -> Any:  # noqa: ANN401  parsed JSON
        """The parsed payload, once its fields are as ``expected`` and nothing but ``free`` ones is beside.

        Raises:
            ContextMismatchError: Another field or value, or a blob of another digest.
        """
        found = _parsed(self.payload)
        fixed = {"v": _VERSION, "kind": payload_type, "party": party, **expected, "blob": _digest(self.blob)}
        if set(found) != set(fixed) | free:
            raise _differs("exactly the fields of this document", "others", party)
        for name, value in fixed.items():
            if found[name] != value or type(found[name]) is not type(value):
                raise _differs(f"{name} {value}", f"{ascii(found[name])[:80]}", party)
        return found

    def check_key(self, payload_type: str, *, party: str, terms: Terms) -> None:
        """Returns if the party's pinned key signed the payload.

        Raises:
            KeyNotPinnedError: Another one did, or nobody.
        """
        if not _holds(self.payload, payload_type, self.signature, terms.member(party).key):
            raise KeyNotPinnedError(
                need=f"a signature by the key that the contract pins for {party}",
                found="another signature",
                remedy="stop, and tell the other members: a foreign key, or an altered message",
                clause=terms.clause,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKeys:
    """What a member advertises for one slot: its X25519 key, and the commitment to its own mask's secret."""

    public: bytes
    commitment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Advert:
    """A member's public keys for a setup.

    Attributes:
        frame: What the setup is for.
        party: Whose they are.
        transports: Per place in the roster, the X25519 key that shares between the two are sealed with.
        part: Commitment to its part of the members' key.
        chain_end: Last link of its nonce chain.
        opened: The newest round before this setup that it helped to open; 0 for none.
        slots: Per slot, in order.
    """

    payload_type: ClassVar[str] = "application/vnd.iriai.secagg-advert.v1+json"
    frame: Frame
    party: str
    transports: tuple[bytes, ...]
    part: bytes
    chain_end: bytes
    opened: int
    slots: tuple[SlotKeys, ...]

    def blob(self) -> bytes:
        """Transport keys, 32 bytes each; key and commitment of each slot, 64 bytes each."""
        return b"".join([*self.transports, *(one.public + one.commitment for one in self.slots)])

    def payload(self) -> bytes:
        """Canonical JSON."""
        free = {"part": self.part.hex(), "chain_end": self.chain_end.hex(), "opened": self.opened}
        return _payload(self, self.party, self.blob(), {**self.frame.facts(), **free})

    def digest(self) -> bytes:
        """32 bytes, as `policies.secagg.contexts.setup_digest` takes them."""
        return hashed("advert", self.payload())

    @classmethod
    def open(cls, signed: SignedBytes, *, frame: Frame, party: str, terms: Terms) -> Advert:
        """Steps 1 to 3 of the module docstring.

        Raises:
            KeyNotPinnedError: 1.
            ContextMismatchError: 2, 3.
        """
        signed.check_key(cls.payload_type, party=party, terms=terms)
        found = signed.opened(
            cls.payload_type, party=party, expected=frame.facts(), free={"part", "chain_end", "opened"}
        )
        if type(found["opened"]) is not int or not 0 <= found["opened"] < frame.first_round:
            raise _differs("a round before this setup, or 0", f"{ascii(found['opened'])[:80]}", party)
        pieces = iter(_pieces(signed.blob, KEY_BYTES, terms.n + 2 * frame.slots, party))
        transports = tuple(itertools.islice(pieces, terms.n))
        slots = (SlotKeys(public=one, commitment=next(pieces)) for one in pieces)
        return cls(
            frame=frame,
            party=party,
            transports=transports,
            part=_bytes32(found["part"], party),
            chain_end=_bytes32(found["chain_end"], party),
            opened=found["opened"],
            slots=tuple(slots),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeader:
    """What a dealer signs beside the shares: digests of what each holder gets.

    Attributes:
        setup: Digest of the setup.
        party: The dealer.
        nonce: Its reveal for the first round.
        commitments: Digest of all commitments; ciphertexts are bound to it.
        rows: Per advertiser in roster order, 64 bytes: digest of the commitments to its shares, digest of
            the ciphertext for it.
    """

    payload_type: ClassVar[str] = "application/vnd.iriai.secagg-shares.v1+json"
    setup: bytes
    party: str
    nonce: bytes
    commitments: bytes
    rows: tuple[bytes, ...]

    def blob(self) -> bytes:
        """All rows."""
        return b"".join(self.rows)

    def payload(self) -> bytes:
        """Canonical JSON."""
        free = {"nonce": self.nonce.hex(), "commitments": self.commitments.hex()}
        return _payload(self, self.party, self.blob(), {"setup": self.setup.hex(), **free})

    def digest(self) -> bytes:
        """32 bytes, as `policies.secagg.contexts.seal_digest` takes them."""
        return hashed("shares", self.payload())

    @classmethod
    def open(
        cls, signed: SignedBytes, *, setup: bytes, party: str, holders: int, terms: Terms
    ) -> ShareHeader:
        """Steps 1 to 3 of the module docstring.

        Raises:
            KeyNotPinnedError: 1.
            ContextMismatchError: 2, 3.
        """
        signed.check_key(cls.payload_type, party=party, terms=terms)
        free = {"nonce", "commitments"}
        found = signed.opened(cls.payload_type, party=party, expected={"setup": setup.hex()}, free=free)
        return cls(
            setup=setup,
            party=party,
            nonce=_bytes32(found["nonce"], party),
            commitments=_bytes32(found["commitments"], party),
            rows=tuple(_pieces(signed.blob, 2 * KEY_BYTES, holders, party)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorHeader:
    """A masked vector as its member signs it: context, digest of the vector, the masked lane of counts."""

    payload_type: ClassVar[str] = "application/vnd.iriai.secagg-vector.v1+json"
    ctx: bytes
    party: str
    digest: str
    lane: bytes

    def payload(self) -> bytes:
        """Canonical JSON."""
        facts = {"ctx": self.ctx.hex(), "vector": self.digest, "lane": self.lane.hex()}
        return canonical({"v": _VERSION, "kind": self.payload_type, "party": self.party, **facts})


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The one set of vectors that may be opened, as at least t members must sign it, byte for byte.

    Attributes:
        ctx: Of the attempt.
        online: U3, in roster order.
        opened: Numbers of the teams to open, rising.
        root: `vectors_root` of the online members' vectors.
    """

    payload_type: ClassVar[str] = "application/vnd.iriai.secagg-confirmation.v1+json"
    ctx: bytes
    online: tuple[str, ...]
    opened: tuple[int, ...]
    root: bytes

    def payload(self) -> bytes:
        """Canonical JSON."""
        facts = {"ctx": self.ctx.hex(), "online": list(self.online), "vectors": self.root.hex()}
        return canonical({"v": _VERSION, "kind": self.payload_type, "opened": list(self.opened), **facts})


def vectors_root(vectors: Sequence[VectorHeader]) -> bytes:
    """32 bytes over digest and lane of each vector, in roster order."""
    return hashed("vectors", *((one.party, one.digest, one.lane) for one in vectors))


def _payload(document: Document, party: str, blob: bytes, facts: Mapping[str, Any]) -> bytes:
    fixed = {"v": _VERSION, "kind": document.payload_type, "party": party, "blob": _digest(blob)}
    return canonical({**fixed, **facts})


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _parsed(payload: bytes) -> dict[str, Any]:
    try:
        found = parse(payload)
    except EncodingError as error:
        raise _differs("canonical JSON", "other bytes", "whoever signed") from error
    if not isinstance(found, dict):
        raise _differs("a JSON object", type(found).__name__, "whoever signed")
    return found


def _pieces(blob: bytes, size: int, count: int, party: str) -> list[bytes]:
    if len(blob) != size * count:
        raise _differs(f"{count} entries of {size} bytes", f"{len(blob)} bytes", party)
    return [blob[at : at + size] for at in range(0, len(blob), size)]


def _bytes32(text: object, party: str) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * KEY_BYTES or text.strip("0123456789abcdef"):
        raise _differs("64 hex digits", "another value", party)
    return bytes.fromhex(text)


def _differs(need: str, found: str, party: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need,
        found=f"{found}, signed by {party}",
        remedy="compare the digests of both sides; usually an old message",
    )
