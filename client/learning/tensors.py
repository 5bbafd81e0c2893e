# SPDX-License-Identifier: Apache-2.0
"""From an episode's fields to arrays, by the recipe's features and public constants.

- Inputs are float32, normalised and clipped; targets are actions within the recipe's limits (beyond them no
  robot acts), normalised, a chunk per frame, with a mask beyond the end.
- Nothing here looks at two units at once: no statistic, no filter, no order. Episodes of one unit are pooled:
  their frames stand side by side, each with its own end of episode (`unit_frames`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from client.learning.errors import EpisodeUnfitError
from policies.recipe import DiffFeature, Normaliser, Recipe

__all__ = [
    "Episode",
    "EpisodeArrays",
    "Features",
    "Frames",
    "action_constants",
    "frames_of",
    "pooled",
    "split_observation",
    "unit_frames",
]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
FieldArrays = Mapping[str, npt.NDArray[np.floating[Any]]]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One unit's frames, ready for training.

    Attributes:
        inputs: ``[T, d] float32``.
        targets: ``[T, H * a] float32``, within limits, normalised.
        mask: ``[T, H * a] float32``, 1 where the target lies inside the episode.
        unit_id: The unit.
        stratum: What the plan's strata are told apart by (the task); never leaves the site.
    """

    inputs: Array32
    targets: Array32
    mask: Array32
    unit_id: bytes
    stratum: str = ""


def _constants(normalisers: Sequence[Normaliser]) -> tuple[Array64, Array64]:
    centre = np.array([float(c) for n in normalisers for c in n.centre])
    scale = np.array([float(s) for n in normalisers for s in n.scale])
    return centre, scale


class Features:
    """The recipe's features as one function of the input fields, the same for training and for acting."""

    def __init__(self, recipe: Recipe) -> None:
        self.fields = tuple((field.field, field.size) for field in recipe.inputs)
        starts = np.cumsum([0, *(size for _, size in self.fields)])
        span = {name: slice(starts[i], starts[i + 1]) for i, (name, _) in enumerate(self.fields)}
        centre, scale = _constants([feature.normaliser for feature in recipe.features])
        rows = []
        for feature in recipe.features:
            plus = span[feature.a] if isinstance(feature, DiffFeature) else span[feature.field]
            for offset in range(plus.stop - plus.start):
                row = np.zeros(starts[-1])
                gain = float(feature.gain) if isinstance(feature, DiffFeature) else 1.0
                row[plus.start + offset] = gain
                if isinstance(feature, DiffFeature):
                    row[span[feature.b].start + offset] = -gain
                rows.append(row)
        # all features are affine: one matrix, then the clip
        self._matrix: Array64 = (np.array(rows) / scale[:, None]).T.copy()
        self._offset: Array64 = -centre / scale
        self._clip = float(recipe.clip)
        self.raw_size = int(starts[-1])

    def __call__(self, raw: npt.NDArray[np.floating[Any]]) -> Array64:
        """Normalised inputs ``[..., d]`` of the input fields side by side ``[..., raw_size]``."""
        values = np.asarray(raw, dtype=np.float64) @ self._matrix
        values += self._offset
        return np.clip(values, -self._clip, self._clip, out=values)


def split_observation(recipe: Recipe, observation: npt.NDArray[np.floating[Any]]) -> dict[str, Array32]:
    """Fields of observations ``[T, n]`` whose first columns are the recipe's inputs in their order."""
    arrays, start = {}, 0
    for field in recipe.inputs:
        arrays[field.field] = np.asarray(observation[:, start : start + field.size], dtype=np.float32)
        start += field.size
    return arrays


def action_constants(recipe: Recipe) -> tuple[Array64, Array64, Array64]:
    """Centre, scale and limit of one action, each ``[a]``."""
    centre, scale = _constants([output.normaliser for output in recipe.outputs])
    limit = np.array([float(output.limit) for output in recipe.outputs for _ in range(output.size)])
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
    length = len(raw[0])
    acts = [_column(episode.action, out.field, out.size, length) for out in recipe.outputs]
    centre, scale, limit = action_constants(recipe)
    actions = np.clip(np.concatenate(acts, axis=1) - centre, -limit, limit) / scale
    chunk, size = recipe.architecture.args.chunk, actions.shape[1]
    targets = np.zeros((length, chunk, size), dtype=np.float32)
    mask = np.zeros((length, chunk, size), dtype=np.float32)
    for ahead in range(min(chunk, length)):
        targets[: length - ahead, ahead] = actions[ahead:]
        mask[: length - ahead, ahead] = 1
    return Frames(
        inputs=features(np.concatenate(raw, axis=1)).astype(np.float32),
        targets=targets.reshape(length, chunk * size),
        mask=mask.reshape(length, chunk * size),
        unit_id=episode.unit_id,
        stratum=episode.stratum,
    )
