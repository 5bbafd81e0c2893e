# SPDX-License-Identifier: Apache-2.0
"""robomimic HDF5: ``data/demo_<i>`` groups of one file, each an episode. h5py, opened read-only.

- Episodes come in the order of their numbers (``demo_10`` after ``demo_9``). Their rows are numbered through
  the file in that order.
- A channel is ``obs/<key>_<i>``, ``actions_<i>``, ``states_<i>``, ``rewards_0``, ``dones_0``, also where a
  row holds one number. Images and other arrays that are no rows of numbers are no channels; they are counted.
- ``num_samples`` of a demo must be the length of all its arrays, and ``total`` of ``data`` their sum.
- The format keeps no stamps: kind ``derived``, at the map's ``rate_hz``, else at ``control_freq`` of
  ``env_args``; without both the map is refused.
- ``mask/train`` and ``mask/valid`` declare the split. Other masks are ways to draw a subset and say nothing.
- Everything must lie in this file, within its bounds (client.data.readers.hdf5).

One demo is in memory at a time, and of it the mapped columns only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.errors import (
    FileInvalidError,
    IndexMismatchError,
    MapInvalidError,
    MissingColumnError,
    NoEpisodesError,
    TooLargeError,
)
from client.data.readers import hdf5
from client.data.readers.files import check_channels, sha256_file
from client.data.series import READ_ALL, Declared, Note, Probe, ReadOptions, Series, SourceRef
from policies.limits import DATASET_EPISODES, EPISODE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import h5py

    from client.data.series import Array64, Split, Texts
    from client.data.signalmap import SignalMap

__all__ = ["RobomimicReader"]

_SUFFIXES: Final = frozenset({".hdf5", ".h5"})
_DEMO: Final = re.compile(r"demo_(0|[1-9]\d{0,8})")
_PLAIN: Final = ("actions", "states", "rewards", "dones")
_SPLITS: Final[Mapping[str, Split]] = {"train": "train", "valid": "held-out", "held-out": "held-out"}
_TASK: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RATE_MIN, _RATE_MAX = 0.01, 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demo:
    """One episode: its number, rows ``first`` to ``first + length`` of the file, and its split."""

    number: int
    first: int
    length: int
    split: Split | None


class RobomimicReader:
    """robomimic HDF5."""

    name = "robomimic"

    def claims(self, path: Path) -> bool:
        """A file ``*.hdf5`` or ``*.h5``."""
        return path.is_file() and path.suffix.lower() in _SUFFIXES

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Channels of the first demo, rate, and the number of rows."""
        with hdf5.opened(path) as file:
            demos = _demos(file)
            channels = _channels(hdf5.group(file, f"data/demo_{demos[0].number}"))
            arguments = _environment(file)
            return Probe(
                reader=self.name,
                version=str(arguments.get("env_version") or ""),
                channels=channels,
                rate_hz=_rate(signals, arguments),
                extra={"names": {c: c.removeprefix("obs/") for c in channels if c.startswith("obs/")}},
                rows=sum(demo.length for demo in demos),
                bytes=path.stat().st_size,
            )

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """One series per demo."""
        del options  # a file that was cut is refused: its index lies anywhere in it
        signals.require(probe.channels, path.name)
        rate_hz = probe.rate_hz
        if rate_hz is None:
            raise MapInvalidError(
                need="rate_hz, because the format keeps no stamps and env_args no control_freq",
                found="a map without it",
                remedy="clock = {rate_hz = 20}, with the rate of the recording",
            )
        sha256 = sha256_file(path)
        with hdf5.opened(path) as file:
            demos = _demos(file)
            task = _task(signals, _environment(file))
            note("keys-not-read", _unread(hdf5.group(file, f"data/demo_{demos[0].number}")))
            note("secret-columns", sum(signals.is_secret(c) for c in probe.channels))
            for demo in demos:
                columns, texts = _values(file, demo, signals)
                yield Series(
                    name=f"demo_{demo.number}",
                    stamps_ns=np.rint(np.arange(demo.length) * (1e9 / rate_hz)).astype(np.int64),
                    clock="derived",
                    columns=columns,
                    texts=texts,
                    source=SourceRef(
                        reader=self.name,
                        file_sha256=sha256,
                        first=demo.first,
                        last=demo.first + demo.length,
                    ),
                    declared=Declared(task=task, split=demo.split),
                )


def _demos(file: h5py.File) -> list[_Demo]:
    """The episodes of a file in the order of their numbers, with the rows they take."""
    data = hdf5.group(file, "data")
    numbers = sorted(int(match[1]) for match in map(_DEMO.fullmatch, data.keys()) if match)
    if not numbers:
        raise NoEpisodesError(
            need="groups data/demo_0 ...", found="none", remedy="check that it is a robomimic data set"
        )
    if len(numbers) > DATASET_EPISODES:
        raise TooLargeError(
            need=f"at most {DATASET_EPISODES} episodes", found=str(len(numbers)), remedy="split the file"
        )
    splits = _declared(file, set(numbers))
    found, first = [], 0
    for number in numbers:
        length = _length(data, number)
        found.append(_Demo(number=number, first=first, length=length, split=splits.get(number)))
        first += length
    total = hdf5.attribute(data, "total")
    if total is not None and hdf5.whole(total, "total") != first:
        raise IndexMismatchError(
            need=f"{int(total)} samples, as data says in total",
            found=f"{first} in its demos",
            remedy="copy the file again",
        )
    return found


def _length(data: h5py.Group, number: int) -> int:
    name = f"demo_{number}"
    length = hdf5.whole(hdf5.attribute(hdf5.group(data, name), "num_samples"), name)
    if length > EPISODE_FRAMES:
        raise TooLargeError(
            need=f"episodes of at most {EPISODE_FRAMES} frames", found=f"{name}: {length}", remedy="cut it"
        )
    return length


def _declared(file: h5py.File, numbers: set[int]) -> dict[int, Split]:
    """The split of each demo that ``mask`` lists under a name of ours."""
    found: dict[int, Split] = {}
    if hdf5.member(file, "mask") is None:
        return found
    masks = hdf5.group(file, "mask")
    for name in sorted(_SPLITS.keys() & set(masks.keys())):
        for key in hdf5.strings(masks, name, at_most=len(numbers)):
            match = _DEMO.fullmatch(key)
            number = int(match[1]) if match else -1
            if number not in numbers or found.get(number, _SPLITS[name]) != _SPLITS[name]:
                raise IndexMismatchError(
                    need="masks that list each demo of data in one split",
                    found=f"mask/{name}: {ascii(key)[:20]} in none, or in two",
                    remedy="correct the masks, or remove them",
                )
            found[number] = _SPLITS[name]
    return found


def _environment(file: h5py.File) -> Mapping[str, Any]:
    """``env_args`` of the file, empty where there are none."""
    text = hdf5.attribute(hdf5.group(file, "data"), "env_args")
    try:
        found = json.loads("{}" if text is None else text)
    except (ValueError, TypeError, RecursionError) as error:
        raise FileInvalidError(
            need="JSON in env_args", found="another text", remedy="write the data set again"
        ) from error
    return found if isinstance(found, dict) else {}


def _rate(signals: SignalMap | None, arguments: Mapping[str, Any]) -> float | None:
    if signals is not None and signals.clock is not None and signals.clock.rate_hz is not None:
        return signals.clock.rate_hz
    settings = arguments.get("env_kwargs")
    said = settings.get("control_freq") if isinstance(settings, dict) else None
    if isinstance(said, int | float) and not isinstance(said, bool) and _RATE_MIN <= said <= _RATE_MAX:
        return float(said)
    return None


def _task(signals: SignalMap, arguments: Mapping[str, Any]) -> str:
    """The map's task if it names one, else the environment's name in our spelling."""
    named = re.sub(r"[^a-z0-9]+", "-", str(arguments.get("env_name") or "").lower()).strip("-")
    return named if signals.task == "task" and _TASK.fullmatch(named) else signals.task


def _widths(demo: h5py.Group) -> dict[str, int | None]:
    """Key to numbers per row, None for what is no row of numbers."""
    found = {
        name: hdf5.width(hdf5.array(demo, name)) for name in _PLAIN if hdf5.member(demo, name) is not None
    }
    if hdf5.member(demo, "obs") is not None:
        obs = hdf5.group(demo, "obs")
        found |= {f"obs/{key}": hdf5.width(hdf5.array(obs, key)) for key in obs}
    return found


def _channels(demo: h5py.Group) -> tuple[str, ...]:
    widths = _widths(demo)
    check_channels(sum(width or 0 for width in widths.values()), str(demo.name))
    return tuple(f"{key}_{i}" for key, width in widths.items() for i in range(width or 0))


def _unread(demo: h5py.Group) -> int:
    return sum(width is None for width in _widths(demo).values())


def _values(file: h5py.File, demo: _Demo, signals: SignalMap) -> tuple[dict[str, Array64], dict[str, Texts]]:
    """Mapped columns of a demo, as numbers and as words, once its arrays have its length."""
    group = hdf5.group(file, f"data/demo_{demo.number}")
    wanted: dict[str, list[str]] = {}
    for channel in dict.fromkeys((*signals.number_columns, *signals.text_columns)):
        wanted.setdefault(_key(channel)[0], []).append(channel)
    found: dict[str, Array64] = {}
    for key, channels in wanted.items():
        parent = hdf5.group(group, "obs") if key.startswith("obs/") else group
        array = hdf5.array(parent, key.removeprefix("obs/"))
        _check_length(array, demo)
        values = hdf5.numbers(array, f"demo_{demo.number}, {key}")
        found |= {one: _column(values, one, demo).copy() for one in channels}
    if "actions" not in wanted and hdf5.member(group, "actions") is not None:
        _check_length(hdf5.array(group, "actions"), demo)
    columns = {c: found[c] for c in signals.number_columns}
    return columns, {c: _words(found[c]) for c in signals.text_columns}


def _key(channel: str) -> tuple[str, int]:
    """Key and number of a channel that the probe listed."""
    key, _, index = channel.rpartition("_")
    return key, int(index)


def _check_length(array: h5py.Dataset, demo: _Demo) -> None:
    rows = int(array.shape[0]) if array.ndim else 0
    if rows != demo.length:
        raise IndexMismatchError(
            need=f"{demo.length} rows in each array of demo_{demo.number}, as its num_samples says",
            found=f"{array.name.rsplit('/', 1)[-1]}: {rows}",
            remedy="record or write the episode again",
        )


def _column(array: Array64, channel: str, demo: _Demo) -> Array64:
    _, index = _key(channel)
    if index >= array.shape[1]:
        raise MissingColumnError(
            need=f"channel {channel}",
            found=f"demo_{demo.number} with {array.shape[1]} numbers per row",
            remedy="write all demos with the same keys",
        )
    return array[:, index]


def _words(values: Array64) -> Texts:
    """Numbers as words: whole ones without a point, as a label's values spell them."""
    found = np.empty(len(values), dtype=object)
    found[:] = [str(int(v)) if float(v).is_integer() else str(float(v)) for v in values]
    return found
