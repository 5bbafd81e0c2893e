# SPDX-License-Identifier: Apache-2.0
"""Signed documents (DSSE) and signed requests (RFC 9421): the rules of `policies.signing`, each broken once."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace

import pytest

from policies.encoding import canonical
from policies.errors import (
    EncodingError,
    IriaiError,
    RequestReplayedError,
    RequestStaleError,
    RequestUnsignedError,
    SignatureInvalidError,
    WeakKeyError,
)
from policies.identity import SigningKey, key_id
from policies.limits import CLOCK_SKEW_S, SIGNATURE_TTL_S
from policies.signing import Envelope, claimed_key_id, content_digest, pae, sign_request, verify_request

KEY = SigningKey.from_seed(b"k" * 32)
OTHER = SigningKey.from_seed(b"o" * 32)
NOW = 1_790_000_000_000
URL = "https://broker.example:7443/api/v1/membership/join?x=1"
BODY = b'{"a":1}'
KIND = "application/vnd.iriai.test.v1+json"


@dataclass
class Nonces:
    """What a broker stores of nonces."""

    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    full: bool = False

    def store(self, key: str, nonce: str, expires_ms: int) -> bool:
        if self.full or (key, nonce) in self.seen:
            return False
        self.seen[key, nonce] = expires_ms
        return True


def signed(**changes):
    request = {
        "method": "POST",
        "url": URL,
        "body": BODY,
        "now_ms": NOW,
        "nonce16": b"n" * 16,
        "idempotency_key": "idem-1",
    } | changes
    return sign_request(changes.pop("key", KEY), **{k: v for k, v in request.items() if k != "key"})


def check(headers, **changes):
    request = {
        "method": "POST",
        "url": URL,
        "body": BODY,
        "now_ms": NOW,
        "public_key": KEY.public,
        "store_nonce": Nonces().store,
    } | changes
    return verify_request(headers=headers, **request)


def test_a_signed_write_is_accepted_and_says_what_to_store():
    nonces = Nonces()
    verified = check(signed(), store_nonce=nonces.store)
    assert verified.public_key == KEY.public
    assert verified.key_id == key_id(KEY.public) == claimed_key_id(signed())
    assert verified.nonce == (b"n" * 16).hex()
    assert verified.idempotency_key == "idem-1"
    assert verified.expires_ms == NOW + (SIGNATURE_TTL_S + CLOCK_SKEW_S) * 1000
    assert list(nonces.seen) == [(key_id(KEY.public), verified.nonce)]


def test_a_signed_read_needs_no_idempotency_key():
    headers = signed(method="GET", body=b"", idempotency_key=None)
    assert check(headers, method="GET", body=b"").idempotency_key is None


def test_a_replay_is_refused_and_so_is_everything_while_the_store_is_full():
    nonces = Nonces()
    check(signed(), store_nonce=nonces.store)
    with pytest.raises(RequestReplayedError) as refused:
        check(signed(), store_nonce=nonces.store)
    assert (refused.value.code, refused.value.http_status) == ("identity.replayed", 409)
    with pytest.raises(RequestReplayedError):
        check(signed(nonce16=b"m" * 16), store_nonce=Nonces(full=True).store)


def test_the_nonce_is_stored_only_after_everything_else_holds():
    nonces = Nonces()
    with pytest.raises(SignatureInvalidError):
        check(signed(), body=b"{}", store_nonce=nonces.store)
    with pytest.raises(RequestStaleError):
        check(signed(), now_ms=NOW + 10**6, store_nonce=nonces.store)
    assert nonces.seen == {}


@pytest.mark.parametrize("later_s", [SIGNATURE_TTL_S + 1, 3_600, -(CLOCK_SKEW_S + 1), -86_400])
def test_stale_and_early_requests_are_refused(later_s):
    with pytest.raises(RequestStaleError) as refused:
        check(signed(), now_ms=NOW + later_s * 1000)
    assert refused.value.code == "identity.clock"


@pytest.mark.parametrize("later_s", [0, SIGNATURE_TTL_S, -CLOCK_SKEW_S])
def test_the_window_is_closed_at_both_ends(later_s):
    check(signed(), now_ms=NOW + later_s * 1000)


@pytest.mark.parametrize("body", [b"", b'{"a":2}', BODY + b"\n"])
def test_another_body_is_refused(body):
    with pytest.raises(SignatureInvalidError):
        check(signed(), body=body)


def test_another_body_with_its_own_digest_is_refused_by_the_signature():
    headers = signed() | {"content-digest": content_digest(b"{}")}
    with pytest.raises(SignatureInvalidError):
        check(headers, body=b"{}")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"url": URL.replace("x=1", "x=2")},
        {"url": URL.replace("join", "me")},
        {"url": URL.replace("broker.example", "mallory.example")},
        {"url": URL.replace("https", "http")},
        {"public_key": OTHER.public},
    ],
)
def test_method_target_and_key_are_covered(changes):
    with pytest.raises(SignatureInvalidError):
        check(signed(), **changes)


def test_another_idempotency_key_is_refused():
    with pytest.raises(SignatureInvalidError):
        check(signed() | {"idempotency-key": "idem-2"})


@pytest.mark.parametrize("name", ["content-digest", "idempotency-key", "signature-input"])
def test_a_missing_header_is_refused(name):
    headers = signed()
    del headers[name]
    with pytest.raises(RequestUnsignedError):
        check(headers)


def test_a_missing_signature_is_refused():
    headers = signed()
    del headers["signature"]
    with pytest.raises(IriaiError) as refused:
        check(headers)
    assert refused.value.http_status == 401


def test_writes_are_signed_only_with_an_idempotency_key_and_reads_only_without():
    with pytest.raises(RequestUnsignedError):
        signed(idempotency_key=None)
    with pytest.raises(RequestUnsignedError):
        signed(method="GET", body=b"")


def test_a_read_signature_does_not_serve_as_a_write():
    headers = signed(method="GET", idempotency_key=None)
    with pytest.raises(IriaiError):
        check(headers | {"idempotency-key": "idem-1"})


def test_an_idempotency_key_outside_the_signature_is_refused():
    """The covered list of a write lacks the key: the signature holds, the rule does not."""
    from http_message_signatures import HTTPMessageSigner, algorithms

    from policies.signing import _Message, _OneKey

    for covered in (
        ("@method", "@target-uri", "content-digest"),
        ("@method", "content-digest", "idempotency-key"),
        ("@target-uri",),
    ):
        message = _Message("POST", URL, [("content-digest", content_digest(BODY)), ("idempotency-key", "i")])
        signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_OneKey(KEY._private))
        import datetime as dt

        created = dt.datetime.fromtimestamp(NOW // 1000, tz=dt.UTC)
        signer.sign(
            message,
            key_id=key_id(KEY.public),
            created=created,
            expires=created + dt.timedelta(seconds=SIGNATURE_TTL_S),
            nonce="0" * 32,
            label="iriai",
            tag="iriai/1",
            covered_component_ids=covered,
            use_existing_digest=True,
        )
        with pytest.raises(RequestUnsignedError):
            check(message.headers)


def altered(part: str, old: str, new: str):
    headers = signed()
    assert old in headers[part]
    return headers | {part: headers[part].replace(old, new)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"created={NOW // 1000}", f"created={NOW // 1000 + 5}"),
        (f"expires={NOW // 1000 + SIGNATURE_TTL_S}", f"expires={NOW // 1000 + 9999}"),
        ('tag="iriai/1"', 'tag="other/1"'),
        ('nonce="6e', 'nonce="6f'),
        ('"@method" ', ""),
        (key_id(KEY.public), "0" * 16),
    ],
)
def test_no_parameter_of_the_signature_can_be_changed(old, new):
    with pytest.raises(IriaiError):
        check(altered("signature-input", old, new))


def test_two_signatures_are_refused():
    one, two = signed(), signed(nonce16=b"m" * 16)
    both = one | {
        "signature-input": one["signature-input"]
        + ", "
        + two["signature-input"].replace("iriai=", "second=", 1),
        "signature": one["signature"] + ", " + two["signature"].replace("iriai=", "second=", 1),
    }
    with pytest.raises(IriaiError):
        check(both)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iriai=()",
        "garbage",
        'iriai=("@method");keyid="zz"',
        "\x00",
        'iriai=("@method");keyid="0123456789abcdef"',
    ],
)
def test_other_signature_inputs_are_refused(text):
    with pytest.raises(IriaiError) as refused:
        check(signed() | {"signature-input": text})
    assert refused.value.http_status == 401


def test_a_weak_key_verifies_nothing():
    with pytest.raises(WeakKeyError):
        check(signed(), public_key=b"\x01" + b"\x00" * 31)


# --- DSSE ---


def test_pae_is_that_of_the_specification():
    assert (
        pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_an_envelope_opens_by_its_type_and_every_named_key():
    envelope = Envelope.seal(canonical({"a": 1}), KIND, KEY, OTHER)
    assert envelope.open_as(KIND, KEY.public) == {"a": 1}
    assert envelope.open_as(KIND, OTHER.public, KEY.public) == {"a": 1}
    assert Envelope.from_bytes(envelope.to_bytes()) == envelope
    third = SigningKey.from_seed(b"t" * 32)
    for kind, keys in ((KIND + "x", [KEY.public]), (KIND, []), (KIND, [KEY.public, third.public])):
        with pytest.raises(SignatureInvalidError):
            envelope.open_as(kind, *keys)


def test_a_payload_that_is_not_canonical_does_not_open():
    with pytest.raises(EncodingError):
        Envelope.seal(b'{"a": 1}', KIND, KEY).open_as(KIND, KEY.public)


def test_every_byte_of_payload_and_type_is_signed():
    envelope = Envelope.seal(canonical({"a": 1}), KIND, KEY)
    for position in range(len(envelope.payload)):
        payload = bytearray(envelope.payload)
        payload[position] ^= 1
        assert not replace(envelope, payload=bytes(payload)).signed_by(KEY.public)
    assert not replace(envelope, payload_type=KIND.upper()).signed_by(KEY.public)


def test_a_signature_is_added_only_if_it_holds():
    envelope = Envelope.seal(canonical({"a": 1}), KIND)
    message = pae(KIND, envelope.payload)
    assert envelope.with_signature(KEY.public, KEY.sign(message)).signed_by(KEY.public)
    with pytest.raises(SignatureInvalidError):
        envelope.with_signature(KEY.public, OTHER.sign(message))


GOOD = Envelope.seal(canonical({"a": 1}), KIND, KEY).to_json()


@pytest.mark.parametrize(
    "obj",
    [
        None,
        [],
        {},
        GOOD | {"extra": 1},
        {key: value for key, value in GOOD.items() if key != "payload"},
        GOOD | {"payload": 5},
        GOOD | {"payload": "!!"},
        GOOD | {"payloadType": 5},
        GOOD | {"signatures": {}} | {"signatures": 5},
        GOOD | {"signatures": [5]},
        GOOD | {"signatures": [{"sig": "AA=="}]},
        GOOD | {"signatures": [{"keyid": 5, "sig": "AA=="}]},
        GOOD | {"signatures": [{"keyid": "x", "sig": "AA==", "alg": "none"}]},
        GOOD | {"signatures": [{"keyid": "x", "sig": None}]},
    ],
)
def test_other_objects_are_no_envelopes(obj):
    with pytest.raises(EncodingError):
        Envelope.from_json(obj)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", json.dumps(GOOD).encode(), canonical(GOOD) + b"\n", b"\xff"]
)
def test_other_bytes_are_no_envelopes(data):
    with pytest.raises(EncodingError):
        Envelope.from_bytes(data)


def test_url_safe_base64_is_read_as_well():
    payload = b"\xfb\xff\xfe"
    envelope = Envelope.seal(payload, KIND, KEY)
    urlsafe = envelope.to_json() | {"payload": base64.urlsafe_b64encode(payload).decode()}
    assert Envelope.from_json(urlsafe) == envelope
