# SPDX-License-Identifier: Apache-2.0
"""Two embodiments of the sandbox's task under one recipe: a shared trunk, stems and heads that stay in cells.

`sandbox.bench_embodiments` says what each observes and does, and measures what they gain.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from policies.encoding import canonical
from policies.recipe import architecture_manifest
from sandbox.recipes import plain_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.learning.tensors import EpisodeArrays
    from policies.recipe import Recipe

__all__ = ["CELL_VARIANTS", "CLASSES", "ROTATION", "episodes_of", "recipe_bytes", "together"]

Weights = npt.NDArray[np.float32]
CELL_VARIANTS: Final = {"A": "absolute", "B": "relative", "C": "absolute", "D": "relative"}
CLASSES: Final = {"absolute": "7r-arm+parallel-gripper", "relative": "6r-arm+parallel-gripper"}
ROTATION: Final = 3  # coordinates of an action that stay zero


def recipe_bytes(episodes: int) -> bytes:
    """Canonical bytes of the recipe: that of `sandbox.recipes.plain_recipe`, in two variants."""
    tree = json.loads(plain_recipe(episodes))
    inputs, features, outputs = (tree.pop(name) for name in ("inputs", "features", "outputs"))
    still = {
        "rule": "approach",
        "low": [],
        "high": [],
        "centre": ["0"] * ROTATION,
        "scale": ["0.1"] * ROTATION,
    }
    rotation = {"field": "tcp_rot", "size": ROTATION, "unit": "rad", "normaliser": still, "limit": "0.1"}
    parts = {
        "absolute": (features, outputs),
        "relative": (
            [one for one in features if one["op"] == "diff" or one["field"] == "gripper_width"],
            [outputs[0], rotation, outputs[1]],
        ),
    }
    variants = []
    for name, (seen, done) in parts.items():
        sizes = {
            "input_size": sum(len(one["normaliser"]["centre"]) for one in seen),
            "output_size": sum(one["size"] for one in done),
        }
        variants.append(
            {
                "name": name,
                "embodiment_class": CLASSES[name],
                "inputs": inputs,
                "features": seen,
                "outputs": done,
                "tensors": architecture_manifest(tree["architecture"], scope="private", **sizes),
            }
        )
    shared = architecture_manifest(tree["architecture"], scope="shared", **sizes)
    tree["train"]["private"] = "held"
    return canonical(
        tree | {"inputs": [], "features": [], "outputs": [], "tensors": shared, "variants": variants}
    )


def episodes_of(recipe: Recipe, demonstrated: Sequence[tuple[Weights, Weights]]) -> list[EpisodeArrays]:
    """Demonstrations as a cell of the recipe's variant records them."""
    from sandbox import study_recordings

    if recipe.variant == "relative":
        demonstrated = [
            (seen, np.insert(done, [3] * ROTATION, np.float32(0), axis=1)) for seen, done in demonstrated
        ]
    return study_recordings.episodes_of(recipe, list(demonstrated))


def together(sites: Mapping[str, tuple[Recipe, Sequence[EpisodeArrays]]], *, name: str) -> dict[str, Weights]:
    """All rounds: the trunk is averaged, each cell keeps its stem and head; the whole model of each cell."""
    from client.learning.train import Trainer
    from client.learning.weights import initial_weights
    from policies.forward import joined, shared_of
    from policies.server_step import initial_state, released_weights, server_step
    from sandbox.repeatable import RepeatableEntropy
    from sandbox.study_federation import Sums, mean_update

    recipes = [recipe for recipe, _ in sites.values()]
    first = recipes[0]
    trainers = [
        Trainer(recipe, episodes, RepeatableEntropy(f"{name} {cell}"))
        for cell, (recipe, episodes) in sites.items()
    ]
    weights = np.asarray(shared_of(first, initial_weights(first)), dtype=np.float64)
    state, sums = initial_state(weights, first.server), Sums.of(first, len(sites))
    for done in range(first.rounds):
        mean = mean_update(trainers, weights.astype(np.float32), done + 1, sums)
        weights, state = server_step(weights, mean, state, first.server, done)
    trunk = released_weights(weights, state, first.server)
    return {
        cell: joined(recipe, trunk, trainer.private).astype(np.float32)
        for (cell, (recipe, _)), trainer in zip(sites.items(), trainers, strict=True)
    }
