# SPDX-License-Identifier: Apache-2.0
"""Attention whose parameters lie in Linear layers, so that every engine has a rule for them.

Tokens attend to tokens of the same frame: ``[..., tokens, d]``, where all leading axes (units, frames) are
folded into the batch of the product and never meet. A frame sees no other frame, and a unit no other unit.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

__all__ = ["MemoryAttention", "SelfAttention"]


class SelfAttention(nn.Module):
    """Scaled dot-product attention over the last axis but one, ``[..., tokens, d] -> [..., tokens, d]``.

    Args:
        size: d.
        heads: A divisor of d.

    Attributes:
        span: Tokens of a frame, if several frames lie on the axis of tokens; else None: all of them.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.span: int | None = None
        self.heads = heads
        self.project = nn.Linear(size, 3 * size)
        self.merge = nn.Linear(size, size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Each token's mixture of the tokens beside it."""
        *_, count, size = tokens.shape
        parts = self.project(tokens).reshape(-1, self.span or count, 3, self.heads, size // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return cast("torch.Tensor", self.merge(mixed.transpose(1, 2).reshape(tokens.shape)))


class MemoryAttention(nn.Module):
    """Attention of a frame's tokens to its memory: ``[..., tokens, d]``, ``[..., m, d] -> [..., tokens, d]``.

    Args:
        size: d.
        heads: A divisor of d.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(size, size)
        self.offer = nn.Linear(size, 2 * size)
        self.merge = nn.Linear(size, size)

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """Each token's mixture of its frame's memory."""
        (*_, count, size), held = tokens.shape, memory.shape[-2]
        each = size // self.heads
        query = self.ask(tokens).reshape(-1, count, self.heads, each).transpose(1, 2)
        key, value = self.offer(memory).reshape(-1, held, 2, self.heads, each).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return cast("torch.Tensor", self.merge(mixed.transpose(1, 2).reshape(tokens.shape)))
