# SPDX-License-Identifier: Apache-2.0
"""One robot with its tool and controller, as the signal map declares it; only its class may leave.

    embodiment = {class = "6r-arm", dof = 6, action_space = "joint-pos",
                  joint_names = ["shoulder_pan_joint", ...], joint_pos_limit = [[-6.28, 6.28]],
                  joint_vel_limit = [[-2.09, 2.09], ...], joint_torque_limit = [[-330, 330], ...],
                  workspace = [[-0.8, 0.8], [-0.8, 0.8], [0, 1.2]], control_rate_hz = 125,
                  adapter = {gain = 0.7, sign = [1, -1, 1, 1, 1, 1], offset = [0, 0, 0, 0, 0, 0],
                             order = [2, 1, 0, 3, 4, 5]}}

- Limits are pairs (low, high) in SI, one per joint, or one pair for all. They are what the data sheet says,
  never what a recording shows; checks 4, 8 and 11 rest on them.
- Numbers are kept as decimal text, so that a digest is over what was written and not over how a machine
  rounds it.
- The adapter leads from the controller's joints and commands to those of the store: joint ``i`` of the store
  is the controller's joint ``order[i]``, times ``sign[i]``, plus ``offset[i]`` (positions only); commands are
  multiplied by ``gain``. `Adapter.to_store` and `Adapter.to_controller` undo each other. An individual
  package carries the way back.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from policies.encoding import canonical, digest

if TYPE_CHECKING:
    from client.data.series import Array32, Array64

__all__ = ["Adapter", "Embodiment", "adapted"]

_AXES: Final = 3
_PAIR: Final = 2
_DIGITS: Final = 12
_PER_JOINT: Final = ("joint_pos", "joint_vel", "joint_acc", "joint_torque", "joint_current", "joint_temp")
_SIGNED: Final = frozenset({"joint_pos", "joint_vel", "joint_acc", "joint_torque", "joint_current"})
_NO_GAIN: Final = frozenset({"gripper_cmd"})


def _decimal(value: Any) -> Any:  # noqa: ANN401  a raw TOML or JSON value
    """Plain decimal text of a number; the number's own text where one was written."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError("a decimal number") from error
    if not number.is_finite() or (number and not -_DIGITS <= number.adjusted() < _DIGITS):
        raise ValueError("a finite number of ordinary size")
    plain = format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


Dec = Annotated[str, BeforeValidator(_decimal)]
Pairs = list[list[Dec]]
JointName = Annotated[str, StringConstraints(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Adapter(_Part):
    """Controller units and joint order to those of the store, and back. Private; its digest may be shown."""

    gain: Dec = "1"
    sign: list[Literal[1, -1]] | None = None
    offset: list[Dec] | None = None
    order: list[Annotated[int, Field(ge=0, le=63)]] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Adapter:
        if not float(self.gain):
            raise ValueError("a gain other than 0")
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError("order: each joint once, counted from 0")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical document."""
        return digest(canonical(self.model_dump()))

    def to_store(self, values: Array64, field: str, role: str) -> Array64:
        """Values of one field ``[T, k]`` as the store has them, from SI values in the controller's sense."""
        if field in _PER_JOINT:
            values = values if self.order is None else values[:, self.order]
            values = values if self.sign is None or field not in _SIGNED else values * np.array(self.sign)
            if self.offset is not None and field == "joint_pos":
                values = values + np.array([float(one) for one in self.offset])
        return values * float(self.gain) if role == "action" and field not in _NO_GAIN else values

    def to_controller(self, values: Array64, field: str, role: str) -> Array64:
        """The way back of `to_store`."""
        values = values / float(self.gain) if role == "action" and field not in _NO_GAIN else values
        if field not in _PER_JOINT:
            return values
        if self.offset is not None and field == "joint_pos":
            values = values - np.array([float(one) for one in self.offset])
        values = values if self.sign is None or field not in _SIGNED else values * np.array(self.sign)
        return values if self.order is None else values[:, np.argsort(self.order)]


class Embodiment(_Part):
    """The robot's class, joints and action space, as a descriptor may name them; the rest stays here."""

    class_: str = Field(alias="class")
    dof: Annotated[int, Field(ge=1, le=64)]
    action_space: Literal["ee-delta", "joint-pos", "joint-vel", "joint-torque", "none"]
    joint_names: list[JointName] | None = None
    joint_pos_limit: Pairs | None = None
    joint_vel_limit: Pairs | None = None
    joint_torque_limit: Pairs | None = None
    workspace: Pairs | None = None
    control_rate_hz: Dec | None = None
    adapter: Adapter | None = None

    @model_validator(mode="after")
    def _whole(self) -> Embodiment:
        for name in ("joint_pos_limit", "joint_vel_limit", "joint_torque_limit"):
            _check_pairs(name, getattr(self, name), (1, self.dof))
        _check_pairs("workspace", self.workspace, (_AXES,))
        if self.joint_names is not None and len(set(self.joint_names)) != self.dof:
            raise ValueError(f"joint_names: {self.dof} different names")
        if self.control_rate_hz is not None and float(self.control_rate_hz) <= 0:
            raise ValueError("control_rate_hz above 0")
        for name in ("sign", "offset", "order"):
            listed = getattr(self.adapter, name, None)
            if listed is not None and len(listed) != self.dof:
                raise ValueError(f"adapter.{name}: {self.dof} values")
        return self

    def as_dict(self) -> dict[str, Any]:
        """JSON value without what was not declared; `model_validate` reads it again."""
        return self.model_dump(by_alias=True, exclude_none=True)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical document."""
        return digest(canonical(self.as_dict()))

    def limit(self, field: str) -> Array64 | None:
        """Declared limits ``[dof, 2]`` of ``joint_pos``, ``joint_vel`` or ``joint_torque``, if any."""
        pairs: Pairs | None = getattr(self, f"{field}_limit", None)
        if pairs is None:
            return None
        return np.array([[float(low), float(high)] for low, high in (pairs * self.dof)[: self.dof]])

    def joint(self, number: int) -> str:
        """Name of a joint; its number from 1 where none was declared."""
        named = self.joint_names is not None and number < len(self.joint_names)
        return self.joint_names[number] if named and self.joint_names else f"J{number + 1}"


def _check_pairs(name: str, pairs: Pairs | None, counts: tuple[int, ...]) -> None:
    if pairs is None:
        return
    if len(pairs) not in counts:
        raise ValueError(f"{name}: {' or '.join(map(str, counts))} pairs")
    if any(len(pair) != _PAIR or float(pair[0]) >= float(pair[1]) for pair in pairs):
        raise ValueError(f"{name}: pairs of a low and a higher value")


def adapted(values: Array32, adapter: Adapter | None, field: str, role: str) -> Array32:
    """SI values of one field as the store has them; unchanged without an adapter."""
    if adapter is None:
        return values
    return adapter.to_store(values.astype(np.float64), field, role).astype(np.float32)
