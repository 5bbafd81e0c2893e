# SPDX-License-Identifier: Apache-2.0
"""The bundle as the verifier reads it: by offsets, never whole.

`Files` is a mapping from the names in a bundle to bytes that are read when they are asked for;
`Files.under` walks a folder in the order of the names. A file may be shared by processes that were forked:
no position is kept.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from policies.log.container import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES = 1024 * 1024
__all__ = ["Files", "Source", "read_at"]


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """Bytes of an open file at an offset; fewer at its end."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)


def _opened(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return os.dup(file.fileno())


class Source:
    """Bytes in a file or in memory.

    Args:
        data: The bytes, or the path of the file; it is opened here and closed with this object.
    """

    def __init__(self, data: bytes | Path) -> None:
        self._data = b"" if isinstance(data, Path) else data
        self._descriptor = _opened(data) if isinstance(data, Path) else None
        if self._descriptor is not None:
            weakref.finalize(self, os.close, self._descriptor)
        self._before = self._stamp()
        self.size = len(self._data) if self._before is None else self._before[0]

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes at an offset; fewer at the end."""
        if self._descriptor is None:
            return bytes(self._data[offset : offset + length])
        pieces = []
        while length > 0 and (piece := read_at(self._descriptor, offset, length)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def changed(self) -> bool:
        """Whether somebody wrote to the file since it was opened."""
        return self._stamp() != self._before

    def _stamp(self) -> tuple[int, int] | None:
        if self._descriptor is None:
            return None
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


class Files(Mapping[str, bytes]):
    """The files of a bundle whose structure holds, by name.

    Raises:
        BundleError: The container is none.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.container = Container(source.size, source.read)

    def __getitem__(self, name: str) -> bytes:
        found = self.container.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.container.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return self.container.names()

    def __len__(self) -> int:
        return self.container.count

    def under(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """Names that begin so, with their bytes."""
        return ((one.name, self.container.bytes_of(one)) for one in self.container.files(folder))

    def lines(self, name: str) -> Iterator[bytes]:
        """Lines of a file, each without its end.

        One that is cut, or longer than any may be, is the last, and ends with a zero.
        """
        found = self.container.find(name)
        held = b""
        for piece in () if found is None else self.container.pieces(found):
            *whole, held = (held + piece).split(b"\n")
            yield from whole
            if len(held) > LINE_BYTES:
                break
        if held:
            yield held + b"\0"
