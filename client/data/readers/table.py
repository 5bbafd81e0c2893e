# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet tables, with a signal map.

- A folder is read file by file in the order of names; an episode never spans two files.
- Line ends CRLF, LF and bare CR, per file. Delimiter and decimal sign come from the map and are never
  guessed: a cell with the other sign is refused. Names are stripped; all-empty columns are counted.
- An empty cell is missing. The words NaN and infinity are refused: a recording error, not a missing value.
- A row of another width than the header is refused with its number.
- Rows that hold no mapped value at all are padding where the file has no clock of its own, or where the stamp
  is empty too: dropped and counted.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from client.data.errors import (
    FileInvalidError,
    FormatUnknownError,
    MapInvalidError,
    MissingColumnError,
    RaggedError,
    TooLargeError,
)
from client.data.readers.cells import numbers, stamps, words
from client.data.readers.files import check_file, sha256_file
from client.data.series import Array64, Note, Probe, Series, SourceRef
from client.data.signalmap import Clock, SignalMap, Table
from policies.limits import TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["TableReader"]

_SUFFIXES: Final = {".csv": "csv", ".parquet": "parquet"}
_BOM: Final = b"\xef\xbb\xbf"


class TableReader:
    """CSV and Parquet."""

    name = "table"

    def claims(self, path: Path) -> bool:
        """A ``.csv`` or ``.parquet`` file, or a folder that holds some."""
        return bool(_files(path))

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Columns of the first file."""
        first = _files(path)[0]
        check_file(first)
        table = signals.table if signals else Table()
        kind = _SUFFIXES[first.suffix.lower()]
        names = _header(first, table) if kind == "csv" else _parquet(first).schema_arrow.names
        return Probe(reader=self.name, version=kind, channels=tuple(n for n in names if n))

    def read(self, path: Path, probe: Probe, signals: SignalMap, note: Note) -> Iterator[Series]:
        """One series per file."""
        del probe  # each file has its own header
        if signals.clock is None:
            raise MapInvalidError(
                need="clock", found="a map without it", remedy="name the column of the stamps, or rate_hz"
            )
        for file in _files(path):
            check_file(file)
            yield _series(file, signals, signals.clock, note)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")
        )
    return [path] if path.suffix.lower() in _SUFFIXES else []


def _series(file: Path, signals: SignalMap, clock: Clock, note: Note) -> Series:
    if _SUFFIXES[file.suffix.lower()] == "csv":
        table = _csv_table(file, signals, note)
    else:
        table = _parquet_table(file, signals)
    columns: dict[str, Array64] = {
        name: numbers(table[name], f"{file.name}, column {name}", signals.table.decimal)
        for name in signals.number_columns
    }
    texts = {name: words(table[name]) for name in signals.text_columns}
    empty = np.all([np.isnan(values) for values in columns.values()], axis=0)
    column = table[clock.column] if clock.column else None
    where, decimal = f"{file.name}, column {clock.column}", signals.table.decimal
    stamps_ns, unstamped = stamps(column, clock, rows=len(empty), where=where, decimal=decimal, empty=empty)
    keep = ~(empty & unstamped)
    if clock.column is None or clock.unit == "count":  # no clock: a tail without values is padding
        filled = np.flatnonzero(~empty)
        keep &= np.arange(len(empty)) < (filled[-1] + 1 if len(filled) else 0)
    if not keep.all():
        note("padding-rows", int((~keep).sum()))
    return Series(
        name=file.name,
        stamps_ns=stamps_ns[keep],
        clock=clock.kind,
        columns={name: values[keep] for name, values in columns.items()},
        texts={name: values[keep] for name, values in texts.items()},
        source=SourceRef(reader="table", file_sha256=sha256_file(file), first=0, last=len(keep)),
        kept=np.flatnonzero(keep),
    )


def _header(file: Path, table: Table) -> list[str]:
    with file.open("rb") as opened:
        head = opened.read(TEXT_ROW_BYTES + 1)
    head = head.removeprefix(_BOM)
    ends = [at for at in (head.find(b"\r"), head.find(b"\n")) if at >= 0]
    if not ends and len(head) > TEXT_ROW_BYTES:
        raise TooLargeError(
            need=f"rows of at most {TEXT_ROW_BYTES} bytes",
            found=f"{file.name}: a longer one",
            remedy="check the file",
        )
    try:
        line = head[: min(ends)] if ends else head
        names = next(csv.reader([line.decode("utf-8")], delimiter=table.delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileInvalidError(
            need="a header in UTF-8",
            found=f"{file.name}: {type(error).__name__}",
            remedy="save the file as UTF-8",
        ) from error
    return [name.strip() for name in names] if table.strip_names else names


def _csv_table(file: Path, signals: SignalMap, note: Note) -> pa.Table:
    header = _header(file, signals.table)
    signals.require(header, file.name)
    _once(header, signals, file)
    unique = [f"{number}:{name}" for number, name in enumerate(header)]
    read = [u for u, name in zip(unique, header, strict=True) if not signals.is_secret(name)]
    note("secret-columns", len(unique) - len(read))
    wanted = {*signals.number_columns, *signals.text_columns, signals.clock.column if signals.clock else None}
    ragged: list[tuple[int | None, int, int]] = []

    def on_ragged(row: Any) -> str:  # noqa: ANN401  the library's own type
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "error"

    kept: dict[str, list[pa.Array]] = {u: [] for u in read if u.split(":", 1)[1] in wanted}
    filled: set[str] = set()
    try:
        with pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(use_threads=False, column_names=unique, skip_rows=1),
            parse_options=pacsv.ParseOptions(
                delimiter=signals.table.delimiter, invalid_row_handler=on_ragged, newlines_in_values=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(read, pa.string()), include_columns=read, strings_can_be_null=False
            ),
        ) as opened:
            for batch in opened:
                _check_rows(batch, file)
                for name in read:
                    if name in kept:
                        kept[name].append(batch.column(name))
                    elif name not in filled and any(v for v in batch.column(name).to_pylist()):
                        filled.add(name)
    except pa.ArrowInvalid as error:
        raise _csv_error(file, error, ragged) from error
    if signals.table.drop_empty_columns:
        note("empty-columns", len(read) - len(kept) - len(filled))
    return pa.table({u.split(":", 1)[1]: pa.chunked_array(chunks, pa.string()) for u, chunks in kept.items()})


def _once(header: list[str], signals: SignalMap, file: Path) -> None:
    clock = [signals.clock.column] if signals.clock and signals.clock.column else []
    for name in (*clock, *signals.number_columns, *signals.text_columns):
        if header.count(name) > 1:
            raise FileInvalidError(
                need=f"column {name} once",
                found=f"{file.name}: {header.count(name)} times",
                remedy="rename one",
            )


def _check_rows(batch: pa.RecordBatch, file: Path) -> None:
    """A row is at least as long as each of its cells; offsets make the check cheap."""
    for column in batch.columns:
        if column.nbytes > TEXT_ROW_BYTES:
            longest = pa.compute.max(pa.compute.binary_length(column)).as_py()
            if longest is not None and longest > TEXT_ROW_BYTES:
                raise TooLargeError(
                    need=f"rows of at most {TEXT_ROW_BYTES} bytes",
                    found=f"{file.name}: a longer one",
                    remedy="check the file",
                )


def _csv_error(
    file: Path, error: pa.ArrowInvalid, ragged: list[tuple[int | None, int, int]]
) -> RaggedError | FileInvalidError | FormatUnknownError:
    if ragged:
        number, expected, actual = ragged[0]
        return RaggedError(
            need=f"{expected} cells in each row",
            found=f"{file.name}, row {number}: {actual}",
            remedy="check delimiter and decimal sign in the signal map; repair the row",
        )
    what = "bytes that are no UTF-8" if "UTF8" in str(error) else "a table that cannot be parsed"
    return FileInvalidError(
        need="a CSV table", found=f"{file.name}: {what}", remedy="save it again as CSV in UTF-8"
    )


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise FileInvalidError(
            need="a Parquet file", found=f"{file.name}: {type(error).__name__}", remedy="copy the file again"
        ) from error


def _parquet_table(file: Path, signals: SignalMap) -> pa.Table:
    with _parquet(file) as opened:
        names = opened.schema_arrow.names
        signals.require(names, file.name)
        clock = [signals.clock.column] if signals.clock and signals.clock.column else []
        wanted = list(dict.fromkeys([*clock, *signals.number_columns, *signals.text_columns]))
        for name in wanted:
            if names.count(name) != 1 or pa.types.is_nested(opened.schema_arrow.field(name).type):
                raise MissingColumnError(
                    need=f"one flat column {name}", found=f"{file.name}: another", remedy="flatten the table"
                )
        try:
            return opened.read(columns=wanted, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise FileInvalidError(
                need="readable Parquet pages",
                found=f"{file.name}: {type(error).__name__}",
                remedy="copy it again",
            ) from error
