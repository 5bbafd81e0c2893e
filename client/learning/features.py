# SPDX-License-Identifier: Apache-2.0
"""The recipe's features as one function of the input fields, the same for training and for acting.

Operations are those of `policies.recipe.features`; each sees one episode. What lies before its first frame
is its first frame, so that a model that acts, and remembers the last `Recipe.past` frames, sees what training
saw:

    features = Features(recipe)
    features(raw)                     # [T, raw_size] of one episode → [T, d], normalised and clipped
    window = Window(recipe)           # of an acting model
    window.take(observation)          # [raw_size] → [d], the same as the next row of the episode

Where all operations look at one frame alone, ``raw`` may have any leading axes. ``savgol_derivative`` near an
end is the derivative of the polynomial through the first or last window; in an episode shorter than the
window, through the longest odd window that it has.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client.learning.errors import EpisodeUnfitError
from policies.recipe import (
    CosFeature,
    DeltaFeature,
    DiffFeature,
    HistoryFeature,
    RawFeature,
    RollingStdFeature,
    SavgolFeature,
    SignSoftFeature,
    SinFeature,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.recipe import Normaliser, Recipe

__all__ = ["Features", "Window", "constants"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


def constants(normalisers: Sequence[Normaliser]) -> tuple[Array64, Array64]:
    """Centres and scales of several normalisers side by side."""
    centre = np.array([float(c) for n in normalisers for c in n.centre])
    scale = np.array([float(s) for n in normalisers for s in n.scale])
    return centre, scale


class Features:
    """See the module.

    Raises:
        RecipeVariantError: The recipe has variants, and none was chosen.
    """

    def __init__(self, recipe: Recipe) -> None:
        recipe.need_site()
        self.fields = tuple((field.field, field.size) for field in recipe.inputs)
        starts = np.cumsum([0, *(size for _, size in self.fields)])
        self._span = {name: slice(starts[i], starts[i + 1]) for i, (name, _) in enumerate(self.fields)}
        self._features = tuple(recipe.features)
        self._clip = float(recipe.clip)
        self._rate = float(recipe.rate_hz or 1)
        self._past = recipe.past
        self.raw_size = int(starts[-1])
        self._affine = all(isinstance(one, RawFeature | DiffFeature) for one in self._features)
        self._matrix, self._offset = self._as_matrix() if self._affine else (np.empty(0), np.empty(0))

    def __call__(self, raw: AnyArray) -> Array64:
        """Normalised inputs ``[..., d]`` of the input fields side by side ``[..., raw_size]``.

        Raises:
            EpisodeUnfitError: Operations that look at several frames, and no ``[T, raw_size]`` of an episode.
        """
        if self._affine:
            values = np.asarray(raw, dtype=np.float64) @ self._matrix
            values += self._offset
        else:
            values = self._side_by_side(np.asarray(raw, dtype=np.float64))
        return np.clip(values, -self._clip, self._clip, out=values)

    def _as_matrix(self) -> tuple[Array64, Array64]:
        """All operations are affine in one frame: one matrix and an offset."""
        centre, scale = constants([feature.normaliser for feature in self._features])
        rows = []
        for feature in self._features:
            gain = float(feature.gain) if isinstance(feature, DiffFeature) else 1.0
            plus = self._span[feature.sources[0]]
            for offset in range(plus.stop - plus.start):
                row = np.zeros(self.raw_size)
                row[plus.start + offset] = gain
                if isinstance(feature, DiffFeature):
                    row[self._span[feature.b].start + offset] = -gain
                rows.append(row)
        return (np.array(rows) / scale[:, None]).T.copy(), -centre / scale

    def _side_by_side(self, raw: Array64) -> Array64:
        if self._past and raw.ndim != 2:  # noqa: PLR2004
            raise EpisodeUnfitError(
                need="frames of one episode in a row, [T, n]",
                found=f"{list(raw.shape)}",
                remedy="take episode by episode: a feature of this recipe looks at earlier frames",
            )
        parts = []
        for feature in self._features:
            centre, scale = constants([feature.normaliser] * feature.copies)
            parts.append((self._value(feature, raw) - centre) / scale)
        return np.concatenate(parts, axis=-1)

    def _value(self, feature: Any, raw: Array64) -> Array64:  # noqa: ANN401  a union that is matched here
        x = raw[..., self._span[feature.sources[0]]]
        match feature:
            case DiffFeature():
                found = float(feature.gain) * (x - raw[..., self._span[feature.b]])
            case SinFeature():
                found = np.sin(x)
            case CosFeature():
                found = np.cos(x)
            case SignSoftFeature():
                found = np.tanh(x / float(feature.v))
            case DeltaFeature():
                found = x - _shifted(x, feature.lag)
            case RollingStdFeature():
                found = _rolling_std(x, feature.n)
            case HistoryFeature():
                found = np.concatenate([_shifted(x, lag) for lag in range(feature.n)], axis=-1)
            case SavgolFeature():
                found = _savgol(x, feature.window, feature.order) * self._rate
            case _:
                found = x
        return np.asarray(found, dtype=np.float64)


class Window:
    """The frames that an acting model remembers: as many as the features look back."""

    def __init__(self, recipe: Recipe) -> None:
        self._features = Features(recipe)
        self._kept: deque[Array64] = deque(maxlen=recipe.past + 1)
        self.raw_size = self._features.raw_size

    def begin(self) -> None:
        """Forgets the last episode."""
        self._kept.clear()

    def take(self, observation: AnyArray) -> Array64:
        """Normalised inputs ``[d]`` of the newest frame, whose first columns are the recipe's inputs."""
        raw = np.asarray(observation[: self.raw_size], dtype=np.float64)
        if self._kept.maxlen == 1:
            return self._features(raw)
        self._kept.append(raw)
        found: Array64 = self._features(np.stack(self._kept))[-1]
        return found


def _shifted(x: Array64, lag: int) -> Array64:
    """The frames ``lag`` before; before the first frame, the first."""
    if lag == 0:
        return x
    return np.concatenate([np.repeat(x[:1], min(lag, len(x)), axis=0), x[: max(0, len(x) - lag)]])


def _rolling_std(x: Array64, n: int) -> Array64:
    """Over the last ``n`` frames that the episode has; each window by itself: a cut changes no bit."""
    return np.stack([x[max(0, at - n + 1) : at + 1].std(axis=0) for at in range(len(x))])


def _savgol(x: Array64, window: int, order: int) -> Array64:
    """Derivative per frame of the polynomial through the window around it (Savitzky and Golay, 1964)."""
    window = min(window, len(x) - (len(x) + 1) % 2)
    order = min(order, window - 1)
    if order < 1:
        return np.zeros_like(x)
    half = window // 2
    places = np.arange(-half, half + 1, dtype=np.float64)
    fit = np.linalg.pinv(np.vander(places, order + 1, increasing=True))  # [order + 1, window]
    powers = np.arange(1, order + 1)
    at = np.arange(len(x))
    middle = np.clip(at, half, len(x) - 1 - half)
    slopes = (at - middle)[:, None].astype(np.float64) ** (powers - 1) * powers @ fit[1:]  # [T, window]
    around = middle[:, None] + np.arange(-half, half + 1)
    found: Array64 = np.einsum("tw,twk->tk", slopes, x[around])
    return found
