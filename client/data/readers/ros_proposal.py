# SPDX-License-Identifier: Apache-2.0
"""A map for a bag with one `JointState` topic: `data inspect` prints it, an import without a map uses it.

- Joints are ordered by name (``joint_2`` before ``joint_10``), and a UR arm's from the base to the wrist:
  never as a driver happened to send them, so that two bags of one robot give the same columns.
- Fingers and grippers are left out and named in a comment: their position is in metres or a share, and the
  message does not say which.
- A name that cannot stand in a map (client.data.mapnames) makes no proposal.
- Effort is taken as a torque in Nm, as REP 103 says; a driver that puts a current there needs its own map.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from client.data.mapnames import is_plain, quoted, shown

if TYPE_CHECKING:
    from client.data.series import Probe

__all__ = ["propose_bag_map"]

_FIELDS: Final = (
    ("position", "joint_pos", "rad"),
    ("velocity", "joint_vel", "rad/s"),
    ("effort", "joint_torque", "Nm"),
)
_UR: Final = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
_NO_ARM: Final = re.compile(r"finger|gripper|knuckle|jaw", re.IGNORECASE)


def propose_bag_map(probe: Probe) -> str:
    """TOML text of a map for the bag behind a probe; empty unless it has exactly one JointState topic."""
    topic, columns, left = _columns(probe)
    if not columns or not all(
        is_plain(one) for one in (topic, *(c for some in columns.values() for c in some))
    ):
        return ""
    lines = [
        'schema = "iriai-signalmap/1"',
        f'clock = {{column = {quoted(f"{topic}:{_stamp(probe, topic)}")}, unit = "ns", kind = "host"}}',
        'segment = {by = "file"}',
    ]
    lines += [f"# left out, its unit is not known: {shown(joint)}" for joint in left]
    lines.append("signal = [")
    for array, field, unit in _FIELDS:
        if array in columns:
            names = ", ".join(map(quoted, columns[array]))
            lines.append(
                f'  {{field = "{field}", columns = [{names}], unit = "{unit}", role = "observation"}},'
            )
    return "\n".join([*lines, "]", ""])


def _columns(probe: Probe) -> tuple[str, dict[str, list[str]], list[str]]:
    """Topic, columns of each array in the order of joints, and joints that are left out."""
    topics = probe.extra.get("joint_states", ())
    if len(topics) != 1:
        return "", {}, []
    topic = topics[0]
    arrays: dict[str, dict[str, str]] = {}
    for array, _, _ in _FIELDS:
        start = f"{topic}:{array}."
        found = {c.removeprefix(start): c for c in probe.channels if c.startswith(start)}
        if found:
            arrays[array] = found
    joints = _ordered(set().union(*arrays.values()) if arrays else set())
    left = [joint for joint in joints if _NO_ARM.search(joint)]
    arm = [joint for joint in joints if joint not in left]
    whole = {array: found for array, found in arrays.items() if arm and all(joint in found for joint in arm)}
    return topic, {array: [found[joint] for joint in arm] for array, found in whole.items()}, left


def _ordered(joints: set[str]) -> list[str]:
    return sorted(joints, key=lambda joint: (_from_the_base(joint), _natural(joint)))


def _from_the_base(joint: str) -> int:
    return next((place for place, stem in enumerate(_UR) if re.search(rf"{stem}(_|$)", joint)), len(_UR))


def _natural(joint: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d{1,9})", joint)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part]


def _stamp(probe: Probe, topic: str) -> str:
    return "header.stamp" if f"{topic}:header.stamp" in probe.channels else "log_time"
