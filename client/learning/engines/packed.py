# SPDX-License-Identifier: Apache-2.0
"""A pass for each unit that forms no gradient of a parameter, and one product for the sum: the default.

1. Each unit alone: a forward pass keeps each layer's input, a backward pass goes to the layers' outputs.
2. Squared norm of each unit's gradient, layer by layer (`rules.py`); factors in float64 (`clipping.py`).
3. The clipped sum: per layer one float64 product over the rows of all units whose factor is not zero.
   Where a unit is long its own product is kept from step 2 instead (`rules.py`); such units go through
   steps 1 to 3 in parts, as many at a time as `_KEPT` allows.

What a unit adds to the sum is a function of this unit, the model and the clip, whatever is in the batch.
Frames with huge gradients that cancel leave a rounding error, which clipping may make as large as C. Were it
to depend on the neighbours, by the shape of a product or by padding, taking one unit out could move the
sum by many C. So float32 arithmetic sees one unit at a time, in shapes that its own length decides; where
rows of several units meet, all is float64.

Only a norm from Gram matrices is not the norm of the very numbers that are added. It is exact enough unless
rows cancel: a unit whose factor times ``reach`` (the sum of the norms of its rows' gradients) is above
`_REACH` times C is measured and added by its own float64 gradient.

Nothing may cross the first axis of a layer's input: the model seam of `protocol.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch.autograd.graph import get_gradient_edge

from client.learning.engines.clipping import clip_factors
from client.learning.engines.precision import check_precision
from client.learning.engines.protocol import losses_of, no_gradient, trainable, zeros
from client.learning.engines.rules import RULES, Captured, Scratch, kept_numbers, misfit
from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.autograd.graph import GradientEdge

    from client.learning.engines.protocol import Clipping, FrameLoss, UnitFrames
    from client.learning.engines.rules import LayerRule

__all__ = ["PackedEngine", "leaves_without_rule"]

_REACH: Final = 512.0  # its square times 1e-16 of float64 leaves most of CLIP_FACTOR's slack
_KEPT: Final = 1 << 23  # numbers of units' products kept at a time: 32 MB


@dataclass(slots=True)
class _Call:
    """What a forward pass left of one layer."""

    inputs: torch.Tensor
    version: int
    edge: GradientEdge


class PackedEngine:
    """See the module.

    Args:
        model: Trainable layers of `RULES` only, each called once, as a module, with frames as first axis.
        loss: Loss per frame.
        clipping: Of the plan.

    Raises:
        ModelRefusedError: A trainable layer has no rule, or a parameter is frozen or shared; in a call:
            the loss is not one per frame, or a layer is unused, called twice, or not called with frames as
            first axis. PrecisionRefusedError: In a call: arithmetic in which a norm is no bound.
    """

    def __init__(self, model: nn.Module, loss: FrameLoss, *, clipping: Clipping = "flat") -> None:
        self._model = model
        self._loss = loss
        self._clipping = clipping
        trainable(model)
        for name, found, remedy in leaves_without_rule(model):
            raise ModelRefusedError(need=f"{name}: a layer with a packed rule", found=found, remedy=remedy)
        self._leaves = _leaves(model)
        self._order = _order(model, self._leaves)
        self._axes: dict[str, int] | None = None

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        check_precision(self._model)
        total = zeros(self._model)
        if units:
            parts = self._parts(units)
            most = max(numbers for _, numbers in parts)
            scratch = Scratch(most, next(self._model.parameters()))
            for part, _ in parts:
                scratch.clear()
                for into, found in zip(total, self._sum(part, clip, scratch), strict=True):
                    into.add_(found)
        return total

    def _sum(self, units: list[UnitFrames], clip: float, scratch: Scratch) -> list[torch.Tensor]:
        """Steps 1 to 3 for units that fit into the scratch memory together."""
        rules = self._measure(units, scratch)
        norms = torch.stack([rule.squares for rule in rules]).sum(0).sqrt()
        reach = torch.stack([rule.reach for rule in rules]).sum(0)
        factors = clip_factors(norms, clip, self._clipping)
        fragile = (factors > 0) & ~(factors * reach <= _REACH * clip)
        total = [part for rule in rules for part in rule.weighted(factors.where(~fragile, 0.0))]
        for unit in fragile.nonzero().flatten().tolist():
            self._add_exactly(total, [part for rule in rules for part in rule.of_unit(unit)], clip)
        return [total[place] for place in self._order]

    def _add_exactly(self, total: list[torch.Tensor], gradient: list[torch.Tensor], clip: float) -> None:
        norm = torch.stack([part.square().sum() for part in gradient]).sum().sqrt()
        factor = float(clip_factors(norm, clip, self._clipping))
        if factor > 0:
            for into, part in zip(total, gradient, strict=True):
                into.add_(part, alpha=factor)

    def _parts(self, units: Sequence[UnitFrames]) -> list[tuple[list[UnitFrames], int]]:
        """Units by length, as many together as `_KEPT` allows, and the numbers that are kept of them."""
        if self._axes is None:
            self._axes = self._axes_of(units[0].inputs[:1])
        parts: list[tuple[list[UnitFrames], int]] = []
        for unit in sorted(units, key=lambda one: len(one.inputs)):
            frames = len(unit.inputs)
            need = sum(kept_numbers(leaf, frames * self._axes[name]) for name, leaf in self._leaves.items())
            if parts and parts[-1][1] + need <= _KEPT:
                parts[-1][0].append(unit)
                parts[-1] = (parts[-1][0], parts[-1][1] + need)
            else:
                parts.append(([unit], need))
        return parts

    def _axes_of(self, frame: torch.Tensor) -> dict[str, int]:
        """Rows of each leaf's input in one frame: the product of its axes between frame and feature."""
        with torch.enable_grad(), _Hooks(self._leaves) as hooks:
            calls, _ = self._forward(hooks, frame)
        return {name: call.inputs[..., 0].numel() for name, call in calls.items()}

    def _forward(self, hooks: _Hooks, inputs: torch.Tensor) -> tuple[dict[str, _Call], torch.Tensor]:
        """What each leaf was called with, in their order, and the model's outputs."""
        calls = hooks.expect(len(inputs))
        outputs = self._model(inputs)
        for name in self._leaves:
            if name not in calls:
                raise no_gradient(name)
        return {name: calls[name] for name in self._leaves}, outputs

    def _measure(self, units: Sequence[UnitFrames], scratch: Scratch) -> list[LayerRule]:
        """Steps 1 and 2 for each leaf, in their order."""
        kept: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in self._leaves]
        with torch.enable_grad(), _Hooks(self._leaves) as hooks:
            for unit in units:
                for into, found in zip(kept, self._rows(hooks, unit), strict=True):
                    into.append(found)
        rules = []
        for leaf in self._leaves.values():
            inputs, gradients = zip(*kept.pop(0), strict=True)
            rules.append(
                RULES[type(leaf)](Captured(leaf=leaf, inputs=inputs, gradients=gradients, scratch=scratch))
            )
        return rules

    def _rows(self, hooks: _Hooks, unit: UnitFrames) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Input and gradient at the output of each leaf, of one unit alone."""
        calls, outputs = self._forward(hooks, unit.inputs.clone())  # torch's own memory is aligned
        loss = losses_of(self._loss, outputs, unit.targets, unit.mask).mean()
        found = torch.autograd.grad(loss, [call.edge for call in calls.values()], allow_unused=True)
        rows = []
        for (name, call), gradients in zip(calls.items(), found, strict=True):
            if gradients is None:
                raise no_gradient(name)
            if call.inputs._version != call.version:  # noqa: SLF001  torch has no public name for it
                raise _misused(name, "its input was changed in place after the call")
            rows.append((call.inputs, gradients))
        return rows


class _Hooks:
    """Keeps what each leaf is called with, while the context lasts."""

    def __init__(self, leaves: dict[str, nn.Module]) -> None:
        self._leaves = leaves
        self._calls: dict[str, _Call] = {}
        self._frames = 0

    def __enter__(self) -> Self:
        self._handles = [
            leaf.register_forward_hook(partial(self._keep, name)) for name, leaf in self._leaves.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def expect(self, frames: int) -> dict[str, _Call]:
        """Where the calls of the next pass, of so many frames, will be."""
        self._frames, self._calls = frames, {}
        return self._calls

    def _keep(self, name: str, _leaf: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        if name in self._calls:
            raise _misused(name, "it is called twice in one pass")
        if len(args) != 1 or len(args[0]) != self._frames:
            raise _misused(name, "its input does not have the frames as first axis")
        if not output.requires_grad:
            raise no_gradient(name)
        inputs = args[0].detach()
        self._calls[name] = _Call(inputs, inputs._version, get_gradient_edge(output))  # noqa: SLF001  no public name


def _misused(leaf: str, found: str) -> ModelRefusedError:
    return ModelRefusedError(
        need=f"{leaf}: a layer called once, on [frames, ..., features], its input left as it is",
        found=found,
        remedy="one layer per use, frames kept as first axis, no operation in place on a layer's input",
    )


def _leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that own parameters, by name."""
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def _order(model: nn.Module, leaves: dict[str, nn.Module]) -> list[int]:
    """Place of each of the model's parameters among those of the leaves.

    Raises:
        ModelRefusedError: Two leaves share a parameter.
    """
    place: dict[int, int] = {}
    count = 0
    for name, leaf in leaves.items():
        for own, parameter in leaf.named_parameters(recurse=False):
            if id(parameter) in place:
                raise ModelRefusedError(
                    need=f"{name}.{own}: a parameter of one layer only",
                    found="a parameter that another layer has too",
                    remedy="untie the weights",
                )
            place[id(parameter)] = count
            count += 1
    return [place[id(parameter)] for parameter in model.parameters()]


def leaves_without_rule(model: nn.Module) -> list[tuple[str, str, str]]:
    """Name, reason and replacement of each trainable layer that this engine cannot measure."""
    without = []
    for name, leaf in _leaves(model).items():
        reason = misfit(leaf)
        if reason is not None:
            without.append((name, *reason))
    return without
