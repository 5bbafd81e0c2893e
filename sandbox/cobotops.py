# SPDX-License-Identifier: Apache-2.0
"""UR3 CobotOps as four makers would hold it: cycles of one cobot, each a unit of protection, cut into sites.

The file is a CSV of one UR3 at about 1 Hz (M. Tyrovolas, K. Aliev, D. Antonelli, C. Stylios, "UR3 CobotOps",
UCI Machine Learning Repository, doi 10.24432/C5J891). It is read by the node's own reader, signal map,
segmentation and quality checks.

- **Unit**: all rows with one value of ``cycle``; a number that comes back belongs to the same unit.
- **Task**: was the grip lost in this cycle? One row per cycle: `FEATURES` of its readings. One cycle in five
  is positive; neither label nor length of the cycle is among the inputs.
- **Canonical**: each run is brought to 1 Hz by its own stamps; each channel is centred and scaled by
  `CONSTANTS`, none of which was taken from the recording. Nothing looks at two cycles.
- **Sites**: quarters by time, so that they differ as makers do: the robot warms up. A quarter of the cycles
  of each site is held out, drawn per site and seed.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from client.data.frames import UNKNOWN, frames_of
from client.data.owners import owners
from client.data.quality import failed_checks
from client.data.readers import claimed
from client.data.segment import cut
from client.data.signalmap import parse_map
from client.data.timebase import resampled
from client.learning.tensors import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from client.data.frames import Frames as Recorded

__all__ = [
    "CHANNELS",
    "CONSTANTS",
    "FEATURES",
    "LOAD_JOINTS",
    "SIGNAL_MAP",
    "SITES",
    "Cycle",
    "Site",
    "read_cycles",
    "runs",
    "sites",
]

Array64 = npt.NDArray[np.float64]
CHANNELS: Final = {"joint_current": 6, "joint_temp": 6, "joint_vel": 6, "tool_current": 1}
SITES: Final = 4
HELD_OUT: Final = 0.25
_LABEL: Final = "grip_lost"
_RATE_HZ: Final = 1.0
_CLIP: Final = 5.0
_KEY: Final = b"a key of the sandbox, and no secret"
SIGNAL_MAP: Final = """
table   = {delimiter = ";", decimal = ",", strip_names = true, drop_empty_columns = true}
clock   = {column = "Timestamp", unit = "rfc3339", kind = "host"}
segment = {by = "column", column = "cycle", max_gap_s = 5.0, min_frames = 10}
unit    = {kind = "work-piece", column = "cycle"}
signal  = [
  {field = "joint_current", columns = ["Current_J{0..5}"], unit = "A", role = "observation"},
  {field = "joint_temp", columns = [
    "Temperature_T0", "Temperature_J{1..5}"], unit = "degC", role = "observation"},
  {field = "joint_vel", columns = ["Speed_J{0..5}"], unit = "rad/s", role = "observation"},
  {field = "tool_current", columns = ["Tool_current"], unit = "A", role = "observation"},
]
label   = [{field = "grip_lost", column = "grip_lost", values = {"True" = true, "False" = false}}]
"""


class Interval(NamedTuple):
    """What a channel is expected within: its middle becomes 0, half of it over sqrt 3 becomes 1."""

    low: float
    high: float
    why: str

    def apply(self, values: Array64) -> Array64:
        """Values as numbers about one."""
        return (values - (self.low + self.high) / 2) / ((self.high - self.low) / 2 / math.sqrt(3))


CONSTANTS: Final[dict[str, Interval]] = {
    "joint_current": Interval(
        -2.0, 2.0, "data sheet: typical consumption 100 W, from 48 V: about 2 A in all"
    ),
    "joint_temp": Interval(
        303.15, 323.15, "joints warm up from a hall of 20 to 30 degC; data sheet: up to 50 degC"
    ),
    "joint_vel": Interval(
        -1.0, 1.0, "a third of the slowest joint's limit (data sheet: 180 deg/s), beside people"
    ),
    "tool_current": Interval(0.0, 0.6, "data sheet: the tool connector gives up to 600 mA"),
}
"""Public constants, from the robot's data sheet and the hall that it stands in; never from the recording."""

LOAD_JOINTS: Final = (1, 2, 3)
"""Shoulder lift, elbow and first wrist: the axes that lie level, so that they carry arm, gripper and part."""


def _mean_and_spread(readings: Mapping[str, Array64], names: Sequence[str] = tuple(CHANNELS)) -> Array64:
    values = np.hstack([readings[name] for name in names])
    return np.hstack([values.mean(axis=0), values.std(axis=0)])


def _load(readings: Mapping[str, Array64]) -> Array64:
    currents, tool = readings["joint_current"][:, LOAD_JOINTS], readings["tool_current"]
    effort = np.sqrt((currents**2).mean(axis=1))
    return np.hstack([effort.mean(), currents.std(axis=0), tool.std(axis=0)])


def _load_by_joint(readings: Mapping[str, Array64]) -> Array64:
    currents = readings["joint_current"][:, LOAD_JOINTS]
    return np.hstack(
        [_mean_and_spread(readings, ["tool_current"]), currents.mean(axis=0), currents.std(axis=0)]
    )


FEATURES: Final[dict[str, Callable[[Mapping[str, Array64]], Array64]]] = {
    "load": _load,
    "load by joint": _load_by_joint,
    "no temperatures": partial(_mean_and_spread, names=[name for name in CHANNELS if name != "joint_temp"]),
    "every channel": _mean_and_spread,
}
"""One row from a cycle's scaled readings.

- ``load`` (5): a joint's current goes with its torque, and a part that is carried adds to the torque of
  `LOAD_JOINTS`, more while it is moved. So: root mean square of their currents, averaged over the cycle, and
  the spread of each; and the spread of the tool's current, which drives the gripper: it rises while fingers
  close and hold. No sign and no offset of a current has to be known.
- ``load by joint`` (8): mean and spread of each of them and of the tool's current.
- ``no temperatures`` (26), ``every channel`` (38): mean and spread of all there is, without thought.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One work cycle: one row of features, its target, and its unit. ``lost``: the grip was lost in it."""

    frames: Frames
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One maker's cycles."""

    train: tuple[Cycle, ...]
    held_out: tuple[Cycle, ...]


def read_cycles(path: Path, features: str = "load") -> list[Cycle]:
    """Cycles in the order in which they first occur.

    Args:
        path: The CSV.
        features: A name in `FEATURES`.

    Raises:
        DataError: The file is not what its map says.
    """
    units: dict[bytes, list[_Part]] = {}
    for unit, recorded in runs(path):
        made = _readings(recorded)
        if made is not None:
            units.setdefault(unit, []).append(made)
    return [_cycle(unit, parts, features) for unit, parts in units.items()]


def runs(path: Path) -> Iterator[tuple[bytes, Recorded]]:
    """Runs that pass the checks, in canonical form, each with the unit of its cycle.

    Raises:
        DataError: The file is not what its map says.
    """
    signals = parse_map(SIGNAL_MAP.encode())
    allow = frozenset({*CHANNELS, _LABEL})
    reader = claimed(path)
    for series in reader.read(path, reader.probe(path, signals), signals, lambda *_: None):
        for first, last in cut(series, signals).pieces:
            recorded = frames_of(series, signals, first, last, allow)
            if not failed_checks(recorded):
                (unit,) = owners(series, signals, first, last, node_key=_KEY, content=recorded.content)
                yield unit, recorded


class _Part(NamedTuple):
    """A run's scaled readings by channel, ``[T, k]``, and whether the grip was lost in it."""

    readings: dict[str, Array64]
    lost: bool


def _readings(recorded: Recorded) -> _Part | None:
    """What a run holds at the time base; None where nothing is left."""
    columns = {f"observation.{name}": recorded.columns[f"observation.{name}"] for name in CHANNELS}
    whole = np.all([np.isfinite(values).all(axis=1) for values in columns.values()], axis=0)
    whole &= recorded.labels[_LABEL] != UNKNOWN
    if not whole.any():
        return None
    kept = {key: values[whole] for key, values in columns.items()}
    kept[f"label.{_LABEL}"] = recorded.labels[_LABEL][whole, None].astype(np.float32)
    made = resampled(kept, recorded.stamps_ns[whole], _RATE_HZ)
    scaled = {
        name: CONSTANTS[name].apply(made[f"observation.{name}"].astype(np.float64)) for name in CHANNELS
    }
    return _Part(scaled, bool(made[f"label.{_LABEL}"].any()))


def _cycle(unit: bytes, parts: Sequence[_Part], features: str) -> Cycle:
    readings = {name: np.vstack([one.readings[name] for one in parts]) for name in CHANNELS}
    lost = any(one.lost for one in parts)
    row = np.clip(FEATURES[features](readings), -_CLIP, _CLIP)
    target = np.array([[float(lost)]], dtype=np.float32)
    frames = Frames(
        inputs=row.astype(np.float32)[None], targets=target, mask=np.ones_like(target), unit_id=unit
    )
    return Cycle(frames=frames, lost=lost)


def sites(cycles: Sequence[Cycle], *, seed: int) -> tuple[Site, ...]:
    """Quarters by time, a quarter of the cycles of each held out.

    Args:
        cycles: In the order of time.
        seed: Of the draw of held-out cycles, as if each site had another key.
    """
    found = []
    for number, part in enumerate(np.array_split(np.arange(len(cycles)), SITES)):
        drawn = {int(at): _draw(seed, number, cycles[at].frames.unit_id) for at in part}
        train = tuple(cycles[at] for at, one in drawn.items() if one >= HELD_OUT)
        held_out = tuple(cycles[at] for at, one in drawn.items() if one < HELD_OUT)
        found.append(Site(train=train, held_out=held_out))
    return tuple(found)


def _draw(seed: int, site: int, unit: bytes) -> float:
    """A number in [0, 1) that follows from seed, site and unit alone."""
    digest = hashlib.sha256(f"{seed}/{site}/".encode() + unit).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
