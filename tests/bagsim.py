# SPDX-License-Identifier: Apache-2.0
"""Bags that tests make: a robot's messages from arrays, written by the writers of rosbags and mcap themselves.

said = Arm.moving(200).said()
write_db3(tmp_path / "bag", said)            # a folder with metadata.yaml
write_mcap(tmp_path / "run.mcap", said)
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapFile
from rosbags.rosbag2 import Writer as Rosbag2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
PERIOD_NS = 8_000_000
START_NS = 1_795_000_000_000_000_000
JOINT_STATE = "sensor_msgs/msg/JointState"
WRENCH = "geometry_msgs/msg/WrenchStamped"
ACME = "acme_msgs/msg/Weld"
STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(
    get_types_from_msg("std_msgs/Header header\nfloat32 current\nbool arc\nstring program\n", ACME)
)
T = STORE.types


class Said(NamedTuple):
    """One message as it was logged: an object of `STORE`, or its bytes."""

    topic: str
    type: str
    log_ns: int
    message: Any

    @property
    def data(self) -> bytes:
        if isinstance(self.message, bytes):
            return self.message
        return bytes(STORE.serialize_cdr(self.message, self.type))


def header(stamp_ns: int, frame: str = "base") -> Any:
    time = T["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return T["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def joint_state(
    stamp_ns: int, names: Iterable[str], position: Any, velocity: Any = (), effort: Any = ()
) -> Any:
    values = [np.asarray(v, dtype=np.float64) for v in (position, velocity, effort)]
    return T[JOINT_STATE](header(stamp_ns), list(names), *values)


def wrench(stamp_ns: int, force: Any, torque: Any = (0.0, 0.0, 0.0)) -> Any:
    vectors = [T["geometry_msgs/msg/Vector3"](*map(float, v)) for v in (force, torque)]
    return T[WRENCH](header(stamp_ns, "tool"), T["geometry_msgs/msg/Wrench"](*vectors))


@dataclass
class Arm:
    """Six joints that move: ``position``, ``velocity``, ``effort`` ``[T, 6]`` and their stamps."""

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    stamps_ns: np.ndarray
    names: tuple[str, ...] = JOINTS
    topic: str = "/joint_states"
    orders: list[int] = field(default_factory=list)

    @classmethod
    def moving(cls, rows: int, *, seed: int = 0, start_ns: int = START_NS) -> Arm:
        rng = np.random.default_rng(seed)
        position = np.cumsum(rng.standard_normal((rows, 6)) * 1e-2, axis=0)
        velocity = np.gradient(position, PERIOD_NS / 1e9, axis=0) if rows > 1 else np.zeros((rows, 6))
        jitter = rng.integers(-50_000, 50_000, rows)
        return cls(
            position,
            velocity,
            rng.standard_normal((rows, 6)) * 10,
            start_ns + np.arange(rows, dtype=np.int64) * PERIOD_NS + jitter,
        )

    def said(self, *, shuffled: bool = False, log_delay_ns: int = 100_000) -> list[Said]:
        """One message per row; shuffled: each with its names in another order."""
        rng = np.random.default_rng(7)
        found = []
        for row, stamp in enumerate(self.stamps_ns.tolist()):
            order = rng.permutation(6) if shuffled else np.arange(6)
            values = (self.position[row][order], self.velocity[row][order], self.effort[row][order])
            message = joint_state(stamp, [self.names[i] for i in order], *values)
            found.append(Said(self.topic, JOINT_STATE, stamp + log_delay_ns, message))
        return found

    def part(self, first: int, last: int) -> Arm:
        rows = slice(first, last)
        return replace(
            self,
            position=self.position[rows],
            velocity=self.velocity[rows],
            effort=self.effort[rows],
            stamps_ns=self.stamps_ns[rows],
        )


def arm_map(
    *,
    topic: str = "/joint_states",
    names: Iterable[str] = JOINTS,
    more: str = "",
    clock: str = "",
    head: str = "",
) -> str:
    """A signal map for an arm's joints; ``more``: lines of further signals."""
    lines = [
        f'  {{field = "{name}", columns = [{", ".join(f"{chr(34)}{topic}:{array}.{n}{chr(34)}" for n in names)}], '
        f'unit = "{unit}", role = "observation"}},'
        for name, array, unit in (
            ("joint_pos", "position", "rad"),
            ("joint_vel", "velocity", "rad/s"),
            ("joint_torque", "effort", "Nm"),
        )
    ]
    clock = f"clock = {clock}\n" if clock else ""
    return f"{head}{clock}signal = [\n" + "\n".join(lines) + f"\n{more}]\n"


def write_db3(
    folder: Path,
    said: Iterable[Said],
    *,
    metadata: bool = True,
    definitions: bool = True,
    extra: Iterable[str] = (),
) -> Path:
    """A bag folder, as rosbags writes it. Without definitions: the older schema 3. ``extra``: silent topics."""
    with Rosbag2(folder, version=8) as bag:
        connections: dict[str, Any] = {}
        for topic, kind in [*((one.topic, one.type) for one in said), *((t, JOINT_STATE) for t in extra)]:
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=STORE)
        for one in said:
            bag.write(connections[one.topic], one.log_ns, one.data)
    if not definitions:
        with sqlite3.connect(folder / f"{folder.name}.db3") as old:
            old.execute("DROP TABLE message_definitions")
            old.execute("DROP TABLE metadata")
            old.execute("UPDATE schema SET schema_version = 3")
            old.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
        old.close()
    if not metadata:
        (folder / "metadata.yaml").unlink()
    return folder


def write_mcap(
    path: Path,
    said: Iterable[Said],
    *,
    compression: str = "zstd",
    chunk_size: int = 16 * 1024,
    chunked: bool = True,
    index: bool = True,
    definitions: bool = True,
    data_crc: bool = False,
    encoding: str = "cdr",
) -> Path:
    """An MCAP file, as mcap writes it. Without index: no summary at all."""
    with path.open("wb") as file:
        writer = McapFile(
            file,
            chunk_size=chunk_size,
            compression=CompressionType[compression.upper()],
            use_chunking=chunked,
            index_types=IndexType.ALL if index else IndexType.NONE,
            repeat_channels=index,
            repeat_schemas=index,
            use_statistics=index,
            use_summary_offsets=index,
            enable_data_crcs=data_crc,
        )
        writer.start(profile="ros2", library="test")
        channels: dict[str, int] = {}
        for number, one in enumerate(said):
            if one.topic not in channels:
                text = STORE.generate_msgdef(one.type, ros_version=2)[0] if definitions else ""
                schema = writer.register_schema(one.type, "ros2msg" if definitions else "", text.encode())
                channels[one.topic] = writer.register_channel(one.topic, encoding, schema)
            writer.add_message(channels[one.topic], one.log_ns, one.data, one.log_ns, number)
        writer.finish()
    return path
