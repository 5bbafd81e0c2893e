# SPDX-License-Identifier: Apache-2.0
"""Writes a LeRobotDataset v3.0 folder, as a recording tool of the field would, statistics included.

The node's own store has another writer: it keeps no statistics. Equal arguments give equal bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Feature", "Frames", "write_dataset"]

_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_CHUNKS_SIZE = 1000
_EPISODES_PER_FILE = 5_000
_INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A vector column; ``names`` has one name per component."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One episode: its task in words and its columns, each ``[T, k] float32``."""

    task: str
    columns: Mapping[str, npt.NDArray[np.float32]]

    @property
    def length(self) -> int:
        """Frames of the episode."""
        return len(next(iter(self.columns.values())))


def write_dataset(
    out_dir: Path,
    *,
    rate_hz: int,
    robot_type: str,
    features: Mapping[str, Feature],
    episodes: Sequence[Frames],
    splits: Mapping[str, tuple[int, int]],
    episodes_per_file: int = _EPISODES_PER_FILE,
) -> None:
    """Writes the folder.

    Args:
        out_dir: Made if absent.
        rate_hz: ``fps`` of the folder.
        robot_type: Free text in the format; ours is an embodiment class.
        features: The vector columns, in their order.
        episodes: In their order; each has all ``features``.
        splits: Name to (first episode, one past the last).
        episodes_per_file: Episodes that share one data file.
    """
    tasks = sorted({episode.task for episode in episodes})
    rows, start = [], 0
    for number, episode in enumerate(episodes):
        rows.append(_episode_row(number, episode, start, episodes_per_file))
        start += episode.length
    for first in range(0, len(episodes), episodes_per_file):
        _write_data(
            out_dir,
            rows[first : first + episodes_per_file],
            episodes=episodes,
            features=features,
            tasks=tasks,
            rate_hz=rate_hz,
        )
    _write_meta(out_dir, rows, tasks)
    info = {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        "total_episodes": len(episodes),
        "total_frames": start,
        "total_tasks": len(tasks),
        "chunks_size": _CHUNKS_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": rate_hz,
        "splits": {name: f"{first}:{last}" for name, (first, last) in splits.items()},
        "data_path": _DATA_PATH,
        "video_path": None,
        "features": _feature_table(features),
    }
    _write_json(out_dir / "meta/info.json", info)
    stats = {name: _statistics(np.concatenate([e.columns[name] for e in episodes])) for name in features}
    _write_json(out_dir / "meta/stats.json", stats)


def _episode_row(number: int, episode: Frames, start: int, episodes_per_file: int) -> dict[str, Any]:
    file_number = number // episodes_per_file
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [episode.task],
        "length": episode.length,
        "data/chunk_index": file_number // _CHUNKS_SIZE,
        "data/file_index": file_number % _CHUNKS_SIZE,
        "dataset_from_index": start,
        "dataset_to_index": start + episode.length,
    }
    for name, values in episode.columns.items():
        row |= {f"stats/{name}/{kind}": value for kind, value in _statistics(values).items()}
    return row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _write_data(
    out_dir: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    episodes: Sequence[Frames],
    features: Mapping[str, Feature],
    tasks: list[str],
    rate_hz: int,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = [pa.field(name, pa.list_(pa.float32(), len(f.names))) for name, f in features.items()]
    indices = [pa.field(n, pa.float32() if n == "timestamp" else pa.int64()) for n in _INDEX_COLUMNS]
    schema = pa.schema([*vectors, *indices])
    path = out_dir / _DATA_PATH.format(
        chunk_index=rows[0]["data/chunk_index"], file_index=rows[0]["data/file_index"]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for row in rows:
            episode = episodes[row["episode_index"]]
            frame = np.arange(episode.length)
            columns = [
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.ascontiguousarray(episode.columns[name], dtype=np.float32).ravel()),
                    len(feature.names),
                )
                for name, feature in features.items()
            ]
            columns += [
                pa.array((frame / rate_hz).astype(np.float32)),
                pa.array(frame),
                pa.array(np.full(episode.length, row["episode_index"])),
                pa.array(frame + row["dataset_from_index"]),
                pa.array(np.full(episode.length, tasks.index(episode.task))),
            ]
            writer.write_table(pa.table(columns, schema=schema))  # one row group per episode


def _write_meta(out_dir: Path, rows: Sequence[Mapping[str, Any]], tasks: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    episodes = out_dir / "meta/episodes/chunk-000/file-000.parquet"
    episodes.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), episodes, compression="snappy")
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)})
    pq.write_table(table, out_dir / "meta/tasks.parquet", compression="snappy")


def _feature_table(features: Mapping[str, Feature]) -> dict[str, Any]:
    table: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [len(feature.names)], "names": list(feature.names)}
        for name, feature in features.items()
    }
    for name in _INDEX_COLUMNS:
        dtype = "float32" if name == "timestamp" else "int64"
        table[name] = {"dtype": dtype, "shape": [1], "names": None}
    return table


def _statistics(values: npt.NDArray[np.float32]) -> dict[str, list[float]]:
    wide = values.astype(np.float64)
    return {
        "min": wide.min(axis=0).tolist(),
        "max": wide.max(axis=0).tolist(),
        "mean": wide.mean(axis=0).tolist(),
        "std": wide.std(axis=0).tolist(),
        "count": [float(len(wide))],
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8", newline="\n")
