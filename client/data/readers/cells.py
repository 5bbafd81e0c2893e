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


def numbers(column: pa.ChunkedArray, where: str, decimal: Decimal) -> Array64:
    """Numbers of a column, NaN where the source is empty.

    Raises:
        NotFiniteError: The source says NaN or infinity.
        DecimalMismatchError: A number in the other decimal sign.
        CellInvalidError: Any other text.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(pc.utf8_trim_whitespace(column), where, decimal)
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
        row = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise NotFiniteError(
            need="finite numbers", found=f"{where}, row {row}: NaN or infinity", remedy="repair the recording"
        )
    return np.where(empty, np.nan, values)


def _parsed(text: pa.ChunkedArray, where: str, decimal: Decimal) -> pa.ChunkedArray:
    other = "." if decimal == "," else ","
    foreign = pc.match_substring(text, other)
    if pc.any(foreign).as_py():
        example = text.filter(foreign)[0].as_py()
        row = pc.index(foreign, True).as_py() + 1
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
        rows = enumerate(text.to_pylist(), start=1)
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
    found = np.empty(len(column), dtype=object)
    found[:] = ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]
    return found


def stamps(
    column: pa.ChunkedArray | None,
    clock: Clock,
    *,
    rows: int,
    where: str,
    decimal: Decimal,
    empty: npt.NDArray[np.bool_],
) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Stamps in nanoseconds ``[rows]``, and where there is none; a row with values needs one.

    Raises:
        CellInvalidError: A stamp that is no time in the map's unit, or none where values are.
    """
    if column is None:
        return _from_rate(np.arange(rows, dtype=np.float64), clock), np.zeros(rows, dtype=bool)
    if pa.types.is_timestamp(column.type):
        found = column.cast(pa.timestamp("ns"), safe=False).cast(pa.int64())
    elif clock.unit == "rfc3339":
        found = _rfc3339(column, where)
    else:
        values = numbers(column, where, decimal)
        missing = np.isnan(values)
        _check_stamped(missing & ~empty, where)
        if clock.unit == "count":
            return _from_rate(np.where(missing, 0.0, values), clock), missing
        scaled = np.rint(np.where(missing, 0.0, values) * _NS[clock.unit])
        if (np.abs(scaled) >= _INT64).any():
            raise CellInvalidError(
                need="stamps in 64 bits of ns", found=where, remedy="check the clock's unit"
            )
        return scaled.astype(np.int64), missing
    missing = found.is_null().to_numpy()
    _check_stamped(missing & ~empty, where)
    return found.fill_null(0).to_numpy().astype(np.int64), missing


def _from_rate(count: Array64, clock: Clock) -> Int64:
    return np.rint(count * (1e9 / (clock.rate_hz or 1.0))).astype(np.int64)


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


def _check_stamped(unstamped: npt.NDArray[np.bool_], where: str) -> None:
    if unstamped.any():
        raise CellInvalidError(
            need="a stamp in each row that has values",
            found=f"{where}, row {int(np.flatnonzero(unstamped)[0]) + 1}: none",
            remedy="repair the recording, or choose another clock",
        )
