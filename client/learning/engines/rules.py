# SPDX-License-Identifier: Apache-2.0
"""How a layer's per-unit gradients are measured and summed from what went into it and what came back.

For a layer with input rows ``a_i`` and gradients ``g_i`` at its output, a unit's gradient is a sum over
its rows. The rows of a unit are its own: they come from a pass of this unit alone (`packed.py`).

- `LinearRule`, short units (``8 T (d + p) <= d p``): the norm from Gram matrices of the unit's rows,
  ``sum_ij (a_i a_j)(g_i g_j)``; the clipped sum as one product over the rows of all units, each row of
  ``g`` scaled by its unit's factor. No unit's gradient is ever formed.
- `LinearRule`, long units: the product ``sum_i g_i a_i^T`` is formed right after the pass, and kept.
- `NormRule` (LayerNorm, RMSNorm) and biases: the sums per unit are as small as the layer: kept.
- `EmbeddingRule`: sums per unit and index that occurs: kept.

Which of these a unit gets depends on its own length alone. float32 arithmetic is done on one unit at a
time, in shapes and at addresses (multiples of 64 bytes) that the other units do not change: what rounding
leaves of frames that cancel may be anything, but it is the same in any company. Whatever sees several
units at once is float64.

What is kept is measured and added as the same numbers. A norm from Gram matrices is not the norm of what
is added: it is off in proportion to the square of ``reach``, the sum of ``|a_i| |g_i|``, over the norm;
`packed.py` watches it.

    rule = RULES[type(leaf)](leaf, rows, scratch)     # rows of each unit, ascending
    rule.take(unit, inputs, gradients)                # for each unit, in order
    squares, reach = rule.measure()
    rule.of_unit(unit)                                # some units, before the sum
    rule.add(total, factors)                          # once; uses up what was taken
"""

from __future__ import annotations

import math
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Final, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RULES", "LayerRule", "Scratch", "misfit", "room_of"]

_AT_ONCE: Final = 1 << 17  # numbers held at a time while norms are taken: they stay in the cache
_LINE: Final = 8  # float64 in a line of the cache
_WITHIN: Final = 1e15  # squares of rows below it are far from the end of float32


class Scratch:
    """Memory that is used again for each part of a call: fresh pages cost as much as a product.

    Args:
        numbers: float64 that it holds; more are given from fresh memory.
    """

    def __init__(self, numbers: int) -> None:
        self._room = torch.empty(numbers, dtype=torch.float64)
        self._used = 0

    def clear(self) -> None:
        """What was given may be given again."""
        self._used = 0

    def take(self, *shape: int) -> torch.Tensor:
        """float64 with any content, at the start of a line."""
        count = math.prod(shape)
        begin, end = self._used, self._used + _lines(count, torch.float64)
        if end > len(self._room):
            return torch.empty(shape, dtype=torch.float64)
        self._used = end
        return self._room[begin : begin + count].view(shape)

    def lines(self, rows: int, numbers: int, dtype: torch.dtype) -> torch.Tensor:
        """Rows of at least so many numbers, each at the start of a line."""
        return self.take(rows, _lines(numbers, dtype)).view(dtype)


def _lines(numbers: int, dtype: torch.dtype) -> int:
    """float64 in the whole lines that hold so many numbers."""
    return -(-numbers * dtype.itemsize // (8 * _LINE)) * _LINE


class LayerRule(Protocol):
    """Per-unit gradients of one layer; tensors of parameters come in the layer's own order."""

    def take(self, unit: int, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """What the next unit's pass left: inputs ``[F, ..., d]``, gradients at the output ``[F, ..., p]``."""
        ...

    def measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared norm of each unit's gradient, and what its rounding is relative to; ``[U]`` float64.

        NaN or infinity mark a gradient that is not finite; zero where nothing is rounded.
        """
        ...

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """One unit's gradient, float64."""
        ...

    def add(self, total: Sequence[torch.Tensor], factors: torch.Tensor) -> None:
        """Adds factor times gradient of all units, in float64; a unit of factor zero has no part."""
        ...


class LinearRule:
    """See the module."""

    def __init__(self, leaf: nn.Module, rows: Sequence[int], scratch: Scratch) -> None:
        self._leaf = cast("nn.Linear", leaf)
        d, p = self._leaf.in_features, self._leaf.out_features
        self._rows = rows
        self._short = sum(_is_short(count, d, p) for count in rows)  # these come first
        self._bounds = tuple(accumulate(rows[: self._short], initial=0))
        self._left, self._right = scratch.take(self._bounds[-1], d), scratch.take(self._bounds[-1], p)
        self._kept = scratch.lines(len(rows) - self._short, d * p, self._leaf.weight.dtype)
        self._products = self._kept[:, : d * p].view(len(self._kept), p, d).unbind()
        self._norms = self._kept.new_empty(len(self._kept), p)
        self._sums: list[torch.Tensor] = []

    def take(self, unit: int, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """See `LayerRule`."""
        left, right = inputs, gradients
        if left.dim() > 2:  # noqa: PLR2004  axes between frame and feature
            left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
        if left.shape[0] != self._rows[unit]:
            raise ModelRefusedError(
                need=f"a Linear layer of {list(self._leaf.weight.shape)}: as many rows for each frame",
                found=f"{left.shape[0]} rows for a unit, {self._rows[unit]} by its first frame",
                remedy="frames kept as first axis, whatever their number",
            )
        if unit < self._short:
            rows = slice(self._bounds[unit], self._bounds[unit + 1])
            self._left[rows], self._right[rows] = left, right
        else:
            product = self._products[unit - self._short]
            torch.mm(right.T, left, out=product)
            torch.linalg.vector_norm(product, dim=1, out=self._norms[unit - self._short])
        if self._leaf.bias is not None:
            self._sums.append(right.sum(0))

    def measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LayerRule`."""
        parts = [self._gram(*portion) for portion in self._portions()]
        if self._products:
            kept = self._norms.double().square_().sum(1)
            for place in (~(self._norms < _WITHIN).all(1)).nonzero().flatten().tolist():
                kept[place] = self._products[place].double().square().sum()
            parts.append((kept, torch.zeros_like(kept)))
        squares, reach = (torch.cat(part) for part in zip(*parts, strict=True))
        self._biases = torch.stack(self._sums).double() if self._sums else None
        return (squares if self._biases is None else squares + self._biases.square().sum(1)), reach

    def _portions(self) -> list[tuple[int, int, int]]:
        """Runs of short units of one length that stay in the cache: first row, units, rows of each."""
        portions, start = [], 0
        for length, run in groupby(self._rows[: self._short]):
            step = max(1, _AT_ONCE // (length * (self._left.shape[1] + self._right.shape[1])))
            left = len(list(run))
            while left:
                units = min(step, left)
                portions.append((start, units, length))
                start, left = start + units * length, left - units
        return portions

    def _gram(self, start: int, units: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Squares and reach of units of one length without their products."""
        left, right = (
            rows[start : start + units * length].view(units, length, -1) for rows in (self._left, self._right)
        )
        left, right = left @ left.mT, right @ right.mT
        lengths = left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)
        return left.mul_(right).sum((1, 2)).clamp_min_(0.0), lengths.sqrt_().sum(1)

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        if unit < self._short:
            rows = slice(self._bounds[unit], self._bounds[unit + 1])
            found = self._right[rows].T @ self._left[rows]
        else:
            found = self._products[unit - self._short].double()
        return [found] if self._biases is None else [found, self._biases[unit]]

    def add(self, total: Sequence[torch.Tensor], factors: torch.Tensor) -> None:
        """See `LayerRule`."""
        if self._short:
            self._add_rows(total[0], factors[: self._short])
        if self._products:
            self._add_products(total[0].view(-1), factors[self._short :])
        if self._biases is not None:
            _add_sums(total[1], factors, self._biases)

    def _add_rows(self, total: torch.Tensor, factors: torch.Tensor) -> None:
        for factor, (start, stop) in zip(factors.tolist(), pairwise(self._bounds), strict=True):
            if factor == 0:
                self._left[start:stop] = 0.0  # 0 * NaN is NaN
                self._right[start:stop] = 0.0
        counts = torch.tensor(self._rows[: self._short])
        total.addmm_(self._right.mul_(factors.repeat_interleave(counts)[:, None]).T, self._left)

    def _add_products(self, total: torch.Tensor, factors: torch.Tensor) -> None:
        """As many numbers of all at a time as stay in the cache."""
        scale = factors.tolist()
        for start in range(0, len(total), _AT_ONCE):
            into = total[start : start + _AT_ONCE]
            some = self._kept[:, start : start + len(into)].unbind()
            for product, factor in zip(some, scale, strict=True):
                if factor > 0:
                    into.add_(product, alpha=factor)  # float32 to float64: exact


def _is_short(rows: int, d: int, p: int) -> bool:
    """Whether Gram matrices of a unit, and its rows in the sum, cost less than its product; measured."""
    return 8 * rows * (d + p) <= d * p


def room_of(leaf: nn.Module, rows: int) -> int:
    """float64 of scratch memory that a rule takes for a unit of so many rows (frames times axes)."""
    if not isinstance(leaf, nn.Linear):
        return 0
    d, p = leaf.in_features, leaf.out_features
    if _is_short(rows, d, p):
        return rows * (d + p) + 2 * _LINE
    return _lines(d * p, leaf.weight.dtype)


class NormRule:
    """See the module."""

    def __init__(self, leaf: nn.Module, _rows: Sequence[int], _scratch: Scratch) -> None:
        self._leaf = cast("nn.LayerNorm | nn.RMSNorm", leaf)
        self._size = math.prod(self._leaf.normalized_shape)
        self._found: tuple[list[torch.Tensor], ...] = tuple([] for _ in self._leaf.parameters())

    def take(self, unit: int, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """See `LayerRule`."""
        del unit  # they come in order
        leaf, shape = self._leaf, self._leaf.normalized_shape
        if isinstance(leaf, nn.LayerNorm):
            normal = functional.layer_norm(inputs, shape, eps=leaf.eps)
        else:
            normal = functional.rms_norm(inputs, shape, eps=leaf.eps)
        for into, values in zip(self._found, (normal.mul_(gradients), gradients), strict=False):
            into.append(values.reshape(-1, self._size).sum(0))

    def measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LayerRule`."""
        self._sums = [torch.stack(found).double() for found in self._found]
        squares = torch.stack([one.square().sum(1) for one in self._sums]).sum(0)
        return squares, torch.zeros_like(squares)

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return [one[unit].reshape(self._leaf.normalized_shape) for one in self._sums]

    def add(self, total: Sequence[torch.Tensor], factors: torch.Tensor) -> None:
        """See `LayerRule`."""
        for into, sums in zip(total, self._sums, strict=True):
            _add_sums(into, factors, sums)


class EmbeddingRule:
    """See the module."""

    def __init__(self, leaf: nn.Module, _rows: Sequence[int], _scratch: Scratch) -> None:
        self._leaf = cast("nn.Embedding", leaf)
        self._found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def take(self, unit: int, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
        """See `LayerRule`."""
        del unit  # they come in order
        index, place = torch.unique(inputs, return_inverse=True)
        rows = gradients.reshape(-1, self._leaf.embedding_dim).double()
        sums = rows.new_zeros(len(index), rows.shape[1]).index_add_(0, place.reshape(-1), rows)
        if self._leaf.padding_idx is not None:
            sums[index == self._leaf.padding_idx] = 0.0
        self._found.append((index, sums))

    def measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """See `LayerRule`."""
        squares = torch.stack([sums.square().sum() for _, sums in self._found])
        return squares, torch.zeros_like(squares)

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        index, sums = self._found[unit]
        return [sums.new_zeros(self._leaf.weight.shape).index_add_(0, index, sums)]

    def add(self, total: Sequence[torch.Tensor], factors: torch.Tensor) -> None:
        """See `LayerRule`."""
        for factor, (index, sums) in zip(factors.tolist(), self._found, strict=True):
            if factor > 0:
                total[0].index_add_(0, index, sums, alpha=factor)


def _add_sums(total: torch.Tensor, factors: torch.Tensor, sums: torch.Tensor) -> None:
    """Adds factor times row, without the rows of factor zero, which may be NaN."""
    good = factors > 0
    clean = sums if bool(good.all()) else sums.where(good[:, None], 0.0)
    total.add_((factors @ clean).view(total.shape))


RULES: Final[dict[type[nn.Module], Callable[[nn.Module, Sequence[int], Scratch], LayerRule]]] = {
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
