# SPDX-License-Identifier: Apache-2.0
"""How a layer's per-unit gradients are measured and summed from what went into it and what came back.

For a layer with input rows ``a_i`` and gradients ``g_i`` at its output, a unit's gradient is a sum over
its rows. The rows of a unit are its own: they come from a pass of this unit alone (`packed.py`).

- `LinearRule`, short units (``8 T (d + p) <= d p``): the norm from Gram matrices of the unit's rows,
  ``sum_ij (a_i a_j)(g_i g_j)``; the clipped sum as one product over the rows of all units, each row of
  ``g`` scaled by its unit's factor. No unit's gradient is ever formed.
- `LinearRule`, long units: the product ``sum_i g_i a_i^T`` is cheaper than its norm by other means. It is
  kept, and `packed.py` takes so few units at a time that what is kept stays within a fixed size.
- `NormRule` (LayerNorm, RMSNorm) and biases: the sums per unit are as small as the layer: kept.
- `EmbeddingRule`: sums per unit and index that occurs: kept.

Which of these a unit gets depends on its own length alone. float32 arithmetic is done on one unit at a
time, in shapes and at addresses (multiples of 64 bytes) that the other units do not change: what rounding
leaves of frames that cancel may be anything, but it is the same in any company. Whatever sees several units
at once is float64. Sums and products that are kept are measured and added as the same numbers; a norm
from Gram matrices is not that of an added number, and is off in proportion to the square of ``reach``,
the sum of ``|a_i| |g_i|``, over the norm: `packed.py` watches it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RULES", "Captured", "LayerRule", "Scratch", "kept_numbers", "misfit"]

_AT_ONCE: Final = 1 << 17  # numbers held at a time while norms are taken: they stay in the cache
_ROWS: Final = 512  # added at a time in float64; more are no faster
_ALIGNED: Final = 16  # numbers of at least 4 bytes: a line of the cache
_WITHIN: Final = 1e15  # squares of rows below it are far from the end of float32


class Scratch:
    """Memory that is used again for each part of a call: fresh pages cost as much as a product.

    Args:
        numbers: Of the model's type, that it holds; more are given from fresh memory.
        like: A tensor of the type and on the device of what is kept.
    """

    def __init__(self, numbers: int, like: torch.Tensor) -> None:
        self._room = like.new_empty(numbers)
        self._used = 0

    def clear(self) -> None:
        """What was given may be given again."""
        self._used = 0

    def take(self, *shape: int) -> torch.Tensor:
        """A tensor with any content."""
        begin, end = self._used, self._used + math.prod(shape)
        if end > len(self._room):
            return self._room.new_empty(shape)
        self._used = end
        return self._room[begin:end].view(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What the passes of some units, each alone, left of a layer.

    Attributes:
        leaf: The layer.
        inputs: What went in, ``[F, ..., d]`` (``[F, ...]`` for indices) for each unit.
        gradients: Gradient of the unit's loss at the layer's output, ``[F, ..., p]`` for each unit.
        scratch: Room for products.
    """

    leaf: nn.Module
    inputs: Sequence[torch.Tensor]
    gradients: Sequence[torch.Tensor]
    scratch: Scratch


class LayerRule(Protocol):
    """Per-unit gradients of one layer; tensors of parameters come in the layer's own order."""

    squares: torch.Tensor
    """Squared norm of each unit's gradient, ``[U]`` float64; NaN or infinity for one that is not finite."""
    reach: torch.Tensor
    """What rounding of ``squares`` is relative to, ``[U]`` float64; zero where there is none."""

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """Sum over units of factor times gradient, float64; a unit of factor zero has no part."""
        ...

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """One unit's gradient, float64 throughout."""
        ...


class LinearRule:
    """See the module; units lie by length, so that those measured by Gram matrices come first."""

    def __init__(self, captured: Captured) -> None:
        leaf = cast("nn.Linear", captured.leaf)
        d, p = leaf.in_features, leaf.out_features
        self._inputs = [one.reshape(-1, d) for one in captured.inputs]
        self._gradients = [one.reshape(-1, p) for one in captured.gradients]
        lengths = [len(one) for one in self._inputs]
        self._short = len(list(takewhile(lambda rows: _is_short(rows, d, p), lengths)))
        parts = [self._by_gram(portion) for portion in _portions(lengths[: self._short], d + p)]
        self._shape = (p, d)
        self._products = captured.scratch.take(len(lengths) - self._short, _aligned(p * d))
        if self._short < len(lengths):
            kept = self._keep()
            parts.append((kept, torch.zeros_like(kept)))
        self.squares = torch.cat([squares for squares, _ in parts])
        self.reach = torch.cat([reach for _, reach in parts])
        self._biases = None if leaf.bias is None else _sums(self._gradients)
        if self._biases is not None:
            self.squares = self.squares + self._biases.square().sum(1)

    def _keep(self) -> torch.Tensor:
        """Forms the gradients of the long units, one by one, each at the start of a line; their squares."""
        norms = self._products.new_empty(len(self._products), self._shape[0])
        for place, room in enumerate(self._of(self._products)):
            unit = self._short + place
            torch.mm(self._gradients[unit].T, self._inputs[unit], out=room)
            torch.linalg.vector_norm(room, dim=1, out=norms[place])
        squares = norms.double().square_().sum(1)
        for place in (~(norms < _WITHIN).all(1)).nonzero().flatten().tolist():
            squares[place] = self._of(self._products)[place].double().square().sum()
        return squares

    def _of(self, room: torch.Tensor) -> torch.Tensor:
        """Gradients ``[U, p, d]`` in their room."""
        p, d = self._shape
        return room[:, : p * d].view(-1, p, d)

    def _by_gram(self, units: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Squares and reach of units of one length without their products."""
        left = torch.stack(self._inputs[units]).double()
        right = torch.stack(self._gradients[units]).double()
        left, right = left @ left.mT, right @ right.mT
        lengths = left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)
        reach = lengths.sqrt().sum(1)
        return left.mul_(right).sum((1, 2)).clamp_min(0.0), reach

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        total = torch.zeros(self._shape, dtype=torch.float64)
        self._add_rows(total, factors[: self._short])
        self._add_products(total.view(-1), factors[self._short :])
        return [total] if self._biases is None else [total, _mix(factors, self._biases)]

    def _add_rows(self, total: torch.Tensor, factors: torch.Tensor) -> None:
        """Adds factor times gradient of the short units."""
        counts = torch.tensor([len(one) for one in self._inputs[: len(factors)]])
        good = factors.nonzero().flatten()
        parts = (counts[good].cumsum(0) // _ROWS).tolist()
        for _, run in groupby(zip(parts, good.tolist(), strict=True), key=itemgetter(0)):
            some = [unit for _, unit in run]
            scale = factors[some].repeat_interleave(counts[some])[:, None]
            gradients = torch.cat([self._gradients[unit] for unit in some]).double().mul_(scale)
            total.addmm_(gradients.T, torch.cat([self._inputs[unit] for unit in some]).double())

    def _add_products(self, total: torch.Tensor, factors: torch.Tensor) -> None:
        """Adds factor times gradient of the long units, as many numbers at a time as stay in the cache."""
        good = factors > 0
        if not bool(good.any()):
            return
        rows, some = (self._products, factors) if bool(good.all()) else (self._products[good], factors[good])
        step = max(1, _AT_ONCE // len(rows))
        for start in range(0, len(total), step):
            into = total[start : start + step]
            into.addmv_(rows[:, start : start + len(into)].double().T, some)

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        found = self._gradients[unit].double().T @ self._inputs[unit].double()
        return [found] if self._biases is None else [found, self._biases[unit]]


def _is_short(rows: int, d: int, p: int) -> bool:
    """Whether Gram matrices of a unit, and rows in the sum, cost less than to keep its product; measured."""
    return 8 * rows * (d + p) <= d * p


def kept_numbers(leaf: nn.Module, rows: int) -> int:
    """Numbers that a rule keeps for a unit of so many rows (frames times axes), if they are many."""
    if not isinstance(leaf, nn.Linear) or _is_short(rows, leaf.in_features, leaf.out_features):
        return 0
    return _aligned(leaf.in_features * leaf.out_features)


def _aligned(numbers: int) -> int:
    return -(-numbers // _ALIGNED) * _ALIGNED


def _portions(lengths: list[int], numbers: int) -> list[slice]:
    """Runs of units of one length that stay in the cache, at so many numbers for a row."""
    portions, start = [], 0
    for length, run in groupby(lengths):
        stop = start + len(list(run))
        step = max(1, _AT_ONCE // (length * numbers))
        portions += [slice(first, min(first + step, stop)) for first in range(start, stop, step)]
        start = stop
    return portions


def _sums(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over each unit's rows, ``[T, p]`` each, ``[U, p]`` float64."""
    portions = _portions([len(one) for one in values], values[0].shape[1])
    return torch.cat([torch.stack(list(values[some])).sum(1, dtype=torch.float64) for some in portions])


class NormRule:
    """See the module."""

    reach: torch.Tensor

    def __init__(self, captured: Captured) -> None:
        leaf = cast("nn.LayerNorm | nn.RMSNorm", captured.leaf)
        shape = leaf.normalized_shape
        scaled = [
            (gradients * _normal(leaf, inputs)).reshape(-1, math.prod(shape))
            for inputs, gradients in zip(captured.inputs, captured.gradients, strict=True)
        ]
        sums = [_sums(scaled)]
        if getattr(leaf, "bias", None) is not None:
            sums.append(_sums([one.reshape(-1, math.prod(shape)) for one in captured.gradients]))
        self._sums, self._shape = sums, shape
        self.squares = torch.stack([one.square().sum(1) for one in sums]).sum(0)
        self.reach = torch.zeros_like(self.squares)

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return [_mix(factors, one).reshape(self._shape) for one in self._sums]

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return [one[unit].reshape(self._shape) for one in self._sums]


def _normal(leaf: nn.LayerNorm | nn.RMSNorm, inputs: torch.Tensor) -> torch.Tensor:
    """What the layer's weight is multiplied with."""
    if isinstance(leaf, nn.LayerNorm):
        return functional.layer_norm(inputs, leaf.normalized_shape, eps=leaf.eps)
    return functional.rms_norm(inputs, leaf.normalized_shape, eps=leaf.eps)


class EmbeddingRule:
    """See the module."""

    def __init__(self, captured: Captured) -> None:
        leaf = cast("nn.Embedding", captured.leaf)
        counts = torch.tensor([one.numel() for one in captured.inputs])
        unit_of = torch.arange(len(counts)).repeat_interleave(counts)
        keys = unit_of * leaf.num_embeddings + torch.cat([one.reshape(-1) for one in captured.inputs])
        found, place = torch.unique(keys, return_inverse=True)
        self._size = leaf.num_embeddings
        self._unit, self._index = found // self._size, found % self._size
        rows = torch.cat([one.reshape(-1, leaf.embedding_dim) for one in captured.gradients]).double()
        self._sums = rows.new_zeros(len(found), leaf.embedding_dim).index_add_(0, place, rows)
        if leaf.padding_idx is not None:
            self._sums[self._index == leaf.padding_idx] = 0.0
        self.squares = self._sums.new_zeros(len(counts))
        self.squares.index_add_(0, self._unit, self._sums.square().sum(1))
        self.reach = torch.zeros_like(self.squares)

    def _scatter(self, scale: torch.Tensor) -> list[torch.Tensor]:
        rows = (self._sums * scale[:, None]).where(scale[:, None] > 0, 0.0)
        return [rows.new_zeros(self._size, rows.shape[1]).index_add_(0, self._index, rows)]

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return self._scatter(factors[self._unit])

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return self._scatter((self._unit == unit).double())


def _mix(factors: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """Sum over units of factor times row, without the rows of factor zero, which may be NaN."""
    good = factors > 0
    return factors @ (sums if bool(good.all()) else sums.where(good[:, None], 0.0))


RULES: Final[dict[type[nn.Module], Callable[[Captured], LayerRule]]] = {
    nn.Linear: LinearRule,
    nn.LayerNorm: NormRule,
    nn.RMSNorm: NormRule,
    nn.Embedding: EmbeddingRule,
}
_ADVICE: Final[dict[type[nn.Module], str]] = {
    nn.MultiheadAttention: "client.learning.attention.SelfAttention, whose projections are Linear layers",
}


def misfit(leaf: nn.Module) -> tuple[str, str] | None:
    """Why a layer has no packed rule, and a replacement; None if it has one.

    The class counts as it is: a subclass may compute something else.
    """
    if type(leaf) not in RULES:
        other = _ADVICE.get(type(leaf), "Linear, LayerNorm, RMSNorm or Embedding; or the loop engine")
        return f"{type(leaf).__name__}, which has no rule in the packed engine", other
    if isinstance(leaf, nn.Embedding) and (
        leaf.scale_grad_by_freq or leaf.max_norm is not None or leaf.sparse
    ):
        return "an Embedding that counts, rescales or stores sparsely", "a plain Embedding"
    return None
