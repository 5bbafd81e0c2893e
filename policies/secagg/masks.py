# SPDX-License-Identifier: Apache-2.0
"""An update under its masks, in one pass, and masks off a sum.

``y = Q(w x) + PRG(own) + sum of ±PRG(pair)   (mod 2^32)``, a keystream per key (`policies.secagg.keystream`).

- One pass in pieces of `SECAGG_CHUNK` values that stay in the processor's cache: scale, clip, round, tag,
  each keystream, hash. Memory is the masked vector and about one piece; nothing unmasked is kept whole.
- int64 values are taken as grid values (noise shares) and only looked at, not scaled.
- What was added with a sign is removed with the same sign: pair masks of two members have opposite signs
  and the same bytes, so they cancel in a sum over both.

    vector, digest, tag = mask(update, keys, terms=terms, party="kita", mac_key=mac)
    unmask(total, [(+1, own_kita), (-1, pair_kita_mori)])       # in place
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from policies.limits import SECAGG_CHUNK
from policies.secagg.errors import UpdateUnfitError
from policies.secagg.group_mac import Tag
from policies.secagg.keystream import Keystream, MaskKeys, Signed, mask_lane, sum_of_lanes, unmask_lane
from policies.secagg.ring import RING, check_grid, pieces, signed, step_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from policies.secagg.terms import Terms

    _Fill = Callable[[slice, NDArray[np.int32]], None]

__all__ = ["MaskKeys", "MaskedVector", "Signed", "mask", "mask_lane", "sum_of_lanes", "unmask", "unmask_lane"]

_WIDTH: Final = 4


class MaskedVector(NamedTuple):
    """A vector that may leave: ``<u4 [d]``, ``sha256:…`` of its bytes, and the tag (0 without a key)."""

    vector: NDArray[np.uint32]
    digest: str
    tag: int


def mask(
    values: NDArray[np.float32] | NDArray[np.int64],
    keys: MaskKeys,
    *,
    terms: Terms,
    party: str,
    mac_key: bytes | None = None,
) -> MaskedVector:
    """Quantises, tags, masks and hashes an update.

    Args:
        values: float32 ``[d]`` from `policies.secagg.ring.check_update`, or int64 grid values ``[d]``.
        keys: Of this slot; they must never be used again.
        terms: Of the run.
        party: Whose weight applies.
        mac_key: Of the group tag, or None.

    Raises:
        UpdateUnfitError: Another shape or type, a value that is not finite, or a grid value beyond the ring.
    """
    fill = _grid(values, terms) if values.dtype == np.int64 else _steps(values, terms, party)
    vector = np.empty(terms.dimension, RING)
    stream, hashed = _Masks(keys.signed()), hashlib.sha256()
    tag = None if mac_key is None else Tag(mac_key)
    for piece in pieces(terms.dimension):
        part = vector[piece]
        fill(piece, signed(part))
        if tag is not None:
            tag.add(part)
        stream.add_to(part)
        hashed.update(part.data)
    return MaskedVector(vector, f"sha256:{hashed.hexdigest()}", 0 if tag is None else tag.value)


def unmask(total: NDArray[np.uint32], remove: Iterable[Signed]) -> None:
    """Takes masks off a sum, in place; a sign is the one with which its mask was added."""
    stream = _Masks([(-sign, key) for sign, key in remove])
    for piece in pieces(total.size):
        stream.add_to(total[piece])


class _Masks:
    """Keystreams that are added to a vector piece by piece, in order, through one buffer."""

    def __init__(self, keys: Iterable[Signed]) -> None:
        buffer = Keystream.buffer(_WIDTH)
        self._words = np.frombuffer(buffer, RING, SECAGG_CHUNK)
        self._streams = [(np.add if sign > 0 else np.subtract, Keystream(key, buffer)) for sign, key in keys]

    def add_to(self, part: NDArray[np.uint32]) -> None:
        words = self._words[: part.size]
        for apply, stream in self._streams:
            stream.fill(_WIDTH * part.size)
            apply(part, words, out=part)


def _steps(values: NDArray[Any], terms: Terms, party: str) -> _Fill:
    """Writes rounded grid steps of float32 values, a piece at a time."""
    if values.shape != (terms.dimension,) or values.dtype != np.float32:
        raise _unfit(f"float32 or int64 [{terms.dimension}]", f"{values.dtype} {list(values.shape)}")
    factor, limit = np.float64(step_factor(terms.weight(party), terms)), 2.0**terms.bits
    room = np.empty(min(SECAGG_CHUNK, terms.dimension), np.float64)

    def fill(piece: slice, part: NDArray[np.int32]) -> None:
        steps = room[: part.size]
        np.multiply(values[piece], factor, out=steps)
        low, high = steps.min(), steps.max()
        if not (math.isfinite(low) and math.isfinite(high)):  # a NaN is both
            raise _unfit("finite values", "others")
        if low < -limit or high > limit:
            np.clip(steps, -limit, limit, out=steps)
        np.rint(steps, out=steps)
        np.copyto(part, steps, casting="unsafe")  # whole numbers within 2^B: exact

    return fill


def _grid(values: NDArray[Any], terms: Terms) -> _Fill:
    """Copies grid values, a piece at a time; all were looked at before the first one is masked."""
    check_grid(values, terms)

    def fill(piece: slice, part: NDArray[np.int32]) -> None:
        np.copyto(part, values[piece], casting="unsafe")  # within 2^B: exact

    return fill


def _unfit(need: str, found: str) -> UpdateUnfitError:
    return UpdateUnfitError(need=need, found=found, remedy="look at this node's report of its training")
