# SPDX-License-Identifier: Apache-2.0
"""An opened sum, computed again from masked vectors and mask keys with the standard library alone.

``z = sum of y - sum of ±PRG(key)  (mod 2^32)``, then the digest of its little-endian bytes. Values are added
thousands at a time, as one large whole number: values at even places stand in 64 bits each and so do those
at odd places, so sums of up to 2^31 vectors have no carry from one value into the next. Since the plain sum
is ``even + 2^32 odd``, the odd half is had by a subtraction.

    recompute([y_kita, y_mori], [(+1, own_kita), (+1, own_mori)], dimension=d)      # "sha256:…"
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from policies.limits import SECAGG_CHUNK
from policies.secagg.errors import SumWrongError
from policies.secagg.keystream import Keystream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from policies.secagg.keystream import Signed

__all__ = ["recompute"]

_WIDTH: Final = 4
_EVEN: Final = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * (SECAGG_CHUNK // 2), "little")
_ONES: Final = int.from_bytes(b"\1\0\0\0\0\0\0\0" * (SECAGG_CHUNK // 2), "little")


def recompute(
    vectors: Sequence[bytes | memoryview],
    remove: Iterable[Signed],
    *,
    dimension: int,
    seen: Callable[[bytes], None] = lambda _: None,
) -> str:
    """Digest (``sha256:…``) of the sum that these masked vectors and mask keys give.

    Args:
        vectors: Bytes of each, little-endian.
        remove: Keys of masks that are in the sum of the vectors, with the sign they were added with.
        dimension: Values of a vector.
        seen: Is shown the sum's bytes, piece by piece.

    Raises:
        SumWrongError: A vector has another length.
    """
    size = _WIDTH * dimension
    if any(len(one) != size for one in vectors):
        raise SumWrongError(
            need=f"vectors of {size} bytes",
            found=", ".join(str(len(one)) for one in vectors),
            remedy="give the files as the broker kept them",
        )
    buffer, hashed = Keystream.buffer(_WIDTH), hashlib.sha256()
    keys = [(sign, Keystream(key, buffer)) for sign, key in remove]
    for at in range(0, size, _WIDTH * SECAGG_CHUNK):
        length = min(_WIDTH * SECAGG_CHUNK, size - at)
        with_masks, masks = _Lanes(), _Lanes()
        for vector in vectors:
            with_masks.add(vector[at : at + length])
        for sign, stream in keys:
            stream.fill(length)
            (masks if sign > 0 else with_masks).add(memoryview(buffer)[:length])
        piece = with_masks.minus(masks, length)
        hashed.update(piece)
        seen(piece)
    return f"sha256:{hashed.hexdigest()}"


class _Lanes:
    """Sums of 32-bit values at even places, and of all places with their carries."""

    __slots__ = ("_count", "_even", "_whole")

    def __init__(self) -> None:
        self._even = self._whole = self._count = 0

    def add(self, piece: bytes | memoryview) -> None:
        number = int.from_bytes(piece, "little")
        self._even += number & _EVEN
        self._whole += number
        self._count += 1

    def minus(self, other: _Lanes, size: int) -> bytes:
        """Value by value modulo 2^32, as bytes."""
        room = (other._count << 32) * _ONES  # so that no value goes below zero
        even = self._even + room - other._even
        odd = self._odd() + room - other._odd()
        found = (even & _EVEN) | ((odd & _EVEN) << 32)
        return found.to_bytes(_WIDTH * (SECAGG_CHUNK), "little")[:size]

    def _odd(self) -> int:
        return (self._whole - self._even) >> 32
