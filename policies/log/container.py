# SPDX-License-Identifier: Apache-2.0
"""Reads the container of a bundle by offsets: nothing is unpacked to a path, or read that was not asked for.

    container = Container(size, read)            # read(offset, length) -> bytes
    container.get(name); container.names("tile/"); container.pieces(one); container.check_file(one)

- **Bounds first.** Count, sizes, names and the whole structure are checked before a file is looked at.
  Nothing is compressed, so nothing inflates. Anything but the bytes of `policies.log.zipform` is refused.
- **Memory.** Eight bytes are kept for sixteen files. Sums (CRC-32) are checked by `Container.check_file`,
  which gives the file's digest too.

Steps of opening: 1. size; 2. the end, byte for byte; 3. number of files; 4. of each file in the directory:
name, order, size, place; header and directory byte for byte; 5. nothing between the last file and the
directory.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from policies.limits import BUNDLE_BYTES, BUNDLE_FILES
from policies.log.zipform import (
    CENTRAL,
    END,
    END64,
    FAR,
    LOCAL,
    MANIFEST,
    NAME_BYTES,
    TAIL,
    altered,
    central_record,
    check_name,
    end_records,
    local_record,
    most_bytes,
    order_of,
    refuse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Container", "Stored"]

_CHUNK: Final = 1024 * 1024
_EVERY: Final = 16  # of so many files, the reader keeps the place of one
_FEW: Final = 4096  # bytes with the records of so many


class Stored(NamedTuple):
    """A file in the container: where its bytes are, and their CRC-32."""

    name: str
    start: int
    size: int
    crc: int


class Container:
    """An open container, whose structure holds; contents are read when they are asked for.

    Args:
        size: Of the file in bytes.
        read: Gives ``length`` bytes at an offset.

    Raises:
        BundleError: One of the steps of opening.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._places = array("Q")
        self._known: dict[str, Stored] = {}
        if size > BUNDLE_BYTES:  # 1.
            raise refuse(f"at most {BUNDLE_BYTES} bytes", f"{size}")
        self.count, length, self._directory = self._ending(size)  # 2.
        if self.count > BUNDLE_FILES:  # 3.
            raise refuse(f"at most {BUNDLE_FILES} files", str(self.count))
        self._directory_end = self._directory + length
        self.layout = self._walk()  # 4. 5.

    # --- opening ---

    def _ending(self, size: int) -> tuple[int, int, int]:
        """Number of files, and length and place of the directory."""
        tail = self._read(max(0, size - TAIL), min(size, TAIL))
        if len(tail) < END.size:
            raise altered("its end")
        _, _, _, _, count, length, offset, _ = END.unpack(tail[-END.size :])
        large = tail[: END64.size]
        if len(tail) == TAIL and large[:4] == b"PK\x06\x06" and tail[END64.size :][:4] == b"PK\x06\x07":
            *_, count, length, offset = END64.unpack(large)
        end = end_records(count, length, offset)
        if tail[-len(end) :] != end or offset + length + len(end) != size:
            raise altered("its directory")
        return count, length, offset

    def _walk(self) -> int:
        """Step 4 and 5; gives the layout."""
        place, expected, last, layout, at, known = self._directory, 0, "", 1, -1, False
        for at, (one, offset, length) in enumerate(self._entries(self._directory, _CHUNK)):
            if at % _EVERY == 0:
                self._places.append(place)
            if one.size > most_bytes(one.name):
                raise refuse(f"at most {most_bytes(one.name)} bytes per file", f"{one.name}: {one.size}")
            if offset != expected:
                raise altered(f"the place of {one.name}")
            header = local_record(one.name.encode("ascii"), one.size, one.crc)
            if self._read(offset, len(header)) != header:
                raise altered(f"the header of {one.name}")
            if one.name <= last:
                if (at, one.name) != (self.count - 1, MANIFEST) or known:
                    raise refuse("each name once, sorted", f"{one.name} after {last}")
                layout = 2
            known = known or one.name == MANIFEST
            last, expected, place = one.name, one.start + one.size, place + length
        if expected != self._directory or at + 1 != self.count:
            raise altered("its directory")
        return layout

    def _entries(self, place: int, chunk: int) -> Iterator[tuple[Stored, int, int]]:
        """Files of the directory from a place on, each with its offset and the length of its record."""
        held, at = b"", 0
        while place < self._directory_end or at < len(held):
            if len(held) - at < CENTRAL.size + NAME_BYTES + FAR.size and place < self._directory_end:
                more = self._read(place, min(chunk, self._directory_end - place))
                if not more:
                    raise altered("its directory")
                held, at, place = held[at:] + more, 0, place + len(more)
            one, offset, length = self._entry(held, at)
            yield one, offset, length
            at += length

    @staticmethod
    def _entry(held: bytes, at: int) -> tuple[Stored, int, int]:
        if len(held) - at < CENTRAL.size:
            raise altered("its directory")
        fields = CENTRAL.unpack_from(held, at)
        crc, size, length, extra, offset = fields[7], fields[8], fields[10], fields[11], fields[16]
        start = at + CENTRAL.size
        if length > NAME_BYTES or extra not in (0, FAR.size) or len(held) < start + length + extra:
            raise altered("its directory")
        try:
            name = held[start : start + length].decode("ascii")
        except UnicodeDecodeError as error:
            raise refuse("ASCII names", "other bytes") from error
        check_name(name)
        if extra:
            offset = FAR.unpack_from(held, start + length)[2]
        record = central_record(name.encode("ascii"), size, crc, offset)
        if held[at : at + len(record)] != record:
            raise altered(f"the record of {name}")
        return Stored(name, offset + LOCAL.size + length, size, crc), offset, len(record)

    # --- finding ---

    def find(self, name: str) -> Stored | None:
        """Where a file is; None if it is not there."""
        found = self._known.get(name)
        if found is None:
            found = next(self._from(name), None)
            if found is None or found.name != name:
                return None
            if name.count("/") == 0:
                self._known[name] = found
        return found

    def files(self, prefix: str = "") -> Iterator[Stored]:
        """Files whose name begins so, in their order; of layout 2 ``MANIFEST`` comes last."""
        for one in self._from(prefix):
            if not one.name.startswith(prefix):
                break
            yield one
        else:
            return
        if self.layout > 1 and MANIFEST.startswith(prefix) and (last := self.find(MANIFEST)) is not None:
            yield last

    def numbered(self, numbers: range) -> Iterator[Stored]:
        """Files by their numbers in the order of the directory."""
        if not numbers:
            return
        skipped = numbers.start % _EVERY
        found = self._entries(self._places[numbers.start // _EVERY], _FEW)
        yield from (one for one, _, _ in islice(found, skipped, skipped + len(numbers)))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names that begin so."""
        return (one.name for one in self.files(prefix))

    def _from(self, name: str) -> Iterator[Stored]:
        """Files from a name on, in their order."""
        low, high = 0, len(self._places)
        while high - low > 1:
            middle = (low + high) // 2
            if order_of(self._at(middle), self.layout) <= order_of(name, self.layout):
                low = middle
            else:
                high = middle
        if not self._places:
            return
        for one, _, _ in self._entries(self._places[low], _FEW):
            if order_of(one.name, self.layout) >= order_of(name, self.layout):
                yield one

    def _at(self, number: int) -> str:
        held = self._read(self._places[number], CENTRAL.size + NAME_BYTES)
        length = CENTRAL.unpack_from(held)[10]
        return held[CENTRAL.size :][:length].decode("ascii")

    # --- reading ---

    def get(self, name: str) -> bytes | None:
        """Bytes of a file, whole; None if it is not there."""
        found = self.find(name)
        return None if found is None else self.bytes_of(found)

    def bytes_of(self, one: Stored) -> bytes:
        """Bytes of a file, whole."""
        return self._read(one.start, one.size)

    def pieces(self, one: Stored) -> Iterator[bytes]:
        """Bytes of a file, in pieces."""
        for at in range(0, one.size, _CHUNK):
            yield self._read(one.start + at, min(_CHUNK, one.size - at))

    def check_file(self, one: Stored) -> bytes:
        """SHA-256 of a file whose sum holds.

        Raises:
            BundleError: Another sum.
        """
        crc, running = 0, hashlib.sha256()
        for piece in self.pieces(one):
            crc = zlib.crc32(piece, crc)
            running.update(piece)
        if crc != one.crc:
            raise altered(f"the bytes of {one.name}")
        return running.digest()
