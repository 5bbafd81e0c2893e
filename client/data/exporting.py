# SPDX-License-Identifier: Apache-2.0
"""`export_lerobot`: a data set as the field's own tools expect it, statistics included, for its owner.

What differs from the store, whose folders are LeRobotDataset v3.0 already:

- All observed fields are one column ``observation.state``, all commands one column ``action``: that is what
  training tools look for. Names of components say the field (``tcp_pos_0``), so that importing the folder
  again gives the same frames, bit for bit, and the same stamps, without a signal map.
- ``meta/stats.json`` and ``stats/*`` columns are there. They hold exact extremes of the process: an exported
  folder is not for passing on.
- Columns that the site keeps to itself are left out, unless the owner asks for them; then
  ``iriai/private.json`` names them, so that they stay private wherever the folder is imported.
- ``iriai/episodes.parquet`` keeps clock, split, outcome and who acted. Names of units, sources, lineages and
  contracts stay in the store.

Excluded episodes are exported too, and marked. The folder appears whole or not at all.

    export_lerobot(root, "kita/pick", Path("pick-v3"))
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.dataset import EpisodeStore, OwnEpisode
from client.data.durable import remove, sync, sync_tree, write_json
from client.data.episodes import EPISODE_SCHEMA
from client.data.errors import FileInvalidError
from client.data.layout import CHUNKS_SIZE, EPISODES, INDEX, METAS, PRIVATE, STAMPS, data_file, info
from client.data.statistics import statistics_of
from client.data.store import Store
from policies.limits import STORE_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["ExportReport", "export_lerobot"]

_ROLES: Final = {"observation": "observation.state", "action": "action"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written."""

    episodes: int
    frames: int
    features: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def export_lerobot(root: Path, dataset: str, out: Path, *, private: bool = False) -> ExportReport:
    """Writes a data set as a LeRobotDataset v3.0 folder.

    Args:
        root: Folder of the store.
        dataset: Its name.
        out: Folder to make; nothing may be there.
        private: Whether columns that the site keeps to itself are written too.

    Raises:
        DatasetUnknownError: No such data set.
        FileInvalidError: Something is at ``out``, or every column is private.
        StoreDamagedError: The store's files contradict their index.
    """
    store = Store(root)
    entry = store.catalogue().dataset(dataset)
    if out.exists():
        raise FileInvalidError(
            need="a folder that does not exist yet", found=f"{out.name}: something", remedy="name another"
        )
    opened = EpisodeStore(store.folder(dataset, entry))
    kept = frozenset(entry.private)
    left_out = frozenset() if private else kept
    if left_out.issuperset(opened.columns):
        raise FileInvalidError(
            need="a column that does not stay on the site",
            found=", ".join(sorted(left_out)) or "none",
            remedy="export with --private",
        )
    aside = out.with_name(f".new-{out.name}")
    remove(aside)
    try:
        writer = _Writer(aside, opened, entry.rate_hz, left_out)
        for episode in opened:
            writer.add(episode)
        report = writer.finish(entry.embodiment["class"] if entry.embodiment else "unknown")
        if kept - left_out:
            write_json(aside / PRIVATE, {"columns": sorted(kept)})
        sync_tree(aside, ())
        aside.rename(out)
        sync(out.parent)
    finally:
        remove(aside)
    return replace(report, left_out=tuple(sorted(left_out)))


class _Writer:
    """One folder in the making."""

    def __init__(self, folder: Path, opened: EpisodeStore, rate_hz: str, left_out: frozenset[str]) -> None:
        self._folder, self._rate_hz, self._left_out = folder, rate_hz, left_out
        self._features = _features(opened, left_out)
        self._labels = tuple(name for name in opened.info["features"] if name.startswith("label."))
        self._rows: list[dict[str, Any]] = []
        self._said: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = self._file_bytes = 0
        self._file = -1
        self._data: pq.ParquetWriter | None = None

    def add(self, episode: OwnEpisode) -> None:
        """Writes one episode as a row group."""
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        columns = self._columns(episode, task)
        size = sum(values.nbytes for values in columns.values())
        if self._data is None or self._file_bytes + size > STORE_FILE_BYTES:
            self._next_file(columns)
        table = pa.table({name: _arrow(values) for name, values in columns.items()})
        if self._data is not None:
            self._data.write_table(table)
        self._file_bytes += size
        chunk, file = divmod(self._file, CHUNKS_SIZE)
        row: dict[str, Any] = {
            "episode_index": episode.number,
            "tasks": [episode.task],
            "length": episode.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + episode.length,
        }
        for name, values in columns.items():
            row |= {f"stats/{name}/{kind}": value for kind, value in statistics_of(values).items()}
        self._rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._said.append({"episode_index": episode.number, **episode.said})
        self._frames += episode.length

    def finish(self, robot_type: str) -> ExportReport:
        """Writes what stands beside the data."""
        self._close()
        for folder in ("meta/episodes/chunk-000", "iriai"):
            (self._folder / folder).mkdir(parents=True, exist_ok=True)
        described = info(
            features=self._features,
            robot_type=robot_type,
            rate_hz=self._rate_hz,
            episodes=len(self._rows),
            frames=self._frames,
            tasks=len(self._tasks),
            file_mb=STORE_FILE_BYTES // 1024**2,
        )
        write_json(self._folder / "meta/info.json", described)
        write_json(self._folder / "meta/stats.json", dict(self._whole_statistics()))
        pq.write_table(_episode_table(self._rows), self._folder / EPISODES)
        pq.write_table(_task_table(list(self._tasks)), self._folder / "meta/tasks.parquet")
        pq.write_table(pa.Table.from_pylist(self._said), self._folder / METAS)
        return ExportReport(episodes=len(self._rows), frames=self._frames, features=tuple(self._features))

    def _columns(self, episode: OwnEpisode, task: int) -> dict[str, npt.NDArray[Any]]:
        frame = np.arange(episode.length)
        shown = {key: v for key, v in episode.columns.items() if key not in self._left_out}
        found: dict[str, npt.NDArray[Any]] = {
            feature: np.hstack([v for key, v in shown.items() if key.startswith(role + ".")])
            for role, feature in _ROLES.items()
            if feature in self._features
        }
        found[STAMPS] = episode.stamps_ns
        found |= {name: episode.labels[name.removeprefix("label.")] for name in self._labels}
        found["timestamp"] = (frame / float(self._rate_hz)).astype(np.float32)
        found |= {"frame_index": frame, "episode_index": np.full(episode.length, episode.number)}
        found |= {"index": frame + self._frames, "task_index": np.full(episode.length, task)}
        return found

    def _next_file(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        self._close()
        self._file += 1
        self._file_bytes = 0
        path = self._folder / data_file(*divmod(self._file, CHUNKS_SIZE))
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([(name, _arrow(values).type) for name, values in columns.items()])
        self._data = pq.ParquetWriter(path, schema, compression="snappy")

    def _close(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None

    def _whole_statistics(self) -> Iterator[tuple[str, dict[str, list[float]]]]:
        """Of each column over all episodes, exactly; one column in memory at a time."""
        files = [self._folder / data_file(*divmod(at, CHUNKS_SIZE)) for at in range(self._file + 1)]
        for name in [*self._features, *INDEX]:
            parts = []
            for file in files:
                column = pq.read_table(file, columns=[name])[name].combine_chunks()
                flat = column.flatten() if pa.types.is_nested(column.type) else column
                parts.append(flat.to_numpy(zero_copy_only=False).reshape(len(column), -1))
            if parts:
                yield name, statistics_of(np.concatenate(parts))


def _features(opened: EpisodeStore, left_out: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for role, feature in _ROLES.items():
        sizes = {
            key: int(spec["shape"][0])
            for key, spec in opened.info["features"].items()
            if key in opened.columns and key not in left_out and key.startswith(role + ".")
        }
        names = [f"{key.split('.', 1)[1]}_{at}" for key, size in sizes.items() for at in range(size)]
        if names:
            found[feature] = {"dtype": "float32", "shape": [len(names)], "names": names}
    kept = [STAMPS, *(name for name in opened.info["features"] if name.startswith("label."))]
    return found | {name: dict(opened.info["features"][name]) for name in kept}


def _arrow(values: npt.NDArray[Any]) -> pa.Array:
    """A vector per row, or a plain value where there is one: the format's own tools expect it so."""
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).ravel())
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _episode_table(rows: list[dict[str, Any]]) -> pa.Table:
    whole = {name: EPISODE_SCHEMA.field(name).type for name in EPISODE_SCHEMA.names}
    names = list(rows[0]) if rows else list(whole)
    fields = [(name, whole.get(name, pa.list_(pa.float64()))) for name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _task_table(tasks: list[str]) -> pa.Table:
    """The task is the index of the table, as the field's own tools read it back; the note is pandas' own."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)})
    note = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
            for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({"pandas": json.dumps(note)})
