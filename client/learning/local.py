# SPDX-License-Identifier: Apache-2.0
"""Ordinary steps on all frames side by side: what stays at home, or makes no privacy claim.

local = LocalAdam(model, Pool.of(frames), choice, loss=loss_of(recipe))
local.step(rate, batch=128)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from client.learning.engines import FrameLoss
    from client.learning.tensors import Frames

__all__ = ["LOCAL_RATE", "LocalAdam", "Pool"]

LOCAL_RATE: Final = (1e-3, 2e-5)
_BATCH: Final = 128
_DECAY: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Pool:
    """All frames of all units side by side."""

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, frames: Sequence[Frames]) -> Pool:
        """The frames of some units."""
        return cls(
            torch.from_numpy(np.concatenate([f.inputs for f in frames])),
            torch.from_numpy(np.concatenate([f.targets for f in frames])),
            torch.from_numpy(np.concatenate([f.mask for f in frames])),
        )


class LocalAdam:
    """Adam with fresh state on frames drawn with replacement.

    With ``proximal`` each step is also drawn back to the weights that the model has now: the gradient gets
    ``proximal * (w - w_now)``. Parameters that are held (``requires_grad`` off) stay.

    With ``blur`` each drawn frame's inputs are moved by Gaussian noise of that deviation, in units of the
    recipe's normalisers, and its targets are not: to first order a penalty on how fast the outputs change
    with the inputs (C. Bishop, 1995), which keeps few frames from being learned by heart.
    """

    def __init__(
        self,
        model: nn.Module,
        pool: Pool,
        choice: np.random.Generator,
        *,
        loss: FrameLoss,
        weight_decay: float = _DECAY,
        proximal: float = 0.0,
        blur: float = 0.0,
    ) -> None:
        self._model = model
        self._pool = pool
        self._choice = choice
        self._loss = loss
        self._proximal = proximal
        self._blur = blur
        self._start = [one.detach().clone() for one in model.parameters()] if proximal else []
        self._optimiser = torch.optim.AdamW(
            [one for one in model.parameters() if one.requires_grad],
            lr=LOCAL_RATE[0],
            weight_decay=weight_decay,
            foreach=True,
        )

    def step(self, rate: float, *, batch: int = _BATCH) -> None:
        """One step on a batch."""
        pool = self._pool
        rows = torch.from_numpy(self._choice.integers(0, len(pool.inputs), batch))
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        outputs = self._model(self._blurred(pool.inputs[rows]))
        torch.autograd.backward(self._loss(outputs, pool.targets[rows], pool.mask[rows]).mean())
        self._draw_back()
        self._optimiser.step()

    def _blurred(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self._blur:
            return inputs  # and nothing is drawn: rounds choose the same frames with and without this option
        noise = self._choice.standard_normal(tuple(inputs.shape), dtype=np.float32)
        return inputs + self._blur * torch.from_numpy(noise)

    def _draw_back(self) -> None:
        for weight, start in zip(self._model.parameters(), self._start, strict=bool(self._start)):
            if weight.grad is not None:
                weight.grad.add_(weight.detach() - start, alpha=self._proximal)
