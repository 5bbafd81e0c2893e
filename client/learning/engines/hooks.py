# SPDX-License-Identifier: Apache-2.0
"""Gradients by Opacus' layer rules: a second opinion for tests and audits, never chosen by itself.

Only the rules of ``GradSampleModule`` are used, on one unit at a time, ``[1, F, ...]``; not Opacus'
PrivacyEngine, loaders, optimisers or ghost mode, each of which can void the claim silently. In a batch of
padded units what float32 leaves of frames that cancel would depend on the neighbours, and one unit
could move the sum by many C.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from client.learning.engines.clipping import clip_factors
from client.learning.engines.precision import check_precision
from client.learning.engines.protocol import losses_of, no_gradient, trainable, zeros
from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from client.learning.engines.protocol import Clipping, FrameLoss, UnitFrames

__all__ = ["OpacusHooksEngine"]


class OpacusHooksEngine:
    """See the module.

    Args:
        model: Layers with an Opacus rule only. They are put into training mode: outside of it Opacus keeps
            nothing.
        loss: Loss per frame.
        clipping: Of the plan.

    Raises:
        ModelRefusedError: A layer has no rule, mixes units, or folds frames into the axis of units; in a
        call:
            the loss is not one per frame, or a parameter has no part in it.
        PrecisionRefusedError: In a call: arithmetic in which a norm is no bound.
    """

    def __init__(self, model: nn.Module, loss: FrameLoss, *, clipping: Clipping = "flat") -> None:
        from opacus.grad_sample import GradSampleModule

        self._model = model
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.training = True
        self._loss = loss
        self._clipping = clipping
        self._parameters = trainable(model)
        try:
            self._hooked = GradSampleModule(model, batch_first=True, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            raise ModelRefusedError(
                need="layers with a per-unit gradient rule",
                found=str(error).split(":")[0][:120],
                remedy="Linear, LayerNorm, GroupNorm, Embedding or Conv1d over time instead",
            ) from error

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        check_precision(self._model)
        total = zeros(self._model)
        for unit in units:
            gradients = [sample.double() for sample in self._samples(unit)]
            norm = torch.stack([one.square().sum() for one in gradients]).sum().sqrt()
            factor = float(clip_factors(norm, clip, self._clipping))
            if factor > 0:  # 0 * NaN is NaN
                for into, one in zip(total, gradients, strict=True):
                    into.add_(one, alpha=factor)
        return total

    def _samples(self, unit: UnitFrames) -> list[torch.Tensor]:
        """The gradient of one unit for each parameter."""
        inputs, targets, mask = (part[None].clone() for part in (unit.inputs, unit.targets, unit.mask))
        if inputs.is_floating_point():
            inputs.requires_grad_(True)  # noqa: FBT003  torch's own name; full backward hooks need it
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Full backward hook is firing", UserWarning
            )  # layers of indices
            loss = losses_of(self._loss, self._hooked(inputs), targets, mask)
            torch.autograd.backward(loss.mean())
        samples = [_grad_sample(name, parameter) for name, parameter in self._parameters.items()]
        self._hooked.zero_grad(set_to_none=True)
        return samples


def _grad_sample(name: str, parameter: nn.Parameter) -> torch.Tensor:
    sample: torch.Tensor | None = vars(parameter).get("grad_sample")  # Opacus hangs it there
    if sample is None:
        raise no_gradient(name)
    if sample.shape != (1, *parameter.shape):
        raise ModelRefusedError(
            need=f"{name}: one gradient per unit, {[1, *parameter.shape]}",
            found=f"{list(sample.shape)}: another axis was folded into the axis of units",
            remedy="keep units the first axis of every layer's input; a frozen encoder, or the loop engine",
        )
    return sample[0]
