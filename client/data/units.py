# SPDX-License-Identifier: Apache-2.0
"""Units of signal maps, their SI conversion, and what each field is measured in. Done once, at import.

Three words turn three columns into a unit quaternion (w, x, y, z) with w >= 0:

- ``rotvec``: a rotation vector in rad.
- ``euler-zyx`` and ``euler-zyx-deg``: angles about Z, then the turned Y, then the twice turned X, in this
  order of columns: q = qz(first) qy(second) qx(third). These are KUKA's A, B, C, and FANUC's R, P, W (turns
  about the fixed X, Y, Z are the same rotation, read backwards).

    to_si([[90, 0, 0]], "euler-zyx-deg")     # [[0.7071, 0, 0, 0.7071]]: a quarter turn about Z
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from client.data.series import Array64

__all__ = ["FIELD_RULES", "ROTATION", "UNITS", "FieldRule", "Unit", "euler_zyx", "quaternion_of", "to_si"]

ROTATION: Final = "rotation"  # dimension of the units that become quaternions

_DEGREE: Final = np.pi / 180
_NO_ANGLE: Final = 1e-12


class Unit(NamedTuple):
    """SI value = factor * value + offset. ``dimension`` is the SI unit that results, or `ROTATION`."""

    dimension: str
    factor: float
    offset: float = 0.0


UNITS: Final[dict[str, Unit]] = {
    "1": Unit("1", 1.0),
    "%": Unit("1", 0.01),
    "m": Unit("m", 1.0),
    "cm": Unit("m", 0.01),
    "mm": Unit("m", 0.001),
    "rad": Unit("rad", 1.0),
    "deg": Unit("rad", _DEGREE),
    "rotvec": Unit(ROTATION, 1.0),
    "euler-zyx": Unit(ROTATION, 1.0),
    "euler-zyx-deg": Unit(ROTATION, _DEGREE),
    "rad/s": Unit("rad/s", 1.0),
    "deg/s": Unit("rad/s", _DEGREE),
    "rpm": Unit("rad/s", np.pi / 30),
    "rad/s2": Unit("rad/s2", 1.0),
    "deg/s2": Unit("rad/s2", _DEGREE),
    "m/s": Unit("m/s", 1.0),
    "mm/s": Unit("m/s", 0.001),
    "N": Unit("N", 1.0),
    "Nm": Unit("Nm", 1.0),
    "A": Unit("A", 1.0),
    "mA": Unit("A", 0.001),
    "K": Unit("K", 1.0),
    "degC": Unit("K", 1.0, 273.15),
    "kg": Unit("kg", 1.0),
    "g": Unit("kg", 0.001),
}


class FieldRule(NamedTuple):
    """Which SI units a field may have, and how many columns (empty: as many as the robot has joints)."""

    dimensions: frozenset[str]
    sizes: frozenset[int]


def _rule(dimensions: str, *sizes: int) -> FieldRule:
    return FieldRule(frozenset(dimensions.split()), frozenset(sizes))


FIELD_RULES: Final[dict[str, FieldRule]] = {
    "joint_pos": _rule("rad m"),
    "joint_vel": _rule("rad/s m/s"),
    "joint_acc": _rule("rad/s2"),
    "joint_torque": _rule("Nm N"),
    "joint_current": _rule("A"),
    "joint_temp": _rule("K"),
    "tcp_pos": _rule("m", 3),
    "tcp_rot": _rule("1 rad " + ROTATION, 3, 4),
    "tcp_vel": _rule("m/s rad/s", 3, 6),
    "tcp_force": _rule("N Nm", 3, 6),
    "tcp_pose_delta": _rule("m rad", 3, 6),
    "gripper_width": _rule("m 1", 1),
    "gripper_cmd": _rule("1 m", 1),
    "tool_current": _rule("A", 1),
    "object_pos": _rule("m", 3),
    "goal_pos": _rule("m", 3),
    "payload_mass": _rule("kg", 1),
    "speed_scaling": _rule("1", 1),
    "robot_mode": _rule("1", 1),
    "safety_mode": _rule("1", 1),
    "weld_current_norm": _rule("1", 1),
    "weld_voltage_norm": _rule("1", 1),
    "outcome": _rule("1", 1),
}


def to_si(values: Array64, unit: str) -> Array64:
    """Values ``[T, k]`` in SI, missing stays missing; a rotation becomes a quaternion ``[T, 4]``."""
    found = UNITS[unit]
    if found.dimension == ROTATION:
        return quaternion_of(values) if unit == "rotvec" else euler_zyx(values * found.factor)
    return values if (found.factor, found.offset) == (1.0, 0.0) else values * found.factor + found.offset


def quaternion_of(rotation: Array64) -> Array64:
    """Unit quaternion (w, x, y, z) of rotation vectors ``[T, 3]`` in rad, with w >= 0."""
    angle = np.linalg.norm(rotation, axis=1, keepdims=True)
    half = angle / 2
    # sin(a/2)/a has the limit 1/2 at 0
    turned = angle > _NO_ANGLE
    ratio = np.where(turned, np.sin(half) / np.where(turned, angle, 1.0), 0.5)
    return _upper(np.concatenate([np.cos(half), ratio * rotation], axis=1))


def euler_zyx(angles: Array64) -> Array64:
    """Unit quaternion (w, x, y, z) of angles ``[T, 3]`` in rad about Z, Y', X'', with w >= 0."""
    cz, cy, cx = np.cos(angles / 2).T
    sz, sy, sx = np.sin(angles / 2).T
    return _upper(
        np.column_stack(
            [
                cz * cy * cx + sz * sy * sx,
                cz * cy * sx - sz * sy * cx,
                cz * sy * cx + sz * cy * sx,
                sz * cy * cx - cz * sy * sx,
            ]
        )
    )


def _upper(quaternion: Array64) -> Array64:
    """Of the two quaternions of one rotation the one with w >= 0."""
    return np.where(quaternion[:, :1] < 0, -quaternion, quaternion)
