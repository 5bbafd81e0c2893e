# SPDX-License-Identifier: Apache-2.0
"""Models and batches of `iriai-sandbox bench dp`: sizes that a recipe could have, on made-up frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import nn

from client.learning.attention import SelfAttention
from client.learning.engines import UnitFrames
from client.learning.models import MlpChunkModel

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CASES", "Case", "TokenTransformer", "mlp"]

INPUTS: Final = 19
_ACTION, _CHUNK = 4, 8
OUTPUTS: Final = _ACTION * _CHUNK


class TokenTransformer(nn.Module):
    """A frame becomes tokens that attend to each other, ``[..., d] -> [..., o]``; no frame sees another.

    Args:
        inputs: d.
        outputs: o.
        size: Of a token.
        tokens: Per frame.
        layers: Blocks of attention and two linear layers.
        heads: Of the attention.
    """

    def __init__(self, *, inputs: int, outputs: int, size: int, tokens: int, layers: int, heads: int) -> None:
        super().__init__()
        self.shape = (tokens, size)
        self.folded = False
        self.stem = nn.Linear(inputs, tokens * size)
        self.places = nn.Embedding(tokens, size)
        self.blocks = nn.ModuleList(_Block(size, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of frames; all leading axes alike."""
        lead = inputs.shape[:-1]
        places = self.places(torch.arange(self.shape[0]).expand(*lead, self.shape[0]))
        tokens = self.stem(inputs).reshape(*lead, *self.shape) + places
        tokens = tokens.flatten(-3, -2) if self.folded else tokens
        for block in self.blocks:
            tokens = block(tokens)
        return cast("torch.Tensor", self.head(self.norm(tokens).reshape(*lead, *self.shape).mean(-2)))

    def fold(self) -> None:
        """From now on frames and tokens of a unit lie on one axis, ``[U, frames * tokens, size]``."""
        self.folded = True
        for block in self.blocks:
            cast("_Block", block).attention.span = self.shape[0]


class _Block(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = SelfAttention(size, heads)
        self.widen, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.first(tokens))
        hidden = torch.relu(self.widen(self.second(tokens)))
        return cast("torch.Tensor", tokens + self.narrow(hidden))


def mlp(width: int) -> nn.Module:
    """``mlp-chunk/1`` of a width."""
    return MlpChunkModel(input_size=INPUTS, output_size=_ACTION, width=width, chunk=_CHUNK)


def transformer() -> nn.Module:
    """Four blocks of size 128 on four tokens a frame."""
    return TokenTransformer(inputs=INPUTS, outputs=OUTPUTS, size=128, tokens=4, layers=4, heads=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row: a model, and how many units of how many frames a step has."""

    name: str
    build: Callable[[], nn.Module]
    units: int
    frames: int

    def model(self) -> nn.Module:
        """The model, with the same weights each time."""
        torch.manual_seed(0)
        return self.build()

    def batch(self) -> list[UnitFrames]:
        """The units, the same each time."""
        source = torch.Generator().manual_seed(1)
        return [
            UnitFrames(
                torch.randn(self.frames, INPUTS, generator=source),
                torch.randn(self.frames, OUTPUTS, generator=source),
                torch.ones(self.frames, OUTPUTS),
            )
            for _ in range(self.units)
        ]


CASES: Final = (
    Case(name="mlp-0.1M", build=lambda: mlp(290), units=50, frames=32),
    Case(name="mlp-1M", build=lambda: mlp(975), units=50, frames=32),
    Case(name="mlp-5M", build=lambda: mlp(2210), units=50, frames=32),
    Case(name="transformer-0.8M", build=transformer, units=50, frames=32),
    Case(name="mlp-1M, 8 episodes of 400 frames", build=lambda: mlp(975), units=8, frames=400),
)
