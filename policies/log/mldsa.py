# SPDX-License-Identifier: Apache-2.0
"""ML-DSA-44 (FIPS 204) for cosignatures: a signature that a quantum computer does not forge.

`cryptography` has it since version 47, and only where its own cryptographic library has it; elsewhere
everything here raises `MlDsaMissingError`, so that a signature that cannot be checked never counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from policies.errors import SignatureInvalidError, WeakKeyError
from policies.log.errors import MlDsaMissingError

__all__ = ["KEY_BYTES", "SIGNATURE_BYTES", "MlDsaKey", "check_ml_dsa_key", "verify_ml_dsa"]

KEY_BYTES = 1312
SIGNATURE_BYTES = 2420


def _missing() -> MlDsaMissingError:
    return MlDsaMissingError(
        need="a cryptography library with ML-DSA-44 (version 47 or newer)",
        found="one without it",
        remedy="install the version that constraints.txt names, or use Ed25519 keys (type 0x04)",
    )


def _library() -> Any:  # noqa: ANN401  a module that older libraries do not have
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa
    except ImportError as error:
        raise _missing() from error
    return mldsa


def check_ml_dsa_key(raw: bytes) -> bytes:
    """Returns the key if it has the form of one; every string of this length is a key.

    Raises:
        WeakKeyError: Another length.
        MlDsaMissingError: The library cannot check its signatures.
    """
    if len(raw) != KEY_BYTES:
        raise WeakKeyError(
            need=f"{KEY_BYTES} bytes", found=f"{len(raw)} bytes", remedy="copy the whole ML-DSA-44 vkey"
        )
    _library()
    return raw


def verify_ml_dsa(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Checks an ML-DSA-44 signature with an empty context.

    Raises:
        WeakKeyError: Not a key.
        SignatureInvalidError: The signature is not one of this key over this message.
        MlDsaMissingError: The library cannot check it.
    """
    check_ml_dsa_key(public_key)
    try:
        _library().MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message)
    except UnsupportedAlgorithm as error:
        raise _missing() from error
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalidError(
            need="an ML-DSA-44 signature by the named key",
            found="one that does not verify",
            remedy="compare the vkey by another way; fetch the document again",
        ) from error


@dataclass(frozen=True, slots=True)
class MlDsaKey:
    """An ML-DSA-44 private key in memory, from a 32-byte seed. ``repr`` never shows it."""

    _private: Any = field(repr=False)

    @classmethod
    def from_seed(cls, seed32: bytes) -> MlDsaKey:
        """Key of a seed (FIPS 204, algorithm 6); the seed comes from an `Entropy` source.

        Raises:
            MlDsaMissingError: The library has no ML-DSA-44.
        """
        try:
            return cls(_library().MLDSA44PrivateKey.from_seed_bytes(seed32))
        except UnsupportedAlgorithm as error:
            raise _missing() from error

    @property
    def public(self) -> bytes:
        """Raw public key, 1312 bytes."""
        return bytes(self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """ML-DSA-44 signature with an empty context, 2420 bytes."""
        return bytes(self._private.sign(message))
