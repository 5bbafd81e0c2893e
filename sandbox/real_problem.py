# SPDX-License-Identifier: Apache-2.0
"""What a problem of `sandbox.bench_real` is: recordings of one robot, cut by time into sites, and a figure.

- A site has three disjoint sets of units: ``train``; ``select``, which chooses between the common model and
  the individual one; ``report``, on which every column is measured and which chooses nothing.
- Everything before the figure is a node's own code: reader, signal map, segmentation, quality checks, the
  recipe's features and public constants.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.frames import UNKNOWN
from client.learning.tensors import EpisodeArrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from client.data.frames import Frames
    from policies.recipe import Recipe

__all__ = ["SITES", "Problem", "RealSite", "arrays", "evaluation", "known", "shuffled"]

SITES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RealSite:
    """One site's units; see the module."""

    train: list[EpisodeArrays]
    select: list[EpisodeArrays]
    report: list[EpisodeArrays]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What to learn, and how it is judged.

    Attributes:
        name: Key in the report.
        figure: What ``score`` gives.
        lower_is_better: As for an error.
        recipe: Of the rounds; its steps and rates also train the sites alone and the pooled model.
        alone_steps: Of a model that is trained at one place.
        sites: Those of a seed.
        score: Of a model on some episodes; None where the figure is undefined there.
        undefined: Why it may be.
        own_steps: With which a site trains the common model on.
    """

    name: str
    figure: str
    lower_is_better: bool
    recipe: Recipe
    alone_steps: int
    sites: Callable[[int], tuple[RealSite, ...]]
    score: Callable[[Recipe, npt.NDArray[np.float32], Sequence[EpisodeArrays]], float | None]
    undefined: str = ""
    own_steps: int = 300


def shuffled(count: int, *, seed: int, site: int) -> npt.NDArray[np.int64]:
    """Numbers below ``count`` in an order that follows from seed and site alone."""
    return np.random.default_rng([seed, site]).permutation(count)


def arrays(recorded: Frames, rows: slice, *, unit: bytes, acted: Iterable[str] = ()) -> EpisodeArrays:
    """Rows of canonical frames as an episode; a frame that lacks a value is left out, as a node does.

    Args:
        recorded: One piece, as `client.data.frames.frames_of` makes it.
        rows: Which of its rows.
        unit: What the episode belongs to.
        acted: Fields that are predicted; all others are observed.
    """
    columns = {key.split(".", 1)[1]: values[rows] for key, values in recorded.columns.items()}
    whole = np.all([np.isfinite(values).all(axis=1) for values in columns.values()], axis=0)
    kept: Mapping[str, Any] = {name: values[whole] for name, values in columns.items()}
    predicted = set(acted)
    return EpisodeArrays(
        observation={name: values for name, values in kept.items() if name not in predicted},
        action={name: values for name, values in kept.items() if name in predicted},
        labels={name: values[rows][whole].astype(np.int64) for name, values in recorded.labels.items()},
        unit_id=hashlib.sha256(unit).digest(),
    )


def known(episode: EpisodeArrays, label: str) -> bool:
    """Whether a label of the episode is known in some frame."""
    return bool((episode.labels[label] != UNKNOWN).any())


def evaluation(units: int) -> dict[str, Any]:
    """The evaluation plan that a recipe must have; a study in one process asks no vote."""
    return {
        "schema": "iriai-eval-plan/1",
        "unit": "episode",
        "adjacency": "zero-out",
        "loss_bound": "1",
        "noise_multiplier": "0.1",
        "normalizer": str(units),
        "threshold": "0.5",
        "delta": "0.00001",
        "steps": 4,
    }
