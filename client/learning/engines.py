# SPDX-License-Identifier: Apache-2.0
"""Sum of clipped gradients, one per unit: the only place where a unit's influence is bounded.

- A unit's gradient is that of the mean loss over its own frames; it is scaled by ``min(1, C / norm) * (1 -
  1e-4)`` with the norm in float64. The factor covers float32 rounding, so that tests say "at most C" and not
  "about C".
- A unit whose gradient is not finite contributes zero, whatever stands beside it.
- Engines agree to 1e-5. `LoopEngine` is the oracle; `OpacusHooksEngine` takes per-unit gradients from Opacus'
  ``GradSampleModule`` (its rules only, not its PrivacyEngine, loaders or optimisers) on frames padded to
  ``[units, K, d]``.
- Norms stay inside: an engine returns the sum and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import nn

from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ClippedSum", "FrameLoss", "LoopEngine", "OpacusHooksEngine", "UnitFrames", "frame_loss"]

CLIP_FACTOR: Final = 1 - 1e-4


@dataclass(frozen=True, slots=True)
class UnitFrames:
    """Frames of one unit in a step: inputs ``[F, d]``, targets and mask ``[F, o]``, float32."""

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor


class FrameLoss(Protocol):
    """A loss that looks at each frame alone: no mean over units, no statistic of a batch."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Loss per frame ``[..., F]`` of outputs, targets and mask ``[..., F, o]``."""
        ...


class ClippedSum(Protocol):
    """What every engine is."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """Sum of the clipped gradients of all units, per parameter, float64; zeros for no unit."""
        ...


def frame_loss(outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Loss per frame ``[..., F]``: mean squared error over the chunk, zero beyond the end of the episode."""
    return (mask * (outputs - targets).square()).sum(-1) / outputs.shape[-1]


def _zeros(model: nn.Module) -> list[torch.Tensor]:
    return [torch.zeros(p.shape, dtype=torch.float64) for p in model.parameters()]


class LoopEngine:
    """One backward pass per unit: slow, small in memory, for any layer; the oracle of the tests."""

    def __init__(self, model: nn.Module, loss: FrameLoss) -> None:
        self._model = model
        self._loss = loss
        self._parameters = list(model.parameters())

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        total = _zeros(self._model)
        for unit in units:
            loss = self._loss(self._model(unit.inputs), unit.targets, unit.mask).mean()
            gradients = [g.double() for g in torch.autograd.grad(loss, self._parameters)]
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            if not bool(torch.isfinite(norm)):
                continue
            factor = min(1.0, clip / max(float(norm), torch.finfo(torch.float64).tiny)) * CLIP_FACTOR
            for into, gradient in zip(total, gradients, strict=True):
                into.add_(gradient, alpha=factor)
        return total


class OpacusHooksEngine:
    """Per-unit gradients of all units in one backward pass, by Opacus' layer rules.

    Args:
        model: Layers with an Opacus rule only.
        loss: Loss per frame.

    Raises:
        ModelRefusedError: A layer has no rule, or mixes units.
    """

    def __init__(self, model: nn.Module, loss: FrameLoss) -> None:
        from opacus.grad_sample import GradSampleModule

        self._model = model
        self._loss = loss
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
        if not units:
            return _zeros(self._model)
        inputs, targets, mask, share = _padded(units)
        inputs.requires_grad_(True)  # noqa: FBT003  torch's own name; full backward hooks need it
        loss = self._loss(self._hooked(inputs), targets, mask)
        torch.autograd.backward((loss * share).sum())
        parameters = list(self._model.parameters())
        samples = [_grad_sample(p).reshape(len(units), -1).double() for p in parameters]
        self._hooked.zero_grad(set_to_none=True)
        norms = torch.stack([s.square().sum(1) for s in samples]).sum(0).sqrt()
        finite = torch.isfinite(norms)
        scale = torch.clamp(clip / norms.clamp_min(torch.finfo(torch.float64).tiny), max=1.0) * CLIP_FACTOR
        factors = torch.where(finite, scale, torch.zeros_like(scale))
        if not bool(finite.all()):
            samples = [s.masked_fill(~finite[:, None], 0.0) for s in samples]  # 0 * NaN is NaN
        return [(factors @ s).reshape(p.shape) for s, p in zip(samples, parameters, strict=True)]


def _grad_sample(parameter: nn.Parameter) -> torch.Tensor:
    sample: torch.Tensor = vars(parameter)["grad_sample"]  # Opacus hangs it there
    return sample


def _padded(units: Sequence[UnitFrames]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs ``[U, K, d]``, targets, mask ``[U, K, o]``, each frame's share of its unit's mean ``[U, K]``."""
    frames = max(len(unit.inputs) for unit in units)
    first = units[0]
    inputs = torch.zeros(len(units), frames, first.inputs.shape[1])
    targets = torch.zeros(len(units), frames, first.targets.shape[1])
    mask, share = torch.zeros_like(targets), torch.zeros(len(units), frames)
    for row, unit in enumerate(units):
        count = len(unit.inputs)
        inputs[row, :count], targets[row, :count], mask[row, :count] = unit.inputs, unit.targets, unit.mask
        share[row, :count] = 1 / count
    return inputs, targets, mask, share


ENGINES: Final[dict[str, Callable[[nn.Module, FrameLoss], ClippedSum]]] = {
    "loop": LoopEngine,
    "opacus-hooks": OpacusHooksEngine,
}
