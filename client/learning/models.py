# SPDX-License-Identifier: Apache-2.0
"""The torch modules that architecture ids name: layers with a per-unit gradient rule, no state."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

__all__ = ["MlpChunkModel"]


class MlpChunkModel(nn.Module):
    """``mlp-chunk/1``: two hidden tanh layers and a linear head, ``[..., d] -> [..., H * a]``."""

    def __init__(self, *, input_size: int, output_size: int, width: int, chunk: int) -> None:
        super().__init__()
        self.stem = nn.Linear(input_size, width)
        self.trunk = nn.Linear(width, width)
        self.head = nn.Linear(width, chunk * output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised action chunks of normalised inputs."""
        hidden = torch.tanh(self.trunk(torch.tanh(self.stem(inputs))))
        return cast("torch.Tensor", self.head(hidden))
