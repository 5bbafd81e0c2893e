# SPDX-License-Identifier: Apache-2.0
"""Per-unit gradients of all units in one backward pass, by Opacus' layer rules: a second opinion.

Only the rules of ``GradSampleModule`` are used, on frames padded to ``[U, K, ...]``; not Opacus'
PrivacyEngine, loaders, optimisers or ghost mode, each of which can void the claim silently. Holds a
gradient per unit in memory.
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
        if not units:
            return zeros(self._model)
        samples = self._samples(units)
        squares = [s.reshape(len(units), -1).double().square().sum(1) for s in samples]
        factors = clip_factors(torch.stack(squares).sum(0).sqrt(), clip, self._clipping)
        bad = factors == 0
        if bool(bad.any()):
            samples = [s[~bad] for s in samples]  # 0 * NaN is NaN
            factors = factors[~bad]
        return [torch.tensordot(factors, s.double(), dims=1) for s in samples]

    def _samples(self, units: Sequence[UnitFrames]) -> list[torch.Tensor]:
        """A gradient per unit for each parameter, ``[U, *shape]``."""
        inputs, targets, mask, share = _padded(units)
        if inputs.is_floating_point():
            inputs.requires_grad_(True)  # noqa: FBT003  torch's own name; full backward hooks need it
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Full backward hook is firing", UserWarning
            )  # layers of indices
            loss = losses_of(self._loss, self._hooked(inputs), targets, mask)
            torch.autograd.backward((loss * share).sum())
        samples = [_grad_sample(name, p, len(units)) for name, p in self._parameters.items()]
        self._hooked.zero_grad(set_to_none=True)
        return samples


def _grad_sample(name: str, parameter: nn.Parameter, units: int) -> torch.Tensor:
    sample: torch.Tensor | None = vars(parameter).get("grad_sample")  # Opacus hangs it there
    if sample is None:
        raise no_gradient(name)
    if sample.shape != (units, *parameter.shape):
        raise ModelRefusedError(
            need=f"{name}: one gradient per unit, {[units, *parameter.shape]}",
            found=f"{list(sample.shape)}: another axis was folded into the axis of units",
            remedy="keep units the first axis of every layer's input; a frozen encoder, or the loop engine",
        )
    return sample


def _padded(units: Sequence[UnitFrames]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs ``[U, K, ...]``, targets, mask ``[U, K, o]``, shares of the unit's mean ``[U, K]``."""
    frames = max(len(unit.inputs) for unit in units)
    first = units[0]
    inputs = first.inputs.new_zeros(len(units), frames, *first.inputs.shape[1:])
    targets = torch.zeros(len(units), frames, *first.targets.shape[1:])
    mask, share = torch.zeros_like(targets), torch.zeros(len(units), frames)
    for row, unit in enumerate(units):
        count = len(unit.inputs)
        inputs[row, :count], targets[row, :count], mask[row, :count] = unit.inputs, unit.targets, unit.mask
        share[row, :count] = 1 / count
    return inputs, targets, mask, share
