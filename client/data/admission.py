# SPDX-License-Identifier: Apache-2.0
"""What is settled about an import before a row is read: its map, its fields, its unit, its robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.errors import FieldNotAllowedError, MapInvalidError, MissingColumnError, ShapeChangedError
from client.data.owners import EPISODE, unit_of
from client.data.signalmap import SignalMap, canonical_map, parse_map
from policies.encoding import canonical, decimal_text
from policies.messages import EMBODIMENT_CLASSES
from policies.privacy.errors import UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from client.data.series import Int64, Probe

__all__ = [
    "ACTION_SPACES",
    "check_fields",
    "check_shape",
    "check_unit",
    "check_windows",
    "dropped_columns",
    "embodiment_of",
    "map_of",
    "measured_rate",
    "rate_text",
    "robot_of",
]

_SLOWEST_HZ: Final = 0.01
_FASTEST_HZ: Final = 100_000
ACTION_SPACES: Final = {
    "tcp_pose_delta": "ee-delta",
    "joint_pos": "joint-pos",
    "joint_vel": "joint-vel",
    "joint_torque": "joint-torque",
}


def map_of(probe: Probe) -> SignalMap:
    """The map of a source whose channels bear canonical names.

    Raises:
        MapInvalidError: They do not.
    """
    names, text = probe.extra.get("names"), probe.extra.get("map")  # a format may bring a whole map
    found = parse_map(text.encode("utf-8")) if text else canonical_map(names) if names else None
    if found is None:
        raise MapInvalidError(
            need="a signal map, or channels with canonical names (tcp_pos_0, ...)",
            found=f"{probe.reader} with the channels " + ", ".join(probe.channels[:5]),
            remedy="iriai-node data inspect PATH --out map.toml proposes one; name it with --map",
        )
    return found


def check_fields(signals: SignalMap, allow: frozenset[str], required: frozenset[str], clause: str) -> None:
    """Refuses a map that lacks a needed field, or has none that is allowed.

    Raises:
        FieldNotAllowedError: A needed field is not on the list, or no mapped one is.
        MissingColumnError: A needed field is not mapped.
    """
    mapped = {s.field for s in signals.signals} | {label.field for label in signals.labels}
    if required - allow:
        raise FieldNotAllowedError(
            need="fields " + ", ".join(sorted(required - allow)),
            found="they are not on the allow-list",
            remedy="amend the contract or this node's list, or use another recipe",
            clause=clause,
        )
    if required - mapped:
        raise MissingColumnError(
            need="fields " + ", ".join(sorted(required - mapped)),
            found="a recording without them: " + (", ".join(sorted(mapped)) or "nothing"),
            remedy="record them, or map their columns",
        )
    if not {s.field for s in signals.signals} & allow:
        raise FieldNotAllowedError(
            need="at least one field of the allow-list",
            found="only " + ", ".join(sorted(mapped)),
            remedy="map the fields that the contract names",
            clause=clause,
        )


def check_unit(signals: SignalMap, allowed: Collection[str], whose: str) -> None:
    """Refuses data whose unit is another than somebody's.

    Raises:
        UnitRefusedError: It is.
    """
    found, wanted = unit_of(signals), sorted(allowed)
    if not wanted or found in wanted:
        return
    keys = [f'unit = {{kind = "{one}", column = ...}}' for one in wanted if one != EPISODE]
    if EPISODE in wanted:
        remedy = f"remove the unit line from the signal map, or sign a contract whose unit is {found}"
    else:
        remedy = f"name the key in the signal map: {' or '.join(keys)}"
    raise UnitRefusedError(
        need=f"unit {' or '.join(wanted)}, as {whose} protects it", found=found, remedy=remedy
    )


def check_windows(signals: SignalMap) -> None:
    """Refuses windows whose owner nobody named: one attempt may lie in two of them.

    Raises:
        UnitRefusedError: The rule is ``window`` and the map names no unit key.
    """
    if signals.segment.by == "window" and signals.unit is None:
        raise UnitRefusedError(
            need='a unit key in the signal map, for segment by "window"',
            found="each window a unit of its own, though one attempt may lie in two",
            remedy='name the key: unit = {kind = "work-piece", column = ...}; or cut by another rule',
        )


def check_shape(signals: SignalMap, allow: frozenset[str], there: Mapping[str, int], name: str) -> None:
    """Refuses fields of other names or sizes than a data set has, before a row is read.

    Args:
        signals: The map.
        allow: Fields that may enter.
        there: Columns of the data set, with the values of each per frame.
        name: Of the data set.

    Raises:
        ShapeChangedError: Names the first such field, with both sizes.
    """
    kept = {s.key: s.size for s in signals.signals if s.field in allow or s.key in signals.private_keys}
    for key in sorted({*kept, *there}):
        if kept.get(key) == there.get(key):
            continue
        raise ShapeChangedError(
            need=f"{key} as {name} has it: {_values(there.get(key))}",
            found=_values(kept.get(key)),
            remedy="correct the columns in the signal map; or import into a data set of another name, "
            "which inherits the lineage",
        )


def _values(size: int | None) -> str:
    return "not at all" if size is None else f"{size} values a frame" if size > 1 else "1 value a frame"


def dropped_columns(probe: Probe, signals: SignalMap, allow: frozenset[str]) -> tuple[str, ...]:
    """Channels that do not reach the store, secret ones not named."""
    stored = {s.key for s in signals.signals if s.field in allow} | signals.private_keys
    kept = {c for s in signals.signals if s.key in stored for c in s.columns}
    kept |= {signals.clock.column} if signals.clock and signals.clock.column else set()
    kept |= {label.column for label in signals.labels if label.field in allow}
    return tuple(c for c in probe.channels if c not in kept and not signals.is_secret(c))


def measured_rate(stamps_ns: Int64) -> float | None:
    """Median rate in Hz of rising stamps; None where none rises."""
    step = np.diff(stamps_ns)
    rising = step[step > 0]
    return 1e9 / float(np.median(rising)) if len(rising) else None


def rate_text(rate_hz: float) -> str:
    """A rate with three digits, as the catalogue writes it.

    Raises:
        MapInvalidError: No recording of a process has such a rate; stamps made by it would be nonsense.
    """
    if not _SLOWEST_HZ <= rate_hz <= _FASTEST_HZ:  # also what is no number
        raise MapInvalidError(
            need=f"a rate of {_SLOWEST_HZ} to {_FASTEST_HZ} Hz",
            found=f"{rate_hz:.3g} Hz",
            remedy="correct the rate in the source or in clock of the signal map",
        )
    return decimal_text(f"{float(f'{rate_hz:.3g}'):.6f}")


def embodiment_of(signals: SignalMap, probe: Probe) -> Mapping[str, Any] | None:
    """Of the map, else of a ``robot_type`` that is an embodiment class."""
    found = signals.embodiment
    if found is not None:
        return found.as_dict()
    if probe.robot_type not in EMBODIMENT_CLASSES:
        return None
    actions = {s.field for s in signals.signals if s.role == "action"}
    space = next((space for field, space in ACTION_SPACES.items() if field in actions), "none")
    return {"class": probe.robot_type, "dof": int(probe.robot_type.split("r-", 1)[0]), "action_space": space}


def robot_of(current: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The robot of a data set after an import: limits may be given later, another robot may not come in.

    Raises:
        ShapeChangedError: Another class, number of joints, action space or adapter than the data set has.
    """
    if current is None or found is None:
        return current or found
    for name in ("class", "dof", "action_space", "adapter"):
        there, new = canonical(current.get(name)), canonical(found.get(name))
        if there != new:
            raise ShapeChangedError(
                need=f"recordings of the robot that the data set has, with {name} {there.decode()[:60]}",
                found=new.decode()[:60],
                remedy="import into a data set of another name, or correct embodiment in the signal map",
            )
    merged = {**current, **found}
    return current if canonical(merged) == canonical(dict(current)) else merged
