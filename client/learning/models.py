# SPDX-License-Identifier: Apache-2.0
"""The torch modules that architecture ids name: layers with a per-unit gradient rule, no state.

Names and order of their parameters are those of the recipe's manifest (`policies.recipe.architectures`), and
their answers those of `policies.forward`, to 1e-5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from client.learning.attention import MemoryAttention, SelfAttention

if TYPE_CHECKING:
    from policies.recipe import ActSmall

__all__ = ["ActSmallModel", "LinearModel", "MlpChunkModel"]


class MlpChunkModel(nn.Module):
    """``mlp-chunk/1``, ``mlp-invdyn/1``, ``mlp-detect/1``: two tanh layers, ``[..., d] -> [..., H * a]``."""

    def __init__(self, *, input_size: int, output_size: int, width: int, chunk: int) -> None:
        super().__init__()
        self.stem = nn.Linear(input_size, width)
        self.trunk = nn.Linear(width, width)
        self.head = nn.Linear(width, chunk * output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised action chunks of normalised inputs."""
        hidden = torch.tanh(self.trunk(torch.tanh(self.stem(inputs))))
        return cast("torch.Tensor", self.head(hidden))


class LinearModel(nn.Module):
    """``linear-detect/1``: a logit per class, ``[..., d] -> [..., C]``."""

    def __init__(self, *, input_size: int, output_size: int) -> None:
        super().__init__()
        self.head = nn.Linear(input_size, output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of normalised inputs."""
        return cast("torch.Tensor", self.head(inputs))


class ActSmallModel(nn.Module):
    """``act-small/1``: queries decoded from a state token, ``[..., d] -> [..., H * a]``."""

    def __init__(self, architecture: ActSmall, *, input_size: int, output_size: int) -> None:
        super().__init__()
        self.stem = nn.Linear(input_size, architecture.args.width)
        self.trunk = _Decoder(architecture)
        self.head = nn.Linear(architecture.args.width, output_size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised action chunks of normalised inputs."""
        queries = self.trunk(torch.tanh(self.stem(inputs)))
        return cast("torch.Tensor", self.head(queries).flatten(-2))


class _Decoder(nn.Module):
    """Tokens of frames ``[..., width]`` to normed queries ``[..., H, width]``."""

    def __init__(self, architecture: ActSmall) -> None:
        super().__init__()
        args = architecture.args
        self.chunk = args.chunk
        self.learned = nn.Embedding(args.chunk + 1, args.width)
        self.layers = nn.ModuleList(
            _Layer(args.width, heads=args.heads, hidden=args.hidden) for _ in range(args.layers)
        )
        self.norm = nn.LayerNorm(args.width)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        lead = token.shape[:-1]
        rows = torch.arange(self.chunk + 1, device=token.device).expand(*lead, self.chunk + 1)
        queries, register = self.learned(rows).split([self.chunk, 1], dim=-2)
        memory = torch.cat([token.unsqueeze(-2), register], dim=-2)
        for layer in self.layers:
            queries = layer(queries, memory)
        return cast("torch.Tensor", self.norm(queries))


class _Layer(nn.Module):
    """Attention among queries, attention to the memory, feed-forward; each added to its normed input."""

    def __init__(self, width: int, *, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_among = nn.LayerNorm(width)
        self.among = SelfAttention(width, heads)
        self.norm_memory = nn.LayerNorm(width)
        self.memory = MemoryAttention(width, heads)
        self.norm_forward = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        queries = queries + self.among(self.norm_among(queries))
        queries = queries + self.memory(self.norm_memory(queries), memory)
        wide = torch.relu(self.widen(self.norm_forward(queries)))
        return cast("torch.Tensor", queries + self.narrow(wide))
