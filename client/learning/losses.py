# SPDX-License-Identifier: Apache-2.0
"""What training descends, in torch: `policies.forward.frame_losses`, with gradients. One value per frame.

loss = loss_of(recipe)
loss(outputs, targets, mask)        # [..., F] of [..., F, o]; what is masked adds nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from client.learning.engines.protocol import FrameLoss, frame_loss
from policies.recipe import BinaryLoss, ClassLoss

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["loss_of"]


def loss_of(recipe: Recipe) -> FrameLoss:
    """The loss of a recipe: squared error, or cross-entropy of a label."""
    objective = recipe.objective
    if isinstance(objective, BinaryLoss):
        return _Binary(float(objective.positive_weight))
    if isinstance(objective, ClassLoss):
        return _Classes(tuple(float(one) for one in objective.weights))
    return frame_loss


@dataclass(frozen=True, slots=True)
class _Binary:
    positive_weight: float

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        missed, raised = functional.softplus(-outputs), functional.softplus(outputs)
        return (mask * (self.positive_weight * targets * missed + (1 - targets) * raised)).sum(-1)


@dataclass(frozen=True, slots=True)
class _Classes:
    weights: tuple[float, ...]

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = torch.tensor(self.weights, dtype=outputs.dtype)
        return -(mask * weights * targets * functional.log_softmax(outputs, dim=-1)).sum(-1)
