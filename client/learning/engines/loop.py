# SPDX-License-Identifier: Apache-2.0
"""One backward pass per unit: small in memory, for any layer, best for long units; the oracle of the tests.

A call of the model sees the frames of one unit and of no other, so that nothing in the model can mix
units. It is also the engine whose bound is plainest: the norm is taken of the very numbers that are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from client.learning.engines.clipping import clip_factors
from client.learning.engines.precision import check_precision
from client.learning.engines.protocol import losses_of, no_gradient, trainable, zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from client.learning.engines.protocol import Clipping, FrameLoss, UnitFrames

__all__ = ["LoopEngine"]


class LoopEngine:
    """See the module.

    Args:
        model: Any layers; all parameters trainable.
        loss: Loss per frame.
        clipping: Of the plan.

    Raises:
        ModelRefusedError: A parameter is frozen; in a call: the loss is not one per frame, or a parameter
            has no part in it. PrecisionRefusedError: In a call: arithmetic in which a norm is no bound.
    """

    def __init__(self, model: nn.Module, loss: FrameLoss, *, clipping: Clipping = "flat") -> None:
        self._model = model
        self._loss = loss
        self._clipping = clipping
        self._parameters = trainable(model)

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        check_precision(self._model)
        total = zeros(self._model)
        for unit in units:
            gradients = self._gradients(unit)
            norm = torch.stack([torch.dot(g, g) for g in gradients]).sum().sqrt()
            factor = float(clip_factors(norm, clip, self._clipping))
            if factor == 0.0:
                continue  # 0 * NaN is NaN
            for into, gradient in zip(total, gradients, strict=True):
                into.view(-1).add_(gradient, alpha=factor)
        return total

    def _gradients(self, unit: UnitFrames) -> list[torch.Tensor]:
        """The gradient of one unit, each tensor flat, float64."""
        with torch.enable_grad():
            outputs = self._model(unit.inputs.clone())  # aligned, whatever memory the unit came in
            loss = losses_of(self._loss, outputs, unit.targets, unit.mask).mean()
        found = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        flat = []
        for name, gradient in zip(self._parameters, found, strict=True):
            if gradient is None:
                raise no_gradient(name)
            flat.append(gradient.reshape(-1).double())
        return flat
