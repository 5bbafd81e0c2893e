# SPDX-License-Identifier: Apache-2.0
"""Words and numbers of a recipe: the closed list of fields, and the types that its blocks are written in."""

from __future__ import annotations

import math
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from policies.limits import RECIPE_ROUNDS
from policies.privacy.plan import Dec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FIELD_NAMES",
    "FIELD_SIZE",
    "UNIT_MOST",
    "Block",
    "Constant",
    "DigestText",
    "FieldName",
    "Name",
    "PartDec",
    "Seed",
    "Size",
    "UnitName",
    "Whole",
    "plain_constant",
]

FIELD_NAMES: Final = frozenset(
    {
        *("joint_pos", "joint_vel", "joint_acc", "joint_torque", "joint_current", "joint_temp"),
        *("tcp_pos", "tcp_rot", "tcp_vel", "tcp_force", "tcp_pose_delta"),
        *("gripper_width", "gripper_cmd", "tool_current", "object_pos", "goal_pos", "payload_mass"),
        *("speed_scaling", "robot_mode", "safety_mode", "weld_current_norm", "weld_voltage_norm", "outcome"),
    }
)
FIELD_SIZE: Final = 64
_SIGNIFICANT: Final = 3
UNIT_MOST: Final[Mapping[str, float]] = MappingProxyType(
    {
        "m": 1e3,  # a hall
        "rad": 1e3,  # some turns
        "N": 1e5,  # a press
        "Nm": 1e5,
        "A": 1e4,  # a welder
        "s": 1e5,  # a day
        "K": 1e4,
        "1": 1e4,
        "m/s": 1e2,
        "rad/s": 1e4,  # a spindle
    }
)
"""The largest constant of each unit that a robot and its task could need."""


class Block(BaseModel):
    """A part of a recipe: every key spelled out, unknown keys refused, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ignored_types=(cached_property,))


def plain_constant(text: str) -> str:
    """A constant of a normaliser: plain decimal, signed, at most three significant digits.

    Raises:
        ValueError: With what it should be.
    """
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError("a decimal as a string") from error
    digits = text.lstrip("-").replace(".", "").lstrip("0").rstrip("0")
    plain = format(value, ".9f").rstrip("0").rstrip(".")
    if not math.isfinite(value) or plain != text or text == "-0":
        raise ValueError(f"plain notation, {plain!r}")
    if len(digits) > _SIGNIFICANT:
        raise ValueError(
            "a public constant of at most three significant digits (learned statistics have more)"
        )
    return text


def _part(text: str) -> str:
    if float(text) > 1:
        raise ValueError("from 0 to 1")
    return text


PartDec = Annotated[Dec, AfterValidator(_part)]
Constant = Annotated[str, StringConstraints(pattern=r"^-?[0-9]{1,6}(\.[0-9]{1,9})?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
UnitName = Literal["m", "rad", "N", "Nm", "A", "s", "K", "1", "m/s", "rad/s"]
Size = Annotated[int, Field(strict=True, ge=1, le=FIELD_SIZE)]
DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Whole = Annotated[int, Field(strict=True, ge=1, le=RECIPE_ROUNDS)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
