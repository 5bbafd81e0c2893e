# SPDX-License-Identifier: Apache-2.0
"""Hashes and derived keys, each under a label of its own: no two uses can be mistaken for each other.

- ``hashed(use, …)`` is SHA-256 over a length-prefixed tuple that begins with ``iriai/secagg/<use>/1``. Text
  is UTF-8, whole numbers are decimal text, a sequence is its own length-prefixed tuple.
- ``derived(secret, salt, use, …)`` is HKDF-SHA256 (RFC 5869) with 32 bytes out and such a tuple as info.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_BYTES", "Part", "derived", "hashed", "tupled"]

KEY_BYTES = 32
Part = bytes | str | int | Sequence["Part"]


def tupled(parts: Sequence[Part]) -> bytes:
    """Unambiguous bytes of a tuple: each part behind its length in eight bytes, big-endian."""
    return b"".join(len(one).to_bytes(8, "big") + one for one in map(_bytes_of, parts))


def hashed(use: str, *parts: Part) -> bytes:
    """32 bytes: SHA-256 of the labelled tuple."""
    return hashlib.sha256(tupled([f"iriai/secagg/{use}/1", *parts])).digest()


def derived(secret: bytes, salt: bytes, use: str, *parts: Part) -> bytes:
    """A 32-byte key from a secret."""
    info = tupled([f"iriai/secagg/{use}/1", *parts])
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)


def _bytes_of(part: Part) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str | int):
        return str(part).encode()
    return tupled(part)
