# SPDX-License-Identifier: Apache-2.0
"""A tag of the members over what they sum: a node finds a wrong sum before it applies it.

``tag = <PRG64(key), q> mod 2^64`` over the quantised values q, as signed whole numbers. It is linear, and a
sum of q does not wrap: the tags of the members add up to the tag of their sum. The key is one of the
members that the broker lacks; a broker that also holds one member's key can forge it, and then the
transcript decides.

    sum_of_tags = (tag(key, [q_1]) + tag(key, [q_2])) % 2**64
    check(key, q_1 + q_2, sum_of_tags)
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import numpy as np

from policies.limits import SECAGG_CHUNK
from policies.secagg.errors import SumWrongError
from policies.secagg.keystream import Keystream
from policies.secagg.ring import pieces, signed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["Tag", "check", "tag"]

_WIDTH: Final = 8
_MODULUS: Final = 2**64


class Tag:
    """A tag that grows with the values, in order.

    Attributes:
        value: So far.
    """

    def __init__(self, key: bytes) -> None:
        buffer = Keystream.buffer(_WIDTH)
        self._stream = Keystream(key, buffer)
        self._words = np.frombuffer(buffer, "<i8", len(buffer) // _WIDTH)
        self._wide = np.empty(SECAGG_CHUNK, self._words.dtype)
        self.value = 0

    def add(self, values: NDArray[np.uint32]) -> None:
        """Takes in the next ring values, at most `SECAGG_CHUNK`."""
        self._stream.fill(_WIDTH * values.size)
        wide = self._wide[: values.size]
        np.copyto(wide, signed(values))
        product = np.einsum("i,i->", self._words[: values.size], wide)  # wraps, as it should
        self.value = (self.value + int(product)) % _MODULUS


def tag(key: bytes, vectors: Iterable[NDArray[np.uint32]]) -> int:
    """The tag of ring values that come in one or more arrays, in order; all but the last in whole chunks."""
    found = Tag(key)
    for vector in vectors:
        for piece in pieces(vector.size):
            found.add(vector[piece])
    return found.value


def check(key: bytes, z: NDArray[np.uint32], tag_sum: int) -> None:
    """Returns if an opened sum is that of the vectors whose tags add up to ``tag_sum``.

    Raises:
        SumWrongError: It is another one.
    """
    size = _WIDTH
    if not hmac.compare_digest(
        tag(key, [z]).to_bytes(size, "big"), (tag_sum % _MODULUS).to_bytes(size, "big")
    ):
        raise SumWrongError(
            need="the sum that the members' tags add up to",
            found="another one: a member's tag is wrong, or the broker's sum",
            remedy="nothing was spent: the broker goes back to the model before it. If it comes again, a "
            "member of that sum is to blame, or the broker: an auditor redoes it from the masked vectors",
        )
