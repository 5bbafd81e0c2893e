# SPDX-License-Identifier: Apache-2.0
"""Sum of clipped gradients, one per unit, by three engines behind one protocol (`protocol.py`).

    engine = choose_engine(model, frame_loss, plan.frames_per_unit, clipping=plan.clipping).engine
    total = engine(units, clip)      # float64 per parameter; removing a unit moves it by at most clip

`PackedEngine` is the default, `LoopEngine` the oracle, `OpacusHooksEngine` a second opinion. Opacus is
imported only where the last one is built.
"""

from __future__ import annotations

from client.learning.engines.choosing import ENGINES, ChosenEngine, choose_engine
from client.learning.engines.clipping import CLIP_FACTOR, GAMMA, clip_factors
from client.learning.engines.hooks import OpacusHooksEngine
from client.learning.engines.loop import LoopEngine
from client.learning.engines.packed import PackedEngine
from client.learning.engines.precision import check_precision
from client.learning.engines.protocol import ClippedSum, Clipping, FrameLoss, UnitFrames, frame_loss

__all__ = [
    "CLIP_FACTOR",
    "ENGINES",
    "GAMMA",
    "ChosenEngine",
    "ClippedSum",
    "Clipping",
    "FrameLoss",
    "LoopEngine",
    "OpacusHooksEngine",
    "PackedEngine",
    "UnitFrames",
    "check_precision",
    "choose_engine",
    "clip_factors",
    "frame_loss",
]
