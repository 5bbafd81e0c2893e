# SPDX-License-Identifier: Apache-2.0
"""`Draft`: a generation of a data set in the making, aside from the store until it is whole.

Order of calls: `add` for each episode, `end_of_source` after each source file, then `commit`, or nothing:
then the store is as it was. Made by `client.data.store.Store.draft` only.

- Data files are closed at `limits.STORE_FILE_BYTES`, and at the end of the first source file behind
  `limits.RESUME_BYTES`: there a checkpoint goes into the journal (client.data.journal). Where that is depends
  on the source alone, so an import that was killed and went on writes the same bytes as one that was not.
- What lies in a resumed draft and is in no checkpoint is removed first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from client.data.catalogue import Catalogue, Dataset
from client.data.durable import remove, sync, write_json
from client.data.episodes import StoredEpisode, read_episodes, write_episodes
from client.data.errors import ShapeChangedError
from client.data.generations import DATA, link_files, switch
from client.data.journal import Checkpoint, Journal
from client.data.layout import CHUNKS_SIZE, EPISODES, INDEX, PRIVATE, STAMPS, data_file, info
from client.data.markfiles import read_marks, write_marks
from client.data.owners import unit_of
from client.data.readers.files import sha256_file
from policies.limits import RESUME_BYTES, STORE_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from client.data.catalogue import Index
    from client.data.episodes import EpisodeMeta
    from client.data.frames import Frames
    from client.data.signalmap import SignalMap
    from client.data.store import Store

__all__ = ["Draft"]


class Draft:
    """A generation in the making.

    Attributes:
        catalogue: Of the store, as it was when the draft began.
        current: The data set as it is; None if this is its first import.
        owners: Digest of each episode to its owners.
        checkpoints: Of the interrupted import that this one goes on with; empty if there is none.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        aside: Path,
        signals: SignalMap,
        *,
        rate_hz: str,
        journal: Journal,
    ) -> None:
        self.catalogue = store.catalogue()
        self.current = self.catalogue.datasets.get(name)
        self._store, self._name, self._aside, self._signals = store, name, aside, signals
        self._journal = journal
        self._rate_hz = self.current.rate_hz if self.current else rate_hz
        self._old = read_episodes(store.folder(name, self.current)) if self.current else []
        self.owners = {episode.meta.digest: episode.meta.unit_ids for episode in self._old}
        self._at = {episode.meta.digest: at for at, episode in enumerate(self._old)}
        self._granted: set[str] = set()
        self._new: list[StoredEpisode] = []
        self._columns: dict[str, int] = dict(self.current.columns) if self.current else {}
        self._labels: tuple[str, ...] | None = self.current.labels if self.current else None
        self._tasks: list[str] = list(dict.fromkeys(episode.meta.task for episode in self._old))
        self._writer: pq.ParquetWriter | None = None
        self._file = max((e.chunk * CHUNKS_SIZE + e.file for e in self._old), default=-1)
        self._file_bytes = 0
        self._rows = sum(episode.meta.length for episode in self._old)
        self._fresh: list[tuple[StoredEpisode, str]] = []  # since the last checkpoint, as the next three
        self._fresh_bytes = 0
        self._fresh_sources: list[str] = []
        self._fresh_parts: list[Path] = []
        self.checkpoints = self._resume()

    def set_rate(self, rate_hz: str) -> None:
        """Rate of the data set, if this import is its first."""
        if self.current is None:
            self._rate_hz = rate_hz

    def index(self) -> Index:
        """What the store knew when the draft began.

        Raises:
            StoreDamagedError: Marks that the catalogue names are missing or changed.
        """
        index = self.catalogue.index()
        for data in read_marks(self._store.root, self.catalogue):
            index.marks.add_bytes(data)
        return index

    @property
    def root(self) -> Path:
        """Folder of the store."""
        return self._store.root

    @property
    def has_grants(self) -> bool:
        """Whether an episode that was there got another right."""
        return bool(self._granted)

    def grant(self, digest: str, rights: str) -> bool:
        """One right more for an episode that the data set has; False where it has it."""
        at = self._at.get(digest)
        meta = None if at is None else self._old[at].meta
        if at is None or meta is None or rights in meta.rights:
            return False
        self._old[at] = replace(self._old[at], meta=replace(meta, rights=(*meta.rights, rights)))
        self._granted.add(digest)
        return True

    def add(self, frames: Frames, meta: EpisodeMeta, marks: str) -> None:
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
        self._fresh_bytes += size
        chunk, file = divmod(self._file, CHUNKS_SIZE)
        stored = StoredEpisode(chunk=chunk, file=file, start=self._rows, meta=meta)
        self._new.append(stored)
        self._fresh.append((stored, marks))
        self._rows += frames.length
        self.owners[meta.digest] = meta.unit_ids

    def end_of_source(self, sha256: str, state: Mapping[str, Any]) -> bool:
        """A source file is done; behind enough of them a checkpoint is made: True.

        Args:
            sha256: Of the file.
            state: What the importer needs to go on from here.
        """
        self._fresh_sources.append(sha256)
        if self._fresh_bytes < RESUME_BYTES:
            return False
        self.close()
        for part in self._fresh_parts:
            sync(part)
        for folder in {folder for part in self._fresh_parts for folder in part.parents}:
            if folder.is_relative_to(self._aside.parent):
                sync(folder)
        self._journal.append(
            Checkpoint(
                files=tuple(self._fresh_sources),
                parts=tuple(
                    (part.relative_to(self._aside).as_posix(), sha256_file(part))
                    for part in self._fresh_parts
                ),
                episodes=tuple(self._fresh),
                state={**state, "draft": self._state()},
            )
        )
        self._fresh, self._fresh_bytes, self._fresh_sources, self._fresh_parts = [], 0, [], []
        return True

    def commit(
        self,
        *,
        lineage: str,
        blocks: Mapping[str, int],
        rights: tuple[str, ...],
        catalogue: Catalogue,
        marks: Sequence[tuple[str, str]],
        embodiment: Mapping[str, Any] | None,
    ) -> None:
        """Makes the generation durable and switches the store over to it.

        Args:
            lineage: Of the data set.
            blocks: Content digest to block, for each new episode.
            rights: Contracts and consents under which the data set stands.
            catalogue: With the new blocks.
            marks: Of the new episodes, each behind the content by which the catalogue knows it.
            embodiment: Of the robot, if known.
        """
        self.close()
        generation = self.current.generation + 1 if self.current else 1
        private = set(self.current.private) if self.current else set()
        entry = Dataset(
            generation=generation,
            lineage=lineage,
            rights=rights,
            columns=self._columns,
            labels=self._labels or (),
            rate_hz=self._rate_hz,
            embodiment=embodiment,
            unit=unit_of(self._signals),
            private=tuple(sorted(private | (self._signals.private_keys & set(self._columns)))),
        )
        self._new = [
            replace(e, meta=replace(e.meta, lineage=lineage, block=blocks[e.meta.content])) for e in self._new
        ]
        linked = set()
        if self.current is not None:
            linked = link_files(self._store.folder(self._name, self.current), self._aside, DATA)
        self._write_meta(entry)
        catalogue = write_marks(self._store.root, catalogue, marks)
        metas = [one.meta for one in (*self._old, *self._new)]
        catalogue = catalogue.with_acts(metas).bound_to(metas)
        switch(self._store, self._name, aside=self._aside, entry=entry, catalogue=catalogue, linked=linked)

    def close(self) -> None:
        """Closes the data file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Throws the draft away, if it was not committed, and its journal."""
        remove(self._aside)
        self._journal.remove()

    def keep_no_journal(self) -> None:
        """From now on this import cannot be gone on with: its source comes back to files that were done."""
        self._journal.give_up()

    def _state(self) -> dict[str, Any]:
        labels = None if self._labels is None else list(self._labels)
        return {
            "columns": self._columns,
            "labels": labels,
            "rate_hz": self._rate_hz,
            "file": self._file,
            "rows": self._rows,
        }

    def _resume(self) -> tuple[Checkpoint, ...]:
        """Takes up the checkpoints of an import with the same key, if all that they name is there."""
        found = self._journal.read()
        parts = {name: sha256 for one in found for name, sha256 in one.parts}
        whole = all(
            (self._aside / name).is_file() and sha256_file(self._aside / name) == sha256
            for name, sha256 in parts.items()
        )
        if not found or not whole:
            self.discard()
            return ()
        for path in sorted(self._aside.rglob("*"), reverse=True):
            if path.is_file() and path.relative_to(self._aside).as_posix() not in parts:
                remove(path)
        self._journal.trim()
        for stored, _ in (row for one in found for row in one.episodes):
            self._new.append(stored)
            self.owners[stored.meta.digest] = stored.meta.unit_ids
        self._tasks = list(dict.fromkeys([*self._tasks, *(e.meta.task for e in self._new)]))
        state = found[-1].state["draft"]
        self._columns, self._rate_hz = dict(state["columns"]), state["rate_hz"]
        self._labels = None if state["labels"] is None else tuple(state["labels"])
        self._file, self._rows = state["file"], state["rows"]
        return found

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
        path = self._aside / data_file(*divmod(self._file, CHUNKS_SIZE))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(path, self._schema(), compression="snappy", write_page_checksum=True)
        self._fresh_parts.append(path)

    def _schema(self) -> pa.Schema:
        return pa.schema(
            [
                *((key, pa.list_(pa.float32(), size)) for key, size in self._columns.items()),
                (STAMPS, pa.int64()),
                *((f"label.{name}", pa.int8()) for name in self._labels or ()),
                *((name, pa.float32() if name == "timestamp" else pa.int64()) for name in INDEX),
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

    def _write_meta(self, entry: Dataset) -> None:
        rows = [*self._old, *self._new]
        aside = self._aside
        for folder in (PurePosixPath(EPISODES).parent, "iriai/signalmaps"):
            (aside / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_episodes(aside, rows)
        tasks = pa.table(
            {"task_index": pa.array(range(len(self._tasks)), pa.int64()), "task": pa.array(self._tasks)}
        )
        pq.write_table(tasks, aside / "meta/tasks.parquet")
        write_json(aside / "meta/info.json", self._info(entry, len(rows)))
        write_json(aside / "iriai/embodiment.json", entry.embodiment)
        if entry.private:
            write_json(aside / PRIVATE, {"columns": list(entry.private)})
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
        return info(
            features=features,
            robot_type=entry.embodiment["class"] if entry.embodiment else "unknown",
            rate_hz=entry.rate_hz,
            episodes=episodes,
            frames=self._rows,
            tasks=len(self._tasks),
            file_mb=STORE_FILE_BYTES // 1024**2,
        )
