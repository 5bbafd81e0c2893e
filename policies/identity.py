# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys (RFC 8032): making, naming and checking them. Files are the caller's business.

- A public key is 32 raw bytes; as text ``ed25519:`` and 64 hex digits.
- `check_public_key` refuses the 48 encodings under which a signature proves nothing or two readers may
  disagree: points of small
  order and field elements y >= p. The library accepts signatures under them: one fixed signature fits every
  message under the
  neutral element. Every key is checked at enrolment and again wherever it is loaded.
- `SigningKey.agree` gives two holders of pinned keys a secret that nobody else has, without a message.
- `verify` returns nothing and raises; there is no bool that a caller could forget to look at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from policies.errors import SignatureInvalidError, WeakKeyError

__all__ = ["SigningKey", "check_public_key", "fingerprint", "key_id", "key_text", "parse_key", "verify"]

_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SIGN_BIT = 1 << 255
KEY_BYTES = 32
SIGNATURE_BYTES = 64
_TEXT_PREFIX = "ed25519:"

# y coordinates of the points whose order divides 8: neutral element, order 2, order 4 (y = 0), and the two
# order-8 values.
_ORDER_8 = (
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
)
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, *(int.from_bytes(y, "little") for y in _ORDER_8)})


def check_public_key(raw: bytes) -> bytes:
    """Returns the key if a signature under it proves something.

    Raises:
        WeakKeyError: Wrong length, y >= p (not canonical), small order, or not a point of the curve.
    """
    remedy = "make a new key pair on the node; never import one from elsewhere"
    if len(raw) != KEY_BYTES:
        raise WeakKeyError(need="32 bytes", found=f"{len(raw)} bytes", remedy=remedy)
    y = int.from_bytes(raw, "little") & (_SIGN_BIT - 1)
    if y >= _P:
        raise WeakKeyError(need="a canonical encoding (y < p)", found=raw.hex(), remedy=remedy)
    if y in _SMALL_ORDER_Y:
        raise WeakKeyError(need="a point of large order", found=raw.hex(), remedy=remedy)
    if not _on_curve(y):
        raise WeakKeyError(need="a point of the curve", found=raw.hex(), remedy=remedy)
    return raw


@lru_cache(maxsize=4096)
def _on_curve(y: int) -> bool:
    """Whether the point exists (RFC 8032, section 5.1.3); the library checks that late."""
    square = y * y % _P
    x_square = (square - 1) * pow(_D * square + 1, _P - 2, _P) % _P
    return pow(x_square, (_P - 1) // 2, _P) in (0, 1)


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Checks an Ed25519 signature under a key that is itself checked first.

    Raises:
        WeakKeyError: The key proves nothing.
        SignatureInvalidError: The signature is not one of this key over this message.
    """
    check_public_key(public_key)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalidError(
            need=f"a signature by {fingerprint(public_key)}",
            found="one that does not verify",
            remedy="compare key fingerprints by another way; fetch the document again",
        ) from error


def key_text(raw: bytes) -> str:
    """``ed25519:<64 hex>`` of a public key."""
    return _TEXT_PREFIX + raw.hex()


def parse_key(text: str) -> bytes:
    """Checked raw public key behind ``ed25519:<64 hex>``.

    Raises:
        WeakKeyError: Another form, or a key that `check_public_key` refuses.
    """
    if not isinstance(text, str) or not text.startswith(_TEXT_PREFIX):
        raise WeakKeyError(
            need="ed25519:<64 hex digits>", found=repr(text)[:80], remedy="copy the whole key text"
        )
    hexed = text[len(_TEXT_PREFIX) :]
    try:
        raw = bytes.fromhex(hexed)
    except ValueError as error:
        raise WeakKeyError(
            need="64 hex digits", found=repr(hexed)[:80], remedy="copy the whole key text"
        ) from error
    if raw.hex() != hexed:
        raise WeakKeyError(
            need="lower-case hex digits", found=repr(hexed)[:80], remedy="copy the whole key text"
        )
    return check_public_key(raw)


def key_id(raw: bytes) -> str:
    """Name of a public key in logs and headers: 16 hex digits of its SHA-256. Decides nothing by itself."""
    return hashlib.sha256(raw).hexdigest()[:16]


def fingerprint(raw: bytes) -> str:
    """What two people compare by telephone: 32 hex digits of the key's SHA-256 in groups of four."""
    hexed = hashlib.sha256(raw).hexdigest()[:32]
    return " ".join(hexed[i : i + 4] for i in range(0, 32, 4))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key in memory. ``repr`` never shows it."""

    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def from_seed(cls, seed32: bytes) -> SigningKey:
        """Key of a 32-byte seed (RFC 8032, section 5.1.5); the seed comes from an `Entropy` source."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed32))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Key behind an unencrypted PKCS #8 PEM file.

        Raises:
            WeakKeyError: The file holds something else.
        """
        remedy = "point to the key file that this program wrote"
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise WeakKeyError(need="a PKCS #8 PEM file", found="something else", remedy=remedy) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise WeakKeyError(need="an Ed25519 key", found=type(key).__name__, remedy=remedy)
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS #8 PEM, unencrypted: write it with file mode 0600 and nowhere else."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public(self) -> bytes:
        """Raw public key, 32 bytes."""
        return self._private.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._private.sign(message)

    def agree(self, public_key: bytes) -> bytes:
        """X25519 between this key and another's public key, 32 bytes; derive a key from it, per use.

        Both are Ed25519 keys, taken to the Montgomery form of the same curve (RFC 7748, section 4.1). One key
        pair for Ed25519 and for an X25519 key agreement is safe together (Thormarker 2021, ePrint 2021/509).

        Raises:
            WeakKeyError: The other key is one that `check_public_key` refuses.
        """
        y = int.from_bytes(check_public_key(public_key), "little") & (_SIGN_BIT - 1)
        u = (1 + y) * pow(1 - y, _P - 2, _P) % _P
        seed = self._private.private_bytes_raw()
        own = X25519PrivateKey.from_private_bytes(hashlib.sha512(seed).digest()[:32])  # clamped inside
        return own.exchange(X25519PublicKey.from_public_bytes(u.to_bytes(KEY_BYTES, "little")))
