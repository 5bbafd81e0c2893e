# SPDX-License-Identifier: Apache-2.0
"""Parquet that somebody else wrote, in batches whose size is bounded before they are unpacked.

A file of some kilobytes may say 10^9 rows, one word of a megabyte in each, or a list of 10^6 numbers in each;
all of that is packed into nothing. Therefore, in this order:

1. the footer's counts bound how many rows are unpacked together: values of a row times their width, and the
   bytes of words, are at most `PARQUET_BATCH_BYTES` a batch;
2. a column of lists has as many values as the format says (``widths``), or is refused;
3. words stay in the dictionary they were written in until no one of them is longer than `TEXT_CELL_BYTES`;
4. only then are they written out, row by row, if that stays within the same bound.

The footer's counts are the file's own word. One that lies fails while its pages are read.

    with opened(path, ["q0", "cycle"]) as file:
        for batch in batches(file, ["q0", "cycle"], where=path.name): ...
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from client.data.errors import DataError, FileInvalidError, MissingColumnError, TooLargeError
from client.data.readers.parquet_footer import row_groups
from policies.limits import PARQUET_BATCH_BYTES, PARQUET_TEXT_BYTES, TEXT_CELL_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Opened", "batches", "opened", "refusing", "require"]

_BUFFER_BYTES: Final = 1024**2  # of a column while it is read; whole columns would fill the memory
_BATCH_ROWS: Final = 8_192
_VALUE_BYTES: Final = 8  # of a number, the widest there is
_REMEDY: Final = "write the file again with smaller row groups and without the long cells"


class Opened(pq.ParquetFile):  # type: ignore[misc]
    """A file that is open, and where it is."""

    def __init__(self, path: Path, *, words: Sequence[str] = ()) -> None:
        super().__init__(
            path, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=list(words) or None
        )
        self.place = path


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """What the library cannot read becomes a refusal.

    Raises:
        FileInvalidError: It is no Parquet file.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise FileInvalidError(
            need="a Parquet file", found=f"{path.name}: {type(error).__name__}", remedy="copy the file again"
        ) from error


def opened(path: Path, columns: Sequence[str] = ()) -> Opened:
    """The file; those of the ``columns`` that hold words are read as dictionaries.

    Raises:
        FileInvalidError: It is no Parquet file.
    """
    with refusing(path):
        file = Opened(path)
        schema = file.schema_arrow
        words = [one for one in columns if schema.names.count(one) == 1 and _is_text(schema.field(one).type)]
        if not words:
            return file
        file.close()
        return Opened(path, words=words)


def batches(
    file: Opened, columns: Sequence[str], *, where: str, widths: Mapping[str, int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a file, words written out.

    Args:
        file: Opened with its columns of words as such.
        columns: There, each once.
        where: Name of the file, for refusals.
        widths: Values per row of each column of lists.

    Raises:
        TooLargeError: A cell, a row or a row group's column beyond its bound.
        FileInvalidError: Another number of values than ``widths`` says; bytes for numbers or words.
    """
    rows = _rows_together(file, columns, where, widths or {})
    for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
        yield _written_out(batch, where)


def _rows_together(file: Opened, columns: Sequence[str], where: str, widths: Mapping[str, int]) -> int:
    """Steps 1 and 2."""
    _check_kinds(file, columns, where)
    wanted = frozenset(columns)
    rows = _BATCH_ROWS
    for group in row_groups(file.place):
        each = 0
        for chunk in group.chunks:
            name, count = chunk.name, max(1, group.rows)
            if name not in wanted:
                continue
            if chunk.text and chunk.size > PARQUET_TEXT_BYTES:
                raise _too_large(f"words of at most {PARQUET_TEXT_BYTES} bytes in a row group", where, name)
            if name in widths and chunk.values != group.rows * widths[name]:
                raise _other_width(where, name, widths[name])
            each += (chunk.size if chunk.text else chunk.values * _VALUE_BYTES) // count + 1
        if each > PARQUET_BATCH_BYTES:
            raise _too_large(f"rows of at most {PARQUET_BATCH_BYTES} bytes", where, "a row")
        rows = min(rows, max(1, PARQUET_BATCH_BYTES // max(each, 1)))
    return rows


def _check_kinds(file: Opened, columns: Sequence[str], where: str) -> None:
    for name in columns:
        kind = file.schema_arrow.field(name).type
        if _is_bytes(kind) or (pa.types.is_nested(kind) and _is_text(_innermost(kind))):
            raise FileInvalidError(
                need="numbers, or one word in a cell",
                found=f"{where}, {ascii(name)[1:-1][:60]}: {kind}",
                remedy="convert the column",
            )


def _written_out(batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
    """Steps 3 and 4."""
    arrays, size = [], 0
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        coded = pa.types.is_dictionary(column.type)
        texts = column.dictionary if coded else column
        if not _is_text(texts.type):
            arrays.append(column)
            continue
        lengths = pc.binary_length(texts)
        if (pc.max(lengths).as_py() or 0) > TEXT_CELL_BYTES:
            raise _too_large(f"cells of at most {TEXT_CELL_BYTES} bytes", where, name)
        size += pc.sum(lengths.take(column.indices) if coded else lengths).as_py() or 0
        if size > PARQUET_BATCH_BYTES:
            need = f"words of at most {PARQUET_BATCH_BYTES} bytes in {len(batch)} rows"
            raise _too_large(need, where, name)
        arrays.append(column.dictionary_decode() if coded else column)
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _innermost(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def require(file: Opened, columns: Sequence[str], where: str) -> None:
    """Refuses a file that lacks a column.

    Raises:
        MissingColumnError: Names those that are not there.
    """
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise MissingColumnError(
            need="columns " + ", ".join(lacking[:5]), found=f"{where} without them", remedy="convert it again"
        )


def _too_large(need: str, where: str, name: str) -> DataError:
    return TooLargeError(need=need, found=f"{where}, {ascii(name)[1:-1][:60]}: more", remedy=_REMEDY)


def _other_width(where: str, name: str, width: int) -> DataError:
    return FileInvalidError(
        need=f"{width} numbers per frame in {ascii(name)[1:-1][:60]}",
        found=f"{where}: others",
        remedy="convert it again",
    )
