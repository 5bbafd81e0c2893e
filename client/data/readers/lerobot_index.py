# SPDX-License-Identifier: Apache-2.0
"""What a LeRobotDataset folder says of itself: features, episodes and where their rows lie, tasks, splits.

- v3.0: ``meta/episodes/*/*.parquet`` and ``meta/tasks.parquet``, whose task column is called
  ``__index_level_0__`` where the tool that wrote it had no name for it.
- v2.1: ``meta/episodes.jsonl`` and ``meta/tasks.jsonl``; one data file per episode, in chunk
  ``episode_index // chunks_size``.
- Paths come from ``data_path`` of ``meta/info.json`` and must lie inside the folder.
- ``stats.json`` and ``episodes_stats.jsonl`` are never opened.
- Counts are checked before what they count is read: an index of some kilobytes may say 10^9 episodes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import (
    DataError,
    FileInvalidError,
    FormatUnknownError,
    IndexMismatchError,
    TooLargeError,
)
from client.data.readers import parquet
from client.data.readers.files import check_channels, check_file, read_bounded
from policies.limits import (
    DATASET_EPISODES,
    DATASET_META_BYTES,
    EPISODE_FRAMES,
    PARQUET_BATCH_BYTES,
    SIGNALS,
    SOURCE_INFO_BYTES,
    TEXT_ROW_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from client.data.series import ClockKind, Split

__all__ = [
    "INDEX",
    "OPAQUE",
    "STAMPS",
    "Channel",
    "Episode",
    "channels_of",
    "declared_split",
    "episodes_of",
    "misplaced",
    "read_info",
    "store_acts",
    "store_clocks",
    "too_wide",
]

INDEX: Final = ("episode_index", "frame_index", "index", "task_index")
STAMPS: Final = "observation.stamp_ns"
OPAQUE: Final = frozenset({"video", "image"})
_NOT_CHANNELS: Final = frozenset({*INDEX, "timestamp", STAMPS})
_PLACE: Final = re.compile(r"\{(chunk_index|file_index|episode_chunk|episode_index)(?::0(\d)d)?\}")
_DECLARED: Final = {"train", "held-out"}
_FPS_MIN, _FPS_MAX = 0.01, 100_000


@dataclass(frozen=True, slots=True)
class Channel:
    """One component of a feature, and the name that the format gives it."""

    feature: str
    component: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Where an episode's rows lie; ``first`` counts over the data set, None in v2.1, where it has a file."""

    number: int
    file: Path
    first: int | None
    length: int


def read_info(path: Path) -> dict[str, Any]:
    """The checked ``meta/info.json`` of a folder."""
    info = _json(path / "meta" / "info.json")
    version = info.get("codebase_version")
    if version not in ("v3.0", "v2.1"):
        raise FormatUnknownError(
            need="LeRobotDataset v3.0 or v2.1", found=ascii(version)[:20], remedy="convert it to v3.0"
        )
    features, fps, data_path = info.get("features"), info.get("fps"), info.get("data_path")
    sound = (
        isinstance(features, dict)
        and all(_is_feature(one) for one in features.values())
        and isinstance(fps, int | float)
        and _FPS_MIN <= fps <= _FPS_MAX
        and isinstance(data_path, str)
        and "\0" not in data_path
    )
    if not sound:
        raise FileInvalidError(
            need="features, fps and data_path in meta/info.json",
            found="others",
            remedy="convert the data set again",
        )
    return info


def _is_feature(found: Any) -> bool:  # noqa: ANN401  whatever the file says
    if not isinstance(found, dict) or not isinstance(found.get("shape"), list):
        return False
    return isinstance(found.get("dtype", ""), str)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bounded(path, SOURCE_INFO_BYTES))
    except (ValueError, RecursionError) as error:
        raise FileInvalidError(
            need="JSON", found=f"{path.name}: other text", remedy="copy the file again"
        ) from error
    if not isinstance(found, dict):
        raise FileInvalidError(
            need="a JSON object", found=f"{path.name}: another value", remedy="copy it again"
        )
    return found


def _json_lines(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """What the lines of a file say under some keys; one line is in memory at a time."""
    check_file(path, limit=DATASET_META_BYTES)
    with path.open("rb") as file:
        while line := file.readline(TEXT_ROW_BYTES + 1):
            if len(line) > TEXT_ROW_BYTES:
                raise TooLargeError(
                    need=f"lines of at most {TEXT_ROW_BYTES} bytes",
                    found=f"{path.name}: a longer one",
                    remedy="check the file",
                )
            if line.strip():
                row = _json_line(line, path)
                yield {one: row.get(one) for one in columns}


def _json_line(line: bytes, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileInvalidError(
            need="JSON lines", found=f"{path.name}: other text", remedy="copy it again"
        ) from error
    if not isinstance(row, dict):
        raise FileInvalidError(
            need="JSON objects", found=f"{path.name}: other values", remedy="copy it again"
        )
    return row


def channels_of(info: dict[str, Any]) -> dict[str, Channel]:
    """Channel name to where it is; features that are no flat vector or scalar have none."""
    found: dict[str, Channel] = {}
    for feature, spec in info["features"].items():
        width = _width(feature, spec)
        if not 0 < width <= SIGNALS:
            continue
        check_channels(len(found) + width, "meta/info.json")
        names = spec.get("names")
        if isinstance(names, dict) and len(names) == 1:
            names = next(iter(names.values()))
        usable = isinstance(names, list) and len(names) == width == len({str(n) for n in names})
        if not usable and width == 1:
            found[feature] = Channel(feature, 0, feature.rsplit(".", 1)[-1])
            continue
        for at in range(width):
            name = str(names[at]) if usable else str(at)
            found[f"{feature}.{name}"] = Channel(feature, at, name)
    return found


def _width(feature: str, spec: Mapping[str, Any]) -> int:
    """Numbers of a flat vector or scalar; 0 for what is none, or no channel."""
    shape = spec["shape"]
    if feature in _NOT_CHANNELS or spec.get("dtype") in OPAQUE or len(shape) != 1:
        return 0
    return shape[0] if isinstance(shape[0], int) else 0


def too_wide(info: dict[str, Any]) -> int:
    """How many features have more numbers than a map may take; they are no channels."""
    return sum(_width(feature, spec) > SIGNALS for feature, spec in info["features"].items())


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


def _parquet_names(path: Path) -> list[str]:
    check_file(path)
    with parquet.opened(path) as file:
        names: list[str] = file.schema_arrow.names
    return names


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a table of episodes or tasks, once the footer says that they are not too many."""
    check_file(path)
    with parquet.opened(path, columns) as file:
        parquet.require(file, columns, path.name)
        _check_episodes(file.metadata.num_rows)
        with parquet.refusing(path):
            for batch in parquet.batches(file, columns, where=path.name):
                yield from batch.to_pylist()


def episodes_of(root: Path, info: dict[str, Any]) -> tuple[list[Episode], dict[int, str]]:
    """Episodes in the order of their numbers, 0, 1, 2 ..., and the tasks."""
    listed = _episodes_v3 if info["codebase_version"] == "v3.0" else _episodes_v21
    episodes, tasks = listed(root, info)
    for position, episode in enumerate(episodes):
        if episode.number != position:
            raise misplaced(episode.number, f"episode {position}")
    return episodes, tasks


def _episodes_v3(root: Path, info: dict[str, Any]) -> tuple[list[Episode], dict[int, str]]:
    columns = [
        *("episode_index", "length", "data/chunk_index", "data/file_index"),
        *("dataset_from_index", "dataset_to_index"),
    ]
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    listed = (row for file in files for row in _parquet_rows(file, columns))
    rows = _counted((tuple(_whole(row[one]) for one in columns) for row in listed), info)
    episodes = []
    found: dict[tuple[int, int], Path] = {}
    for number, length, chunk, at, first, last in rows:
        if last - first != length:
            raise misplaced(number, "a length that is not dataset_to_index - dataset_from_index")
        _bounded(number, length)
        if (chunk, at) not in found:
            where = {"chunk_index": chunk, "file_index": at}
            found[chunk, at] = _data_file(root, info["data_path"], where)
        episodes.append(Episode(number=number, file=found[chunk, at], first=first, length=length))
    return episodes, _tasks_v3(root / "meta/tasks.parquet")


def _tasks_v3(path: Path) -> dict[int, str]:
    names = _parquet_names(path)
    # the task is the table's index in the tool that writes it: named "task", or not named at all
    column = "task" if "task" in names else "__index_level_0__"
    rows = _parquet_rows(path, ["task_index", column])
    return _tasks((row["task_index"], row[column]) for row in rows)


def _tasks(rows: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    size = 0
    for number, task in rows:
        found[_whole(number)] = str(task)
        size += len(found[number])
        if size > PARQUET_BATCH_BYTES:
            raise TooLargeError(
                need=f"tasks of at most {PARQUET_BATCH_BYTES} bytes",
                found="more",
                remedy="split the data set",
            )
    return found


def _episodes_v21(root: Path, info: dict[str, Any]) -> tuple[list[Episode], dict[int, str]]:
    size = max(1, _whole(info.get("chunks_size", 1000)))
    lines = _json_lines(root / "meta/episodes.jsonl", ("episode_index", "length"))
    rows = _counted((tuple(_whole(one) for one in line.values()) for line in lines), info)
    episodes = []
    for number, length in rows:
        _bounded(number, length)
        where = {"episode_chunk": number // size, "episode_index": number}
        file = _data_file(root, info["data_path"], where)
        episodes.append(Episode(number=number, file=file, first=None, length=length))
    told = _json_lines(root / "meta/tasks.jsonl", ("task_index", "task"))
    return episodes, _tasks((one["task_index"], one["task"]) for one in told)


def _whole(value: Any) -> int:  # noqa: ANN401  whatever the file says
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FileInvalidError(
            need="whole numbers in the index", found=ascii(value)[:20], remedy="convert the data set again"
        )
    return value


def _counted(rows: Iterable[tuple[int, ...]], info: dict[str, Any]) -> list[tuple[int, ...]]:
    """Rows of the index in the order of episodes, as many as ``meta/info.json`` says."""
    found: list[tuple[int, ...]] = []
    for row in rows:
        found.append(row)
        _check_episodes(len(found))
    if len(found) != info.get("total_episodes"):
        raise IndexMismatchError(
            need=f"{ascii(info.get('total_episodes'))[:20]} episodes, as meta/info.json says",
            found=f"{len(found)} in the index",
            remedy="copy the data set again",
        )
    return sorted(found)


def _check_episodes(rows: int) -> None:
    if rows > DATASET_EPISODES:
        raise TooLargeError(
            need=f"at most {DATASET_EPISODES} episodes or tasks",
            found=str(rows),
            remedy="split the data set",
        )


def _bounded(number: int, length: int) -> None:
    if length > EPISODE_FRAMES:
        raise TooLargeError(
            need=f"episodes of at most {EPISODE_FRAMES} frames",
            found=f"episode {number}: {length}",
            remedy="cut it",
        )


def declared_split(info: dict[str, Any], episodes: int) -> list[Split] | None:
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


def store_clocks(root: Path) -> dict[int, ClockKind]:
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


def store_acts(root: Path) -> dict[int, dict[str, Any]]:
    """Who acted, and who said how it ended, of the episodes of a folder that our store or export wrote."""
    path = root / "iriai" / "episodes.parquet"
    wanted = ["source_kind", "model", "outcome_by"]
    if not path.is_file() or not set(wanted) <= set(_parquet_names(path)):
        return {}
    rows = _parquet_rows(path, ["episode_index", *wanted])
    return {
        _whole(row["episode_index"]): {
            "source_kind": "deployed" if row["source_kind"] == "deployed" else "recorded",
            "model": str(row["model"]),
            "outcome_by": "person" if row["outcome_by"] == "person" else "",
        }
        for row in rows
    }


def misplaced(number: int, found: str) -> DataError:
    """The refusal of an episode whose rows are not where the index says."""
    return IndexMismatchError(
        need=f"the rows of episode {number} where the index says",
        found=found,
        remedy="convert the data set again",
    )
