# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0 and v2.1 folders, read without the library that wrote them.

- v3.0 keeps many episodes in one file; ``dataset_from_index`` counts over the whole data set, so the row in a
  file is ``dataset_from_index`` minus the ``index`` of the file's first row. Every slice is checked: its rows
  must carry the episode's number, the expected ``index`` and ``frame_index`` 0, 1, 2 ...; else the data set
  is refused and the episode named.
- v2.1 keeps one file per episode and its tables as JSON lines.
- A channel is ``<feature>.<component name>``, or ``<feature>.<number>`` where the format gives no names.
- ``timestamp`` is ``frame_index / fps`` and therefore no clock: kind ``derived``. Only a folder that has
  ``observation.stamp_ns`` (our store) brings real stamps.
- Statistics are never read; video and images are left alone and counted.
- ``splits = {"train": "0:N", "held-out": "N:M"}`` declares the split; any other ``splits`` is ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.errors import (
    DataError,
    FileInvalidError,
    FormatUnknownError,
    IndexMismatchError,
    MissingColumnError,
    NotFiniteError,
    TooLargeError,
)
from client.data.readers.cells import words
from client.data.readers.files import check_file, read_bounded, sha256_file
from client.data.series import (
    Array64,
    ClockKind,
    Declared,
    Int64,
    Note,
    Probe,
    Series,
    SourceRef,
    Split,
    Texts,
)
from policies.limits import DATASET_EPISODES, DATASET_META_BYTES, EPISODE_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.data.signalmap import SignalMap

__all__ = ["LeRobotReader"]

_INDEX: Final = ("episode_index", "frame_index", "index", "task_index")
_STAMPS: Final = "observation.stamp_ns"
_NOT_CHANNELS: Final = frozenset({*_INDEX, "timestamp", _STAMPS})
_OPAQUE: Final = frozenset({"video", "image"})
_PLACE: Final = re.compile(r"\{(chunk_index|file_index|episode_chunk|episode_index)(?::0(\d)d)?\}")
_DECLARED: Final = {"train", "held-out"}
_FPS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Channel:
    feature: str
    component: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Episode:
    number: int
    file: Path
    first: int | None  # global index of its first row; None in v2.1, where it has the file to itself
    length: int


class LeRobotReader:
    """LeRobotDataset v3.0 and v2.1."""

    name = "lerobot"

    def claims(self, path: Path) -> bool:
        """A folder with ``meta/info.json``."""
        return (path / "meta" / "info.json").is_file()

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Version, channels, rate and robot type of ``meta/info.json``."""
        del signals
        info = _info(path)
        channels = _channels(info)
        return Probe(
            reader=self.name,
            version=str(info["codebase_version"]),
            channels=tuple(channels),
            robot_type=str(info.get("robot_type") or ""),
            rate_hz=float(info["fps"]),
            extra={"names": {channel: found.name for channel, found in channels.items()}},
        )

    def read(self, path: Path, probe: Probe, signals: SignalMap, note: Note) -> Iterator[Series]:
        """One series per episode, in the order of episode numbers."""
        info = _info(path)
        signals.require(probe.channels, "meta/info.json")
        note("video-or-image-features", sum(f.get("dtype") in _OPAQUE for f in info["features"].values()))
        note("secret-columns", sum(signals.is_secret(c) for c in probe.channels))
        listed = _episodes_v3 if info["codebase_version"] == "v3.0" else _episodes_v21
        episodes, tasks = listed(path, info)
        declared = _declared_split(info, len(episodes))
        channels = _channels(info)
        clocks = _store_clocks(path) if _STAMPS in info["features"] else None
        opened: _DataFile | None = None
        for position, episode in enumerate(episodes):
            if episode.number != position:
                raise _misplaced(episode.number, f"episode {position}")
            if opened is None or opened.path != episode.file:
                opened = _DataFile(episode.file, signals, channels, stamped=clocks is not None)
            clock = "derived" if clocks is None else clocks.get(position, "host")
            split = declared[position] if declared else None
            yield opened.series(episode, info, clock, tasks, split)


class _DataFile:
    """One opened data file with the columns that the map needs."""

    def __init__(
        self,
        path: Path,
        signals: SignalMap,
        channels: Mapping[str, _Channel],
        *,
        stamped: bool,
    ) -> None:
        check_file(path)
        self.path = path
        self._numbers = {name: channels[name] for name in signals.number_columns}
        self._words = {name: channels[name] for name in signals.text_columns}
        features = {c.feature for c in (*self._numbers.values(), *self._words.values())}
        self._features = sorted(features)
        self._stamped = stamped
        wanted = [*self._features, *_INDEX, *([_STAMPS] if stamped else [])]
        try:
            with pq.ParquetFile(path) as file:
                there = file.schema_arrow.names
                lacking = [name for name in wanted if name not in there]
                if lacking:
                    raise MissingColumnError(
                        need="columns " + ", ".join(lacking[:5]),
                        found=f"{path.name} without them, although meta/info.json lists them",
                        remedy="record or convert the data set again",
                    )
                self.table = file.read(columns=wanted, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise FileInvalidError(
                need="a Parquet file",
                found=f"{path.name}: {type(error).__name__}",
                remedy="copy the file again",
            ) from error
        self.sha256 = sha256_file(path)
        self._index = {name: _integers(self.table[name], f"{path.name}, {name}") for name in _INDEX}

    def series(
        self,
        episode: _Episode,
        info: dict[str, Any],
        clock: ClockKind,
        tasks: dict[int, str],
        split: Split | None,
    ) -> Series:
        """The series of one episode, once its rows are proven to be its own."""
        first = self._check(episode)
        last = first + episode.length
        where = f"episode {episode.number}"
        matrices = {
            f: self._matrix(f, first, episode.length, info, where)
            for f in {c.feature for c in self._numbers.values()}
        }
        stamps: Int64 = (
            _integers(self.table[_STAMPS].slice(first, episode.length), where)
            if self._stamped
            else np.rint(np.arange(episode.length) * (1e9 / float(info["fps"]))).astype(np.int64)
        )
        task = tasks.get(int(self._index["task_index"][first]))
        if task is None:
            raise FileInvalidError(
                need="a task for each task_index", found=f"{where}: none", remedy="repair meta/tasks"
            )
        return Series(
            name=where,
            stamps_ns=stamps,
            clock=clock,
            columns={name: matrices[c.feature][:, c.component] for name, c in self._numbers.items()},
            texts={name: self._text(c, first, episode.length) for name, c in self._words.items()},
            source=SourceRef(reader="lerobot", file_sha256=self.sha256, first=first, last=last),
            declared=Declared(task=task, split=split),
        )

    def _check(self, episode: _Episode) -> int:
        """Row of the file at which the episode starts."""
        rows = len(self.table)
        first = 0 if episode.first is None else episode.first - int(self._index["index"][0]) if rows else 0
        last = first + episode.length
        if episode.length < 1 or first < 0 or last > rows or (episode.first is None and last != rows):
            raise _misplaced(episode.number, f"rows {first} to {last} of {rows} in {self.path.name}")
        if (self._index["episode_index"][first:last] != episode.number).any():
            raise _misplaced(episode.number, f"rows of another episode in {self.path.name}")
        if (self._index["frame_index"][first:last] != np.arange(episode.length)).any():
            raise _misplaced(episode.number, f"frames out of order in {self.path.name}")
        if episode.first is not None and self._index["index"][first] != episode.first:
            raise _misplaced(episode.number, f"another index in {self.path.name}")
        return first

    def _matrix(self, feature: str, first: int, length: int, info: dict[str, Any], where: str) -> Array64:
        size = int(info["features"][feature]["shape"][0])
        column = self.table[feature].slice(first, length).combine_chunks()
        if (
            pa.types.is_fixed_size_list(column.type)
            or pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
        ):
            column = column.flatten()
        if len(column) != length * size or not _is_numeric(column.type):
            raise FileInvalidError(
                need=f"{size} numbers per frame in {feature}",
                found=f"{where}: others",
                remedy="convert it again",
            )
        if column.null_count:
            raise NotFiniteError(
                need="finite numbers",
                found=f"{where}, {feature}: empty values",
                remedy="repair the recording",
            )
        values: Array64 = (
            column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).reshape(length, size)
        )
        # in our own store NaN stands for a missing value
        if np.isinf(values).any() or (np.isnan(values).any() and not self._stamped):
            frame, component = (int(at[0]) for at in np.nonzero(~np.isfinite(values)))
            raise NotFiniteError(
                need="finite numbers",
                found=f"{where}, frame {frame}, {feature}[{component}]: NaN or infinity",
                remedy="repair the recording, or leave the episode out",
            )
        return values

    def _text(self, channel: _Channel, first: int, length: int) -> Texts:
        column = self.table[channel.feature].slice(first, length)
        if pa.types.is_nested(column.type):
            column = pa.chunked_array([pa.compute.list_element(column.combine_chunks(), channel.component)])
        return words(column)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _integers(column: pa.ChunkedArray, where: str) -> Int64:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise FileInvalidError(
            need="whole numbers", found=f"{where}: others", remedy="convert the data set again"
        )
    values: Int64 = column.cast(pa.int64()).to_numpy().astype(np.int64)
    return values


def _info(path: Path) -> dict[str, Any]:
    info = _json(path / "meta" / "info.json")
    version = info.get("codebase_version")
    if version not in ("v3.0", "v2.1"):
        raise FormatUnknownError(
            need="LeRobotDataset v3.0 or v2.1", found=ascii(version)[:20], remedy="convert it to v3.0"
        )
    features, fps, data_path = info.get("features"), info.get("fps"), info.get("data_path")
    sound = (
        isinstance(features, dict)
        and all(isinstance(f, dict) and isinstance(f.get("shape"), list) for f in features.values())
        and isinstance(fps, int | float)
        and 0 < fps <= _FPS_MAX
        and isinstance(data_path, str)
    )
    if not sound:
        raise FileInvalidError(
            need="features, fps and data_path in meta/info.json",
            found="others",
            remedy="convert the data set again",
        )
    return info


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bounded(path, DATASET_META_BYTES))
    except ValueError as error:
        raise FileInvalidError(
            need="JSON", found=f"{path.name}: other text", remedy="copy the file again"
        ) from error
    if not isinstance(found, dict):
        raise FileInvalidError(
            need="a JSON object", found=f"{path.name}: another value", remedy="copy it again"
        )
    return found


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [
            json.loads(line) for line in read_bounded(path, DATASET_META_BYTES).splitlines() if line.strip()
        ]
    except ValueError as error:
        raise FileInvalidError(
            need="JSON lines", found=f"{path.name}: other text", remedy="copy it again"
        ) from error
    if not all(isinstance(row, dict) for row in rows):
        raise FileInvalidError(
            need="JSON objects", found=f"{path.name}: other values", remedy="copy it again"
        )
    return rows


def _channels(info: dict[str, Any]) -> dict[str, _Channel]:
    """Channel name to where it is; features that are no flat vector or scalar have none."""
    found: dict[str, _Channel] = {}
    for feature, spec in info["features"].items():
        shape = spec["shape"]
        flat = len(shape) == 1 and isinstance(shape[0], int) and shape[0] > 0
        if feature in _NOT_CHANNELS or spec.get("dtype") in _OPAQUE or not flat:
            continue
        names = spec.get("names")
        if isinstance(names, dict) and len(names) == 1:
            names = next(iter(names.values()))
        usable = isinstance(names, list) and len(names) == shape[0] == len({str(n) for n in names})
        if not usable and shape[0] == 1:
            found[feature] = _Channel(feature, 0, feature.rsplit(".", 1)[-1])
            continue
        for at in range(shape[0]):
            name = str(names[at]) if usable else str(at)
            found[f"{feature}.{name}"] = _Channel(feature, at, name)
    return found


def _data_file(root: Path, template: str, values: Mapping[str, int]) -> Path:
    """The file that a path template names. It must lie inside the data set."""

    def put(match: re.Match[str]) -> str:
        return str(values[match[1]]).zfill(int(match[2] or 0)) if match[1] in values else match[0]

    text = _PLACE.sub(put, template)
    relative = Path(text)
    if "{" in text or relative.is_absolute() or ".." in relative.parts:
        raise FileInvalidError(
            need="a data_path inside the data set",
            found=ascii(template)[:80],
            remedy="convert the data set again",
        )
    return root / relative


def _parquet_rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    check_file(path)
    try:
        with pq.ParquetFile(path) as file:
            lacking = [c for c in columns if c not in file.schema_arrow.names]
            if lacking:
                raise MissingColumnError(
                    need="columns " + ", ".join(lacking),
                    found=f"{path.name} without them",
                    remedy="convert it again",
                )
            rows: list[dict[str, Any]] = file.read(columns=columns, use_threads=False).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise FileInvalidError(
            need="a Parquet file", found=f"{path.name}: {type(error).__name__}", remedy="copy the file again"
        ) from error
    return rows


def _episodes_v3(root: Path, info: dict[str, Any]) -> tuple[list[_Episode], dict[int, str]]:
    columns = [
        *("episode_index", "length", "data/chunk_index", "data/file_index"),
        *("dataset_from_index", "dataset_to_index"),
    ]
    rows = [
        r for f in sorted((root / "meta/episodes").glob("*/*.parquet")) for r in _parquet_rows(f, columns)
    ]
    rows.sort(key=lambda row: _whole(row["episode_index"]))
    _count(len(rows), info)
    episodes = []
    for row in rows:
        number, length, first = (_whole(row[c]) for c in ("episode_index", "length", "dataset_from_index"))
        if _whole(row["dataset_to_index"]) - first != length:
            raise _misplaced(number, "a length that is not dataset_to_index - dataset_from_index")
        _bounded(number, length)
        where = {"chunk_index": _whole(row["data/chunk_index"]), "file_index": _whole(row["data/file_index"])}
        file = _data_file(root, info["data_path"], where)
        episodes.append(_Episode(number=number, file=file, first=first, length=length))
    return episodes, _tasks_v3(root / "meta/tasks.parquet")


def _tasks_v3(path: Path) -> dict[int, str]:
    check_file(path)
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise FileInvalidError(
            need="a Parquet file", found=path.name, remedy="copy the file again"
        ) from error
    # the task is the table's index in the tool that writes it: named "task", or not named at all
    column = "task" if "task" in names else "__index_level_0__"
    return {
        _whole(row["task_index"]): str(row[column]) for row in _parquet_rows(path, ["task_index", column])
    }


def _episodes_v21(root: Path, info: dict[str, Any]) -> tuple[list[_Episode], dict[int, str]]:
    size = max(1, _whole(info.get("chunks_size", 1000)))
    rows = sorted(_json_lines(root / "meta/episodes.jsonl"), key=lambda row: _whole(row.get("episode_index")))
    _count(len(rows), info)
    episodes = []
    for row in rows:
        number, length = _whole(row.get("episode_index")), _whole(row.get("length"))
        _bounded(number, length)
        where = {"episode_chunk": number // size, "episode_index": number}
        file = _data_file(root, info["data_path"], where)
        episodes.append(_Episode(number=number, file=file, first=None, length=length))
    tasks = {_whole(r.get("task_index")): str(r.get("task")) for r in _json_lines(root / "meta/tasks.jsonl")}
    return episodes, tasks


def _whole(value: Any) -> int:  # noqa: ANN401  whatever the file says
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FileInvalidError(
            need="whole numbers in the index", found=ascii(value)[:20], remedy="convert the data set again"
        )
    return value


def _count(rows: int, info: dict[str, Any]) -> None:
    if rows > DATASET_EPISODES:
        raise TooLargeError(
            need=f"at most {DATASET_EPISODES} episodes", found=str(rows), remedy="split the data set"
        )
    if rows != info.get("total_episodes"):
        raise IndexMismatchError(
            need=f"{info.get('total_episodes')} episodes, as meta/info.json says",
            found=f"{rows} in the index",
            remedy="copy the data set again",
        )


def _bounded(number: int, length: int) -> None:
    if length > EPISODE_FRAMES:
        raise TooLargeError(
            need=f"episodes of at most {EPISODE_FRAMES} frames",
            found=f"episode {number}: {length}",
            remedy="cut it",
        )


def _declared_split(info: dict[str, Any], episodes: int) -> list[Split] | None:
    """The split that the folder declares; None if it declares none of ours."""
    splits = info.get("splits")
    if not isinstance(splits, dict) or set(splits) != _DECLARED:
        return None
    bounds: dict[str, tuple[int, int]] = {}
    for name, text in splits.items():
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", str(text))
        bounds[name] = (int(match[1]), int(match[2])) if match else (-1, -1)
    (first, middle), (after, last) = bounds["train"], bounds["held-out"]
    if (first, after, last) != (0, middle, episodes):
        raise FileInvalidError(
            need='splits {"train": "0:N", "held-out": "N:M"} over all episodes',
            found=ascii(splits)[:80],
            remedy="correct splits in meta/info.json",
        )
    return ["train" if number < middle else "held-out" for number in range(episodes)]


def _store_clocks(root: Path) -> dict[int, ClockKind]:
    """Kinds of clock of a folder that our store wrote."""
    path = root / "iriai" / "episodes.parquet"
    if not path.is_file():
        return {}
    kinds: dict[str, ClockKind] = {
        "host": "host",
        "controller": "controller",
        "derived": "derived",
        "simulation": "simulation",
    }
    rows = _parquet_rows(path, ["episode_index", "clock"])
    return {_whole(row["episode_index"]): kinds.get(str(row["clock"]), "host") for row in rows}


def _misplaced(number: int, found: str) -> DataError:
    return IndexMismatchError(
        need=f"the rows of episode {number} where the index says",
        found=found,
        remedy="convert the data set again",
    )
