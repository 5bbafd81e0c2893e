# SPDX-License-Identifier: Apache-2.0
"""A CSV file in parts of text cells: a file of any length takes the memory of one part.

- Line ends CRLF, LF and bare CR. Delimiter comes from the map. All cells stay text here: what is a number is
  decided by `client.data.readers.cells`.
- A row of another width than the header is refused with its number.
- Columns that stay empty to the end are counted when the end is reached.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from client.data.errors import DataError, FileInvalidError, RaggedError, TooLargeError
from policies.limits import TEXT_ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.series import Note
    from client.data.signalmap import SignalMap, Table

__all__ = ["csv_header", "csv_parts"]

_BOM: Final = b"\xef\xbb\xbf"


def csv_header(file: Path, table: Table) -> list[str]:
    """Names of the columns.

    Raises:
        TooLargeError: A line that does not end.
        FileInvalidError: Bytes that are no UTF-8.
    """
    with file.open("rb") as opened:
        head = opened.read(TEXT_ROW_BYTES + 1)
    head = head.removeprefix(_BOM)
    ends = [at for at in (head.find(b"\r"), head.find(b"\n")) if at >= 0]
    if not ends and len(head) > TEXT_ROW_BYTES:
        raise _long_row(file)
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


def csv_parts(
    file: Path, signals: SignalMap, wanted: list[str], note: Note
) -> Iterator[tuple[pa.Table, int]]:
    """Wanted columns as text, batch by batch, with the bytes of the file that were read so far.

    Args:
        file: A file whose header has the wanted columns once.
        signals: The map.
        wanted: Columns that it names.
        note: Told of secret columns first, of empty ones at the end.

    Raises:
        RaggedError: A row of another width.
        TooLargeError: A row beyond its bound.
        FileInvalidError: Not a CSV table in UTF-8.
    """
    header = csv_header(file, signals.table)
    unique = [f"{number}:{name}" for number, name in enumerate(header)]
    read = [u for u, name in zip(unique, header, strict=True) if not signals.is_secret(name)]
    note("secret-columns", len(unique) - len(read))
    kept = [u for u in read if u.split(":", 1)[1] in wanted]
    unknown = set(read) - set(kept)  # columns that were empty so far
    ragged: list[tuple[int | None, int, int]] = []

    def on_ragged(row: Any) -> str:  # noqa: ANN401  the library's own type
        ragged.append((row.number, row.expected_columns, row.actual_columns))
        return "error"

    try:
        with (
            pa.OSFile(str(file)) as handle,
            pacsv.open_csv(
                handle,
                read_options=pacsv.ReadOptions(use_threads=False, column_names=unique, skip_rows=1),
                parse_options=pacsv.ParseOptions(
                    delimiter=signals.table.delimiter,
                    invalid_row_handler=on_ragged,
                    newlines_in_values=False,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(read, pa.string()),
                    include_columns=read,
                    strings_can_be_null=False,
                ),
            ) as opened,
        ):
            for batch in opened:
                _check_rows(batch, file)
                unknown = {name for name in unknown if not _longest(batch.column(name))}
                yield (
                    pa.table({u.split(":", 1)[1]: batch.column(u) for u in kept}),
                    handle.tell(),
                )
    except pa.ArrowInvalid as error:
        raise _csv_error(file, error, ragged) from error
    if signals.table.drop_empty_columns:
        note("empty-columns", len(unknown))


def _longest(column: pa.Array) -> int:
    return pc.max(pc.binary_length(column)).as_py() or 0


def _check_rows(batch: pa.RecordBatch, file: Path) -> None:
    """A row is at least as long as each of its cells; offsets make the check cheap."""
    for column in batch.columns:
        if column.nbytes > TEXT_ROW_BYTES and _longest(column) > TEXT_ROW_BYTES:
            raise _long_row(file)


def _long_row(file: Path) -> TooLargeError:
    return TooLargeError(
        need=f"rows of at most {TEXT_ROW_BYTES} bytes",
        found=f"{file.name}: a longer one",
        remedy="check the file",
    )


def _csv_error(file: Path, error: pa.ArrowInvalid, ragged: list[tuple[int | None, int, int]]) -> DataError:
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
