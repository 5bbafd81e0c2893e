# SPDX-License-Identifier: Apache-2.0
"""How a layer's per-unit gradients are measured and summed from what went into it and what came back.

For a layer with input rows ``a_i`` and gradients ``g_i`` at its output, a unit's gradient is a sum over
its rows:

- `LinearRule`, short units (``2 T (d + p) <= d p``): the norm from Gram matrices of the unit's rows,
  ``sum_ij (a_i a_j)(g_i g_j)``; the clipped sum as one product over the rows of all units, each row of
  ``g`` scaled by its unit's factor. No unit's gradient is ever formed.
- `LinearRule`, long units: the product ``sum_i g_i a_i^T`` is cheaper than its norm by other means. It is
  kept, and `packed.py` takes so few units at a time that what is kept stays within a fixed size.
- `NormRule` (LayerNorm, RMSNorm) and biases: the sums per unit are as small as the layer: kept.
- `EmbeddingRule`: sums per unit and index that occurs: kept.

What is kept is measured and added as the same numbers. The product over all rows is not: it rounds in
float32, relative to ``reach``, the sum of ``|a_i| |g_i|``, which `packed.py` watches. Gram matrices are
float64: frames whose gradients cancel would leave nothing of a float32 one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.learning.engines.packing import Band, Packing

__all__ = ["RULES", "Captured", "LayerRule", "Scratch", "kept_numbers", "misfit"]

_AT_ONCE: Final = 1 << 17  # numbers held at a time while norms are taken: they stay in the cache
_WITHIN: Final = 1e15  # squares of rows below it are far from the end of float32


class Scratch:
    """Memory that is used again for each part of a call: fresh pages cost as much as a product.

    Args:
        numbers: float32 that it holds; more are given from fresh memory.
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
    """What one forward and one backward pass left of a layer.

    Attributes:
        leaf: The layer.
        inputs: What went in, ``[N, ..., d]`` (``[N, ...]`` for indices).
        gradients: Gradient of the packed loss at its output, ``[N, ..., p]``.
        packing: Which row belongs to which unit.
        scratch: Room for products.
    """

    leaf: nn.Module
    inputs: torch.Tensor
    gradients: torch.Tensor
    packing: Packing
    scratch: Scratch


class LayerRule(Protocol):
    """Per-unit gradients of one layer; tensors of parameters come in the layer's own order."""

    squares: torch.Tensor
    """Squared norm of each unit's gradient, ``[U]`` float64; NaN or infinity for one that is not finite."""
    reach: torch.Tensor
    """What float32 rounding of the sum is relative to, ``[U]`` float64; zero where there is none."""

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """Sum over units of factor times gradient, float64; a unit of factor zero has no part."""
        ...

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """One unit's gradient, float64 throughout."""
        ...


class LinearRule:
    """See the module; units lie by length, so that those measured by Gram matrices come first."""

    def __init__(self, captured: Captured) -> None:
        packing = captured.packing
        self._packing = packing
        self._inputs = captured.inputs.reshape(len(captured.inputs), -1, captured.inputs.shape[-1])
        self._gradients = captured.gradients.reshape(
            len(captured.gradients), -1, captured.gradients.shape[-1]
        )
        self._products: list[tuple[Band, torch.Tensor]] = []
        self._short_rows = 0
        parts = [self._measure(band, captured.scratch) for band in packing.bands]
        self.squares = torch.cat([squares for squares, _ in parts])
        self.reach = torch.cat([reach for _, reach in parts])
        self._biases: torch.Tensor | None = None
        if captured.leaf.bias is not None:
            self._biases = packing.sums(self._gradients)
            self.squares = self.squares + self._biases.square().sum(1)

    def _measure(self, band: Band, scratch: Scratch) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, gradients = band.blocks(self._inputs), band.blocks(self._gradients)
        if _is_short(inputs.shape[1], inputs.shape[2], gradients.shape[2]):
            self._short_rows = band.stop
            return _by_gram(inputs, gradients)
        product = scratch.take(band.units, gradients.shape[2], inputs.shape[2])
        self._products.append((band, product))
        squares = _by_product(inputs, gradients, product)
        return squares, torch.zeros_like(squares)

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        scale = factors.to(self._gradients.dtype)[self._packing.unit_of[: self._short_rows]].reshape(-1, 1, 1)
        inputs, gradients = self._inputs[: self._short_rows], self._gradients[: self._short_rows] * scale
        if bool((scale == 0).any()):
            inputs, gradients = inputs.where(scale > 0, 0.0), gradients.where(scale > 0, 0.0)
        total = (gradients.flatten(0, 1).T @ inputs.flatten(0, 1)).double()
        for band, product in self._products:
            own = factors[band.first : band.first + band.units].to(product.dtype)
            total += _mix(own, product.flatten(1)).reshape(total.shape)
        return [total] if self._biases is None else [total, _mix(factors, self._biases)]

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        found = [self._weight_of(unit)]
        return found if self._biases is None else [*found, self._biases[unit]]

    def _weight_of(self, unit: int) -> torch.Tensor:
        for band, product in self._products:
            if band.first <= unit < band.first + band.units:
                return product[unit - band.first].double()
        rows = self._packing.rows(unit)
        gradients = self._gradients[rows].flatten(0, 1).double()
        return gradients.T @ self._inputs[rows].flatten(0, 1).double()


def _is_short(rows: int, d: int, p: int) -> bool:
    """Whether Gram matrices of a unit are cheaper than its product; float64 costs twice."""
    return 2 * rows * (d + p) <= d * p


def kept_numbers(leaf: nn.Module, rows: int) -> int:
    """Numbers that a rule keeps for a unit of so many rows (frames times axes), if they are many."""
    if not isinstance(leaf, nn.Linear) or _is_short(rows, leaf.in_features, leaf.out_features):
        return 0
    return leaf.in_features * leaf.out_features


def _by_gram(inputs: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squares and reach of units ``[u, T, d]`` and ``[u, T, p]`` without their products."""
    squares, reach = [], []
    for some in _portions(inputs, inputs.shape[1] * (inputs.shape[2] + gradients.shape[2])):
        left, right = inputs[some].double(), gradients[some].double()
        left, right = left @ left.mT, right @ right.mT
        lengths = left.diagonal(dim1=1, dim2=2) * right.diagonal(dim1=1, dim2=2)
        reach.append(lengths.sqrt().sum(1))
        squares.append(left.mul_(right).sum((1, 2)).clamp_min(0.0))
    return torch.cat(squares), torch.cat(reach)


def _by_product(inputs: torch.Tensor, gradients: torch.Tensor, product: torch.Tensor) -> torch.Tensor:
    """Squares of the products, which go into ``product [u, p, d]``."""
    return torch.cat(
        [
            _squares(torch.bmm(gradients[some].mT, inputs[some], out=product[some]))
            for some in _portions(inputs, inputs.shape[2] * gradients.shape[2])
        ]
    )


def _portions(inputs: torch.Tensor, numbers: int) -> list[slice]:
    """Runs of units of which each needs some numbers of working memory; small enough to stay in the cache."""
    step = max(1, _AT_ONCE // numbers)
    return [slice(start, min(start + step, len(inputs))) for start in range(0, len(inputs), step)]


def _squares(product: torch.Tensor) -> torch.Tensor:
    """Squared norms of ``[u, p, d]``: of rows in float32, or float64 where squares leave its range."""
    rows: torch.Tensor = torch.linalg.vector_norm(product, dim=2).double()
    if bool((rows < _WITHIN).all()):
        return rows.square().sum(1)
    return product.double().square().sum((1, 2))


class NormRule:
    """See the module."""

    reach: torch.Tensor

    def __init__(self, captured: Captured) -> None:
        leaf = cast("nn.LayerNorm | nn.RMSNorm", captured.leaf)
        shape = leaf.normalized_shape
        if isinstance(leaf, nn.LayerNorm):
            plain = functional.layer_norm(captured.inputs, shape, eps=leaf.eps)
        else:
            plain = functional.rms_norm(captured.inputs, shape, eps=leaf.eps)
        gradients, axes = captured.gradients, len(shape)
        sums = [captured.packing.sums((gradients * plain).flatten(-axes))]
        if getattr(leaf, "bias", None) is not None:
            sums.append(captured.packing.sums(gradients.flatten(-axes)))
        self._sums, self._shape = sums, shape
        self.squares = torch.stack([one.square().sum(1) for one in sums]).sum(0)
        self.reach = torch.zeros_like(self.squares)

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return [_mix(factors, one).reshape(self._shape) for one in self._sums]

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        return [one[unit].reshape(self._shape) for one in self._sums]


class EmbeddingRule:
    """See the module."""

    def __init__(self, captured: Captured) -> None:
        leaf = cast("nn.Embedding", captured.leaf)
        unit_of = captured.packing.unit_of
        indices = captured.inputs.reshape(len(unit_of), -1)
        keys = (unit_of[:, None] * leaf.num_embeddings + indices).reshape(-1)
        found, place = torch.unique(keys, return_inverse=True)
        self._size = leaf.num_embeddings
        self._unit, self._index = found // self._size, found % self._size
        rows = captured.gradients.reshape(-1, leaf.embedding_dim).double()
        self._sums = rows.new_zeros(len(found), leaf.embedding_dim).index_add_(0, place, rows)
        if leaf.padding_idx is not None:
            self._sums[self._index == leaf.padding_idx] = 0.0
        units = captured.packing.bounds
        self.squares = self._sums.new_zeros(len(units) - 1)
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
