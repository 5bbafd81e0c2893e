# SPDX-License-Identifier: Apache-2.0
"""The one byte form of a package's container: a zip whose bytes follow from the names and the contents.

    data = write_archive({"manifest.json": b"…", "model.onnx": b"…"})
    members = read_archive(data)               # name → Stored; contents are slices, nothing is unpacked
    check_sum(members["model.onnx"])           # CRC-32, once the digest holds

- Stored members only, sorted by their ASCII names, one fixed time, no extra fields, comments or attributes;
  at most one folder level; each name once. Anything else is refused, also where a lenient reader would take
  it: two readers never see two packages.
- **Bounds first.** Size, number of members, names and every record are checked before a byte of a member is
  looked at. Nothing is compressed, so nothing inflates.

Steps of reading: 1. size; 2. the end, byte for byte; 3. number of members; 4. of each one in the directory:
name, order, place, header and record byte for byte; 5. nothing between the last member and the directory.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from client.deploy.errors import PackageFormError, PackageSizeError
from policies.limits import PACKAGE_BYTES, PACKAGE_MEMBERS
from policies.log.zipform import CENTRAL, END, LOCAL, central_record, end_records, local_record

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Stored", "check_sum", "read_archive", "write_archive"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}(/[A-Za-z0-9][A-Za-z0-9_.-]{0,59})?", re.ASCII)
_NAME_BYTES: Final = 121


class Stored(NamedTuple):
    """A member: its bytes, and the CRC-32 that the directory tells."""

    name: str
    data: memoryview
    crc: int


def _refuse(found: str) -> PackageFormError:
    return PackageFormError(
        need="a package's own bytes, as they were written",
        found=f"a repacked, cut or altered archive: {found}",
        remedy="get the package again from whoever made it; do not repack it",
    )


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members.

    Raises:
        PackageFormError: A name that no package may hold.
        PackageSizeError: Too many, or too large.
    """
    body, directory = bytearray(), bytearray()
    for name in sorted(members):
        if not _NAME.fullmatch(name):
            raise _refuse(f"the name {ascii(name)[:80]}")
        data, encoded = members[name], name.encode("ascii")
        record = (encoded, len(data), zlib.crc32(data))
        directory += central_record(*record, len(body))
        body += local_record(*record) + data
    end = end_records(len(members), len(directory), len(body))
    _check_bounds(len(body) + len(directory) + len(end), len(members))
    return bytes(body + directory + end)


def _check_bounds(size: int, count: int) -> None:
    if size > PACKAGE_BYTES or count > PACKAGE_MEMBERS:
        raise PackageSizeError(
            need=f"at most {PACKAGE_BYTES} bytes and {PACKAGE_MEMBERS} members",
            found=f"{size} bytes, {count} members",
            remedy="package a smaller model; no release of a recipe has this size",
        )


def read_archive(data: bytes) -> dict[str, Stored]:
    """Members by name, in their order, once the structure holds; the steps are in the module's docstring.

    Raises:
        PackageSizeError: Steps 1 and 3.
        PackageFormError: The others.
    """
    _check_bounds(len(data), 0)  # 1.
    count, length, start = _ending(data)  # 2.
    _check_bounds(len(data), count)  # 3.
    view, members = memoryview(data), {}
    place, expected, last = start, 0, ""
    for _ in range(count):  # 4.
        one, size, offset = _entry(data, view, place, start)
        if offset != expected or one.name <= last:
            raise _refuse(f"the place of {one.name}, or its name twice")
        members[one.name] = one
        last, place = one.name, place + size
        expected = offset + LOCAL.size + len(one.name) + len(one.data)
    if expected != start or place != start + length:  # 5.
        raise _refuse("bytes that belong to no member")
    return members


def _ending(data: bytes) -> tuple[int, int, int]:
    """Number of members, and length and place of the directory."""
    if len(data) < END.size:
        raise _refuse("its end")
    _, _, _, _, count, length, start, _ = END.unpack_from(data, len(data) - END.size)
    if start + length + END.size != len(data) or data[-END.size :] != end_records(count, length, start):
        raise _refuse("its end")
    return count, length, start


def _entry(data: bytes, view: memoryview, place: int, most: int) -> tuple[Stored, int, int]:
    """A member, the length of its record, and its place."""
    if len(data) - place < CENTRAL.size:
        raise _refuse("its directory")
    fields = CENTRAL.unpack_from(data, place)
    crc, size, length, offset = fields[7], fields[8], fields[10], fields[16]
    name = data[place + CENTRAL.size :][: min(length, _NAME_BYTES)]
    if not _NAME.fullmatch(name.decode("ascii", errors="replace")):
        raise _refuse(f"the name {ascii(name)[:80]}")
    record, header = central_record(name, size, crc, offset), local_record(name, size, crc)
    start = offset + len(header)
    if data[place : place + len(record)] != record or data[offset:start] != header or start + size > most:
        raise _refuse(f"the records of {name.decode('ascii')}")
    return Stored(name.decode("ascii"), view[start : start + size], crc), len(record), offset


def check_sum(one: Stored) -> None:
    """Refuses a member whose CRC-32 is not the told one: the same contents have one archive.

    Raises:
        PackageFormError: It is another.
    """
    if zlib.crc32(one.data) != one.crc:
        raise _refuse(f"the sum of {one.name}")
