# SPDX-License-Identifier: Apache-2.0
"""What a ROS 2 message of a type is made of, from the definitions in the bag or else those of ROS 2 Humble.

- A bag's own definitions win: each topic is read by the text that was recorded with it, so that a type whose
  fields changed between two distributions is read as it was written.
- A definition is parsed and never run: no code is made of it.
- A type that neither the bag nor Humble defines is unknown (None); the reader decides what that means.

    types = types_of("sensor_msgs/msg/JointState", text, "ros2msg")
    types["sensor_msgs/msg/JointState"][1]            # Field(name="name", type="string", size=SEQUENCE)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policies.limits import BAG_DEFINITION_BYTES

if TYPE_CHECKING:
    from rosbags.interfaces.typing import FieldDesc, Typesdict

__all__ = [
    "DTYPES",
    "HEADER",
    "JOINT_STATE",
    "MEDIA",
    "PLANNED",
    "SCALAR",
    "SEQUENCE",
    "STRING",
    "Field",
    "MessageTypes",
    "full_name",
    "types_of",
    "unit_of",
]

SCALAR: Final = -1
SEQUENCE: Final = -2
STRING: Final = "string"
HEADER: Final = "std_msgs/msg/Header"
JOINT_STATE: Final = "sensor_msgs/msg/JointState"
PLANNED: Final = frozenset(
    {
        "trajectory_msgs/msg/JointTrajectory",
        "trajectory_msgs/msg/MultiDOFJointTrajectory",
        "moveit_msgs/msg/DisplayTrajectory",
        "moveit_msgs/msg/RobotTrajectory",
        "nav_msgs/msg/Path",
    }
)
MEDIA: Final = frozenset(
    {
        "audio_common_msgs/msg/AudioData",
        "audio_common_msgs/msg/AudioDataStamped",
        "audio_common_msgs/msg/AudioStamped",
        "ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
        "foxglove_msgs/msg/CompressedImage",
        "foxglove_msgs/msg/CompressedVideo",
        "foxglove_msgs/msg/RawAudio",
        "foxglove_msgs/msg/RawImage",
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/Image",
        "theora_image_transport/msg/Packet",
    }
)
DTYPES: Final = {
    "bool": "u1",
    "byte": "u1",
    "char": "u1",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
    "float32": "f4",
    "float64": "f8",
}
# REP 103: SI throughout. What a type's field is measured in, with all that lies below it.
_UNITS: Final = {
    ("sensor_msgs/msg/JointState", "position"): "rad",
    ("sensor_msgs/msg/JointState", "velocity"): "rad/s",
    ("sensor_msgs/msg/JointState", "effort"): "Nm",
    ("trajectory_msgs/msg/JointTrajectoryPoint", "positions"): "rad",
    ("trajectory_msgs/msg/JointTrajectoryPoint", "velocities"): "rad/s",
    ("trajectory_msgs/msg/JointTrajectoryPoint", "accelerations"): "rad/s2",
    ("trajectory_msgs/msg/JointTrajectoryPoint", "effort"): "Nm",
    ("geometry_msgs/msg/Pose", "position"): "m",
    ("geometry_msgs/msg/Pose", "orientation"): "1",
    ("geometry_msgs/msg/Transform", "translation"): "m",
    ("geometry_msgs/msg/Transform", "rotation"): "1",
    ("geometry_msgs/msg/PointStamped", "point"): "m",
    ("geometry_msgs/msg/Twist", "linear"): "m/s",
    ("geometry_msgs/msg/Twist", "angular"): "rad/s",
    ("geometry_msgs/msg/Wrench", "force"): "N",
    ("geometry_msgs/msg/Wrench", "torque"): "Nm",
    ("sensor_msgs/msg/Imu", "orientation"): "1",
    ("sensor_msgs/msg/Imu", "angular_velocity"): "rad/s",
    ("sensor_msgs/msg/Temperature", "temperature"): "degC",
}


class Field(NamedTuple):
    """``type``: a key of `DTYPES`, `STRING` or a message type; ``size``: SCALAR, SEQUENCE or a number."""

    name: str
    type: str
    size: int


MessageTypes = Mapping[str, tuple[Field, ...]]


def full_name(name: str) -> str:
    """``sensor_msgs/msg/JointState``, also where the bag says ``sensor_msgs/JointState``."""
    package, _, rest = name.partition("/")
    return name if "/" in rest or not rest else f"{package}/msg/{rest}"


def unit_of(message: str, field: str) -> str | None:
    """The unit that a field of a message type is measured in, where the type says so."""
    return _UNITS.get((message, field))


def types_of(name: str, definition: str, encoding: str) -> MessageTypes | None:
    """The types that a message of type ``name`` is made of, itself among them.

    Args:
        name: Full name of the type.
        definition: Text recorded with the topic; empty where there is none.
        encoding: ``ros2msg`` or ``ros2idl``.

    Returns:
        None where the type is unknown, or its definition cannot be read.
    """
    if not definition.strip():
        found = _humble()
    elif len(definition) > BAG_DEFINITION_BYTES:
        return None
    else:
        found = _parsed(name, definition, encoding)
    return found if name in found else None


@cache
def _humble() -> MessageTypes:
    from rosbags.typesys import Stores, get_typestore

    return _converted(get_typestore(Stores.ROS2_HUMBLE).fielddefs)


@lru_cache(maxsize=256)
def _parsed(name: str, definition: str, encoding: str) -> MessageTypes:
    from rosbags.typesys import TypesysError, get_types_from_idl, get_types_from_msg

    found: Typesdict = {}
    try:
        if encoding == "ros2msg":
            found = get_types_from_msg(definition, name)
        elif encoding == "ros2idl":
            for part in definition.split("=" * 80 + "\n"):
                text = part.partition("\n")[2] if part.startswith("IDL: ") else part
                found.update(get_types_from_idl(text) if text.strip() else {})
    except (TypesysError, ValueError, KeyError, IndexError, RecursionError):
        return {}
    standard = {n: f for n, f in _humble().items() if n.startswith("builtin_interfaces/")}
    return {**standard, **_converted(found)}


def _converted(types: Typesdict) -> MessageTypes:
    return {name: tuple(_field(n, desc) for n, desc in fields) for name, (_, fields) in types.items()}


def _field(name: str, desc: FieldDesc) -> Field:
    kind: str = desc[0].name
    value: Any = desc[1]
    if kind in ("ARRAY", "SEQUENCE"):
        inner, size = value
        return Field(name, _type(inner), size if kind == "ARRAY" else SEQUENCE)
    return Field(name, _type((desc[0], value)), SCALAR)


def _type(desc: Any) -> str:  # noqa: ANN401  the library's own tuples
    return str(desc[1][0] if desc[0].name == "BASE" else desc[1])
