# SPDX-License-Identifier: Apache-2.0
"""Recordings of a moving arm in every format that the node reads, of a size that is asked for.

Six joints at 125 Hz, smooth velocities and the positions that follow from them, torques of noise; attempts of
ten seconds with a pause of two between them. Equal arguments give equal values. Every writer is the format's
own library, as far as it has one, so that what is measured is reading and not a shortcut of ours.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FIELDS", "FORMATS", "IngestSet", "write_set"]

FIELDS: Final = ("joint_pos", "joint_vel", "joint_torque")
RATE_HZ: Final = 125
_JOINTS: Final = 6
_ROLE: Final = "observation"
_ROWS: Final = 10 * RATE_HZ  # of an episode
_PERIOD_NS: Final = 10**9 // RATE_HZ
_START_NS: Final = 1_795_000_000 * 10**9
_PAUSE_NS: Final = 2 * 10**9
_FILE_MB: Final = 64  # of one file, where a format keeps many
_NAMES: Final = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
_SIGNALS: Final = (
    ("joint_pos", "rad", "position"),
    ("joint_vel", "rad/s", "velocity"),
    ("joint_torque", "Nm", "effort"),
)
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSet:
    """What was written: source, its map (None where channels bear canonical names), and how much it is."""

    source: Path
    signal_map: Path | None
    megabytes: float
    episodes: int
    frames: int


def _episode(number: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Stamps ``[T]`` and values ``[T, 18]`` of one attempt."""
    rng = np.random.default_rng(number)
    stamps = _START_NS + number * (_ROWS * _PERIOD_NS + _PAUSE_NS) + np.arange(_ROWS) * _PERIOD_NS
    stamps += rng.integers(-20_000, 20_000, _ROWS)
    pushes = np.cumsum(rng.standard_normal((_ROWS, _JOINTS)), axis=0) / RATE_HZ
    velocity = pushes - pushes.mean(axis=0)  # rad/s
    position = np.cumsum(velocity, axis=0) / RATE_HZ
    torque = rng.standard_normal((_ROWS, _JOINTS))
    return stamps, np.hstack([position, velocity, torque]).round(6)


def _map(columns: Callable[[str, str], str], head: str) -> str:
    lines = [
        f'  {{field = "{field}", columns = [{columns(field, array)}], unit = "{unit}", role = "{_ROLE}"}},'
        for field, unit, array in _SIGNALS
    ]
    return "\n".join([head, "signal = [", *lines, "]", ""])


def _table(number: int) -> Any:  # noqa: ANN401  a pyarrow table
    import pyarrow as pa

    stamps, values = _episode(number)
    names = [f"{field}_{i}" for field, _, _ in _SIGNALS for i in range(_JOINTS)]
    cycle = pa.array([str(number)] * _ROWS)
    columns = {"t": pa.array(stamps), "cycle": cycle} | dict(zip(names, values.T, strict=True))
    return pa.table(columns)


_TABLE_HEAD: Final = (
    'clock = {column = "t", unit = "ns", kind = "host"}\n'
    'segment = {by = "column", column = "cycle", max_gap_s = 5.0}'
)


def _plain(field: str, _: str) -> str:
    return f'"{field}_{{0..5}}"'


def _csv(folder: Path, episodes: int) -> str:
    import pyarrow.csv as pacsv

    with (folder / "log.csv").open("wb") as file:
        for number in range(episodes):
            options = pacsv.WriteOptions(include_header=number == 0, quoting_style="none")
            pacsv.write_csv(_table(number), file, options)
    return _map(_plain, _TABLE_HEAD)


def _parquet(folder: Path, episodes: int) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(folder / "log.parquet", _table(0).schema) as writer:
        for first in range(0, episodes, 100):  # row groups as other programs make them, larger than a part
            tables = [_table(number) for number in range(first, min(episodes, first + 100))]
            writer.write_table(pa.concat_tables(tables))
    return _map(_plain, _TABLE_HEAD)


def _lerobot_v3(folder: Path, episodes: int) -> None:
    from sandbox.lerobot_writer import Feature, Frames, write_dataset

    names = tuple(f"{field}_{i}" for field, _, _ in _SIGNALS for i in range(_JOINTS))
    feature = "observation.state"
    write_dataset(
        folder / "set",
        rate_hz=RATE_HZ,
        robot_type="6r-arm",
        features={feature: Feature(names=names)},
        episodes=[
            Frames(task="move", columns={feature: _episode(n)[1].astype(np.float32)}) for n in range(episodes)
        ],
        splits={"train": (0, episodes)},
        episodes_per_file=500,
    )


def _lerobot_v21(folder: Path, episodes: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = folder / "set"
    (root / "meta").mkdir(parents=True)
    names = [f"{field}_{i}" for field, _, _ in _SIGNALS for i in range(_JOINTS)]
    frame = np.arange(_ROWS)
    for number in range(episodes):
        path = root / f"data/chunk-{number // 1000:03d}/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = pa.array(_episode(number)[1].astype(np.float32).ravel())
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(flat, len(names)),
            "timestamp": pa.array((frame / RATE_HZ).astype(np.float32)),
            "frame_index": frame,
            "episode_index": np.full(_ROWS, number),
            "index": frame + number * _ROWS,
            "task_index": np.zeros(_ROWS, dtype=np.int64),
        }
        pq.write_table(pa.table(columns), path)
    index = {name: {"dtype": "int64", "shape": [1], "names": None} for name in list(columns)[2:]}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "6r-arm",
        "total_episodes": episodes,
        "chunks_size": 1000,
        "fps": RATE_HZ,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [len(names)], "names": names},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
            **index,
        },
    }
    rows = [json.dumps({"episode_index": n, "tasks": ["move"], "length": _ROWS}) for n in range(episodes)]
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    (root / "meta/episodes.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "move"}\n', encoding="utf-8")


def _robomimic(folder: Path, episodes: int) -> str:
    import h5py

    with h5py.File(folder / "demos.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes * _ROWS
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": RATE_HZ}})
        for number in range(episodes):
            values = _episode(number)[1]
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = _ROWS
            demo["actions"] = values[:, :_JOINTS]
            for at, (field, _, _) in enumerate(_SIGNALS):
                demo[f"obs/{field}"] = values[:, at * _JOINTS : (at + 1) * _JOINTS]
    return _map(lambda field, _: f'"obs/{field}_{{0..5}}"', f"clock = {{rate_hz = {RATE_HZ}}}")


class _JointStates:
    """Messages of joints as the robot's driver would serialise them; only numbers and stamps differ."""

    TYPE: Final = "sensor_msgs/msg/JointState"

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS2_HUMBLE)
        types = self.store.types
        marked = np.arange(3.0 * _JOINTS) + 0.123
        time = types["builtin_interfaces/msg/Time"](sec=11, nanosec=12)
        header = types["std_msgs/msg/Header"](stamp=time, frame_id="base")
        message = types[self.TYPE](header, list(_NAMES), *np.split(marked, 3))
        self._template = np.frombuffer(bytes(self.store.serialize_cdr(message, self.TYPE)), dtype=np.uint8)
        self._at = [self._template.tobytes().index(np.float64(one).tobytes()) for one in marked]

    def of(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Stamp and bytes of each message of an episode."""
        stamps, values = _episode(number)
        block = np.tile(self._template, (_ROWS, 1))
        seconds = np.column_stack([stamps // 10**9, stamps % 10**9]).astype("<u4")
        block[:, 4:12] = np.ascontiguousarray(seconds).view(np.uint8)
        for column, at in enumerate(self._at):
            block[:, at : at + 8] = np.ascontiguousarray(values[:, column]).view(np.uint8).reshape(-1, 8)
        return zip(stamps.tolist(), (row.tobytes() for row in block), strict=True)


def _bag_map() -> str:
    def columns(_: str, array: str) -> str:
        return ", ".join(f'"/joint_states:{array}.{name}"' for name in _NAMES)

    return _map(columns, 'segment = {by = "file", max_gap_s = 1.0}')


def _db3(folder: Path, episodes: int) -> str:
    from rosbags.rosbag2 import Writer

    states = _JointStates()
    with Writer(folder / "bag", version=9) as writer:
        topic = writer.add_connection("/joint_states", states.TYPE, typestore=states.store)
        for number in range(episodes):
            for stamp, data in states.of(number):
                writer.write(topic, stamp, data)
    return _bag_map()


def _mcap(folder: Path, episodes: int) -> str:
    from mcap.writer import Writer

    states = _JointStates()
    with (folder / "run.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        text = states.store.generate_msgdef(states.TYPE, ros_version=2)[0]
        schema = writer.register_schema(name=states.TYPE, encoding="ros2msg", data=text.encode())
        topic = writer.register_channel("/joint_states", "cdr", schema)
        for number in range(episodes):
            for at, (stamp, data) in enumerate(states.of(number)):
                writer.add_message(topic, log_time=stamp, data=data, publish_time=stamp, sequence=at)
        writer.finish()  # type: ignore[no-untyped-call]
    return _bag_map()


def _mtconnect(folder: Path, episodes: int) -> str:
    sequence, per_file = 1, 5
    for first in range(0, episodes, per_file):
        numbers = range(first, min(episodes, first + per_file))
        sequence = _answer(folder / f"answer-{first // per_file:05d}.xml", numbers, sequence)
    line = f'  {{field = "joint_pos", columns = ["J{{1..6}}.Angle"], unit = "rad", role = "{_ROLE}"}},'
    head = 'segment = {by = "edge", column = "Execution", high = ["ACTIVE"]}'
    return f"{head}\nsignal = [\n{line}\n]\n"


def _answer(path: Path, numbers: range, first: int) -> int:
    """One saved answer: observations grouped by component, as agents do; gives its nextSequence."""
    parts: dict[str, list[str]] = {name: [] for name in ("run", *(f"J{j + 1}" for j in range(_JOINTS)))}
    sequence = first
    for number in numbers:
        stamps, values = _episode(number)
        times = np.datetime_as_string(stamps.astype("datetime64[ns]"))
        for state, at in (("ACTIVE", 0), ("READY", _ROWS - 1)):
            place = sequence + at * (_JOINTS + 1) + (0 if at == 0 else _JOINTS)
            parts["run"].append(_observed("Execution", "run", place, f"{times[at]}Z", state))
        for j in range(_JOINTS):
            parts[f"J{j + 1}"] += [
                _observed("Angle", f"j{j}", sequence + at * (_JOINTS + 1) + 1 + j, f"{time}Z", f"{value:.6f}")
                for at, (time, value) in enumerate(zip(times, values[:, j], strict=True))
            ]
        sequence += _ROWS * (_JOINTS + 1) + 1
    text = io.StringIO()
    text.write('<?xml version="1.0"?><MTConnectStreams xmlns="urn:mtconnect.org:MTConnectStreams:1.8">')
    text.write(f'<Header creationTime="{times[-1]}Z" instanceId="1" firstSequence="1" ')
    text.write(f'lastSequence="{sequence - 1}" nextSequence="{sequence}"/><Streams><DeviceStream name="r">')
    for name, rows in parts.items():
        kind = "Events" if name == "run" else "Samples"
        text.write(f'<ComponentStream component="X" name="{name}"><{kind}>{"".join(rows)}</{kind}>')
        text.write("</ComponentStream>")
    text.write("</DeviceStream></Streams></MTConnectStreams>")
    path.write_text(text.getvalue(), encoding="utf-8")
    return sequence


def _observed(element: str, ident: str, sequence: int, time: str, value: str) -> str:
    return f'<{element} dataItemId="{ident}" sequence="{sequence}" timestamp="{time}">{value}</{element}>'


_WRITERS: Final[dict[str, tuple[Callable[[Path, int], str | None], float]]] = {
    "csv": (_csv, 0.235),  # megabytes of an episode
    "parquet": (_parquet, 0.186),
    "lerobot-v3.0": (_lerobot_v3, 0.1),
    "lerobot-v2.1": (_lerobot_v21, 0.115),
    "db3": (_db3, 0.42),
    "mcap": (_mcap, 0.21),
    "robomimic": (_robomimic, 0.24),
    "mtconnect": (_mtconnect, 0.95),
}
FORMATS: Final = tuple(_WRITERS)


def write_set(folder: Path, kind: str, megabytes: float) -> IngestSet:
    """Writes a recording of about this size.

    Args:
        folder: Made; must not exist.
        kind: One of `FORMATS`.
        megabytes: Of the source, about; at least one episode is written.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    writer, each = _WRITERS[kind]
    episodes = max(1, round(megabytes / each))
    text = writer(source, episodes)
    signal_map = folder / "map.toml"
    if text is not None:
        signal_map.write_text(text, encoding="utf-8")
    found = [path for path in source.rglob("*") if path.is_file()]
    inner = list(source.iterdir())
    return IngestSet(
        source=inner[0] if len(inner) == 1 else source,
        signal_map=None if text is None else signal_map,
        megabytes=sum(path.stat().st_size for path in found) / 1e6,
        episodes=episodes,
        frames=episodes * _ROWS,
    )
