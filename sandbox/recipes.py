# SPDX-License-Identifier: Apache-2.0
"""The two recipes of the sandbox: pick-place by behaviour cloning, private and plain (``--epsilon inf``).

Constants come from the task's drawing: where parts and goals may lie, how near the tool must come. Nothing is
learned from recordings. The private recipe's optimiser was chosen on seeds that no reported run uses.
"""

from __future__ import annotations

from typing import Any, Final

from policies.encoding import canonical, decimal_text
from policies.privacy.accounting import calibrate
from policies.recipe import manifest

__all__ = ["plain_recipe", "private_recipe"]

Json = dict[str, Any]

DELTA: Final = "0.00001"
ROUNDS: Final = 190  # attempts need the rest of the plan's steps
STEPS: Final = 200
SAMPLING_PROB: Final = "0.2"
_GAIN: Final = "5"


def _approach(centre: list[str], scale: list[str]) -> Json:
    return {"rule": "approach", "low": [], "high": [], "centre": centre, "scale": scale}


def _box(low: list[str], high: list[str], centre: list[str], scale: list[str]) -> Json:
    return {"rule": "task-box", "low": low, "high": high, "centre": centre, "scale": scale}


def _features() -> list[Json]:
    hand = _box(
        ["-0.1", "0.6", "0.05"], ["0.1", "0.9", "0.3"], ["0", "0.75", "0.175"], ["0.058", "0.087", "0.072"]
    )
    part = _box(
        ["-0.1", "0.6", "0.02"], ["0.1", "0.9", "0.3"], ["0", "0.75", "0.16"], ["0.058", "0.087", "0.08"]
    )
    goal = _box(
        ["-0.1", "0.8", "0.05"], ["0.1", "0.9", "0.3"], ["0", "0.85", "0.175"], ["0.058", "0.029", "0.072"]
    )
    raw = (
        ("tcp_pos", hand),
        ("gripper_width", _approach(["0.7"], ["0.25"])),
        ("object_pos", part),
        ("goal_pos", goal),
    )
    diff = (
        ("object_pos", "tcp_pos", _approach(["0", "0", "-0.25"], ["0.05", "0.05", "0.125"])),
        ("goal_pos", "object_pos", _approach(["0", "0.5", "0.4"], ["0.2", "0.2", "0.2"])),
        ("goal_pos", "tcp_pos", _approach(["0", "0.5", "0.2"], ["0.2", "0.2", "0.2"])),
    )
    return [
        *({"op": "raw", "field": field, "normaliser": norm} for field, norm in raw),
        *({"op": "diff", "a": a, "b": b, "gain": _GAIN, "normaliser": norm} for a, b, norm in diff),
    ]


def _common(*, width: int, seed: int) -> Json:
    sizes = (("tcp_pos", 3, "m"), ("gripper_width", 1, "1"), ("object_pos", 3, "m"), ("goal_pos", 3, "m"))
    return {
        "schema": "iriai-recipe/1",
        "task": {
            "kind": "behaviour-cloning",
            "name": "pick-place",
            "embodiment_class": "7r-arm+parallel-gripper",
        },
        "architecture": {
            "id": "mlp-chunk/1",
            "args": {"width": width, "chunk": 1, "execute": 1, "seed": seed},
        },
        "inputs": [{"field": field, "size": size, "unit": unit} for field, size, unit in sizes],
        "features": _features(),
        "outputs": [
            {
                "field": "tcp_pose_delta",
                "size": 3,
                "unit": "m",
                "normaliser": _approach(["0"] * 3, ["0.01"] * 3),
                "limit": "0.012",
            },
            {
                "field": "gripper_cmd",
                "size": 1,
                "unit": "1",
                "normaliser": _approach(["0"], ["1"]),
                "limit": "1",
            },
        ],
        "clip": "5",
        "rate_hz": None,
        "start": None,
        "tensors": manifest(input_size=19, output_size=4, width=width, chunk=1),
        "need": 3,
        "deadline_s": 60,
    }


def _evaluation(*, episodes: int, noise_multiplier: str) -> Json:
    return {
        "schema": "iriai-eval-plan/1",
        "unit": "episode",
        "adjacency": "zero-out",
        "loss_bound": "0.25",
        "noise_multiplier": noise_multiplier,
        "normalizer": str(max(4, episodes // 5)),
        "threshold": "0.15",
        "delta": DELTA,
        "steps": 4,
    }


def private_recipe(epsilon: str | float = "8", episodes: int = 250, *, seed: int = 2) -> bytes:
    """Canonical bytes of the private recipe.

    Args:
        epsilon: Of the whole run at delta 1e-5; the noise is calibrated to it.
        episodes: Training episodes that each party brings, as the contract says; gives the public divisor.
        seed: Of the initial weights.
    """
    sigma = calibrate(epsilon=float(epsilon), delta=float(DELTA), q=float(SAMPLING_PROB), steps=STEPS)
    plan = {
        "schema": "iriai-dp-plan/1",
        "unit": "episode",
        "adjacency": "zero-out",
        "mechanism": "poisson-gaussian",
        "noise": "local-full",
        "honest_min": None,
        "sampling_prob": SAMPLING_PROB,
        "noise_multiplier": sigma,
        "clip_norm": "0.1",
        "clipping": "flat",
        "steps": STEPS,
        "steps_per_round": 1,
        "normalizer": decimal_text(f"{float(SAMPLING_PROB) * episodes:.4f}"),
        "strata_target": None,
        "frames_per_unit": 32,
        "delta": DELTA,
        "test_only": False,
    }
    server = {
        "kind": "adam",
        "rate": "0.01",
        "decay": "0.01",
        "beta1": "0.9",
        "beta2": "0.99",
        "epsilon": "0.000001",
        "average": "0.97",
        "steps": ROUNDS,
    }
    return canonical(
        _common(width=24, seed=seed)
        | {
            "train": {"kind": "dp-step"},
            "server": server,
            "rounds": ROUNDS,
            "plan": plan,
            "evaluation": _evaluation(episodes=episodes, noise_multiplier="5"),
        }
    )


def plain_recipe(episodes: int = 10, *, seed: int = 2) -> bytes:
    """Canonical bytes of the recipe without privacy, NOT PRIVATE: 100 rounds of 20 local steps."""
    train = {
        "kind": "adam-local",
        "local_steps": 20,
        "batch": 128,
        "rate_first": "0.001",
        "rate_last": "0.00002",
        "weight_decay": "0.00001",
    }
    return canonical(
        _common(width=128, seed=seed)
        | {
            "train": train,
            "server": {"kind": "momentum", "decay": "0.9", "rate": "0.3"},
            "rounds": 100,
            "plan": None,
            "evaluation": _evaluation(episodes=episodes, noise_multiplier="0.1"),
        }
    )
