# SPDX-License-Identifier: Apache-2.0
"""What a canary holds under a recipe, and how well a model knows it. numpy; the same bytes for everybody.

- A canary stands still: `CANARY_FRAMES` equal frames, so that it weighs as much as a unit of a robot and its
  gradient is not thinned out. Its input is drawn from the recipe's public intervals, its target from within
  the limits of the outputs. Nothing but having been trained on it makes a model's answer like the target.
- Where a label is detected, the target is a class that is drawn.
- The score of a canary is how much better the model's answer is than an answer of zero, in the loss of the
  recipe (mean squared error of actions): higher for what was learned by heart. It is written with six
  decimals, and every figure is computed from what is written.
- Nobody else can score a model of which a part never leaves its site: recipes with variants have no canaries.

    inputs, targets = canary(recipe, secret, 3)         # [CANARY_FRAMES, d], [CANARY_FRAMES, H * a] float32
    canary_scores(recipe, weights, secret)              # ("0.031250", …), one per canary
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.forward import Forward, frame_losses
from policies.limits import CANARY_FRAMES
from policies.recipe import RecipeVariantError
from policies.recipe.blocks import BinaryLoss, ClassLoss

if TYPE_CHECKING:
    from policies.privacy.canaries import CanarySecret
    from policies.recipe import Normaliser, Recipe

__all__ = ["canary", "canary_scores", "weights_of"]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
_WORD: Final = 4
_SPREAD: Final = 3**0.5  # a normalised interval reaches so far to both sides


def canary(recipe: Recipe, secret: CanarySecret, number: int) -> tuple[Array32, Array32]:
    """Inputs ``[F, d]`` and targets ``[F, H * a]`` of a canary, normalised; all F frames are alike.

    Raises:
        RecipeVariantError: A part of the model is private.
    """
    inputs, targets = _point(recipe, secret, number)
    return np.tile(inputs, (CANARY_FRAMES, 1)), np.tile(targets, (CANARY_FRAMES, 1))


def canary_scores(recipe: Recipe, weights: npt.NDArray[Any], secret: CanarySecret) -> tuple[str, ...]:
    """Score of every canary of a secret under a model, six decimals each.

    Args:
        recipe: Of the run.
        weights: ``[P]`` float32, of the recipe.
        secret: Revealed.

    Raises:
        RecipeVariantError: A part of the model is private.
    """
    points = [_point(recipe, secret, number) for number in range(secret.count)]
    inputs, targets = (np.stack(part).astype(np.float64) for part in zip(*points, strict=True))
    answers = Forward(recipe, np.asarray(weights, dtype=np.float32))(inputs)
    gained = _gained(recipe, answers, targets)
    return tuple(f"{one:.6f}" for one in gained)


def weights_of(data: bytes) -> Array32:
    """The flat vector behind the bytes of a model (little-endian float32)."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _gained(recipe: Recipe, answers: Array64, targets: Array64) -> Array64:
    if recipe.label is None:
        squares: Array64 = (targets**2 - (answers - targets) ** 2).mean(axis=1)
        return squares
    whole = np.ones_like(targets)
    before = frame_losses(recipe, np.zeros_like(answers), targets, whole)
    return before - frame_losses(recipe, answers, targets, whole)


def _point(recipe: Recipe, secret: CanarySecret, number: int) -> tuple[Array32, Array32]:
    if recipe.has_private:
        raise RecipeVariantError(
            need="a model that everybody can score",
            found="tensors that never leave their site",
            remedy="leave canaries out of a contract whose recipe has variants",
        )
    ends = [(_ends(feature.normaliser), feature.copies) for feature in recipe.features]
    low, high = (np.concatenate([np.tile(one[end], copies) for one, copies in ends]) for end in (0, 1))
    clip = float(recipe.clip)
    low, high = np.clip(low, -clip, clip), np.clip(high, -clip, clip)
    size = len(low) + (recipe.target_size if recipe.label is None else 1)
    words = np.frombuffer(secret.stream(number, size * _WORD), dtype="<u4")
    drawn = (words.astype(np.float64) + 0.5) / 2**32
    inputs = low + (high - low) * drawn[: len(low)]
    return inputs.astype(np.float32), _target(recipe, drawn[len(low) :]).astype(np.float32)


def _target(recipe: Recipe, drawn: Array64) -> Array64:
    """What is to be learned by heart, of numbers in (0, 1)."""
    loss = recipe.objective
    if isinstance(loss, BinaryLoss):
        return np.round(drawn)
    if isinstance(loss, ClassLoss):
        return np.asarray(np.arange(loss.outputs) == int(drawn[0] * loss.outputs), dtype=np.float64)
    reach = np.concatenate(
        [np.array(out.limits) / np.array([float(s) for s in out.normaliser.scale]) for out in recipe.outputs]
    )
    targets: Array64 = np.tile(reach, recipe.chunk) * (2 * drawn - 1)
    return targets


def _ends(normaliser: Normaliser) -> tuple[Array64, Array64]:
    """Lower and upper end of a feature's public interval, normalised; ``approach`` has only its distance."""
    if normaliser.rule == "bounded":
        one = np.ones(len(normaliser.centre))
        return -one, one
    if normaliser.rule == "approach":
        reach = np.full(len(normaliser.centre), _SPREAD)
        return -reach, reach
    low, high, centre, scale = (
        np.array([float(one) for one in values])
        for values in (normaliser.low, normaliser.high, normaliser.centre, normaliser.scale)
    )
    return (low - centre) / scale, (high - centre) / scale
