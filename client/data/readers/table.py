# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet tables, with a signal map.

- A folder is read file by file in the order of names; an episode never spans two files.
- A file comes in parts of `limits.SERIES_ROWS` rows; memory does not grow with its length.
- Delimiter and decimal sign come from the map and are never guessed: a cell with the other sign is refused.
  Names are stripped; all-empty columns are counted.
- An empty cell is missing. The words NaN and infinity are refused: a recording error, not a missing value.
- Rows that hold no mapped value at all are padding where the file has no clock of its own and none with
  values follows, or where the stamp is empty too: dropped and counted. Whether such rows are the tail of a
  file is known only at its end, so they wait for the next row with values, up to `PADDING_BYTES`.
- A Parquet file of our own recorder says which model acted, and a folder of its recordings holds nothing but
  deployed episodes, whatever its map and its files say (`client.data.readers.deployed`).
- A file that an interrupted import has already is hashed, and not read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from client.data.errors import FileInvalidError, MapInvalidError, MissingColumnError, TooLargeError
from client.data.readers import parquet
from client.data.readers.cells import numbers, stamps, words
from client.data.readers.csv_parts import csv_header, csv_parts
from client.data.readers.deployed import Recordings
from client.data.readers.files import check_file, sha256_file
from client.data.series import READ_ALL, Array64, Note, Probe, ReadOptions, Series, SourceRef
from client.data.signalmap import Clock, SignalMap, Table
from policies.limits import PADDING_BYTES, PARQUET_BATCH_BYTES, SERIES_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TableReader"]

_SUFFIXES: Final = {".csv": "csv", ".parquet": "parquet"}


class TableReader:
    """CSV and Parquet."""

    name = "table"

    def claims(self, path: Path) -> bool:
        """A ``.csv`` or ``.parquet`` file, or a folder that holds some."""
        return bool(_files(path))

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Columns of the first file; rows where all files are Parquet."""
        files = _files(path)
        size = sum(check_file(file) for file in files)
        first, kind = files[0], _SUFFIXES[files[0].suffix.lower()]
        texts: frozenset[str] = frozenset()
        if kind == "csv":
            names = csv_header(first, signals.table if signals else Table())
        else:
            with parquet.opened(first) as opened:
                schema = opened.schema_arrow
            names = schema.names
            texts = frozenset(f.name for f in schema if pa.types.is_string(f.type))
        return Probe(
            reader=self.name,
            version=kind,
            channels=tuple(n for n in names if n),
            texts=texts,
            rows=_rows(files),
            bytes=size,
        )

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """The parts of each file."""
        del probe  # each file has its own header
        if signals.clock is None:
            raise MapInvalidError(
                need="clock", found="a map without it", remedy="name the column of the stamps, or rate_hz"
            )
        before = 0
        recordings = Recordings(path, signals, options.node_key)
        for file in _files(path):
            size = check_file(file)
            one = _File(file, signals, signals.clock, note, recordings)
            if one.source.file_sha256 in options.finished:
                yield replace(one.nothing(), bytes_read=before + size)
            else:
                for series in one.series():
                    done = before + min(size, series.bytes_read or 0)
                    yield replace(series, declared=one.declared, bytes_read=done)
            before += size


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")
        )
    return [path] if path.suffix.lower() in _SUFFIXES else []


def _rows(files: list[Path]) -> int | None:
    """Rows of Parquet files, which say how many they have."""
    if any(_SUFFIXES[file.suffix.lower()] == "csv" for file in files):
        return None
    rows = 0
    for file in files:
        with parquet.opened(file) as opened:
            rows += opened.metadata.num_rows
    return rows


class _File:
    """One file in parts."""

    def __init__(
        self, file: Path, signals: SignalMap, clock: Clock, note: Note, recordings: Recordings
    ) -> None:
        self._file, self._signals, self._clock, self._note = file, signals, clock, note
        self._padding = 0
        self._waiting: list[Series] = []  # rows without values, until one with values follows
        self.source = SourceRef(reader="table", file_sha256=sha256_file(file), first=0, last=0)
        self.declared = recordings.declared(file)

    def nothing(self) -> Series:
        """A part without rows."""
        return Series.nothing(self._file.name, self._clock.kind, self._signals, self.source)

    def series(self) -> Iterator[Series]:
        """The parts in order; what was left out is noted before the last one."""
        held = self.nothing()
        first = 0
        for table, read in _gathered(self._tables()):
            for part in self._settled(self._part(table, first)):
                if held.length:
                    yield replace(held, more=True)
                held = replace(part, bytes_read=read)
            first += len(table)
        self._padding += sum(part.length for part in self._waiting)
        if self._padding:
            self._note("padding-rows", self._padding)
        yield replace(held, bytes_read=self._file.stat().st_size)

    def _tables(self) -> Iterator[tuple[pa.Table, int]]:
        clock = [self._clock.column] if self._clock.column else []
        wanted = list(dict.fromkeys([*clock, *self._signals.number_columns, *self._signals.text_columns]))
        if _SUFFIXES[self._file.suffix.lower()] == "csv":
            header = csv_header(self._file, self._signals.table)
            self._signals.require(header, self._file.name)
            _check_once(header, wanted, self._file)
            return csv_parts(self._file, self._signals, wanted, self._note)
        return _parquet_parts(self._file, self._signals, wanted)

    def _part(self, table: pa.Table, first: int) -> Series:
        """Rows of a table that starts at row ``first`` of the file, without rows that are surely padding."""
        signals, name, clock = self._signals, self._file.name, self._clock
        decimal = signals.table.decimal
        columns: dict[str, Array64] = {
            column: numbers(table[column], f"{name}, column {column}", decimal, before=first)
            for column in signals.number_columns
        }
        empty = np.all([np.isnan(values) for values in columns.values()], axis=0)
        stamps_ns, unstamped = stamps(
            table[clock.column] if clock.column else None,
            clock,
            rows=len(empty),
            where=f"{name}, column {clock.column}",
            decimal=decimal,
            empty=empty,
            before=first,
        )
        keep = ~(empty & unstamped)
        self._padding += int((~keep).sum())
        whole = Series(
            name=name,
            stamps_ns=stamps_ns,
            clock=clock.kind,
            columns=columns,
            texts={column: words(table[column]) for column in signals.text_columns},
            source=self.source,
            kept=np.arange(first, first + len(keep)),
        )
        return whole if keep.all() else _chosen(whole, keep)

    def _settled(self, part: Series) -> list[Series]:
        """What may go on: without a clock, rows without values at the end wait."""
        if self._clock.column is not None and self._clock.unit != "count":
            return [part] if part.length else []
        filled = np.flatnonzero(~np.all([np.isnan(v) for v in part.columns.values()], axis=0))
        end = int(filled[-1]) + 1 if len(filled) else 0
        tail = [part.part(end, part.length)] if end < part.length else []
        if not end:
            self._waiting += tail
            self._check_waiting()
            return []
        ready, self._waiting = [*self._waiting, part.part(0, end)], tail
        return ready

    def _check_waiting(self) -> None:
        width = len(self._signals.number_columns) + len(self._signals.text_columns) + 2  # stamp and number
        if sum(part.length for part in self._waiting) * width * 8 > PADDING_BYTES:
            raise TooLargeError(
                need=f"at most {PADDING_BYTES // 8 // width} rows without a value, one after another",
                found=f"{self._file.name}: more",
                remedy="cut them off, or name a column as the clock of the signal map",
            )


def _chosen(series: Series, keep: npt.NDArray[np.bool_]) -> Series:
    return replace(
        series,
        stamps_ns=series.stamps_ns[keep],
        columns={name: values[keep] for name, values in series.columns.items()},
        texts={name: values[keep] for name, values in series.texts.items()},
        kept=None if series.kept is None else series.kept[keep],
    )


def _gathered(tables: Iterator[tuple[pa.Table, int]]) -> Iterator[tuple[pa.Table, int]]:
    """Batches joined to parts of at most `SERIES_ROWS` rows; of fewer where their words are long."""
    waiting: list[pa.Table] = []
    rows = size = read = 0
    for table, done in tables:
        while rows + len(table) >= SERIES_ROWS:
            taken = SERIES_ROWS - rows
            yield pa.concat_tables([*waiting, table.slice(0, taken)]), read
            waiting, rows, size, table = [], 0, 0, table.slice(taken)  # noqa: PLW2901  what is left of it
        waiting.append(table)
        rows, size, read = rows + len(table), size + table.nbytes, done
        if size > PARQUET_BATCH_BYTES and rows:
            yield pa.concat_tables(waiting), read
            waiting, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(waiting), read


def _check_once(header: list[str], wanted: list[str], file: Path) -> None:
    for name in wanted:
        if header.count(name) > 1:
            raise FileInvalidError(
                need=f"column {name} once",
                found=f"{file.name}: {header.count(name)} times",
                remedy="rename one",
            )


def _parquet_parts(file: Path, signals: SignalMap, wanted: list[str]) -> Iterator[tuple[pa.Table, int]]:
    with parquet.opened(file, wanted) as opened:
        schema = opened.schema_arrow
        signals.require(schema.names, file.name)
        for name in wanted:
            if schema.names.count(name) != 1 or pa.types.is_nested(schema.field(name).type):
                raise MissingColumnError(
                    need=f"one flat column {name}", found=f"{file.name}: another", remedy="flatten the table"
                )
        size, rows, all_rows = file.stat().st_size, 0, max(1, opened.metadata.num_rows)
        with parquet.refusing(file):
            for batch in parquet.batches(opened, wanted, where=file.name):
                rows += len(batch)
                yield pa.Table.from_batches([batch]), size * rows // all_rows
