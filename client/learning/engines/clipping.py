# SPDX-License-Identifier: Apache-2.0
"""How much of a unit's gradient enters the sum: the only place where a unit's influence is bounded.

- ``flat``: ``min(1, C / norm)``; a gradient below the bound stays as it is.
- ``normalised``: ``C / (norm + GAMMA)`` (automatic clipping, arXiv 2206.07136): every gradient counts the
  same, so that no private data and no budget go into the choice of C.
- Both times `CLIP_FACTOR`, and zero for a norm that is not finite or beyond float32: the gradient itself
  could not be written in float32 then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from client.learning.engines.protocol import Clipping

__all__ = ["CLIP_FACTOR", "GAMMA", "clip_factors"]

CLIP_FACTOR: Final = (
    1 - 1e-4
)  # float32 rounding of the sum stays inside: tests say "at most C", not "about C"
GAMMA: Final = 0.01  # the value of the paper: a gradient far below it is noise, and is not blown up to norm C
_LARGEST: Final = torch.finfo(torch.float32).max


def clip_factors(norms: torch.Tensor, clip: float, clipping: Clipping) -> torch.Tensor:
    """Factor of each unit's gradient.

    Args:
        norms: Norm of each gradient, ``[U]`` float64; NaN and infinity mark a bad unit.
        clip: C.
        clipping: Of the plan.

    Returns:
        ``[U]`` float64; factor times norm is at most ``C * CLIP_FACTOR``; zero for a bad unit.
    """
    whole = norms.clamp_min(clip) if clipping == "flat" else norms + GAMMA
    return torch.where(norms <= _LARGEST, clip / whole * CLIP_FACTOR, 0.0)
