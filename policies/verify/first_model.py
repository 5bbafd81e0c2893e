# SPDX-License-Identifier: Apache-2.0
"""The weights that a recipe's seed gives, with the standard library alone: the same bits as the nodes'.

Nodes draw them from numpy's PCG64 (`client.learning.weights.initial_weights`). Here that generator is written
out: its seeding (a pool of four words that are hashed and mixed), the 128-bit congruential step with the
output function XSL-RR (O'Neill, 2014), and doubles of 53 bits.

    first_model(recipe)        # little-endian float32; None where the recipe starts from a model
"""

from __future__ import annotations

import math
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from policies.limits import MODEL_PARAMETERS
from policies.verify.server import UnfitError, float32_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["first_model"]

Json = Any
_WORD: Final = 2**32 - 1
_LONG: Final = 2**64 - 1
_WIDE: Final = 2**128 - 1
_STEP: Final = 0x2360ED051FC65DA44385DF649FCCF645
_POOL: Final = 4
_HASHED_IN: Final = (0x43B0D7E5, 0x931E8875)
_HASHED_OUT: Final = (0x8B51F9DD, 0x58F38DED)
_MIXED: Final = (0xCA01F9DD, 0x4973F715)
_HEAD_GAIN: Final = 0.1
_HIDDEN_GAIN: Final = 5 / 3


def first_model(recipe: Mapping[str, Json]) -> bytes | None:
    """Bytes of the weights that every node derives; None where the recipe names a start model.

    Raises:
        UnfitError: No recipe of this version: AUD-051 says so.
    """
    try:
        if recipe["start"] is not None:
            return None
        draw, values = _doubles(int(recipe["architecture"]["args"]["seed"])), list[float]()
        shapes = [(tuple(map(int, one["shape"])), one["block"], one["name"]) for one in recipe["tensors"]]
        if sum(math.prod(shape) for shape, *_ in shapes) > MODEL_PARAMETERS:
            raise UnfitError
        for shape, block, name in shapes:
            if len(shape) == 1:
                values += [float(name.endswith(".weight"))] * shape[0]  # of a norm; biases are zero
                continue
            gain = (_HEAD_GAIN if block == "head" else _HIDDEN_GAIN) / math.sqrt(shape[1])
            values += [(2 * next(draw) - 1) * gain for _ in range(math.prod(shape))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise UnfitError from error
    return float32_bytes(values)


def _doubles(seed: int) -> Iterator[float]:
    """The stream of numpy's ``Generator(PCG64(seed)).random``, for a seed of 32 bits."""
    words = _words(seed, 8)
    high, low, first, second = (words[at] | words[at + 1] << 32 for at in range(0, 8, 2))
    added = ((first << 64 | second) << 1 | 1) & _WIDE
    state = ((added + (high << 64 | low)) * _STEP + added) & _WIDE
    while True:
        state = (state * _STEP + added) & _WIDE
        folded, turn = (state >> 64) ^ (state & _LONG), state >> 122
        yield (((folded >> turn | folded << (64 - turn)) & _LONG) >> 11) * 2.0**-53


def _words(seed: int, count: int) -> list[int]:
    """What numpy's ``SeedSequence(seed).generate_state(count)`` gives."""
    if not 0 <= seed <= _WORD:
        raise UnfitError
    taken = _hashes(*_HASHED_IN)
    pool = [taken(word) for word in (seed, *repeat(0, _POOL - 1))]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mixed(pool[target], taken(pool[source]))
    given = _hashes(*_HASHED_OUT)
    return [given(pool[at % _POOL]) for at in range(count)]


def _hashes(first: int, factor: int) -> Callable[[int], int]:
    """A hash of words whose constant changes with each word."""
    constant = first

    def hashed(word: int) -> int:
        nonlocal constant
        word ^= constant
        constant = constant * factor & _WORD
        word = word * constant & _WORD
        return word ^ word >> 16

    return hashed


def _mixed(one: int, other: int) -> int:
    word = (_MIXED[0] * one - _MIXED[1] * other) & _WORD
    return word ^ word >> 16
