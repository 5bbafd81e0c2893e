# SPDX-License-Identifier: Apache-2.0
"""Keys as text, names and files. The weak encodings are in test_contract_signatures.py."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policies.errors import IdentityError, SignatureInvalidError, WeakKeyError
from policies.identity import SigningKey, fingerprint, key_id, key_text, parse_key, verify

KEY = SigningKey.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_rfc_8032_first_vector():
    assert KEY.public == PUBLIC
    expected = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    assert KEY.sign(b"").hex() == expected
    verify(PUBLIC, KEY.sign(b""), b"")


def test_verify_raises_and_says_whose_signature_it_wanted():
    for signature, message in (
        (KEY.sign(b"a"), b"b"),
        (b"", b"a"),
        (b"\x00" * 64, b"a"),
        (KEY.sign(b"a") + b"\x00", b"a"),
    ):
        with pytest.raises(SignatureInvalidError) as refused:
            verify(PUBLIC, signature, message)
        assert fingerprint(PUBLIC) in refused.value.need
        assert refused.value.exit_code == 6


def test_the_private_key_never_shows():
    assert "_private" not in repr(KEY)
    assert KEY._private.private_bytes_raw().hex() not in repr(KEY)


def test_key_text_round_trip():
    assert parse_key(key_text(PUBLIC)) == PUBLIC
    assert key_id(PUBLIC) == "21fe31dfa154a261"
    assert fingerprint(PUBLIC).replace(" ", "").startswith(key_id(PUBLIC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        PUBLIC.hex(),
        "ed25519:",
        "ed25519:" + PUBLIC.hex()[:-2],
        "ed25519:" + PUBLIC.hex() + "00",
        "ed25519:" + PUBLIC.hex().upper(),
        "ed25519:" + " " + PUBLIC.hex(),
        "ed25519:" + PUBLIC.hex() + "\n",
        "ed25519:" + "zz" * 32,
        "Ed25519:" + PUBLIC.hex(),
        None,
        7,
    ],
)
def test_other_key_texts_are_refused(text):
    with pytest.raises(WeakKeyError):
        parse_key(text)


def test_nothing_verifies_under_a_point_off_the_curve():
    off = next(raw for raw in (bytes([low]) + bytes(31) for low in range(2, 40)) if not _on_curve(raw))
    for signature in (b"\x00" * 64, off + b"\x00" * 32, b"\x01" + b"\x00" * 63):
        with pytest.raises(IdentityError):
            verify(off, signature, b"any message")


def _on_curve(raw: bytes) -> bool:
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    x2 = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    return x2 == 0 or pow(x2, (p - 1) // 2, p) == 1


def test_pem_round_trip_and_foreign_files():
    assert SigningKey.from_pem(KEY.to_pem()).public == PUBLIC
    p256 = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for other in (b"", b"-----BEGIN PRIVATE KEY-----\n", p256, KEY.to_pem().replace(b"PRIVATE", b"PUBLIC")):
        with pytest.raises(WeakKeyError):
            SigningKey.from_pem(other)
