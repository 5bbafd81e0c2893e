# SPDX-License-Identifier: Apache-2.0
"""The canonical episode store: LeRobotDataset v3.0 folders without statistics, switched over by one rename.

    <root>/catalogue.json                       the one truth (client.data.catalogue)
    <root>/datasets/kita+pick/000003/           generation 3 of data set kita/pick
        meta/info.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
        data/chunk-000/file-000.parquet         a column per field, stamps, labels; a row group per episode
        iriai/episodes.parquet                  EpisodeMeta, one row per episode
        iriai/embodiment.json  iriai/signalmaps/<12 hex>.toml

- A generation is written aside, made durable (fsync), renamed into its place, and only then named by
  ``catalogue.json``, which is replaced in one step. A process that dies anywhere before leaves the store as
  it was; anywhere after, as it should be. What it leaves lying about is removed by the next import.
- Files of an older generation are never changed; a new one links them.
- A reader that opened a generation keeps it through the next import: the one before the current is kept.
- Equal imports give equal bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.catalogue import Catalogue, Dataset, check_dataset_name
from client.data.errors import ShapeChangedError, StorageFullError, StoreDamagedError
from client.data.owners import unit_of
from policies.limits import STORE_FILE_BYTES
from policies.privacy.errors import UnitRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.data.frames import Frames
    from client.data.signalmap import SignalMap

__all__ = ["STAMPS", "Draft", "EpisodeMeta", "Store", "StoredEpisode"]

_CHUNKS_SIZE: Final = 1000
_DATA_PATH: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_INDEX: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STAMPS: Final = "observation.stamp_ns"
_EPISODES: Final = "meta/episodes/chunk-000/file-000.parquet"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMeta:
    """What the store knows of an episode beside its frames. Nothing of it leaves the site."""

    episode_id: str
    digest: str
    content: str
    lineage: str
    block: int
    unit_ids: tuple[bytes, ...]  # owners; this version has exactly one
    split: str
    task: str
    outcome: str
    reader: str
    file_sha256: str
    first_row: int
    last_row: int
    signal_map: str
    clock: str
    start_ns: int | None
    length: int
    rights: str
    excluded: str  # names of failed checks, separated by commas; empty if none

    def as_dict(self) -> dict[str, Any]:
        """Row of ``iriai/episodes.parquet``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def unit_id(self) -> bytes:
        """The one unit that the episode belongs to.

        Raises:
            UnitRefusedError: It has several owners: a later version may bound that, this one cannot.
        """
        if len(self.unit_ids) != 1:
            raise UnitRefusedError(
                need="one owner for each episode",
                found=f"{len(self.unit_ids)}",
                remedy="update the node, or import the episode with another key",
            )
        return self.unit_ids[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEpisode:
    """Where an episode lies: file and rows, and its meta row."""

    chunk: int
    file: int
    start: int
    meta: EpisodeMeta


_META_TYPES: Final = {
    "unit_ids": pa.list_(pa.binary()),
    **dict.fromkeys(("block", "first_row", "last_row", "start_ns", "length"), pa.int64()),
}
_META_SCHEMA: Final = pa.schema(
    [
        ("episode_index", pa.int64()),
        *((name, _META_TYPES.get(name, pa.string())) for name in EpisodeMeta.__slots__),
    ]
)
_EPISODE_SCHEMA: Final = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        *((name, pa.int64()) for name in ("length", "data/chunk_index", "data/file_index")),
        *((name, pa.int64()) for name in ("dataset_from_index", "dataset_to_index")),
        *((name, pa.int64()) for name in ("meta/episodes/chunk_index", "meta/episodes/file_index")),
    ]
)


class Store:
    """The store in a folder. Reading needs no lock; `locked` is for imports."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def catalogue(self) -> Catalogue:
        """The catalogue as of now; empty if nothing was ever imported.

        Raises:
            StoreDamagedError: It is not what was written.
        """
        path = self.root / "catalogue.json"
        return Catalogue.from_bytes(path.read_bytes()) if path.exists() else Catalogue()

    def folder(self, name: str, entry: Dataset) -> Path:
        """The folder of a data set's current generation."""
        return self.root / "datasets" / name.replace("/", "+") / f"{entry.generation:06d}"

    def episodes(self, name: str) -> list[StoredEpisode]:
        """All episodes of a data set, excluded ones too, in the order of import.

        Raises:
            DatasetUnknownError: No such data set.
            StoreDamagedError: Files that the catalogue names are missing or damaged.
        """
        folder = self.folder(name, self.catalogue().dataset(name))
        return _read_episodes(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other imports out; turns a full disk into its own error.

        Raises:
            StorageFullError: The disk filled up inside.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.root / ".lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            if error.errno in _FULL:
                raise StorageFullError(
                    need="space for the import",
                    found="a full disk",
                    remedy="free some space; nothing was changed",
                ) from error
            raise

    @contextmanager
    def draft(self, name: str, signals: SignalMap, *, rate_hz: str) -> Iterator[Draft]:
        """A new generation, thrown away unless `Draft.commit` is called. Call inside `locked`."""
        check_dataset_name(name)
        aside = self.root / "datasets" / f".new-{name.replace('/', '+')}"
        _remove(aside)
        draft = Draft(self, name, aside, signals, rate_hz)
        try:
            yield draft
        finally:
            draft.close()
            _remove(aside)


class Draft:
    """A generation in the making."""

    def __init__(self, store: Store, name: str, aside: Path, signals: SignalMap, rate_hz: str) -> None:
        self.catalogue = store.catalogue()
        self.current = self.catalogue.datasets.get(name)
        self._store, self._name, self._aside, self._signals = store, name, aside, signals
        self._rate_hz = self.current.rate_hz if self.current else rate_hz
        self._old = _read_episodes(store.folder(name, self.current)) if self.current else []
        self.owners = {episode.meta.digest: episode.meta.unit_ids for episode in self._old}
        self._new: list[StoredEpisode] = []
        self._columns: dict[str, int] = dict(self.current.columns) if self.current else {}
        self._labels: tuple[str, ...] | None = self.current.labels if self.current else None
        self._tasks: list[str] = list(dict.fromkeys(episode.meta.task for episode in self._old))
        self._writer: pq.ParquetWriter | None = None
        self._file = max((e.chunk * _CHUNKS_SIZE + e.file for e in self._old), default=-1)
        self._file_bytes = 0
        self._rows = sum(episode.meta.length for episode in self._old)

    def set_rate(self, rate_hz: str) -> None:
        """Rate of the data set, if this import is its first."""
        if self.current is None:
            self._rate_hz = rate_hz

    def add(self, frames: Frames, meta: EpisodeMeta) -> None:
        """Writes one episode. Lineage and block may follow in `commit`.

        Raises:
            ShapeChangedError: Other fields or labels than the data set has.
        """
        self._check_shape(frames)
        if meta.task not in self._tasks:
            self._tasks.append(meta.task)
        size = sum(values.nbytes for values in frames.columns.values()) + 40 * frames.length
        if self._writer is None or self._file_bytes + size > STORE_FILE_BYTES:
            self._next_file()
        if self._writer is not None:
            self._writer.write_table(self._table(frames, meta.task))
        self._file_bytes += size
        chunk, file = divmod(self._file, _CHUNKS_SIZE)
        self._new.append(StoredEpisode(chunk=chunk, file=file, start=self._rows, meta=meta))
        self._rows += frames.length
        self.owners[meta.digest] = meta.unit_ids

    def commit(
        self,
        *,
        lineage: str,
        blocks: Mapping[str, int],
        rights: tuple[str, ...],
        catalogue: Catalogue,
        embodiment: Mapping[str, Any] | None,
    ) -> None:
        """Makes the generation durable and switches the store over to it.

        Args:
            lineage: Of the data set.
            blocks: Content digest to block, for each new episode.
            rights: Contracts and consents under which the data set stands.
            catalogue: With the new blocks.
            embodiment: Of the robot, if known.
        """
        self.close()
        generation = self.current.generation + 1 if self.current else 1
        entry = Dataset(
            generation=generation,
            lineage=lineage,
            rights=rights,
            columns=self._columns,
            labels=self._labels or (),
            rate_hz=self._rate_hz,
            embodiment=embodiment,
            unit=unit_of(self._signals),
        )
        self._new = [
            replace(e, meta=replace(e.meta, lineage=lineage, block=blocks[e.meta.content])) for e in self._new
        ]
        linked = self._link_old()
        self._write_meta(entry)
        _sync_tree(self._aside, linked)
        target = self._store.folder(self._name, entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target)  # left by a process that died between the two renames
        self._aside.replace(target)
        _sync(target.parent)
        _sync(target.parent.parent)
        _replace(self._store.root / "catalogue.json", catalogue.with_dataset(self._name, entry).to_bytes())
        for old in sorted(target.parent.iterdir()):
            if old.name < f"{generation - 1:06d}":
                _remove(old)

    def close(self) -> None:
        """Closes the data file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _check_shape(self, frames: Frames) -> None:
        columns = {key: int(values.shape[1]) for key, values in sorted(frames.columns.items())}
        labels = tuple(sorted(frames.labels))
        if self._labels is None:
            self._columns, self._labels = columns, labels
        if (columns, labels) != (self._columns, self._labels):
            raise ShapeChangedError(
                need="the fields that the data set has: "
                + ", ".join([*self._columns, *(self._labels or ())]),
                found=", ".join([*columns, *labels]),
                remedy="import into a data set of another name; it inherits the lineage",
            )

    def _next_file(self) -> None:
        self.close()
        self._file += 1
        self._file_bytes = 0
        chunk, file = divmod(self._file, _CHUNKS_SIZE)
        path = self._aside / _DATA_PATH.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, self._schema(), compression="snappy")

    def _schema(self) -> pa.Schema:
        return pa.schema(
            [
                *((key, pa.list_(pa.float32(), size)) for key, size in self._columns.items()),
                (STAMPS, pa.int64()),
                *((f"label.{name}", pa.int8()) for name in self._labels or ()),
                *((name, pa.float32() if name == "timestamp" else pa.int64()) for name in _INDEX),
            ]
        )

    def _table(self, frames: Frames, task: str) -> pa.Table:
        length, number = frames.length, len(self._old) + len(self._new)
        frame = np.arange(length)
        vectors = [
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(frames.columns[key]).ravel()), size
            )
            for key, size in self._columns.items()
        ]
        return pa.table(
            [
                *vectors,
                pa.array(frames.stamps_ns, pa.int64()),
                *(pa.array(frames.labels[name], pa.int8()) for name in self._labels or ()),
                pa.array((frame / float(self._rate_hz)).astype(np.float32)),
                pa.array(frame, pa.int64()),
                pa.array(np.full(length, number), pa.int64()),
                pa.array(frame + self._rows, pa.int64()),
                pa.array(np.full(length, self._tasks.index(task)), pa.int64()),
            ],
            schema=self._schema(),
        )

    def _link_old(self) -> set[Path]:
        """Brings the files of the current generation over; returns those that are durable already."""
        linked: set[Path] = set()
        if self.current is None:
            return linked
        folder = self._store.folder(self._name, self.current)
        for source in sorted([*folder.glob("data/*/*.parquet"), *folder.glob("iriai/signalmaps/*.toml")]):
            target = self._aside / source.relative_to(folder)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
                linked.add(target)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                shutil.copyfile(source, target)  # a file system without links
        return linked

    def _write_meta(self, entry: Dataset) -> None:
        rows = [*self._old, *self._new]
        episodes = [
            {
                "episode_index": number,
                "tasks": [e.meta.task],
                "length": e.meta.length,
                "data/chunk_index": e.chunk,
                "data/file_index": e.file,
                "dataset_from_index": e.start,
                "dataset_to_index": e.start + e.meta.length,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            for number, e in enumerate(rows)
        ]
        metas = [{"episode_index": number, **e.meta.as_dict()} for number, e in enumerate(rows)]
        tasks = pa.table(
            {"task_index": pa.array(range(len(self._tasks)), pa.int64()), "task": pa.array(self._tasks)}
        )
        aside = self._aside
        for folder in ("meta/episodes/chunk-000", "iriai/signalmaps"):
            (aside / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(episodes, schema=_EPISODE_SCHEMA), aside / _EPISODES)
        pq.write_table(tasks, aside / "meta/tasks.parquet")
        pq.write_table(pa.Table.from_pylist(metas, schema=_META_SCHEMA), aside / "iriai/episodes.parquet")
        _write_json(aside / "meta/info.json", self._info(entry, len(rows)))
        _write_json(aside / "iriai/embodiment.json", entry.embodiment)
        short = self._signals.digest.split(":")[1][:12]
        kept = aside / f"iriai/signalmaps/{short}.toml"
        if not kept.exists():  # else linked from the generation before
            kept.write_bytes(self._signals.text)

    def _info(self, entry: Dataset, episodes: int) -> dict[str, Any]:
        features: dict[str, Any] = {
            key: {
                "dtype": "float32",
                "shape": [size],
                "names": [f"{key.split('.', 1)[1]}_{i}" for i in range(size)],
            }
            for key, size in self._columns.items()
        }
        features[STAMPS] = {"dtype": "int64", "shape": [1], "names": None}
        features |= {f"label.{name}": {"dtype": "int8", "shape": [1], "names": None} for name in entry.labels}
        features |= {
            name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
            for name in _INDEX
        }
        rate = float(entry.rate_hz)
        return {
            "codebase_version": "v3.0",
            "robot_type": entry.embodiment["class"] if entry.embodiment else "unknown",
            "total_episodes": episodes,
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": _CHUNKS_SIZE,
            "data_files_size_in_mb": STORE_FILE_BYTES // 1024**2,
            "fps": int(rate) if rate.is_integer() else rate,
            "splits": {"all": f"0:{episodes}"},  # the split of an episode is in iriai/episodes.parquet
            "data_path": _DATA_PATH,
            "video_path": None,
            "features": features,
        }


def _read_episodes(folder: Path) -> list[StoredEpisode]:
    try:
        metas = _read_metas(folder / "iriai/episodes.parquet")
        places = pq.read_table(folder / _EPISODES, schema=_EPISODE_SCHEMA).to_pylist()
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        raise StoreDamagedError(
            need="the files that the catalogue names",
            found=f"{folder.parent.name}/{folder.name}: {type(error).__name__}",
            remedy="restore the store from a backup, or import again into a fresh one",
        ) from error
    found = []
    for meta, place in zip(metas, places, strict=True):
        meta.pop("episode_index")
        found.append(
            StoredEpisode(
                chunk=place["data/chunk_index"],
                file=place["data/file_index"],
                start=place["dataset_from_index"],
                meta=EpisodeMeta(**meta),
            )
        )
    return found


def _read_metas(path: Path) -> list[dict[str, Any]]:
    """Rows of EpisodeMeta; a store of the version before units had keys names one unit per episode."""
    if "unit_ids" in pq.read_schema(path).names:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=_META_SCHEMA).to_pylist()
    else:
        at = _META_SCHEMA.get_field_index("unit_ids")
        rows = pq.read_table(path, schema=_META_SCHEMA.set(at, pa.field("unit_id", pa.binary()))).to_pylist()
        for row in rows:
            row["unit_ids"] = [row.pop("unit_id")]
    for row in rows:
        row["unit_ids"] = tuple(row["unit_ids"])
    return rows


def _write_json(path: Path, value: Mapping[str, Any] | None) -> None:
    text = json.dumps(value, indent=4, sort_keys=True)
    path.write_bytes(text.encode("utf-8") + b"\n")


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".new-{path.name}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync(path.parent)


def _sync_tree(folder: Path, durable: set[Path]) -> None:
    for path in sorted(folder.rglob("*")):
        if path not in durable:
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
