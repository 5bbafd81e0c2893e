# SPDX-License-Identifier: Apache-2.0
"""A site's judgement of a model: one noised figure from held-out units; only the vote leaves.

- A unit's loss is the mean of the recipe's loss over its frames, clipped to [0, B]; units are summed,
  Gaussian noise sigma B is added, the public normaliser divides. The vote is a threshold of that noised
  figure. ``weights`` are those of the whole model at this site, its private part included.
- No unit that was trained on is judged on: what the model learned by heart would vote for it, and the query
  would be charged to a block that never paid for it.
- A candidate is judged by its loss (`judge`), a round's model by its gain over the last accepted one
  (`gains`): the mean over a public number of units of the fall of a unit's loss, clipped to ±D. Where there
  are fewer units, the mean is over that number all the same; where there are more, always the same are used.
- The caller has charged one step of the plan to the held-out block before it calls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from client.learning.noise import SecureNoise
from client.learning.tensors import unit_frames
from client.learning.weights import check_weights
from policies.forward import Forward, frame_losses
from policies.privacy.errors import EvalUnplannedError
from policies.robustness.votes import nano

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from client.learning.tensors import Episode
    from policies.ports import Entropy
    from policies.privacy.plan import EvalPlan
    from policies.recipe import Recipe

__all__ = ["Verdict", "gains", "judge", "mean_loss", "unit_losses"]

AnyArray = npt.NDArray[np.floating[Any]]
Array64 = npt.NDArray[np.float64]


class Verdict(NamedTuple):
    """What `judge` found; ``noised_loss`` stays on the site, ``accept`` is the vote."""

    noised_loss: float
    accept: bool


def unit_losses(recipe: Recipe, weights: AnyArray, episodes: Sequence[Episode]) -> Array64:
    """Loss of each unit, ``[U]``: mean over its own frames. Stays on the site."""
    forward = Forward(recipe, check_weights(recipe, weights))
    losses = []
    for frames in unit_frames(recipe, episodes):
        found = frame_losses(recipe, forward(frames.inputs), frames.targets, frames.mask)
        losses.append(float(found.mean()))
    return np.array(losses)


def mean_loss(recipe: Recipe, weights: AnyArray, episodes: Sequence[Episode]) -> float:
    """Mean loss over units, without noise: for decisions at home. Infinite for none."""
    losses = unit_losses(recipe, weights, episodes)
    return float(losses.mean()) if len(losses) else float("inf")


def judge(
    recipe: Recipe,
    weights: AnyArray,
    held_out: Sequence[Episode],
    plan: EvalPlan,
    entropy: Entropy,
    *,
    trained: Collection[bytes],
) -> Verdict:
    """One noised query on the held-out units.

    Args:
        recipe: Of the candidate.
        weights: The candidate.
        held_out: Episodes that are judged on; those of one unit are pooled.
        plan: The recipe's evaluation plan.
        entropy: The operating system's.
        trained: Ids of all units that this node ever trains on.

    Raises:
        EvalUnplannedError: The plan is not the recipe's, or a unit was trained on.
        WeightsUnfitError: The candidate does not fit the recipe.
    """
    if plan.digest != recipe.evaluation.digest:
        raise EvalUnplannedError(
            need=f"the recipe's evaluation plan {recipe.evaluation.digest[:19]}",
            found=plan.digest[:19],
            remedy="judge candidates under the signed recipe only",
        )
    _check_apart(held_out, trained)
    bound = float(plan.loss_bound)
    losses = unit_losses(recipe, weights, held_out)
    clipped = np.clip(np.where(np.isfinite(losses), losses, bound), 0.0, bound)
    noise = float(SecureNoise(entropy).gaussian(plan.noise_std, 1)[0])
    noised = (float(clipped.sum()) + noise) / float(plan.normalizer)
    return Verdict(noised_loss=noised, accept=noised <= float(plan.threshold))


def gains(
    recipe: Recipe,
    models: tuple[Sequence[AnyArray], AnyArray],
    held_out: Sequence[Episode],
    plan: EvalPlan,
    entropy: Entropy,
    *,
    trained: Collection[bytes],
) -> tuple[int, ...]:
    """Noised gains of models in one query, in billionths: how far held-out losses fall.

    One unit moves each of the figures by at most D: the noise on each grows with the root of their number.

    Args:
        recipe: Of the run.
        models: The round's model, or of a probe those of all unions of teams; and the last accepted one.
        held_out: Episodes that are judged on; those of one unit are pooled.
        plan: Of `policies.robustness.plan.votes_plan`: its bound is D, its normaliser the number of units.
        entropy: The operating system's.
        trained: Ids of all units that this node ever trains on.

    Raises:
        EvalUnplannedError: A unit was trained on.
        WeightsUnfitError: A model does not fit the recipe.
    """
    _check_apart(held_out, trained)
    chosen = set(sorted({one.unit_id for one in held_out})[: int(plan.normalizer)])
    episodes = [one for one in held_out if one.unit_id in chosen]
    judged, against = models
    before, bound = unit_losses(recipe, against, episodes), float(plan.loss_bound)
    sums = []
    for model in judged:
        fall = before - unit_losses(recipe, model, episodes)
        sums.append(float(np.clip(np.where(np.isfinite(fall), fall, -bound), -bound, bound).sum()))
    noise = SecureNoise(entropy).gaussian(plan.noise_std * math.sqrt(len(sums)), len(sums))
    return tuple(
        nano((one + float(extra)) / float(plan.normalizer)) for one, extra in zip(sums, noise, strict=True)
    )


def _check_apart(held_out: Sequence[Episode], trained: Collection[bytes]) -> None:
    if not set(trained).isdisjoint(episode.unit_id for episode in held_out):
        raise EvalUnplannedError(
            need="units that are never trained on",
            found="a unit of the training set among those that are judged on",
            remedy="import the data again; the held-out set is fixed by unit, at its first import",
        )
