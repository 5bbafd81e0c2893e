# SPDX-License-Identifier: Apache-2.0
"""Each unit alone through the model, all units together into one product for the sum: the default.

1. Each unit alone: a forward pass keeps each layer's input, a backward pass goes to the layers' outputs.
   What the rules (`rules.py`) need of both is copied; the rest is free again.
2. Squared norm of each unit's gradient, layer by layer; factors in float64 (`clipping.py`).
3. The clipped sum, layer by layer: float64 products over rows or gradients of all units.

Units go through steps 1 to 3 in parts, as many at a time as `_KEPT` allows.

What a unit adds to the sum is a function of this unit, the model and the clip, whatever is in the batch.
Frames with huge gradients that cancel leave a rounding error, which clipping may make as large as C. Were it
to depend on the neighbours, by the shape of a product or by padding, taking one unit out could move the
sum by many C. So float32 arithmetic sees one unit at a time, in shapes that its own length decides; where
rows of several units meet, all is float64.

Only a norm from Gram matrices is not the norm of the very numbers that are added. It is exact enough unless
rows cancel: a unit whose factor times ``reach`` (the sum of the norms of its rows' gradients) is above
`_REACH` times C, or which is not finite, is measured and added by its own float64 gradient.

Nothing may cross the first axis of a layer's input: the model seam of `protocol.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch.autograd.graph import get_gradient_edge

from client.learning.engines.clipping import clip_factors
from client.learning.engines.precision import check_precision
from client.learning.engines.protocol import losses_of, no_gradient, trainable, zeros
from client.learning.engines.rules import RULES, Scratch, misfit, room_of
from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from torch.autograd.graph import GradientEdge

    from client.learning.engines.protocol import Clipping, FrameLoss, UnitFrames
    from client.learning.engines.rules import LayerRule

__all__ = ["PackedEngine", "leaves_without_rule"]

_REACH: Final = 512.0  # its square times 1e-16 of float64 leaves most of CLIP_FACTOR's slack
_KEPT: Final = 1 << 22  # float64 kept of units at a time: 32 MB


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
        _unshared(self._leaves)
        self._axes: dict[str, int] = {}

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        check_precision(self._model)
        total = zeros(self._model)
        leaves = self._by_leaf(total)
        if units:
            parts = self._parts(units)
            scratch = Scratch(max(numbers for _, numbers in parts))
            for part, _ in parts:
                scratch.clear()
                self._add(leaves, part, clip, scratch)
        return total

    def _by_leaf(self, total: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Tensors of the model's parameters, leaf by leaf."""
        place = {id(parameter): into for parameter, into in zip(self._model.parameters(), total, strict=True)}
        return [[place[id(own)] for own in leaf.parameters(recurse=False)] for leaf in self._leaves.values()]

    def _add(
        self, total: list[list[torch.Tensor]], units: list[UnitFrames], clip: float, scratch: Scratch
    ) -> None:
        """Steps 1 to 3 for units that fit into the scratch memory together."""
        rules = self._take(units, scratch)
        squares, reach = (
            torch.stack(part).sum(0) for part in zip(*(r.measure() for r in rules), strict=True)
        )
        factors = clip_factors(squares.sqrt(), clip, self._clipping)
        fragile = (reach != 0) & ~((factors > 0) & (factors * reach <= _REACH * clip))
        for unit in fragile.nonzero().flatten().tolist():
            self._add_exactly(total, [rule.of_unit(unit) for rule in rules], clip)
        factors = factors.where(~fragile, 0.0)
        for into, rule in zip(total, rules, strict=True):
            rule.add(into, factors)

    def _add_exactly(
        self, total: list[list[torch.Tensor]], gradient: list[list[torch.Tensor]], clip: float
    ) -> None:
        norm = torch.stack([part.square().sum() for leaf in gradient for part in leaf]).sum().sqrt()
        factor = float(clip_factors(norm, clip, self._clipping))
        if factor > 0:
            for leaf, found in zip(total, gradient, strict=True):
                for into, part in zip(leaf, found, strict=True):
                    into.add_(part, alpha=factor)

    def _parts(self, units: Sequence[UnitFrames]) -> list[tuple[list[UnitFrames], int]]:
        """Units by length, as many together as `_KEPT` allows, and the room that they need."""
        self._axes = self._axes_of(units[0].inputs[:1])
        parts: list[tuple[list[UnitFrames], int]] = []
        needs: dict[int, int] = {}
        for frames, unit in sorted(((one.inputs.shape[0], one) for one in units), key=itemgetter(0)):
            need = needs[frames] if frames in needs else needs.setdefault(frames, self._room(frames))
            if parts and parts[-1][1] + need <= _KEPT:
                parts[-1][0].append(unit)
                parts[-1] = (parts[-1][0], parts[-1][1] + need)
            else:
                parts.append(([unit], need))
        return parts

    def _room(self, frames: int) -> int:
        """float64 of scratch memory for a unit of so many frames."""
        return sum(room_of(leaf, frames * self._axes[name]) for name, leaf in self._leaves.items())

    def _axes_of(self, frame: torch.Tensor) -> dict[str, int]:
        """Rows of each leaf's input in one frame: the product of its axes between frame and feature."""
        with torch.enable_grad(), _Hooks(self._leaves) as hooks:
            calls, _ = self._forward(hooks, frame)
        return {name: call.inputs[..., 0].numel() for name, call in calls.items()}

    def _forward(self, hooks: _Hooks, inputs: torch.Tensor) -> tuple[dict[str, _Call], torch.Tensor]:
        """What each leaf was called with, in their order, and the model's outputs."""
        calls = hooks.expect(inputs.shape[0])
        outputs = self._model(inputs)
        for name in self._leaves:
            if name not in calls:
                raise no_gradient(name)
        return {name: calls[name] for name in self._leaves}, outputs

    def _take(self, units: Sequence[UnitFrames], scratch: Scratch) -> list[LayerRule]:
        """Step 1: a rule for each leaf, in their order."""
        lengths = [unit.inputs.shape[0] for unit in units]
        rules = [
            RULES[type(leaf)](leaf, [frames * self._axes[name] for frames in lengths], scratch)
            for name, leaf in self._leaves.items()
        ]
        with torch.enable_grad(), _Hooks(self._leaves) as hooks:
            for number, unit in enumerate(units):
                for rule, (inputs, gradients) in zip(rules, self._rows(hooks, unit), strict=True):
                    rule.take(number, inputs, gradients)
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
        if len(args) != 1 or args[0].shape[0] != self._frames:
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


def _unshared(leaves: dict[str, nn.Module]) -> None:
    """Passes leaves of which no two share a parameter.

    Raises:
        ModelRefusedError: Two do.
    """
    seen: set[int] = set()
    for name, leaf in leaves.items():
        for own, parameter in leaf.named_parameters(recurse=False):
            if id(parameter) in seen:
                raise ModelRefusedError(
                    need=f"{name}.{own}: a parameter of one layer only",
                    found="a parameter that another layer has too",
                    remedy="untie the weights",
                )
            seen.add(id(parameter))


def leaves_without_rule(model: nn.Module) -> list[tuple[str, str, str]]:
    """Name, reason and replacement of each trainable layer that this engine cannot measure."""
    without = []
    for name, leaf in _leaves(model).items():
        reason = misfit(leaf)
        if reason is not None:
            without.append((name, *reason))
    return without
