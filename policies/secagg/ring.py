# SPDX-License-Identifier: Apache-2.0
"""From an update's numbers to whole numbers modulo 2^32, and from an opened sum back.

- ``q = rint(clip(x * w * s, -2^B, 2^B))``. The product is taken in float64, where it is exact for a weight
  of 1 (24 and 24 bits): no value is further than half a step from where it belongs.
- The clip comes after the product. ``n * 2^B <= 2^31 - 1``, so n values at the limit cannot wrap; a scale
  that was rounded up before the clip would let four of them pass 2^31.
- No coordinate is larger than the norm, and the norm is clipped to C before: the clip of single values
  never bites an honest update.
- Values are little-endian in every array and on the wire (``<u4``).

    update = check_update(trained, terms)           # finite, whole, norm at most C
    quantise(update, weight=terms.weight("kita"), terms=terms)
    mean(z, terms, online)                          # float64, of the opened sum
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from policies.limits import SECAGG_CHUNK
from policies.secagg.errors import UpdateUnfitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

    from numpy.typing import NDArray

    from policies.secagg.terms import Terms

__all__ = ["RING", "check_update", "mean", "pieces", "quantise", "ring_of_grid", "signed"]

RING: Final = np.dtype("<u4")
_INNER: Final = 1 - 2.0**-20  # float32 rounding after the clip must not lift the norm above C again


def pieces(size: int) -> Iterator[slice]:
    """Ranges of at most `SECAGG_CHUNK` values that cover ``size`` of them, in order."""
    return (slice(at, min(at + SECAGG_CHUNK, size)) for at in range(0, size, SECAGG_CHUNK))


def check_update(update: NDArray[Any], terms: Terms) -> NDArray[np.float32]:
    """The update as it may be quantised: ``[d]`` float32, clipped as a whole to ``update_norm_max``.

    Returns:
        The same array where its norm fits, else a scaled copy.

    Raises:
        UpdateUnfitError: Another shape or type, or a value that is not finite.
    """
    if update.shape != (terms.dimension,) or update.dtype != np.float32:
        raise _unfit(f"float32 [{terms.dimension}]", f"{update.dtype} {list(update.shape)}")
    norm = _norm(update)
    if not math.isfinite(norm):  # squares of float32 cannot overflow float64: a value itself is not finite
        raise _unfit("finite values", "others")
    largest = float(terms.norm_max)
    if norm <= largest:
        return update
    return update * np.float32(largest / norm * _INNER)


def quantise(update: NDArray[np.float32], *, weight: Fraction, terms: Terms) -> NDArray[np.uint32]:
    """The ring values of an update in one go: what `policies.secagg.masks` does piece by piece."""
    limit = 2.0**terms.bits
    steps = np.clip(update.astype(np.float64) * step_factor(weight, terms), -limit, limit)
    return np.rint(steps).astype("<i4").view(RING)


def step_factor(weight: Fraction, terms: Terms) -> float:
    """Grid steps per unit of one member's update: its weight times the float32 value of s."""
    return float(weight) * terms.scale


def ring_of_grid(values: NDArray[np.int64], terms: Terms) -> NDArray[np.uint32]:
    """Ring values of whole numbers that are on the grid already, as noise shares make them.

    Raises:
        UpdateUnfitError: Another shape or type, or a value beyond ``±2^B``.
    """
    check_grid(values, terms)
    return values.astype("<i4").view(RING)


def check_grid(values: NDArray[Any], terms: Terms) -> None:
    """Returns if these are d whole numbers within ``±2^B``; raises as `ring_of_grid`."""
    if values.shape != (terms.dimension,) or values.dtype != np.int64:
        raise _unfit(f"int64 [{terms.dimension}]", f"{values.dtype} {list(values.shape)}")
    limit = 2**terms.bits
    if values.size and not (-limit <= values.min() and values.max() <= limit):
        raise _unfit(f"grid values within 2^{terms.bits}", "a larger one")


def signed(z: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The same bytes as whole numbers from -2^31 to 2^31 - 1: a sum of the terms' members fits."""
    return z.view("<i4")


def mean(z: NDArray[np.uint32], terms: Terms, online: Iterable[str]) -> NDArray[np.float64]:
    """The weighted mean that an opened sum over these members stands for."""
    return signed(z) * np.float64(terms.kappa(online))


def _norm(values: NDArray[Any]) -> float:
    wide, total = np.empty(min(SECAGG_CHUNK, values.size), np.float64), 0.0
    for piece in pieces(values.size):
        part = wide[: piece.stop - piece.start]
        np.copyto(part, values[piece])
        total += float(np.einsum("i,i->", part, part))  # `np.dot` wakes threads, which cost more than the sum
    return math.sqrt(total)


def _unfit(need: str, found: str) -> UpdateUnfitError:
    return UpdateUnfitError(need=need, found=found, remedy="look at this node's report of its training")
