# SPDX-License-Identifier: Apache-2.0
"""Signed documents (DSSE v1.0.2) and signed HTTP requests (RFC 9421): the only wrapper of both.

DSSE: one payload, one payload type, n Ed25519 signatures over the pre-authentication encoding. ``keyid`` is
    a hint and decides
nothing: a verifier tries the key that *it* expects.

HTTP: a request is accepted only if
1. it carries exactly one signature with our tag, by the key that the caller looked up for ``keyid``;
2. the signature covers method, target, the digest of the body and, on writes, the idempotency key;
3. it was created at most 60 s ago and not further ahead than the allowed skew, and has a nonce;
4. ``Content-Digest`` (RFC 9530) is the SHA-256 of the body, also of an empty one;
5. its nonce is new (the caller stores it, keyed by key id, and refuses when the store is full).

Rules 1 to 3 look at headers alone (`verify_head`), so a forged request is refused before its body is read.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.encoding import b64, canonical, parse, parse_plain, sha256, unb64
from policies.errors import (
    EncodingError,
    RequestReplayedError,
    RequestStaleError,
    RequestUnsignedError,
    SignatureInvalidError,
)
from policies.identity import SigningKey, check_public_key, key_id, verify
from policies.limits import CLOCK_SKEW_S, JSON_DEPTH, SIGNATURE_TTL_S

__all__ = ["Envelope", "VerifiedRequest", "check_body", "sign_request", "verify_head", "verify_request"]

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TAG = "iriai/1"
_LABEL = "iriai"
_COVERED = ("@method", "@target-uri", "content-digest")
_NONCE = re.compile(r"^[0-9a-f]{32}$")


def _not_an_envelope() -> EncodingError:
    return EncodingError(
        need="a DSSE envelope (payloadType, payload, signatures)",
        found="other keys or types",
        remedy="send it unchanged",
    )


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1.0.2 pre-authentication encoding: what each signature is over."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A DSSE envelope; ``signatures`` holds (key id hint, 64-byte signature) in the order they were made."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @classmethod
    def seal(cls, payload: bytes, payload_type: str, *keys: SigningKey) -> Envelope:
        """Signs a payload by one or more keys."""
        message = pae(payload_type, payload)
        return cls(
            payload_type=payload_type,
            payload=payload,
            signatures=tuple((key_id(key.public), key.sign(message)) for key in keys),
        )

    def with_signature(self, public_key: bytes, signature: bytes) -> Envelope:
        """The envelope with one more signature, which is checked first.

        Raises:
            SignatureInvalidError: It is not a signature of this key over this payload.
        """
        verify(public_key, signature, pae(self.payload_type, self.payload))
        return Envelope(
            payload_type=self.payload_type,
            payload=self.payload,
            signatures=(*self.signatures, (key_id(public_key), signature)),
        )

    def signed_by(self, public_key: bytes) -> bool:
        """Whether one of the signatures is by this key; `open_as` raises instead."""
        message = pae(self.payload_type, self.payload)
        for _, signature in self.signatures:
            try:
                verify(public_key, signature, message)
            except SignatureInvalidError:
                continue
            return True
        return False

    def open_as(self, payload_type: str, *public_keys: bytes) -> Any:  # noqa: ANN401  a parsed JSON document
        """The parsed payload, once type and every named key's signature hold.

        Raises:
            SignatureInvalidError: Another payload type, or a named key has not signed.
            EncodingError: The payload is not canonical.
        """
        if self.payload_type != payload_type:
            raise SignatureInvalidError(
                need=f"payload type {payload_type}",
                found=ascii(self.payload_type)[:80],
                remedy="fetch the right document",
            )
        if not public_keys or not all(self.signed_by(key) for key in public_keys):
            raise SignatureInvalidError(
                need="a signature by each pinned key: " + ", ".join(key_id(key) for key in public_keys),
                found="signatures hinting at "
                + (", ".join(ascii(hint)[:20] for hint, _ in self.signatures) or "nobody"),
                remedy="compare key fingerprints by another way; ask the missing party to sign",
            )
        return parse(self.payload)

    def to_json(self) -> dict[str, Any]:
        """The DSSE JSON object."""
        return {
            "payloadType": self.payload_type,
            "payload": b64(self.payload),
            "signatures": [{"keyid": hint, "sig": b64(signature)} for hint, signature in self.signatures],
        }

    def to_bytes(self) -> bytes:
        """Canonical bytes of the DSSE JSON object."""
        return canonical(self.to_json())

    @classmethod
    def from_json(cls, obj: object) -> Envelope:
        """An envelope from its JSON object; nothing is verified yet.

        Raises:
            EncodingError: Keys or types other than DSSE's.
        """
        if not isinstance(obj, Mapping) or set(obj) != {"payloadType", "payload", "signatures"}:
            raise _not_an_envelope()
        kind, payload, signatures = obj["payloadType"], obj["payload"], obj["signatures"]
        if not isinstance(kind, str) or not isinstance(payload, str) or not isinstance(signatures, list):
            raise _not_an_envelope()
        pairs = []
        for one in signatures:
            if not isinstance(one, Mapping) or set(one) != {"keyid", "sig"}:
                raise _not_an_envelope()
            if not isinstance(one["keyid"], str) or not isinstance(one["sig"], str):
                raise _not_an_envelope()
            pairs.append((one["keyid"], unb64(one["sig"])))
        return cls(payload_type=kind, payload=unb64(payload), signatures=tuple(pairs))

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """An envelope from canonical bytes; nothing is verified yet.

        Raises:
            EncodingError: Not canonical, or not an envelope.
        """
        return cls.from_json(parse_envelope_json(data))


def parse_envelope_json(data: bytes) -> Any:  # noqa: ANN401  a parsed JSON document
    """Like `policies.encoding.parse` without the bound on string length: payloads are long base64.

    Raises:
        EncodingError: No JSON, nested deeper than `policies.limits.JSON_DEPTH`, or not canonical.
    """
    if (plain := parse_plain(data, depth=JSON_DEPTH)) is not None:
        return plain
    try:
        obj = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EncodingError(need="a DSSE envelope", found="no JSON", remedy="send it unchanged") from error
    if canonical(obj) != data:
        raise EncodingError(need="canonical bytes", found="another spelling", remedy="send it unchanged")
    return obj


class _Message:
    """What http-message-signatures reads: method, url, headers."""

    def __init__(self, method: str, url: str, headers: Iterable[tuple[str, str]]) -> None:
        self.method = method
        self.url = url
        self.headers = {name.lower(): value for name, value in headers}


class _OneKey:
    """Key resolver of http-message-signatures for exactly one key."""

    def __init__(self, key: Any) -> None:  # noqa: ANN401  the library's own types
        self.key = key

    def resolve_private_key(self, key_id: str) -> Any:  # noqa: ANN401, ARG002
        return self.key

    def resolve_public_key(self, key_id: str) -> Any:  # noqa: ANN401, ARG002
        return self.key


def _one_key(key: Any) -> Any:  # noqa: ANN401  typed by a library that is imported only when needed
    return _OneKey(key)


def content_digest(body: bytes) -> str:
    """``Content-Digest`` header of a body (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(sha256(body)).decode('ascii')}:"


def sign_request(
    key: SigningKey,
    *,
    method: str,
    url: str,
    body: bytes,
    now_ms: int,
    nonce16: bytes,
    idempotency_key: str | None = None,
) -> dict[str, str]:
    """Headers that make a request a signed one.

    Args:
        key: Of the node or operator.
        method: Upper case.
        url: Absolute, as it will be sent, with query.
        body: The exact bytes that will be sent; empty for reads.
        now_ms: Time of the caller's clock.
        nonce16: 16 fresh random bytes.
        idempotency_key: Required for writes.

    Returns:
        The headers to add (``Content-Digest``, ``Signature-Input``, ``Signature``, on writes
        ``Idempotency-Key``).
    """
    from http_message_signatures import HTTPMessageSigner, algorithms

    if (method in WRITES) != (idempotency_key is not None):
        raise RequestUnsignedError(
            need="an Idempotency-Key on writes and only there",
            found=f"{method} with {idempotency_key!r}",
            remedy="add or drop it",
        )
    headers = [("content-digest", content_digest(body))]
    covered: tuple[str, ...] = _COVERED
    if idempotency_key is not None:
        headers.append(("idempotency-key", idempotency_key))
        covered = (*covered, "idempotency-key")
    message = _Message(method, url, headers)
    created = dt.datetime.fromtimestamp(now_ms // 1000, tz=dt.UTC)
    signer = HTTPMessageSigner(
        signature_algorithm=algorithms.ED25519,
        key_resolver=_one_key(key._private),  # noqa: SLF001  the library signs, the key stays here
    )
    signer.sign(
        message,
        key_id=key_id(key.public),
        created=created,
        expires=created + dt.timedelta(seconds=SIGNATURE_TTL_S),
        nonce=nonce16.hex(),
        label=_LABEL,
        tag=_TAG,
        covered_component_ids=covered,
        use_existing_digest=True,
    )
    return {name.lower(): value for name, value in message.headers.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedHead:
    """Headers whose signature held: whose they are, and the digest of the body that may follow."""

    public_key: bytes
    key_id: str
    nonce: str
    expires_ms: int
    idempotency_key: str | None
    content_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRequest:
    """A request whose signature held: whose it is, and what to store so that it cannot come twice."""

    public_key: bytes
    key_id: str
    nonce: str
    expires_ms: int
    idempotency_key: str | None
    body_digest: str


def claimed_key_id(headers: Mapping[str, str]) -> str:
    """The key id that a request claims, to look the key up. Nothing is verified.

    Raises:
        RequestUnsignedError: No signature of ours.
    """
    text = headers.get("signature-input", "")
    found = re.search(r';keyid="([0-9a-f]{16})"', text)
    if found is None:
        raise RequestUnsignedError(
            need="an RFC 9421 signature with keyid",
            found="none",
            remedy="call through iriai-node or iriai-broker, which sign",
        )
    return found.group(1)


def verify_request(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now_ms: int,
    public_key: bytes,
    store_nonce: Callable[[str, str, int], bool],
) -> VerifiedRequest:
    """Checks the five rules of the module docstring, in that order; the whole body is here already.

    Args:
        method: Upper case.
        url: Absolute, as the client signed it.
        headers: Lower-case names.
        body: The bytes that arrived.
        now_ms: Time of the caller's clock.
        public_key: The enrolled key behind `claimed_key_id`.
        store_nonce: Called as ``(key id, nonce, expires_ms)``; False if it was seen or cannot be stored.

    Raises:
        RequestUnsignedError: Rules 1, 2, 3.
        SignatureInvalidError: Rules 1, 4.
        RequestStaleError: Rule 3.
        RequestReplayedError: Rule 5.
    """
    head = verify_head(method=method, url=url, headers=headers, now_ms=now_ms, public_key=public_key)
    verified = check_body(head, body)  # 4.
    if not store_nonce(head.key_id, head.nonce, head.expires_ms):  # 5.
        raise RequestReplayedError(
            need="a nonce that was not seen", found=head.nonce, remedy="sign each request afresh"
        )
    return verified


def verify_head(
    *, method: str, url: str, headers: Mapping[str, str], now_ms: int, public_key: bytes
) -> VerifiedHead:
    """Rules 1 to 3, before a byte of the body is read. For the arguments see `verify_request`.

    Raises:
        RequestUnsignedError: Rules 1, 2, 3.
        SignatureInvalidError: Rule 1.
        RequestStaleError: Rule 3.
    """
    claimed = claimed_key_id(headers)
    parameters = _verified_parameters(method, url, headers, claimed, public_key)  # 1. 2.
    created = _check_fresh(parameters, now_ms)  # 3.
    nonce = str(parameters.get("nonce", ""))
    if not _NONCE.fullmatch(nonce):
        raise RequestUnsignedError(
            need="a nonce of 32 hex digits", found=ascii(nonce)[:40], remedy="sign with a fresh nonce"
        )
    return VerifiedHead(
        public_key=public_key,
        key_id=claimed,
        nonce=nonce,
        expires_ms=(created + SIGNATURE_TTL_S + CLOCK_SKEW_S) * 1000,
        idempotency_key=headers.get("idempotency-key"),
        content_digest=headers["content-digest"],
    )


def check_body(head: VerifiedHead, body: bytes) -> VerifiedRequest:
    """Rule 4: the body is the one that was signed.

    Raises:
        SignatureInvalidError: It is another.
    """
    if head.content_digest != content_digest(body):
        raise SignatureInvalidError(
            need="Content-Digest of the body", found="another", remedy="send the body that was signed"
        )
    return VerifiedRequest(
        public_key=head.public_key,
        key_id=head.key_id,
        nonce=head.nonce,
        expires_ms=head.expires_ms,
        idempotency_key=head.idempotency_key,
        body_digest="sha256:" + hashlib.sha256(body).hexdigest(),
    )


def _verified_parameters(
    method: str, url: str, headers: Mapping[str, str], claimed: str, public_key: bytes
) -> Mapping[str, Any]:
    """Parameters of the one signature, once it holds and covers everything that matters."""
    needed = set(_COVERED) | ({"idempotency-key"} if method in WRITES else set())
    for name in sorted(needed - {"@method", "@target-uri"}):
        if name not in headers:
            raise RequestUnsignedError(
                need=f"header {name}", found="none", remedy="send it and let the signature cover it"
            )
    results = _library_results(_Message(method, url, headers.items()), claimed, public_key)
    if len(results) != 1:
        raise RequestUnsignedError(
            need="exactly one signature", found=str(len(results)), remedy="sign the request once"
        )
    covered = {str(name).strip('"') for name in results[0].covered_components}
    if not needed <= covered:
        raise RequestUnsignedError(
            need="a signature over " + ", ".join(sorted(needed)),
            found=", ".join(sorted(covered)),
            remedy="cover them all",
        )
    parameters: Mapping[str, Any] = results[0].parameters
    return parameters


def _library_results(message: _Message, claimed: str, public_key: bytes) -> Any:  # noqa: ANN401  library type
    from http_message_signatures import HTTPMessageVerifier, algorithms
    from http_message_signatures.exceptions import HTTPMessageSignaturesException

    verifier = HTTPMessageVerifier(
        signature_algorithm=algorithms.ED25519, key_resolver=_one_key(_library_key(public_key))
    )
    # the library has a clock of its own; rule 4 uses the caller's
    verifier.max_clock_skew = dt.timedelta(days=36_500)
    try:
        return verifier.verify(message, expect_tag=_TAG, max_age=None)
    except HTTPMessageSignaturesException as error:
        raise SignatureInvalidError(
            need=f"a signature by {claimed}",
            found="one that does not verify",
            remedy="sign the request again; check the key",
        ) from error


def _check_fresh(parameters: Mapping[str, Any], now_ms: int) -> int:
    """When the signature was made, in seconds, if that is within the window."""
    created = _integer(parameters.get("created"))
    expires = _integer(parameters.get("expires"))
    age_s = now_ms / 1000 - created
    if age_s > SIGNATURE_TTL_S or age_s < -CLOCK_SKEW_S or expires - created > SIGNATURE_TTL_S:
        raise RequestStaleError(
            need=f"a signature at most {SIGNATURE_TTL_S} s old",
            found=f"{age_s:.0f} s",
            remedy="set the clocks (NTP) and send again",
        )
    return created


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestUnsignedError(
            need="integer times in the signature",
            found=repr(value)[:40],
            remedy="sign it with iriai's client",
        )
    return value


def _library_key(public_key: bytes) -> Any:  # noqa: ANN401  the library's own type
    return Ed25519PublicKey.from_public_bytes(check_public_key(public_key))
