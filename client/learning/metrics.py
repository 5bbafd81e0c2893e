# SPDX-License-Identifier: Apache-2.0
"""Figures for people, about models at home: normalised error and area under the ROC curve. Plain numpy.

They stay on the site unless a contract says otherwise; votes are about losses (`client.learning.evaluate`). A
figure that is not defined is `UNDETERMINED`, never a number: an AUROC where one class is absent, an error of
targets that do not vary.

    nmse(predicted, measured)             # (0.21, …) per joint: squared error over the variance of the target
    auroc(scores, labels)                 # 0.81; labels 1, 0, -1 unknown, which are left out
    figure(recipe, weights, episodes)     # by the kind of the recipe
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from client.learning.features import Features
from client.learning.tensors import frames_of
from client.learning.weights import check_weights
from policies.forward import Forward
from policies.recipe import BinaryLoss, ClassLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.tensors import Episode, Frames
    from policies.recipe import Recipe

__all__ = ["UNDETERMINED", "Figure", "auroc", "figure", "nmse"]

AnyArray = npt.NDArray[np.floating[Any]]
Array64 = npt.NDArray[np.float64]
Undetermined = Literal["UNDETERMINED"]
UNDETERMINED: Final[Undetermined] = "UNDETERMINED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure about a model on some episodes.

    Attributes:
        name: ``mse``, ``nmse`` or ``auroc``.
        value: Or that it is not defined on these episodes.
        per: One value per joint, or per class against the others; of ``mse`` none.
    """

    name: Literal["mse", "nmse", "auroc"]
    value: float | Undetermined
    per: tuple[float | Undetermined, ...] = ()


def nmse(predicted: AnyArray, measured: AnyArray) -> tuple[float | Undetermined, ...]:
    """Mean squared error over the variance of the target, per column of ``[N, a]``; 1 is the mean's error."""
    error = ((predicted - measured) ** 2).mean(axis=0)
    spread = np.asarray(measured, dtype=np.float64).var(axis=0)
    return tuple(
        float(one / over) if over > 0 else UNDETERMINED for one, over in zip(error, spread, strict=True)
    )


def auroc(scores: AnyArray, labels: npt.NDArray[Any]) -> float | Undetermined:
    """Chance that a positive scores above a negative, ties for a half (Mann and Whitney, 1947).

    Args:
        scores: ``[N]``.
        labels: ``[N]``: 1, 0, or anything else, which is unknown and left out.
    """
    positive, negative = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positive) or not len(negative):
        return UNDETERMINED
    below, up_to = (np.searchsorted(negative, positive, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(negative)))


def figure(recipe: Recipe, weights: AnyArray, episodes: Sequence[Episode]) -> Figure:
    """The figure of a kind of recipe: of actions ``mse``, of torques ``nmse``, of labels ``auroc``.

    Under ``per: episode`` an episode counts once, with the mean of its frames' scores. Of several classes
    each is judged against the others, and the value is the mean of those that are defined.

    Raises:
        EpisodeUnfitError: A field or label is missing.
        WeightsUnfitError: The vector does not fit the recipe.
    """
    forward, features = Forward(recipe, check_weights(recipe, weights)), Features(recipe)
    parts = [frames_of(recipe, one, features) for one in episodes]
    answers = [forward(one.inputs) for one in parts]
    if recipe.label is not None:
        return _detected(recipe, answers, parts)
    found: Array64 = np.concatenate(answers)
    wanted = np.concatenate([part.targets for part in parts])
    mask = np.concatenate([part.mask for part in parts])
    if recipe.task.kind == "inverse-dynamics":
        per = nmse(found, wanted)
        return Figure(name="nmse", value=_mean(per), per=per)
    return Figure(name="mse", value=float(((found - wanted) ** 2 * mask).sum() / max(1.0, mask.sum())))


def _detected(recipe: Recipe, answers: Sequence[Array64], parts: Sequence[Frames]) -> Figure:
    whole = isinstance(recipe.loss, BinaryLoss | ClassLoss) and recipe.loss.per == "episode"
    scores, truths = [], []
    for answer, part in zip(answers, parts, strict=True):
        known = part.mask[:, 0] > 0
        if not known.any():
            continue
        scores.append(answer[known].mean(axis=0, keepdims=True) if whole else answer[known])
        truths.append(part.targets[known][:1] if whole else part.targets[known])
    if not scores:
        return Figure(name="auroc", value=UNDETERMINED)
    found, wanted = np.concatenate(scores), np.concatenate(truths)
    if found.shape[1] > 1:
        found = found - np.logaddexp.reduce(found, axis=1, keepdims=True)
    per = tuple(auroc(found[:, column], wanted[:, column]) for column in range(found.shape[1]))
    return Figure(name="auroc", value=_mean(per), per=per)


def _mean(per: Sequence[float | Undetermined]) -> float | Undetermined:
    """Of the defined ones."""
    defined = [one for one in per if not isinstance(one, str)]
    return float(np.mean(defined)) if defined else UNDETERMINED
