# SPDX-License-Identifier: Apache-2.0
"""Which engine computes a run's sums: a question of speed only, since engines agree to 1e-5.

- ``packed`` wherever every trainable layer has a packed rule;
- ``loop`` for units of more than `LONG_UNIT` frames, whose products cost as much as a pass of their own,
  and for a model with another layer;
- ``opacus-hooks`` never by itself: it holds a gradient per unit and exists to check the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.learning.engines.hooks import OpacusHooksEngine
from client.learning.engines.loop import LoopEngine
from client.learning.engines.packed import PackedEngine, leaves_without_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from client.learning.engines.protocol import ClippedSum, Clipping, FrameLoss

__all__ = ["ENGINES", "LONG_UNIT", "ChosenEngine", "choose_engine"]

LONG_UNIT: Final = 128  # frames; a plan's K is never above it, so that this is for audits and studies
ENGINES: Final[dict[str, Callable[..., ClippedSum]]] = {
    "loop": LoopEngine,
    "opacus-hooks": OpacusHooksEngine,
    "packed": PackedEngine,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenEngine:
    """An engine, and its name for the log."""

    engine: ClippedSum
    name: str


def choose_engine(
    model: nn.Module, loss: FrameLoss, frames_per_unit: int, *, clipping: Clipping = "flat"
) -> ChosenEngine:
    """The fastest engine that has a rule for every layer.

    Raises:
        ModelRefusedError: A parameter is frozen or shared.
    """
    slow = frames_per_unit > LONG_UNIT or bool(leaves_without_rule(model))
    name = "loop" if slow else "packed"
    return ChosenEngine(engine=ENGINES[name](model, loss, clipping=clipping), name=name)
