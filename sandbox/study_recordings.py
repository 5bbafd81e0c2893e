# SPDX-License-Identifier: Apache-2.0
"""Demonstrations of the four cells in memory, recorded once per seed and kept in a folder.

- A file holds one cell's first n demonstrations of a seed; n is in its name. Equal seeds give equal
  demonstrations (`sandbox.cells`), so a file that lies there is what recording again would give.
- `share` splits them as a contract with a seed set would: the first ``private`` episodes are a maker's own,
  those after them it has openly donated. No episode is both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client.learning.tensors import EpisodeArrays, split_observation
from sandbox.cells import demonstrations

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from policies.recipe import Recipe

__all__ = ["Share", "episodes_of", "recorded", "share"]

Array32 = npt.NDArray[np.float32]
Demonstrations = list[tuple[Array32, Array32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one maker brings.

    Attributes:
        private: Its own training episodes.
        donated: Episodes that everybody may see.
    """

    private: list[EpisodeArrays]
    donated: list[EpisodeArrays]


def recorded(cell: str, *, seed: int, episodes: int, folder: Path) -> Demonstrations:
    """The first ``episodes`` demonstrations of a cell: per episode, observations and actions."""
    path = folder / f"cell-{cell}-seed-{seed}-episodes-{episodes}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, list(islice(demonstrations(cell, seed=seed), episodes)))
    with np.load(path) as stored:
        cuts = np.cumsum(stored["lengths"])[:-1]
        parts = [np.split(stored[name], cuts) for name in ("observations", "actions")]
    return list(zip(*parts, strict=True))


def _write(path: Path, done: Sequence[Any]) -> None:
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        observations=np.concatenate([one.observation for one in done]),
        actions=np.concatenate([one.action for one in done]),
        lengths=np.array([len(one.action) for one in done]),
    )
    part.replace(path)  # a run that was stopped leaves no half file under the name


def episodes_of(recipe: Recipe, demonstrated: Demonstrations) -> list[EpisodeArrays]:
    """Demonstrations as episodes with the recipe's fields."""
    return [_episode(recipe, *one) for one in demonstrated]


def _episode(recipe: Recipe, observations: Array32, actions: Array32) -> EpisodeArrays:
    fields, start = {}, 0
    for output in recipe.outputs:
        fields[output.field] = actions[:, start : start + output.size]
        start += output.size
    return EpisodeArrays(
        observation=split_observation(recipe, observations),
        action=fields,
        unit_id=hashlib.sha256(observations.tobytes() + actions.tobytes()).digest(),
    )


def share(recipe: Recipe, demonstrated: Demonstrations, *, private: int) -> Share:
    """The first ``private`` demonstrations as a maker's own, the rest as donated."""
    episodes = episodes_of(recipe, demonstrated)
    return Share(private=episodes[:private], donated=episodes[private:])
