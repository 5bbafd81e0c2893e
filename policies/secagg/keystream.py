# SPDX-License-Identifier: Apache-2.0
"""Mask bytes: AES-256 in counter mode from counter block 2, under a key that serves one vector only.

Block number i is ``AES(key, i + 2)``, the counter in 16 bytes, big-endian (NIST SP 800-38A, 6.5). That is
what Galois/Counter Mode with a nonce of zeros does to zeros (SP 800-38D), whose tag nobody asks for: the same
bytes as plain counter mode, and more than twice as fast where a processor has wide AES instructions. A key is
never used for two vectors, so the counter may begin at one place for all.

The u64 lane that travels beside a vector (``[1, weight, tag]``, little-endian) has keys of its own label.
Standard library and `cryptography` only; `policies.secagg.masks` does the same for whole vectors with numpy.

    lane = mask_lane([1, 1_000_000, tag], keys)             # 24 bytes
    unmask_lane(sum_of_lanes([one, other]), remove)         # (2, 2_000_000, sum of tags mod 2^64)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from policies.limits import SECAGG_CHUNK
from policies.secagg.errors import ContextMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LANE_BYTES", "Keystream", "MaskKeys", "Signed", "mask_lane", "sum_of_lanes", "unmask_lane"]

Signed = tuple[int, bytes]  # +1 or -1, and a key of 32 bytes

_VALUES: Final = 3
LANE_BYTES: Final = 8 * _VALUES
_FORM: Final = f"<{_VALUES}Q"
_MODULUS: Final = 2**64
_BLOCK: Final = 16
_NONCE: Final = bytes(12)
_WIDEST: Final = 8  # bytes of one value
ZERO: Final = memoryview(bytes(_WIDEST * SECAGG_CHUNK))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskKeys:
    """Keys of one slot and one lane; they never show in a repr.

    Attributes:
        own: Of the own mask, which is added.
        pairs: Per other member of the team: +1 where its mask is added, -1 where subtracted, and the key.
    """

    own: bytes = field(repr=False)
    pairs: tuple[Signed, ...] = field(repr=False)

    def signed(self) -> tuple[Signed, ...]:
        """The own key and those of all pairs, each with its sign."""
        return ((1, self.own), *self.pairs)


class Keystream:
    """The bytes of one key, piece by piece, into one buffer that is used again.

    Args:
        key: 32 bytes.
        buffer: Of `Keystream.buffer`; streams that take turns may share one.
    """

    __slots__ = ("_buffer", "_encryptor")

    def __init__(self, key: bytes, buffer: bytearray) -> None:
        self._encryptor = Cipher(AES(key), GCM(_NONCE)).encryptor()
        self._buffer = buffer

    @staticmethod
    def buffer(width: int) -> bytearray:
        """Room for `SECAGG_CHUNK` values of so many bytes."""
        return bytearray(width * SECAGG_CHUNK + _BLOCK - 1)  # `update_into` asks for a block of spare room

    def fill(self, size: int) -> None:
        """Puts the next bytes into the buffer's first ``size``: at most `SECAGG_CHUNK` values' worth."""
        self._encryptor.update_into(ZERO[:size], self._buffer)


def mask_lane(values: Sequence[int], keys: MaskKeys) -> bytes:
    """24 bytes: counter, weight and tag under the masks of the lane's own keys, modulo 2^64."""
    return _shifted(values, [(-sign, key) for sign, key in keys.signed()])


def sum_of_lanes(lanes: Iterable[bytes]) -> tuple[int, ...]:
    """Value by value, modulo 2^64.

    Raises:
        ContextMismatchError: One has not 24 bytes.
    """
    total = [0] * _VALUES
    for lane in lanes:
        if len(lane) != LANE_BYTES:
            raise ContextMismatchError(
                need=f"a lane of {LANE_BYTES} bytes", found=f"{len(lane)}", remedy="refuse the reply"
            )
        total = [(one + more) % _MODULUS for one, more in zip(total, struct.unpack(_FORM, lane), strict=True)]
    return tuple(total)


def unmask_lane(total: Sequence[int], remove: Iterable[Signed]) -> tuple[int, ...]:
    """A sum of lanes without some masks; a sign is the one with which its mask was added."""
    return struct.unpack(_FORM, _shifted(total, remove))


def _shifted(values: Sequence[int], remove: Iterable[Signed]) -> bytes:
    found = list(values)
    buffer = Keystream.buffer(_WIDEST)
    for sign, key in remove:
        Keystream(key, buffer).fill(LANE_BYTES)
        stream = struct.unpack_from(_FORM, buffer)
        found = [one - sign * more for one, more in zip(found, stream, strict=True)]
    return struct.pack(_FORM, *(one % _MODULUS for one in found))
