# SPDX-License-Identifier: Apache-2.0
"""Secret sharing: any t of n shares give 32 secret bytes, and t - 1 say nothing about them (Shamir, 1979).

- The field is GF(p) with p = 2^521 - 1, a Mersenne prime. A share is a field element in 66 bytes,
  big-endian; the holder's place in the roster, from 1, is the abscissa and not part of the share.
- Secrets have 32 bytes. Whatever else comes out of an interpolation (2^256 or more) cannot be a secret:
  shares at random, or too few of them, pass for a secret with a chance of 2^-265.
- That is no protection from a holder who forges a share: it can shift the secret by an amount of its choice.
  Each share is compared with its dealer's commitment first, and the secret with its own afterwards.
- Standard library only. Python's whole numbers do not take constant time; shares are made and joined once
  each, and nobody outside the process sees when.

    shares = split(secret, n=5, t=4, entropy=entropy)
    combine({1: shares[0], 3: shares[2], 4: shares[3], 5: shares[4]})     # secret
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Final

from policies.secagg.errors import ShareBadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.ports import Entropy

__all__ = ["SECRET_BYTES", "SHARE_BYTES", "combine", "split"]

SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 66
_BITS: Final = 521
_P: Final = 2**_BITS - 1


def split(secret: bytes, *, n: int, t: int, entropy: Entropy) -> list[bytes]:
    """Shares of a secret for holders 1 to n, in this order; any t of them give it back.

    Raises:
        ShareBadError: The secret has not 32 bytes, or t is not from 1 to n.
    """
    if len(secret) != SECRET_BYTES or not 1 <= t <= n:
        raise _bad(f"a secret of {SECRET_BYTES} bytes and a threshold from 1 to {n}", "others")
    powers = [int.from_bytes(secret, "big"), *(_random_element(entropy) for _ in range(t - 1))]
    return [_value_at(powers, x).to_bytes(SHARE_BYTES, "big") for x in range(1, n + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret of at least t shares, each under its holder's position.

    Raises:
        ShareBadError: A share is no field element, a position is not from 1 on, there is none, or what they
            give is no secret: one of them is wrong, or they are too few.
    """
    positions = tuple(sorted(shares))
    if not positions or positions[0] < 1:
        raise _bad("shares of holders from 1 on", "none" if not positions else f"holder {positions[0]}")
    values = [_element(shares[one], holder=one) for one in positions]
    pairs = zip(_factors_at_zero(positions), values, strict=True)
    found = sum(factor * value for factor, value in pairs) % _P
    if found >> (8 * SECRET_BYTES):
        raise _bad(f"{SECRET_BYTES} bytes from {len(positions)} shares", "a larger number")
    return found.to_bytes(SECRET_BYTES, "big")


def _random_element(entropy: Entropy) -> int:
    while True:
        value = int.from_bytes(entropy.token_bytes(SHARE_BYTES), "big") & _P
        if value != _P:  # the one bit pattern that is no field element; it comes once in 2^521 draws
            return value


def _value_at(powers: list[int], x: int) -> int:
    value = 0
    for one in reversed(powers):
        value = (value * x + one) % _P
    return value


def _element(share: bytes, *, holder: int) -> int:
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= _P:
        raise _bad(f"{SHARE_BYTES} bytes below 2^{_BITS} - 1", f"another share of holder {holder}")
    return value


@lru_cache(maxsize=64)  # every secret of a round is joined from the same few sets of holders
def _factors_at_zero(positions: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_factor(one, [other for other in positions if other != one]) for one in positions)


def _factor(x: int, others: list[int]) -> int:
    return prod(others) * pow(prod(one - x for one in others), -1, _P) % _P


def _bad(need: str, found: str) -> ShareBadError:
    return ShareBadError(need=need, found=found, remedy="compare each share with its dealer's commitment")
