# SPDX-License-Identifier: Apache-2.0
"""What the footer of a Parquet file says of the sizes of its columns, read without the library.

pyarrow ends the process where the metadata of a damaged column is asked for (its C++ exception is not
caught), so the three counts that bound a read are taken from the footer's bytes: Thrift's compact protocol,
fields that are not needed passed over. Bounds: the footer's own length, and a depth.

    for group in row_groups(path):
        group.rows, group.chunks[0].values
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from client.data.errors import FileInvalidError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Chunk", "Group", "row_groups"]

_MAGIC: Final = b"PAR1"
_TAIL: Final = 8  # length of the footer and the magic
_DEPTH: Final = 16
_BYTE_ARRAY: Final = 6
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_LONG: Final = 15  # a list's length stands after it
# ids of fields: of FileMetaData, RowGroup (twice), ColumnChunk; then of ColumnMetaData
_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
_TYPE, _PATH, _VALUES, _SIZE = 1, 3, 5, 6


class Chunk(NamedTuple):
    """A column of a row group: its name, whether it holds words or bytes, and two counts."""

    name: str
    text: bool
    values: int
    size: int  # bytes before they were compressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A row group."""

    rows: int
    chunks: tuple[Chunk, ...]


def row_groups(path: Path) -> list[Group]:
    """The row groups of a file.

    Raises:
        FileInvalidError: Its footer contradicts the format.
    """
    try:
        document = _Compact(_footer(path)).struct(0)
        return [_group(one) for one in document.get(_GROUPS, [])]
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise FileInvalidError(
            need="a Parquet file with a whole footer",
            found=f"{path.name}: a damaged one",
            remedy="copy the file again",
        ) from error


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > size - _TAIL:
            raise ValueError("no footer")
        file.seek(size - _TAIL - length)
        return file.read(length)


def _group(found: dict[int, Any]) -> Group:
    return Group(
        rows=int(found.get(_ROWS, 0)), chunks=tuple(_chunk(one[_META]) for one in found.get(_COLUMNS, []))
    )


def _chunk(meta: dict[int, Any]) -> Chunk:
    values, size = int(meta[_VALUES]), int(meta[_SIZE])
    if values < 0 or size < 0:
        raise ValueError("a negative count")
    return Chunk(bytes(meta[_PATH][0]).decode("utf-8"), meta[_TYPE] == _BYTE_ARRAY, values, size)


class _Compact:
    """Thrift's compact protocol: structures as ``{field id: value}``."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """The fields of a structure."""
        if depth > _DEPTH:
            raise ValueError("too deep")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            found[number] = self._value(head & 15, depth, inside=False)
        return found

    def _value(self, kind: int, depth: int, *, inside: bool) -> Any:  # noqa: ANN401  whatever the file says
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte() if inside or kind == _BYTE else kind
        if _BYTE < kind < _DOUBLE:
            return self._signed()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_LIST, _SET):
            return self._list(depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError("a kind that Parquet does not use")  # maps among them

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 != _LONG else self._unsigned()
        if count > len(self._data) - self._at:  # each entry has a byte at least
            raise ValueError("a list longer than its footer")
        return [self._value(head & 15, depth + 1, inside=True) for _ in range(count)]

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("bytes beyond the footer")
        found = self._data[self._at : end]
        self._at = end
        return found

    def _byte(self) -> int:
        found = self._data[self._at]
        self._at += 1
        return found

    def _unsigned(self) -> int:
        found = shift = 0
        while shift < 70:  # noqa: PLR2004  ten bytes hold 64 bits
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004  the last byte
                return found
            shift += 7
        raise ValueError("a number of more than 64 bits")

    def _signed(self) -> int:
        found = self._unsigned()
        return (found >> 1) ^ -(found & 1)
