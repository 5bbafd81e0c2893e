# SPDX-License-Identifier: Apache-2.0
"""UR10 inverse dynamics: the torque that each joint needs for a motion. One recording, cut into sites.

``ur10/exciting_trajectory.db3``: 3,441 ``sensor_msgs/msg/JointState`` at 125 Hz, 27.5 s, in a ROS 2 bag
(github unisa-acg/inverse-dynamics-solver, BSD-3-Clause).

- **Sites** are contiguous quarters. A quarter is blocks of 86 frames (0.69 s); of ten, six train, two select
  and two report, drawn per site and seed. Each block is an episode, so no feature sees beyond it.
- **Inputs** per joint: sine and cosine of the angle, velocity, its Savitzky-Golay derivative (21 frames,
  third order), and the soft sign of the velocity (0.05 rad/s). **Output**: torque.
- **Constants** are the data sheet's: velocity limits 120 deg/s (base, shoulder) and 180 deg/s, four times as
  much per second for the acceleration, torque limits 330, 330, 150, 56, 56 and 56 Nm.
- **Figure**: squared error of each joint's torque in units of its variance over the whole recording, mean
  over joints (nMSE). 1 is a model that always says the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.frames import frames_of
from client.data.quality import failed_checks
from client.data.readers import claimed
from client.data.segment import cut
from client.data.signalmap import parse_map
from client.learning.tensors import EpisodeArrays, unit_frames
from policies.encoding import canonical
from policies.forward import Forward
from policies.recipe import architecture_manifest, load
from sandbox.errors import SandboxError
from sandbox.real_problem import SITES, Problem, RealSite, arrays, evaluation, shuffled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from client.data.frames import Frames
    from policies.recipe import Recipe

__all__ = ["BLOCK", "SIGNAL_MAP", "problem", "read", "recipe_bytes", "sites"]

FILE: Final = "ur10/exciting_trajectory.db3"
BLOCK: Final = 86
_TRAIN, _SELECT, _BLOCKS = 6, 2, 10
_JOINTS: Final = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
_FIELDS: Final = {"joint_pos": "position", "joint_vel": "velocity", "joint_torque": "effort"}
_RATE_HZ: Final = 125


def _signal(field: str, unit: str, role: str) -> str:
    names = ", ".join(f'"/joint_states:{_FIELDS[field]}.{joint}_joint"' for joint in _JOINTS)
    return f'{{field = "{field}", unit = "{unit}", role = "{role}", columns = [{names}]}}'


SIGNAL_MAP: Final = f"""
clock      = {{column = "header.stamp", unit = "ns", kind = "host"}}
segment    = {{by = "file", max_gap_s = 0.1, min_frames = {BLOCK}}}
embodiment = {{class = "6r-arm", dof = 6, action_space = "none"}}
signal = [
  {_signal("joint_pos", "rad", "observation")},
  {_signal("joint_vel", "rad/s", "observation")},
  {_signal("joint_torque", "Nm", "action")},
]
"""


def problem(data: Path) -> Problem:
    """The problem on the recording below a folder.

    Raises:
        DataError: The bag is not what its map says.
    """
    recorded = read(data / FILE)
    recipe = load(recipe_bytes())
    whole = unit_frames(recipe, [_block(recorded, number) for number in range(SITES * _BLOCKS)])
    variance = np.concatenate([one.targets for one in whole]).var(axis=0)

    def score(
        of: Recipe, weights: npt.NDArray[np.float32], episodes: Sequence[EpisodeArrays]
    ) -> float | None:
        frames, forward = unit_frames(of, episodes), Forward(of, weights)
        errors = np.concatenate([(forward(one.inputs) - one.targets) ** 2 for one in frames])
        return float((errors.mean(axis=0) / variance).mean())

    return Problem(
        name="ur10-inverse-dynamics",
        figure="nMSE of torque",
        lower_is_better=True,
        recipe=recipe,
        alone_steps=1_500,
        sites=lambda seed: sites(recorded, seed=seed),
        score=score,
    )


def read(path: Path) -> Frames:
    """The recording in canonical form.

    Raises:
        DataError: The bag is not what its map says.
        SandboxError: It is another recording: several pieces, or one that fails a check.
    """
    signals = parse_map(SIGNAL_MAP.encode())
    reader = claimed(path)
    allow = frozenset(_FIELDS)
    found = [
        frames_of(series, signals, first, last, allow)
        for series in reader.read(path, reader.probe(path, signals), signals, lambda *_: None)
        for first, last in cut(series, signals).pieces
    ]
    if len(found) != 1 or found[0].length < SITES * _BLOCKS * BLOCK or failed_checks(found[0]):
        raise SandboxError(
            need=f"one sound piece of at least {SITES * _BLOCKS * BLOCK} frames",
            found=f"{len(found)} of {[one.length for one in found]} frames",
            remedy="take exciting_trajectory.db3 as its authors published it",
        )
    return found[0]


def _block(recorded: Frames, number: int) -> EpisodeArrays:
    """Block ``number`` of the recording: the quarters start at quarters of its length."""
    site, place = divmod(number, _BLOCKS)
    first = site * (recorded.length // SITES) + place * BLOCK
    return arrays(
        recorded, slice(first, first + BLOCK), unit=f"block {number}".encode(), acted=["joint_torque"]
    )


def sites(recorded: Frames, *, seed: int) -> tuple[RealSite, ...]:
    """Quarters by time; which blocks train, select and report follows from the seed."""
    found = []
    for site in range(SITES):
        drawn = shuffled(_BLOCKS, seed=seed, site=site)
        blocks = [_block(recorded, site * _BLOCKS + int(at)) for at in drawn]
        found.append(
            RealSite(
                train=blocks[:_TRAIN],
                select=blocks[_TRAIN : _TRAIN + _SELECT],
                report=blocks[_TRAIN + _SELECT :],
            )
        )
    return tuple(found)


def _limit(highs: Sequence[str], scales: Sequence[str]) -> dict[str, Any]:
    return {
        "rule": "limit",
        "low": [f"-{one}" for one in highs],
        "high": list(highs),
        "centre": ["0"] * len(highs),
        "scale": list(scales),
    }


def recipe_bytes() -> bytes:
    """Canonical bytes of the recipe: plain averaging, 50 rounds of 30 local steps."""
    bounded = {"rule": "bounded", "low": [], "high": [], "centre": ["0"] * 6, "scale": ["1"] * 6}
    velocity = _limit(["2.09"] * 2 + ["3.14"] * 4, ["1.21"] * 2 + ["1.81"] * 4)
    acceleration = _limit(["8.36"] * 2 + ["12.6"] * 4, ["4.83"] * 2 + ["7.27"] * 4)
    torques = ["330", "330", "150", "56", "56", "56"]
    architecture = {"id": "mlp-invdyn/1", "args": {"width": 64, "seed": 2}}
    return canonical(
        {
            "schema": "iriai-recipe/1",
            "task": {"kind": "inverse-dynamics", "name": "joint-torque", "embodiment_class": "6r-arm"},
            "architecture": architecture,
            "inputs": [
                {"field": "joint_pos", "size": 6, "unit": "rad"},
                {"field": "joint_vel", "size": 6, "unit": "rad/s"},
            ],
            "features": [
                {"op": "sin", "field": "joint_pos", "normaliser": bounded},
                {"op": "cos", "field": "joint_pos", "normaliser": bounded},
                {"op": "raw", "field": "joint_vel", "normaliser": velocity},
                {
                    "op": "savgol_derivative",
                    "field": "joint_vel",
                    "window": 21,
                    "order": 3,
                    "normaliser": acceleration,
                },
                {"op": "sign_soft", "field": "joint_vel", "v": "0.05", "normaliser": bounded},
            ],
            "outputs": [
                {
                    "field": "joint_torque",
                    "size": 6,
                    "unit": "Nm",
                    "normaliser": _limit(torques, ["191", "191", "86.6", "32.3", "32.3", "32.3"]),
                    "limit": torques,
                }
            ],
            "clip": "5",
            "rate_hz": str(_RATE_HZ),
            "start": None,
            "tensors": architecture_manifest(architecture, input_size=30, output_size=6),
            "loss": {"kind": "nmse"},
            "train": {
                "kind": "adam-local",
                "local_steps": 30,
                "batch": 128,
                "rate_first": "0.002",
                "rate_last": "0.00004",
                "weight_decay": "0.01",
                "proximal": None,
            },
            "server": {"kind": "mean"},
            "rounds": 50,
            "need": 3,
            "deadline_s": 60,
            "plan": None,
            "evaluation": evaluation(_BLOCKS - _TRAIN),
        }
    )
