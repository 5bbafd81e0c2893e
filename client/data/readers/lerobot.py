# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v3.0 and v2.1 folders, read without the library that wrote them.

- v3.0 keeps many episodes in one file; ``dataset_from_index`` counts over the whole data set, so the row in a
  file is ``dataset_from_index`` minus the ``index`` of the file's first row. Every slice is checked: its rows
  must carry the episode's number, the expected ``index`` and ``frame_index`` 0, 1, 2 ...; else the data set
  is refused and the episode named.
- v2.1 keeps one file per episode (client.data.readers.lerobot_index).
- A channel is ``<feature>.<component name>``, or ``<feature>.<number>`` where the format gives no names.
- ``timestamp`` is ``frame_index / fps`` and therefore no clock: kind ``derived``. Only a folder that has
  ``observation.stamp_ns`` (our store) brings real stamps.
- Statistics are never read; video, images and features of more than `SIGNALS` numbers are left alone and
  counted.
- ``splits = {"train": "0:N", "held-out": "N:M"}`` declares the split; any other ``splits`` is ignored.

A file is read once from its start to its end, some thousand rows at a time; in memory are the mapped columns
of one episode.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import pyarrow as pa

from client.data.errors import FileInvalidError, MissingColumnError, NotFiniteError
from client.data.readers import parquet
from client.data.readers.cells import words
from client.data.readers.files import check_file, sha256_file
from client.data.readers.lerobot_index import (
    INDEX,
    OPAQUE,
    STAMPS,
    Channel,
    Episode,
    channels_of,
    declared_split,
    episodes_of,
    misplaced,
    read_info,
    store_acts,
    store_clocks,
    too_wide,
)
from client.data.series import READ_ALL, Declared, Note, Probe, ReadOptions, Series, SourceRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.data.series import Array64, ClockKind, Int64, Texts
    from client.data.signalmap import SignalMap

__all__ = ["LeRobotReader"]

_STOPPED: Final = "rows end before the index says"


class LeRobotReader:
    """LeRobotDataset v3.0 and v2.1."""

    name = "lerobot"

    def claims(self, path: Path) -> bool:
        """A folder with ``meta/info.json``."""
        return (path / "meta" / "info.json").is_file()

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Version, channels, rate and robot type of ``meta/info.json``."""
        del signals
        info = read_info(path)
        channels = channels_of(info)
        frames = info.get("total_frames")
        return Probe(
            reader=self.name,
            version=str(info["codebase_version"]),
            channels=tuple(channels),
            robot_type=str(info.get("robot_type") or ""),
            rate_hz=float(info["fps"]),
            extra={
                "names": {channel: found.name for channel, found in channels.items()},
                "media": [name for name, f in info["features"].items() if f.get("dtype") in OPAQUE],
            },
            texts=frozenset(
                c for c, one in channels.items() if info["features"][one.feature].get("dtype") == "string"
            ),
            rows=frames if isinstance(frames, int) else None,
            bytes=sum(file.stat().st_size for file in (path / "data").rglob("*.parquet")),
        )

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """One series per episode, in the order of episode numbers."""
        info = read_info(path)
        signals.require(probe.channels, "meta/info.json")
        note("video-or-image-features", sum(f.get("dtype") in OPAQUE for f in info["features"].values()))
        note("keys-not-read", too_wide(info))
        note("secret-columns", sum(signals.is_secret(c) for c in probe.channels))
        episodes, tasks = episodes_of(path, info)
        declared = declared_split(info, len(episodes))
        clocks = store_clocks(path) if STAMPS in info["features"] else None
        acts = store_acts(path)
        done = 0
        for file, group in groupby(episodes, key=lambda episode: episode.file):
            with _DataFile(file, signals, info, stamped=clocks is not None) as opened:
                if opened.sha256 in options.finished:
                    source = SourceRef(reader=self.name, file_sha256=opened.sha256, first=0, last=0)
                    nothing = Series.nothing(file.name, "derived", signals, source)
                    yield replace(nothing, bytes_read=done + opened.size)
                else:
                    for episode in group:
                        clock = "derived" if clocks is None else clocks.get(episode.number, "host")
                        split = declared[episode.number] if declared else None
                        said = Declared(task="", split=split, **acts.get(episode.number, {}))
                        yield opened.series(episode, clock=clock, tasks=tasks, said=said, done=done)
            done += opened.size


class _Rows:
    """Rows of a Parquet file from its start to its end. What lies before the last ones asked for is gone."""

    def __init__(
        self,
        file: parquet.Opened,
        columns: list[str],
        *,
        where: str = "",
        widths: Mapping[str, int] | None = None,
    ) -> None:
        self._batches = parquet.batches(file, columns, where=where, widths=widths)
        self._nothing = pa.schema([file.schema_arrow.field(name) for name in columns]).empty_table()
        self._held: list[pa.RecordBatch] = []
        self._start = 0  # of the first batch that is held

    def between(self, first: int, last: int) -> pa.Table:
        """Rows ``first`` to ``last``, which the file has; none of them if ``first`` is gone already."""
        while self._held and self._start + len(self._held[0]) <= first:
            self._start += len(self._held.pop(0))
        end = self._start + sum(len(batch) for batch in self._held)
        while end < last:
            batch = next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid(_STOPPED)
            end += len(batch)
            if end <= first:
                self._start = end
            else:
                self._held.append(batch)
        held = pa.Table.from_batches(self._held) if self._held else self._nothing
        return held.slice(0, 0) if first < self._start else held.slice(first - self._start, last - first)


class _DataFile:
    """One data file with the columns that the map needs. Use it in a ``with``."""

    def __init__(self, path: Path, signals: SignalMap, info: dict[str, Any], *, stamped: bool) -> None:
        self.size = check_file(path)
        self.sha256 = sha256_file(path)
        channels = channels_of(info)
        self._path, self._info, self._stamped = path, info, stamped
        self._numbers = {name: channels[name] for name in signals.number_columns}
        self._words = {name: channels[name] for name in signals.text_columns}
        features = {c.feature for c in (*self._numbers.values(), *self._words.values())}
        wanted = [*sorted(features), *INDEX, *([STAMPS] if stamped else [])]
        self._file = parquet.opened(path, wanted)
        self._check_columns(wanted)
        widths = {feature: int(info["features"][feature]["shape"][0]) for feature in features}
        self._total = int(self._file.metadata.num_rows)
        with parquet.refusing(path):
            self._rows = _Rows(self._file, wanted, where=path.name, widths=widths)
            self._origin = self._index(self._rows.between(0, min(1, self._total)), "index")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _check_columns(self, wanted: list[str]) -> None:
        there = self._file.schema_arrow.names
        lacking = [name for name in wanted if name not in there]
        if lacking:
            raise MissingColumnError(
                need="columns " + ", ".join(lacking[:5]),
                found=f"{self._path.name} without them, although meta/info.json lists them",
                remedy="record or convert the data set again",
            )

    def series(
        self,
        episode: Episode,
        *,
        clock: ClockKind,
        tasks: Mapping[int, str],
        said: Declared,
        done: int,
    ) -> Series:
        """One episode, once its rows are proven to be its own; ``done`` bytes were in files before."""
        first, table = self._proven(episode)
        where, last = f"episode {episode.number}", first + episode.length
        features = {channel.feature for channel in self._numbers.values()}
        matrices = {f: self._matrix(table, f, where) for f in features}
        task = tasks.get(int(self._index(table, "task_index")[0]))
        if task is None:
            raise FileInvalidError(
                need="a task for each task_index", found=f"{where}: none", remedy="repair meta/tasks"
            )
        return Series(
            name=where,
            stamps_ns=self._stamps(table, where),
            clock=clock,
            columns={name: matrices[c.feature][:, c.component] for name, c in self._numbers.items()},
            texts={name: _text(table, channel) for name, channel in self._words.items()},
            source=SourceRef(reader="lerobot", file_sha256=self.sha256, first=first, last=last),
            declared=replace(said, task=task),
            bytes_read=done + self.size * last // self._total,
        )

    def _proven(self, episode: Episode) -> tuple[int, pa.Table]:
        """Row of the file at which the episode starts, and its rows."""
        rows = self._total
        first = 0 if episode.first is None or not rows else episode.first - int(self._origin[0])
        last = first + episode.length
        if episode.length < 1 or first < 0 or last > rows or (episode.first is None and last != rows):
            raise misplaced(episode.number, f"rows {first} to {last} of {rows} in {self._path.name}")
        with parquet.refusing(self._path):
            table = self._rows.between(first, last)
        if len(table) != episode.length or (self._index(table, "episode_index") != episode.number).any():
            raise misplaced(episode.number, f"rows of another episode in {self._path.name}")
        if (self._index(table, "frame_index") != np.arange(episode.length)).any():
            raise misplaced(episode.number, f"frames out of order in {self._path.name}")
        if episode.first is not None and self._index(table, "index")[0] != episode.first:
            raise misplaced(episode.number, f"another index in {self._path.name}")
        return first, table

    def _index(self, table: pa.Table, name: str) -> Int64:
        return _integers(table[name], f"{self._path.name}, {name}")

    def _stamps(self, table: pa.Table, where: str) -> Int64:
        if self._stamped:
            return _integers(table[STAMPS], where)
        stamps: Int64 = np.rint(np.arange(len(table)) * (1e9 / float(self._info["fps"]))).astype(np.int64)
        return stamps

    def _matrix(self, table: pa.Table, feature: str, where: str) -> Array64:
        size, length = int(self._info["features"][feature]["shape"][0]), len(table)
        column = table[feature].combine_chunks()
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


def _text(table: pa.Table, channel: Channel) -> Texts:
    column = table[channel.feature]
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
    try:
        values: Int64 = column.cast(pa.int64()).to_numpy().astype(np.int64)
    except pa.ArrowInvalid as error:
        raise FileInvalidError(
            need="whole numbers of 64 bits", found=f"{where}: larger ones", remedy="convert it again"
        ) from error
    return values
