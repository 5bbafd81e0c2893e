# SPDX-License-Identifier: Apache-2.0
"""What every engine is: a callable that gives the sum of clipped gradients, one gradient per unit.

- A unit's gradient is that of the mean loss over its own frames. It is clipped (`clipping.py`) with its
  norm in float64, and a unit whose gradient is not finite contributes zero, whatever stands beside it.
- Norms stay inside: the sum is all that an engine gives.
- The loss looks at each frame alone. One that averages over frames or units, or returns a scalar, is
  refused: a scalar would broadcast over the frames, and the clip would bound nothing.
- The model sees frames side by side, ``[N, ...]``, or units padded to the same length, ``[U, K, ...]``; it
  must treat all leading axes alike and let nothing cross them. Tokens of one frame, ``[..., tokens, d]``,
  may attend to each other (`client.learning.attention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = [
    "ClippedSum",
    "Clipping",
    "FrameLoss",
    "UnitFrames",
    "frame_loss",
    "losses_of",
    "no_gradient",
    "trainable",
    "zeros",
]

Clipping = Literal["flat", "normalised"]


@dataclass(frozen=True, slots=True)
class UnitFrames:
    """Frames of one unit in a step: inputs ``[F, ...]``, targets and mask ``[F, o]``; at least one frame."""

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor


class FrameLoss(Protocol):
    """A loss that looks at each frame alone: no mean over units, no statistic of a batch."""

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Loss per frame ``[..., F]`` of outputs, targets and mask ``[..., F, o]``."""
        ...


class ClippedSum(Protocol):
    """What every engine is; built as ``Engine(model, loss, clipping="flat")``."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """Sum of the clipped gradients of all units, per parameter, float64; zeros for no unit."""
        ...


def frame_loss(outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Loss per frame ``[..., F]``: mean squared error over the chunk, zero beyond the end of the episode."""
    return (mask * (outputs - targets).square()).sum(-1) / outputs.shape[-1]


def losses_of(
    loss: FrameLoss, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The loss per frame, if it is one.

    Raises:
        ModelRefusedError: A scalar, or any other shape than that of the frames.
    """
    losses = loss(outputs, targets, mask)
    if losses.shape != mask.shape[:-1]:
        raise ModelRefusedError(
            need=f"the loss: one value per frame, {list(mask.shape[:-1])}",
            found=f"shape {list(losses.shape)}" if losses.dim() else "a scalar",
            remedy="return the loss of each frame; the engine takes the mean over a unit's own frames",
        )
    return losses


def no_gradient(leaf: str) -> ModelRefusedError:
    """The refusal of a trainable leaf that the loss does not depend on."""
    return ModelRefusedError(
        need=f"{leaf}: a trainable layer that the loss depends on, called as a module",
        found="no gradient reaches it",
        remedy="remove the unused layer; call layers, never their weights by hand",
    )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by name, if all of them are trained.

    Raises:
        ModelRefusedError: One is frozen: it would travel in the vector of weights without a gradient.
    """
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            raise ModelRefusedError(
                need=f"{name}: trainable",
                found="a frozen parameter",
                remedy="keep frozen layers outside the model, and give their outputs as inputs",
            )
    return dict(model.named_parameters())


def zeros(model: nn.Module) -> list[torch.Tensor]:
    """A float64 zero per parameter."""
    return [torch.zeros(p.shape, dtype=torch.float64) for p in model.parameters()]
