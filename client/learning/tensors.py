# SPDX-License-Identifier: Apache-2.0
"""From an episode's fields to arrays, by the recipe's features and public constants.

- Inputs are float32, normalised and clipped (`client.learning.features`); targets are actions within the
  recipe's limits (beyond them no robot acts), normalised, a chunk per frame, with a mask beyond the end. What
  inverse dynamics predicts is such an action of one frame.
- Where a label is detected, targets are 0 and 1, or one of several classes. A frame whose label is unknown is
  masked and left out, never "false"; of an episode without a known label one masked frame stays, so that the
  unit is there and adds nothing. ``per: episode`` gives every frame the last known value.
- Nothing here looks at two units at once: no statistic, no filter, no order. Episodes of one unit are pooled:
  their frames stand side by side, each with its own end of episode (`unit_frames`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from client.learning.errors import EpisodeUnfitError
from client.learning.features import Features, constants
from policies.recipe import BinaryLoss, ClassLoss, Recipe

__all__ = [
    "Episode",
    "EpisodeArrays",
    "Features",
    "Frames",
    "LabelArrays",
    "action_constants",
    "frames_of",
    "pooled",
    "split_observation",
    "unit_frames",
]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
FieldArrays = Mapping[str, npt.NDArray[np.floating[Any]]]
LabelArrays = Mapping[str, npt.NDArray[np.integer[Any]]]
UNKNOWN = -1  # of a label, as in the store


class Episode(Protocol):
    """What the episode view gives: fields by name, each ``[T, k]``, and the unit they belong to."""

    @property
    def observation(self) -> FieldArrays:
        """Observed fields."""
        ...

    @property
    def action(self) -> FieldArrays:
        """Action fields, SI."""
        ...

    @property
    def labels(self) -> LabelArrays:
        """Labels by name, ``[T]``: 1 true, 0 false, or the number of a class; -1 unknown."""
        ...

    @property
    def unit_id(self) -> bytes:
        """The unit of protection; never leaves the site."""
        ...

    @property
    def stratum(self) -> str:
        """The task that the episode is an attempt at; never leaves the site."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeArrays:
    """An episode in memory."""

    observation: FieldArrays
    action: FieldArrays
    unit_id: bytes
    stratum: str = ""
    block: int = 0
    labels: LabelArrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One unit's frames, ready for training.

    Attributes:
        inputs: ``[T, d] float32``.
        targets: ``[T, H * a] float32``, within limits, normalised; or of a label, ``[T, C]``.
        mask: ``[T, H * a] float32``, 1 where the target lies inside the episode.
        unit_id: The unit.
        stratum: What the plan's strata are told apart by (the task); never leaves the site.
    """

    inputs: Array32
    targets: Array32
    mask: Array32
    unit_id: bytes
    stratum: str = ""


def split_observation(recipe: Recipe, observation: npt.NDArray[np.floating[Any]]) -> dict[str, Array32]:
    """Fields of observations ``[T, n]`` whose first columns are the recipe's inputs in their order."""
    arrays, start = {}, 0
    for one in recipe.inputs:
        arrays[one.field] = np.asarray(observation[:, start : start + one.size], dtype=np.float32)
        start += one.size
    return arrays


def action_constants(recipe: Recipe) -> tuple[Array64, Array64, Array64]:
    """Centre, scale and limit of one action, each ``[a]``."""
    centre, scale = constants([output.normaliser for output in recipe.outputs])
    limit = np.array([one for output in recipe.outputs for one in output.limits])
    return centre, scale, limit


def _column(source: FieldArrays, name: str, size: int, length: int | None) -> Array64:
    values = source.get(name)
    fits = values is not None and values.ndim == 2 and values.shape[1] == size and len(values) > 0  # noqa: PLR2004
    if values is None or not fits or (length is not None and len(values) != length):
        raise EpisodeUnfitError(
            need=f"field {name} as [T, {size}], the same T for all fields",
            found="none" if values is None else f"{list(values.shape)}",
            remedy="import the episode with a signal map that gives this field",
        )
    return np.asarray(values, dtype=np.float64)


def unit_frames(recipe: Recipe, episodes: Sequence[Episode]) -> list[Frames]:
    """Training arrays of each unit, in the order in which units first occur; frames of its episodes pooled.

    A unit whose episodes are of several strata is of one of its own, so that no other unit decides about it.

    Raises:
        EpisodeUnfitError: A field is missing or has another shape.
    """
    features = Features(recipe)
    units: dict[bytes, list[Frames]] = {}
    for episode in episodes:
        units.setdefault(episode.unit_id, []).append(frames_of(recipe, episode, features))
    return [pooled(parts) for parts in units.values()]


def pooled(parts: Sequence[Frames]) -> Frames:
    """Frames of a unit's episodes side by side; ``parts`` are of one unit."""
    if len(parts) == 1:
        return parts[0]
    return Frames(
        inputs=np.concatenate([one.inputs for one in parts]),
        targets=np.concatenate([one.targets for one in parts]),
        mask=np.concatenate([one.mask for one in parts]),
        unit_id=parts[0].unit_id,
        stratum=" + ".join(sorted({one.stratum for one in parts})),
    )


def frames_of(recipe: Recipe, episode: Episode, features: Features | None = None) -> Frames:
    """Training arrays of one episode.

    Raises:
        EpisodeUnfitError: A field is missing or has another shape.
    """
    features = features or Features(recipe)
    raw: list[Array64] = []
    for name, size in features.fields:
        raw.append(_column(episode.observation, name, size, len(raw[0]) if raw else None))
    inputs = features(np.concatenate(raw, axis=1)).astype(np.float32)
    if recipe.label is None:
        targets, mask = _acted(recipe, episode, len(inputs))
    else:
        targets, mask = _labelled(recipe, episode, len(inputs))
        known = np.asarray(mask.any(axis=1))
        known[0] |= not known.any()
        inputs, targets, mask = inputs[known], targets[known], mask[known]
    return Frames(inputs=inputs, targets=targets, mask=mask, unit_id=episode.unit_id, stratum=episode.stratum)


def _acted(recipe: Recipe, episode: Episode, length: int) -> tuple[Array32, Array32]:
    """The next actions of each frame, within limits and normalised, and where there are any."""
    acts = [
        _column(_source(recipe, episode, out.field), out.field, out.size, length) for out in recipe.outputs
    ]
    centre, scale, limit = action_constants(recipe)
    actions = np.clip(np.concatenate(acts, axis=1) - centre, -limit, limit) / scale
    chunk, size = recipe.chunk, actions.shape[1]
    targets = np.zeros((length, chunk, size), dtype=np.float32)
    mask = np.zeros((length, chunk, size), dtype=np.float32)
    for ahead in range(min(chunk, length)):
        targets[: length - ahead, ahead] = actions[ahead:]
        mask[: length - ahead, ahead] = 1
    return targets.reshape(length, chunk * size), mask.reshape(length, chunk * size)


def _source(recipe: Recipe, episode: Episode, name: str) -> FieldArrays:
    """Where an output is recorded: what acts is commanded, what is predicted was measured."""
    measured = recipe.task.kind == "inverse-dynamics" and name in episode.observation
    return episode.observation if measured else episode.action


def _labelled(recipe: Recipe, episode: Episode, length: int) -> tuple[Array32, Array32]:
    """The label of each frame as a target, and where it is known."""
    loss = recipe.objective
    if not isinstance(loss, BinaryLoss | ClassLoss):
        raise _no_label("a label", None)
    found = episode.labels.get(loss.label)
    classes = 2 if isinstance(loss, BinaryLoss) else loss.outputs
    if found is None or found.shape != (length,) or found.min() < UNKNOWN or found.max() >= classes:
        raise _no_label(f"label {loss.label} as [{length}], classes 0 to {classes - 1} or unknown", found)
    values = np.asarray(found, dtype=np.int64)
    if loss.per == "episode":
        known = values[values != UNKNOWN]
        values = np.full(length, known[-1] if len(known) else UNKNOWN)
    mask = np.repeat((values != UNKNOWN)[:, None], loss.outputs, axis=1)
    if isinstance(loss, BinaryLoss):
        return np.where(mask, values[:, None], 0).astype(np.float32), mask.astype(np.float32)
    return (values[:, None] == np.arange(loss.outputs)).astype(np.float32), mask.astype(np.float32)


def _no_label(need: str, found: npt.NDArray[Any] | None) -> EpisodeUnfitError:
    return EpisodeUnfitError(
        need=need,
        found="none" if found is None else f"{list(found.shape)}, or other values",
        remedy="import the episode with a signal map that gives this label, unknown where nobody said",
    )
