# SPDX-License-Identifier: Apache-2.0
"""What the checks measure against: the thresholds of ``iriai-quality/1``, the robot, the recipe's bound.

- `Thresholds` are public constants with a digest, which the certificate names. Those of checks 1 and 2 follow
  GB/Z 218.1-2026 as an open checker transcribes it; the others are conventions of the field.
- Nothing here is learned from the data: a threshold taken from a data set would let one episode decide about
  another.
- `spec_of` makes a `QualitySpec` from what the signal map declares of the robot, and from a recipe if there
  is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import ValidationError

from client.data.embodiment import Embodiment
from client.data.errors import StoreDamagedError
from policies.encoding import canonical, digest
from policies.quality_certificate import RULES

if TYPE_CHECKING:
    from client.data.series import Array64
    from policies.recipe import Recipe

__all__ = ["DEFAULT", "PHYSICAL", "QualitySpec", "Thresholds", "spec_of"]

PHYSICAL: Final[Mapping[str, tuple[float, float]]] = {
    "joint_pos": (-1e4, 1e4),
    "joint_vel": (-1e3, 1e3),
    "joint_acc": (-1e6, 1e6),
    "joint_torque": (-1e5, 1e5),
    "joint_current": (-1e4, 1e4),
    "joint_temp": (0.0, 2e3),
    "tcp_pos": (-1e4, 1e4),
    "tcp_rot": (-1e3, 1e3),
    "tcp_vel": (-1e3, 1e3),
    "tcp_force": (-1e6, 1e6),
    "tcp_pose_delta": (-10.0, 10.0),
    "gripper_width": (-10.0, 10.0),
    "gripper_cmd": (-1e4, 1e4),
    "tool_current": (-1e4, 1e4),
    "object_pos": (-1e4, 1e4),
    "goal_pos": (-1e4, 1e4),
    "payload_mass": (-1e5, 1e5),
    "speed_scaling": (-1e3, 1e3),
    "weld_current_norm": (-1e3, 1e3),
    "weld_voltage_norm": (-1e3, 1e3),
}
"""SI bounds that no robot's value or command of a field is beyond, so wide that only nonsense is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Constants of ``iriai-quality/1``; shares are of frames or of a declared width, from 0 to 1."""

    core_missing: float = 0.05  # 1: of joints, tool, gripper, object, goal
    other_missing: float = 0.20
    gap_periods: float = 1.5  # 2
    gap_share: float = 0.01
    jitter_periods: float = 0.1
    short_periods: float = 0.6  # steps below it are rows of another rate
    even_periods: float = 1e-6  # steps as even as this were made, not measured
    even_frames: int = 100
    skew_s: float = 0.001
    frozen_share: float = 1e-6  # 3: std, of the range
    moving_share: float = 1e-3  # another joint moves: its travel, of the range
    saturated_share: float = 0.02  # 4
    at_limit_share: float = 1e-3
    lag_frames: int = 20  # 5: how far a lag is looked for
    lag_spread: int = 3
    lag_likeness: float = 0.5  # a correlation below says nothing about a lag
    lag_unlike: float = 2.0  # lags with at most so many times the best one's unlikeness are as likely
    lag_floor: float = 1e-4
    travel_rad: float = 0.01  # less travel is not enough motion
    travel_m: float = 0.005
    explain_travels: float = 5.0  # so many times that travel, and a command has to explain it
    explain_share: float = 0.01  # a command that moves less, of the travel, does not move
    reversed_likeness: float = -0.9
    reversed_margin: float = 0.2  # less like than unlike by so much
    scale_likeness: float = 0.9
    scale_times: float = 10.0  # command against measurement of the same quantity
    delta_times: float = 30.0  # step of the tool against the commanded difference
    swapped_rad: float = 0.05
    swapped_share: float = 0.1
    idle_share: float = 0.80  # 7
    idle_rad_s: float = 0.01
    idle_m_s: float = 0.001
    jump_mads: float = 8.0  # 8
    jump_rad_s: float = 25.0  # no joint of an arm is faster, whatever its data sheet
    noise_times: float = 2.0  # steps so many times too large ...
    noise_share: float = 0.05  # ... in so many rows are no single jumps
    path_points: int = 64  # 9
    path_distance: float = 1e-3  # rms, of the range of each joint over the data set
    fence_iqr: float = 3.0  # 10
    fence_episodes: int = 8
    beyond_share: float = 0.05  # 11: of the width of the limit
    agree_s: float = 0.1  # stretch over which velocities are summed
    agree_frames: int = 5
    agree_late_s: float = 0.05  # filters make velocities so late
    agree_period_s: float = 0.06
    agree_rad: float = 0.02  # less way says nothing
    agree_unlike: float = 0.5  # of the larger way
    agree_stretches: int = 4
    agree_share: float = 0.4

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical document, all numbers as text."""
        values = {one.name: f"{getattr(self, one.name):.12g}" for one in fields(self)}
        physical = {name: [f"{one:.12g}" for one in pair] for name, pair in PHYSICAL.items()}
        return digest(canonical({"schema": RULES, "thresholds": values, "physical": physical}))


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySpec:
    """Thresholds, the robot if it is known, and the recipe's bound of the tracking error if it has one."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    embodiment: Embodiment | None = None
    tracking_p95: float | None = None

    def limit(self, name: str) -> Array64 | None:
        """Declared limits ``[dof, 2]`` of ``joint_pos``, ``joint_vel`` or ``joint_torque``, if any."""
        return None if self.embodiment is None else self.embodiment.limit(name)

    @property
    def workspace(self) -> Array64 | None:
        """Declared bounds ``[3, 2]`` of the tool's position, if any."""
        pairs = None if self.embodiment is None else self.embodiment.workspace
        return None if pairs is None else np.array([[float(one) for one in pair] for pair in pairs])

    def joint(self, part: int) -> str:
        """Name of a joint, its number from 1 where none was declared."""
        return f"J{part + 1}" if self.embodiment is None else self.embodiment.joint(part)


DEFAULT: Final = QualitySpec()


def spec_of(embodiment: Embodiment | Mapping[str, Any] | None, recipe: Recipe | None = None) -> QualitySpec:
    """The spec of a data set.

    Args:
        embodiment: As the signal map or the store has it.
        recipe: Its ``quality`` block may bound the tracking error.

    Raises:
        StoreDamagedError: The store's robot is none that a map could declare.
    """
    if isinstance(embodiment, Mapping):
        try:
            embodiment = Embodiment.model_validate(dict(embodiment))
        except ValidationError as error:
            raise StoreDamagedError(
                need="the robot as the signal map declared it",
                found="iriai/embodiment.json or the catalogue with other values",
                remedy="restore the store from a backup, or import again into a fresh one",
            ) from error
    bound = recipe.quality.tracking_p95 if recipe is not None and recipe.quality is not None else None
    return QualitySpec(embodiment=embodiment, tracking_p95=None if bound is None else float(bound))
