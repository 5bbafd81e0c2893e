# SPDX-License-Identifier: Apache-2.0
"""All units in one forward and one backward pass, no padding, no gradient per unit: the default.

1. Frames of all units lie side by side (`packing.py`); one forward pass keeps each layer's input.
2. One backward pass to the layers' outputs; no gradient of a parameter is formed.
3. Squared norm of each unit's gradient, layer by layer (`rules.py`); factors in float64 (`clipping.py`).
4. The clipped sum: per layer one product over all rows, rows of bad units set to zero, activations too
   (0 * NaN is NaN). Where a unit is long its own product is kept from step 3 instead (`rules.py`); such
   units go through steps 1 to 4 in parts, as many at a time as `_KEPT` allows.

A product over all rows rounds in float32, in proportion to ``reach``: the sum of the norms of a unit's
rows. That is far below `CLIP_FACTOR`'s slack unless rows cancel almost fully. Units where they do (factor
times reach above `_REACH` times C) are added one by one in float64, norm and gradient alike, so that the
bound holds for them too.

Nothing may cross the first axis of a layer's input: the model seam of `protocol.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.autograd.graph import get_gradient_edge

from client.learning.engines.clipping import clip_factors
from client.learning.engines.packing import Packing
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

_REACH: Final = 512.0  # times 6e-8 of float32 a third of CLIP_FACTOR's slack
_KEPT: Final = 1 << 23  # numbers of units' products kept at a time: 32 MB
_LEAST_FACTOR: Final = 1e-30  # below it a factor times a gradient is not exact in float32


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
        """Steps 1 to 4 for units that fit into the scratch memory together."""
        rules = self._measure(Packing.of(units), scratch)
        norms = torch.stack([rule.squares for rule in rules]).sum(0).sqrt()
        reach = torch.stack([rule.reach for rule in rules]).sum(0)
        factors = clip_factors(norms, clip, self._clipping)
        fragile = (factors > 0) & ((factors * reach > _REACH * clip) | (factors < _LEAST_FACTOR))
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
        with torch.enable_grad():
            calls, _ = self._forward(frame)
        return {name: call.inputs[..., 0].numel() for name, call in calls.items()}

    def _forward(self, inputs: torch.Tensor) -> tuple[dict[str, _Call], torch.Tensor]:
        """What each leaf was called with, in their order, and the model's outputs."""
        calls: dict[str, _Call] = {}
        with _Hooks(self._leaves, calls, len(inputs)):
            outputs = self._model(inputs)
        for name in self._leaves:
            if name not in calls:
                raise no_gradient(name)
        return {name: calls[name] for name in self._leaves}, outputs

    def _measure(self, packing: Packing, scratch: Scratch) -> list[LayerRule]:
        """Steps 1 to 3 for each leaf, in their order."""
        with torch.enable_grad():
            calls, outputs = self._forward(packing.inputs)
            losses = losses_of(self._loss, outputs, packing.targets, packing.mask)
            loss = (losses * packing.share).sum()
        found = torch.autograd.grad(loss, [call.edge for call in calls.values()], allow_unused=True)
        rules = []
        for (name, leaf), gradients in zip(self._leaves.items(), found, strict=True):
            call = calls.pop(name)
            if gradients is None:
                raise no_gradient(name)
            if call.inputs._version != call.version:  # noqa: SLF001  torch has no public name for it
                raise _misused(name, "its input was changed in place after the call")
            rules.append(
                RULES[type(leaf)](
                    Captured(
                        leaf=leaf,
                        inputs=call.inputs,
                        gradients=gradients,
                        packing=packing,
                        scratch=scratch,
                    )
                )
            )
        return rules


class _Hooks:
    """Keeps what each leaf is called with, while the context lasts."""

    def __init__(self, leaves: dict[str, nn.Module], calls: dict[str, _Call], frames: int) -> None:
        self._leaves = leaves
        self._calls = calls
        self._frames = frames

    def __enter__(self) -> None:
        self._handles = [
            leaf.register_forward_hook(partial(self._keep, name)) for name, leaf in self._leaves.items()
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

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
