# SPDX-License-Identifier: Apache-2.0
"""UR3 CobotOps as four makers would hold it: cycles of one cobot, each a unit of protection, cut into sites.

The file is a CSV of one UR3 at about 1 Hz (M. Tyrovolas, K. Aliev, D. Antonelli, C. Stylios, "UR3 CobotOps", UCI
Machine Learning Repository, doi 10.24432/C5J891). It is read by the node's own reader, map, segmentation and
quality checks.

- **Unit**: all rows with one value of ``cycle``: the column counts work cycles.
- **Task**: is the grip lost in this reading? From this reading and the four before it of the same run; no label
  is among the inputs. One reading in thirty is.
- **Canonical**: each run is brought to 1 Hz by its own stamps; each value is centred and scaled by constants of
  `CONSTANTS`, none of which was taken from the recording.
- **Sites**: quarters by time, so that they differ as makers do (a cold robot, a warm one). A quarter of the
  cycles of each site is held out, drawn by the site's own key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
from client.learning.tensors import Frames, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from client.data.frames import Frames as Recorded

__all__ = ["CONSTANTS", "FEATURES", "SIGNAL_MAP", "Cycle", "Site", "read_cycles", "sites"]

Array64 = npt.NDArray[np.float64]
LABEL: Final = "grip_lost"
SITES: Final = 4
RATE_HZ: Final = 1.0
HELD_OUT: Final = 0.25
_WINDOW: Final = 5  # readings that a feature looks back on, itself among them
_CLIP: Final = 5.0
SIGNAL_MAP: Final = """
table   = {delimiter = ";", decimal = ",", strip_names = true, drop_empty_columns = true}
clock   = {column = "Timestamp", unit = "rfc3339", kind = "host"}
segment = {by = "column", column = "cycle", max_gap_s = 5.0, min_frames = 10}
unit    = {kind = "work-piece", column = "cycle", space = "ur3-cobotops"}
signal  = [
  {field = "joint_current", columns = ["Current_J{0..5}"], unit = "A", role = "observation"},
  {field = "joint_temp", columns = ["Temperature_T0", "Temperature_J{1..5}"], unit = "degC", role = "observation"},
  {field = "joint_vel", columns = ["Speed_J{0..5}"], unit = "rad/s", role = "observation"},
  {field = "tool_current", columns = ["Tool_current"], unit = "A", role = "observation"},
]
label   = [{field = "grip_lost", column = "grip_lost", values = {"True" = true, "False" = false}}]
"""


class Constant(NamedTuple):
    """How a field is made a number about one: ``(x - centre) / scale``, and where the two come from."""

    centre: float
    scale: float
    why: str


CONSTANTS: Final[dict[str, Constant]] = {
    "joint_current": Constant(
        0.0, 2.0, "a UR3 of 11 kg under 3 kg draws a few amperes per joint; 2 A is a round half"
    ),
    "joint_temp": Constant(
        313.15, 10.0, "joints run warm to the touch: 40 degC, between room and the 50 degC limit"
    ),
    "joint_vel": Constant(
        0.0, 1.0, "data sheet: joints up to 3.14 and 6.28 rad/s; collaborative work is below 1"
    ),
    "tool_current": Constant(
        0.3, 0.173, "data sheet: the tool connector gives 0 to 0.6 A: middle, half / sqrt 3"
    ),
}
"""Public constants: from the data sheet of the robot and of what its user can see, never from the recording."""
_SIZES: Final = {"joint_current": 6, "joint_temp": 6, "joint_vel": 6, "tool_current": 1}
FEATURES: Final = 3 * sum(_SIZES.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One work cycle: its frames, pooled over its runs. ``lost`` says whether a reading of it is positive."""

    frames: Frames
    lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One maker's cycles."""

    train: tuple[Cycle, ...]
    held_out: tuple[Cycle, ...]


def read_cycles(path: Path, *, key: bytes) -> list[Cycle]:
    """Cycles in the order in which they first occur.

    Args:
        path: The CSV.
        key: Secret of the node, at least 16 bytes.

    Raises:
        DataError: The file is not what its map says.
    """
    units: dict[bytes, list[Frames]] = {}
    for unit, recorded in _runs(path, key):
        made = _frames(recorded, unit)
        if made is not None:
            units.setdefault(unit, []).append(made)
    found = [pooled(parts) for parts in units.values()]
    return [Cycle(frames=one, lost=bool((one.targets * one.mask).any())) for one in found]


def _runs(path: Path, key: bytes) -> Iterator[tuple[bytes, Recorded]]:
    """Runs that pass the checks, each with its unit."""
    signals = parse_map(SIGNAL_MAP.encode())
    allow = frozenset({*_SIZES, LABEL})
    reader = claimed(path)
    for series in reader.read(path, reader.probe(path, signals), signals, lambda *_: None):
        for first, last in cut(series, signals).pieces:
            recorded = frames_of(series, signals, first, last, allow)
            if not failed_checks(recorded):
                (unit,) = owners(series, signals, first, last, node_key=key, content=recorded.content)
                yield unit, recorded


def _frames(recorded: Recorded, unit: bytes) -> Frames | None:
    """Features, target and mask of one run at the time base; None where nothing is left."""
    columns = {name: recorded.columns[f"observation.{name}"] for name in _SIZES}
    whole = np.all([np.isfinite(values).all(axis=1) for values in columns.values()], axis=0)
    whole &= recorded.labels[LABEL] != UNKNOWN
    if not whole.any():
        return None
    keyed = {f"observation.{name}": values[whole] for name, values in columns.items()}
    keyed[f"label.{LABEL}"] = recorded.labels[LABEL][whole, None].astype(np.float32)
    made = resampled(keyed, recorded.stamps_ns[whole], RATE_HZ)
    targets = made.pop(f"label.{LABEL}")
    return Frames(
        inputs=_features(made), targets=targets, mask=np.ones_like(targets), unit_id=unit, stratum=""
    )


def _features(columns: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Values, change since the reading before, spread over the last five: ``[T, 57]``."""
    values = np.hstack(
        [
            (columns[f"observation.{name}"].astype(np.float64) - one.centre) / one.scale
            for name, one in CONSTANTS.items()
        ]
    )
    change = np.diff(values, axis=0, prepend=values[:1])
    spread = np.array([values[max(0, at - _WINDOW + 1) : at + 1].std(axis=0) for at in range(len(values))])
    features: npt.NDArray[np.float32] = np.clip(np.hstack([values, change, spread]), -_CLIP, _CLIP).astype(
        np.float32
    )
    return features


def sites(cycles: Sequence[Cycle], *, seed: int) -> tuple[Site, ...]:
    """Quarters by time, a quarter of the cycles of each held out.

    Args:
        cycles: In the order of time.
        seed: Of the draw of held-out cycles, as if each site had another key.
    """
    found = []
    for number, part in enumerate(np.array_split(np.arange(len(cycles)), SITES)):
        drawn = {int(at): _draw(seed, number, cycles[at].frames.unit_id) for at in part}
        found.append(
            Site(
                train=tuple(cycles[at] for at in part if drawn[at] >= HELD_OUT),
                held_out=tuple(cycles[at] for at in part if drawn[at] < HELD_OUT),
            )
        )
    return tuple(found)


def _draw(seed: int, site: int, unit: bytes) -> float:
    """A number in [0, 1) that follows from seed, site and unit alone."""
    digest = hashlib.sha256(f"{seed}/{site}/".encode() + unit).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
