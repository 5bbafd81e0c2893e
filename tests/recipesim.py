# SPDX-License-Identifier: Apache-2.0
"""Small recipes of every kind and architecture, and episodes that fit them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from client.learning.tensors import EpisodeArrays
from policies.encoding import canonical
from policies.recipe import Recipe, architecture_manifest, load
from sandbox.recipes import plain_recipe, private_recipe

Json = dict[str, Any]
ARM, TWIN = "6r-arm", "7r-arm+parallel-gripper"
ACT_SMALL = {"width": 16, "heads": 4, "hidden": 24, "layers": 2, "chunk": 3, "execute": 2, "seed": 5}
ACT_DESIGNED = {"width": 128, "heads": 4, "hidden": 256, "layers": 2, "chunk": 16, "execute": 4, "seed": 5}


def approach(size: int, scale: str = "1") -> Json:
    return {"rule": "approach", "low": [], "high": [], "centre": ["0"] * size, "scale": [scale] * size}


def limited(size: int, reach: str, scale: str) -> Json:
    return {
        "rule": "limit",
        "low": ["-" + reach] * size,
        "high": [reach] * size,
        "centre": ["0"] * size,
        "scale": [scale] * size,
    }


def bounded(size: int) -> Json:
    return {"rule": "bounded", "low": [], "high": [], "centre": ["0"] * size, "scale": ["1"] * size}


def acting(architecture: Json, *, private: bool = False) -> Json:
    """A behaviour-cloning recipe of the sandbox under another architecture."""
    tree: Json = json.loads(private_recipe(episodes=80) if private else plain_recipe())
    tree["architecture"] = architecture
    tree["tensors"] = architecture_manifest(architecture, input_size=19, output_size=4)
    return tree


def dynamics(*, width: int = 8) -> Json:
    """Inverse dynamics of a joint pair: torque from sin q, cos q, velocity, acceleration and soft sign."""
    tree = acting({"id": "mlp-chunk/1", "args": {"width": 4, "chunk": 1, "execute": 1, "seed": 3}})
    architecture = {"id": "mlp-invdyn/1", "args": {"width": width, "seed": 3}}
    features = [
        {"op": "sin", "field": "joint_pos", "normaliser": bounded(2)},
        {"op": "cos", "field": "joint_pos", "normaliser": bounded(2)},
        {"op": "raw", "field": "joint_vel", "normaliser": limited(2, "2.09", "1.21")},
        {
            "op": "savgol_derivative",
            "field": "joint_vel",
            "window": 7,
            "order": 3,
            "normaliser": limited(2, "8.4", "4.85"),
        },
        {"op": "sign_soft", "field": "joint_vel", "v": "0.05", "normaliser": bounded(2)},
    ]
    return tree | {
        "task": {"kind": "inverse-dynamics", "name": "dynamics", "embodiment_class": ARM},
        "architecture": architecture,
        "rate_hz": "125",
        "inputs": [
            {"field": "joint_pos", "size": 2, "unit": "rad"},
            {"field": "joint_vel", "size": 2, "unit": "rad/s"},
        ],
        "features": features,
        "outputs": [
            {
                "field": "joint_torque",
                "size": 2,
                "unit": "Nm",
                "normaliser": limited(2, "110", "63.5"),
                "limit": ["330", "150"],
            }
        ],
        "tensors": architecture_manifest(architecture, input_size=10, output_size=2),
        "package": tree["package"] | {"fallback": "stop"},  # a torque that is held goes on pushing
    }


def detecting(architecture: str = "mlp-detect/1", *, per: str = "frame", classes: int = 1) -> Json:
    """Detection of a lost grip from currents: values, first difference, rolling deviation, short history."""
    tree = dynamics()
    args = {"seed": 3} if architecture == "linear-detect/1" else {"width": 6, "seed": 3}
    loss: Json = {"kind": "bce", "label": "grip_lost", "per": per, "positive_weight": "3"}
    if classes > 1:
        loss = {
            "kind": "cross-entropy",
            "label": "grip_lost",
            "per": per,
            "classes": [f"class-{number}" for number in range(classes)],
            "weights": ["1", *["2"] * (classes - 1)],
        }
    return tree | {
        "task": {"kind": "detection", "name": "grip-lost", "embodiment_class": ARM},
        "architecture": {"id": architecture, "args": args},
        "rate_hz": None,
        "inputs": [{"field": "joint_current", "size": 2, "unit": "A"}],
        "features": [
            {"op": "raw", "field": "joint_current", "normaliser": limited(2, "3.5", "2.02")},
            {"op": "delta", "field": "joint_current", "lag": 1, "normaliser": approach(2)},
            {"op": "rolling_std", "field": "joint_current", "n": 5, "normaliser": approach(2)},
            {"op": "history", "field": "joint_current", "n": 3, "normaliser": limited(2, "3.5", "2.02")},
        ],
        "outputs": [],
        "loss": loss,
        "tensors": architecture_manifest(
            {"id": architecture, "args": args}, input_size=12, output_size=classes
        ),
    }


def planned(tree: Json) -> Json:
    """The same recipe under the privacy plan of the sandbox."""
    private = json.loads(private_recipe(episodes=80))
    return tree | {name: private[name] for name in ("plan", "train", "server", "rounds", "evaluation")}


def variant(name: str, embodiment: str, tree: Json, architecture: Json, *, sizes: tuple[int, int]) -> Json:
    """One embodiment of a recipe with variants; ``sizes`` of its inputs and outputs."""
    return {
        "name": name,
        "embodiment_class": embodiment,
        **{key: tree[key] for key in ("inputs", "features", "outputs")},
        "tensors": architecture_manifest(
            architecture, input_size=sizes[0], output_size=sizes[1], scope="private"
        ),
    }


def two_embodiments(architecture: Json | None = None) -> Json:
    """A trunk that a gripper arm (19 values, 4 actions) and a bare arm (4 values, 2 actions) share."""
    chosen = architecture or {"id": "mlp-chunk/1", "args": {"width": 6, "chunk": 1, "execute": 1, "seed": 4}}
    tree = acting(chosen)
    arm = {
        "inputs": [
            {"field": "joint_pos", "size": 2, "unit": "rad"},
            {"field": "joint_torque", "size": 2, "unit": "Nm"},
        ],
        "features": [
            {"op": "raw", "field": "joint_pos", "normaliser": limited(2, "3.14", "1.81")},
            {"op": "raw", "field": "joint_torque", "normaliser": limited(2, "56", "32.3")},
        ],
        "outputs": [
            {
                "field": "joint_vel",
                "size": 2,
                "unit": "rad/s",
                "normaliser": limited(2, "2.09", "1.21"),
                "limit": "2.09",
            }
        ],
    }
    variants = [
        variant("gripper", TWIN, tree, chosen, sizes=(19, 4)),
        variant("bare", ARM, arm, chosen, sizes=(4, 2)),
    ]
    shared = architecture_manifest(chosen, input_size=1, output_size=1, scope="shared")
    empty = {"inputs": [], "features": [], "outputs": []}
    return tree | empty | {"tensors": shared, "variants": variants}


def made(tree: Json) -> Recipe:
    return load(canonical(tree))


def every_architecture(*, private: bool = False) -> dict[str, Recipe]:
    """A recipe of each architecture; with ``private`` under a plan."""
    small = {"width": 8, "chunk": 2, "execute": 1, "seed": 3}
    trees = {
        "mlp-chunk/1": acting({"id": "mlp-chunk/1", "args": small}),
        "act-small/1": acting({"id": "act-small/1", "args": ACT_SMALL}),
        "mlp-invdyn/1": dynamics(),
        "linear-detect/1": detecting("linear-detect/1"),
        "mlp-detect/1": detecting(),
        "mlp-detect/1 classes": detecting(classes=3),
    }
    return {name: made(planned(tree) if private else tree) for name, tree in trees.items()}


def recording(recipe: Recipe, number: int, *, frames: int = 20) -> EpisodeArrays:
    """A synthetic episode that a recipe can read: every input, output and label, a random walk each."""
    rng = np.random.default_rng([7, number])

    def walk(size: int, scale: float) -> np.ndarray:
        steps = rng.normal(size=(frames, size)).cumsum(axis=0) * 0.1 * scale
        return steps.astype(np.float32)

    observation = {one.field: walk(one.size, 1.0) for one in recipe.inputs}
    action = {one.field: walk(one.size, min(one.limits)) for one in recipe.outputs}
    labels = {}
    if recipe.label is not None:
        first = next(iter(observation.values()))[:, 0]
        labels = {recipe.label: np.where(rng.random(frames) < 0.2, -1, first > 0).astype(np.int8)}
    return EpisodeArrays(
        observation=observation,
        action=action,
        labels=labels,
        unit_id=hashlib.sha256(f"{number}".encode()).digest(),
    )
