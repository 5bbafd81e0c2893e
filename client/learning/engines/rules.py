# SPDX-License-Identifier: Apache-2.0
"""How a layer's per-unit gradients are measured and summed from what went into it and what came back.

For a layer with input rows ``a_i`` and gradients ``g_i`` at its output, a unit's gradient is a sum over
its rows; none of these rules forms it for all units at once:

- `LinearRule`: ``sum_i g_i a_i^T``. Its norm by the Gram matrices of the unit's rows, ``sum_ij (a_i
  a_j)(g_i g_j)``, if the unit is short (``2 T (d + p) <= d p``), else by the product itself, a few units
  at a time. The clipped sum is one product over all rows of all units, each row of ``g`` scaled by its
  unit's factor.
- `NormRule` (LayerNorm, RMSNorm) and biases: the sums per unit are as small as the layer: kept.
- `EmbeddingRule`: sums per unit and index that occurs.

Gram matrices are float64: frames whose gradients cancel would leave nothing of a float32 one. ``reach``
bounds what float32 products can get wrong (`packed.py` uses it); rules that sum in float64 have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.learning.engines.packing import Band, Packing

__all__ = ["RULES", "Captured", "LayerRule", "misfit"]

_AT_ONCE: Final = 1 << 17  # numbers held at a time while norms are taken: they stay in the cache
_WITHIN: Final = 1e15  # squares of rows below it are far from the end of float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What one forward and one backward pass left of a layer.

    Attributes:
        leaf: The layer.
        inputs: What went in, ``[N, ..., d]`` (``[N, ...]`` for indices).
        gradients: Gradient of the packed loss at its output, ``[N, ..., p]``.
        packing: Which row belongs to which unit.
    """

    leaf: nn.Module
    inputs: torch.Tensor
    gradients: torch.Tensor
    packing: Packing


class LayerRule(Protocol):
    """Per-unit gradients of one layer; tensors of parameters come in the layer's own order."""

    squares: torch.Tensor
    """Squared norm of each unit's gradient, ``[U]`` float64; NaN or infinity for one that is not finite."""
    reach: torch.Tensor
    """Sum over a unit's rows of ``|a_i| |g_i|``, ``[U]`` float64: what float32 rounding is relative to."""

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """Sum over units of factor times gradient, float64; a unit of factor zero has no part."""
        ...

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """One unit's gradient, float64 throughout."""
        ...


class LinearRule:
    """See the module."""

    def __init__(self, captured: Captured) -> None:
        packing = captured.packing
        self._packing = packing
        self._inputs = captured.inputs.reshape(len(captured.inputs), -1, captured.inputs.shape[-1])
        self._gradients = captured.gradients.reshape(
            len(captured.gradients), -1, captured.gradients.shape[-1]
        )
        parts = [self._measure(band) for band in packing.bands]
        self.squares = torch.cat([squares for squares, _ in parts])
        self.reach = torch.cat([reach for _, reach in parts])
        self._biases: torch.Tensor | None = None
        if captured.leaf.bias is not None:
            self._biases = packing.sums(self._gradients)
            self.squares = self.squares + self._biases.square().sum(1)

    def _measure(self, band: Band) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, gradients = band.blocks(self._inputs), band.blocks(self._gradients)
        rows, d, p = inputs.shape[1], inputs.shape[2], gradients.shape[2]
        if 2 * rows * (d + p) <= d * p:  # float64 costs twice
            return _by_gram(inputs, gradients)
        return _by_product(inputs, gradients)

    def weighted(self, factors: torch.Tensor) -> list[torch.Tensor]:
        """See `LayerRule`."""
        scale = factors.float()[self._packing.unit_of].reshape(-1, 1, 1)
        inputs, gradients = self._inputs, self._gradients * scale
        if bool((factors == 0).any()):
            inputs, gradients = inputs.where(scale > 0, 0.0), gradients.where(scale > 0, 0.0)
        found = [(gradients.flatten(0, 1).T @ inputs.flatten(0, 1)).double()]
        return found if self._biases is None else [*found, _mix(factors, self._biases)]

    def of_unit(self, unit: int) -> list[torch.Tensor]:
        """See `LayerRule`."""
        rows = self._packing.rows(unit)
        gradients = self._gradients[rows].flatten(0, 1).double()
        found = [gradients.T @ self._inputs[rows].flatten(0, 1).double()]
        return found if self._biases is None else [*found, self._biases[unit]]


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


def _by_product(inputs: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same by the products ``[u, p, d]``, a few units at a time, in one buffer."""
    size = (gradients.shape[2], inputs.shape[2])
    buffer, squares = inputs.new_empty(0), []
    for some in _portions(inputs, size[0] * size[1]):
        buffer = torch.bmm(
            gradients[some].mT, inputs[some], out=buffer.resize_(some.stop - some.start, *size)
        )
        squares.append(_squares(buffer))
    lengths = torch.linalg.vector_norm(inputs, dim=2) * torch.linalg.vector_norm(gradients, dim=2)
    return torch.cat(squares), lengths.sum(1).double()


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
    return factors @ sums.where((factors > 0)[:, None], 0.0)


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
