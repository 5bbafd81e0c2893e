# SPDX-License-Identifier: Apache-2.0
"""Cells of tables to numbers, words and stamps: empty is missing, all else must be what the map says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from client.data.errors import CellInvalidError, DecimalMismatchError, NotFiniteError

if TYPE_CHECKING:
    from client.data.series import Array64, Int64
    from client.data.signalmap import Clock

__all__ = ["numbers", "stamps", "words"]

_NS: Final = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
_INT64: Final = 2.0**63
Decimal = Literal[".", ","]


def numbers(column: pa.ChunkedArray, where: str, decimal: Decimal, *, before: int = 0) -> Array64:
    """Numbers of a column, NaN where the source is empty.

    Args:
        column: Its cells, or those of a part of the file.
        where: File and column, for refusals.
        decimal: Sign of the map.
        before: Rows of the file before this part.

    Raises:
        NotFiniteError: The source says NaN or infinity.
        DecimalMismatchError: A number in the other decimal sign.
        CellInvalidError: Any other text.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(pc.utf8_trim_whitespace(column), where, decimal, before)
    elif (
        pa.types.is_boolean(column.type)
        or pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
    ):
        column = column.cast(pa.float64(), safe=False)
    else:
        raise CellInvalidError(need="numbers", found=f"{where}: {column.type}", remedy="map another column")
    empty = column.is_null().to_numpy()
    values: Array64 = column.fill_null(0.0).to_numpy().astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 1 + before
        raise NotFiniteError(
            need="finite numbers", found=f"{where}, row {row}: NaN or infinity", remedy="repair the recording"
        )
    return np.where(empty, np.nan, values)


def _parsed(text: pa.ChunkedArray, where: str, decimal: Decimal, before: int) -> pa.ChunkedArray:
    other = "." if decimal == "," else ","
    foreign = pc.match_substring(text, other)
    if pc.any(foreign).as_py():
        example = text.filter(foreign)[0].as_py()
        row = pc.index(foreign, True).as_py() + 1 + before
        if _is_number(example.replace(other, ".")):
            raise DecimalMismatchError(
                need=f'numbers with the decimal sign "{decimal}"',
                found=f'{where}, row {row}: the sign "{other}"',
                remedy="correct decimal in the signal map",
            )
        raise _no_number(where, row)
    if decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    blank = pc.equal(text, "")
    try:
        return pc.if_else(blank, pa.scalar(None, pa.string()), text).cast(pa.float64())
    except pa.ArrowInvalid as error:
        rows = enumerate(text.to_pylist(), start=1 + before)
        row = next((n for n, word in rows if word and not _is_number(word)), 0)
        raise _no_number(where, row) from error


def _is_number(word: str) -> bool:
    try:
        pa.scalar(word).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _no_number(where: str, row: int) -> CellInvalidError:
    return CellInvalidError(
        need="numbers or empty cells",
        found=f"{where}, row {row}: text",
        remedy="map another column; repair the row",
    )


def words(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Cells as stripped words, empty where missing. Truth values are ``True`` and ``False``."""
    whole = column.dictionary_encode(null_encoding="encode").combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # no rows
        return np.empty(0, dtype=object)
    named = np.array(
        ["" if cell is None else str(cell).strip() for cell in whole.dictionary.to_pylist()], dtype=object
    )
    found: npt.NDArray[np.object_] = named[whole.indices.to_numpy(zero_copy_only=False)]
    return found


def stamps(
    column: pa.ChunkedArray | None,
    clock: Clock,
    *,
    rows: int,
    where: str,
    decimal: Decimal,
    empty: npt.NDArray[np.bool_],
    before: int = 0,
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Stamps in nanoseconds ``[rows]``, and where there is none; a row with values needs one.

    ``before``: rows of the file before this part.

    Raises:
        CellInvalidError: A stamp that is no time in the map's unit, or none where values are.
    """
    if column is None:
        counted = np.arange(before, before + rows, dtype=np.float64)
        return _from_rate(counted, clock, where), np.zeros(rows, dtype=bool)
    if pa.types.is_timestamp(column.type):
        try:
            found = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise _too_late(where) from error
    elif clock.unit == "rfc3339":
        found = _rfc3339(column, where)
    else:
        whole = _whole(column)
        if whole is not None and clock.unit != "count":
            missing = whole.is_null().to_numpy()
            _check_stamped(missing & ~empty, where, before)
            return _scaled(
                whole.fill_null(0).to_numpy().astype(np.int64), int(_NS[clock.unit]), where
            ), missing
        values = numbers(column, where, decimal, before=before)
        missing = np.isnan(values)
        _check_stamped(missing & ~empty, where, before)
        if clock.unit == "count":
            return _from_rate(np.where(missing, 0.0, values), clock, where), missing
        scaled = np.rint(np.where(missing, 0.0, values) * _NS[clock.unit])
        if (np.abs(scaled) >= _INT64).any():
            raise _too_late(where)
        return scaled.astype(np.int64), missing
    missing = found.is_null().to_numpy()
    _check_stamped(missing & ~empty, where, before)
    return found.fill_null(0).to_numpy().astype(np.int64), missing


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Whole numbers as they are, because 64-bit nanoseconds do not fit a floating-point number."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    elif not pa.types.is_integer(column.type):
        return None
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None


def _scaled(count: Int64, factor: int, where: str) -> Int64:
    if len(count) and max(int(count.max()), -int(count.min())) * factor >= _INT64:
        raise _too_late(where)
    return count * factor


def _too_late(where: str) -> CellInvalidError:
    return CellInvalidError(need="stamps in 64 bits of ns", found=where, remedy="check the clock's unit")


def _from_rate(count: Array64, clock: Clock, where: str) -> Int64:
    period_ns = 1e9 / (clock.rate_hz or 1.0)
    if len(count) and float(np.abs(count).max()) >= _INT64 / period_ns:
        raise _too_late(where)
    return np.rint(count * period_ns).astype(np.int64)


def _rfc3339(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise CellInvalidError(
            need="RFC 3339 text", found=f"{where}: {column.type}", remedy="correct clock.unit"
        )
    text = pc.utf8_trim_whitespace(column)
    try:
        filled = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        return filled.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CellInvalidError(
            need="RFC 3339 stamps with a zone, as 2026-11-24T10:04:05.123Z",
            found=f"{where}: another form",
            remedy="correct clock.unit in the signal map",
        ) from error


def _check_stamped(unstamped: npt.NDArray[np.bool_], where: str, before: int) -> None:
    if unstamped.any():
        raise CellInvalidError(
            need="a stamp in each row that has values",
            found=f"{where}, row {int(np.flatnonzero(unstamped)[0]) + 1 + before}: none",
            remedy="repair the recording, or choose another clock",
        )
