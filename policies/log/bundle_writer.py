# SPDX-License-Identifier: Apache-2.0
"""Writes the container of a bundle as a stream, in the order of the names (`policies.log.zipform`).

    writer = BundleWriter(file)                  # a binary file at position 0 that can seek
    writer.add("BUNDLE", data)
    writer.add_pieces("checkpoints.log", pieces) # bytes in pieces, never whole in memory
    writer.finish()                              # writes MANIFEST and the directory

Some 100 bytes of notes are kept for each file, in a scratch file if the writer is given one.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from typing import TYPE_CHECKING

from policies.limits import BUNDLE_BYTES, BUNDLE_FILES
from policies.log.zipform import (
    LOCAL,
    MANIFEST,
    central_record,
    check_name,
    end_records,
    local_record,
    manifest_pieces,
    most_bytes,
    order_of,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

__all__ = ["BundleWriter"]

_NOTE = struct.Struct("<BIIQ32s")


class BundleWriter:
    """Writes one bundle; see the module for the order of calls.

    Args:
        file: Binary, at position 0, can be written and moved in; it stays open.
        layout: 2, or 1 for the older one, whose ``MANIFEST`` the caller adds itself.
        scratch: An empty temporary file for the writer's notes; without one they are kept in memory.
    """

    def __init__(self, file: BinaryIO, *, layout: int = 2, scratch: BinaryIO | None = None) -> None:
        self._file = file
        self._layout = layout
        self._notes = io.BytesIO() if scratch is None else scratch
        self._last = ""
        self._offset = 0
        self._count = 0

    def add(self, name: str, data: bytes) -> None:
        """One file, whole.

        Raises:
            BundleError: A name outside the layout or out of order, too many files, or too many bytes.
        """
        self._check(name)
        encoded, crc = name.encode("ascii"), zlib.crc32(data)
        if len(data) > most_bytes(name):
            raise refuse(f"at most {most_bytes(name)} bytes per file", f"{name}: {len(data)}")
        self._file.write(local_record(encoded, len(data), crc))
        self._file.write(data)
        self._note(encoded, len(data), crc, hashlib.sha256(data).digest())

    def add_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """One file, in pieces: they are written as they come.

        Raises:
            BundleError: As for `add`.
        """
        self._check(name)
        encoded, crc, size, running = name.encode("ascii"), 0, 0, hashlib.sha256()
        self._file.write(local_record(encoded, 0, 0))
        for piece in pieces:
            size += len(piece)
            if size > most_bytes(name):
                raise refuse(f"at most {most_bytes(name)} bytes per file", f"{name}: more")
            crc = zlib.crc32(piece, crc)
            running.update(piece)
            self._file.write(piece)
        end = self._file.tell()
        self._file.seek(self._offset)
        self._file.write(local_record(encoded, size, crc))
        self._file.seek(end)
        self._note(encoded, size, crc, running.digest())

    def finish(self) -> int:
        """Writes what is left: the directory, and before it in layout 2 ``MANIFEST``, if it was not added.

        Returns:
            Size of the bundle in bytes.

        Raises:
            BundleError: Too many bytes.
        """
        if self._layout > 1 and self._last != MANIFEST:
            files = ((name.decode("ascii"), sha256) for name, _, _, _, sha256 in self._noted())
            self.add_pieces(MANIFEST, manifest_pieces(files))
        start = self._offset
        for name, size, crc, offset, _ in self._noted():
            self._offset += self._file.write(central_record(name, size, crc, offset))
        self._offset += self._file.write(end_records(self._count, self._offset - start, start))
        if self._offset > BUNDLE_BYTES:
            raise refuse(f"at most {BUNDLE_BYTES} bytes", f"{self._offset}")
        return self._offset

    def _check(self, name: str) -> None:
        check_name(name)
        if self._count and order_of(self._last, self._layout) >= order_of(name, self._layout):
            raise refuse("each name once, sorted", f"{name} after {self._last}")
        if self._count >= BUNDLE_FILES:
            raise refuse(f"at most {BUNDLE_FILES} files", "more")
        if self._offset > BUNDLE_BYTES:
            raise refuse(f"at most {BUNDLE_BYTES} bytes", f"{self._offset}")

    def _note(self, name: bytes, size: int, crc: int, sha256: bytes) -> None:
        self._notes.write(_NOTE.pack(len(name), size, crc, self._offset, sha256) + name)
        self._count += 1
        self._last = name.decode("ascii")
        self._offset += LOCAL.size + len(name) + size

    def _noted(self) -> Iterator[tuple[bytes, int, int, int, bytes]]:
        """Name, size, CRC-32, offset and SHA-256 of each file so far."""
        self._notes.seek(0)
        for _ in range(self._count):
            length, size, crc, offset, sha256 = _NOTE.unpack(self._notes.read(_NOTE.size))
            yield self._notes.read(length), size, crc, offset, sha256
        self._notes.seek(0, io.SEEK_END)
