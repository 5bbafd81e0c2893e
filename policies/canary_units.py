# SPDX-License-Identifier: Apache-2.0
"""What a canary holds under a recipe, and how well a model knows it. numpy; the same bytes for everybody.

- A canary stands still: `CANARY_FRAMES` equal frames, so that it weighs as much as a unit of a robot and its
  gradient is not thinned out. Its input is drawn from the recipe's public intervals, its target from within
  the limits of the outputs. Nothing but having been trained on it makes a model's answer like the target.
- The score of a canary is how much better the model's answer is than an answer of zero, in mean squared
  error: higher for what was learned by heart. It is written with six decimals, and every figure is computed
  from what is written.

    inputs, targets = canary(recipe, secret, 3)         # [CANARY_FRAMES, d], [CANARY_FRAMES, H * a] float32
    canary_scores(recipe, weights, secret)              # ("0.031250", …), one per canary
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.forward import Forward
from policies.limits import CANARY_FRAMES

if TYPE_CHECKING:
    from policies.privacy.canaries import CanarySecret
    from policies.recipe import Normaliser, Recipe

__all__ = ["canary", "canary_scores", "weights_of"]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
_WORD: Final = 4
_SPREAD: Final = 3**0.5  # a normalised interval reaches so far to both sides


def canary(recipe: Recipe, secret: CanarySecret, number: int) -> tuple[Array32, Array32]:
    """Inputs ``[F, d]`` and targets ``[F, H * a]`` of a canary, normalised; all F frames are alike."""
    inputs, targets = _point(recipe, secret, number)
    return np.tile(inputs, (CANARY_FRAMES, 1)), np.tile(targets, (CANARY_FRAMES, 1))


def canary_scores(recipe: Recipe, weights: npt.NDArray[Any], secret: CanarySecret) -> tuple[str, ...]:
    """Score of every canary of a secret under a model, six decimals each.

    Args:
        recipe: Of the run.
        weights: ``[P]`` float32, of the recipe.
        secret: Revealed.
    """
    points = [_point(recipe, secret, number) for number in range(secret.count)]
    inputs, targets = (np.stack(part).astype(np.float64) for part in zip(*points, strict=True))
    answers = Forward(recipe, np.asarray(weights, dtype=np.float32))(inputs)
    gained: Array64 = (targets**2 - (answers - targets) ** 2).mean(axis=1)
    return tuple(f"{one:.6f}" for one in gained)


def weights_of(data: bytes) -> Array32:
    """The flat vector behind the bytes of a model (little-endian float32)."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _point(recipe: Recipe, secret: CanarySecret, number: int) -> tuple[Array32, Array32]:
    ends = [_ends(feature.normaliser) for feature in recipe.features]
    low, high = np.concatenate([one for one, _ in ends]), np.concatenate([one for _, one in ends])
    clip = float(recipe.clip)
    low, high = np.clip(low, -clip, clip), np.clip(high, -clip, clip)
    reach = np.concatenate(
        [float(out.limit) / np.array([float(s) for s in out.normaliser.scale]) for out in recipe.outputs]
    )
    chunk = recipe.architecture.args.chunk
    size = len(low) + chunk * len(reach)
    words = np.frombuffer(secret.stream(number, size * _WORD), dtype="<u4")
    drawn = (words.astype(np.float64) + 0.5) / 2**32
    inputs = low + (high - low) * drawn[: len(low)]
    targets = np.tile(reach, chunk) * (2 * drawn[len(low) :] - 1)
    return inputs.astype(np.float32), targets.astype(np.float32)


def _ends(normaliser: Normaliser) -> tuple[Array64, Array64]:
    """Lower and upper end of a feature's public interval, normalised; ``approach`` has only its distance."""
    if normaliser.rule == "approach":
        reach = np.full(len(normaliser.centre), _SPREAD)
        return -reach, reach
    low, high, centre, scale = (
        np.array([float(one) for one in values])
        for values in (normaliser.low, normaliser.high, normaliser.centre, normaliser.scale)
    )
    return (low - centre) / scale, (high - centre) / scale
