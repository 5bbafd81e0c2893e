# SPDX-License-Identifier: Apache-2.0
"""The one byte form of a bundle's container: names, bounds, and the zip records that belong to a file.

- Stored files only, names of a closed layout sorted by their ASCII bytes, one fixed time, no extra fields,
  comments or attributes.
- Layout 2 has ``MANIFEST`` behind all others, so that a writer knows every digest by then; layout 1 has it
  in its place by name.
- Zip64 (PKWARE APPNOTE 4.3.14, 4.3.15, 4.5.3) stands exactly where an offset, a size or the count does not
  fit the older fields.

So the bytes follow from names and contents. `policies.log.bundle_writer` writes them,
`policies.log.container` reads.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from policies.log.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "FILE_BYTES",
    "MANIFEST",
    "altered",
    "central_record",
    "check_name",
    "end_records",
    "local_record",
    "manifest_pieces",
    "most_bytes",
    "order_of",
    "refuse",
]

FILE_BYTES = 64 * 1024 * 1024  # one file; 256 entries with their envelopes need far less
STREAM_BYTES = 0xFFFF_FFFE  # of the two that are only ever read in pieces
NAME_BYTES = 200
MANIFEST = "MANIFEST"
_STREAMED: Final = frozenset({MANIFEST, "checkpoints.log"})

_HEX = "[0-9a-f]{64}"
_N = r"(x\d{3}/){0,4}\d{3}"
_WIDTH = r"(\.p/[1-9]\d{0,2})?"
_NAMES = re.compile(
    "BUNDLE|MANIFEST|checkpoint|checkpoints\\.log|policy|keys/aliases\\.json"
    f"|contracts/{_HEX}\\.(json|dsse)|(annexes|approvals|consents|notices|statements|witnesses)/{_HEX}\\.json"
    f"|tile/(entries|\\d)/{_N}{_WIDTH}|(envelopes|decisions|disclosures)/{_N}\\.jsonl"
    f"|transcripts/{_HEX}"
    r"|(receipts/(0|[1-9]\d{0,15})\.tlog-proof)|(timestamps/(0|[1-9]\d{0,15})\.tsr)",
    re.ASCII,
)

# zip, PKWARE APPNOTE 6.3.10: sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3
LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
FAR = struct.Struct("<HHQ")
END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
END = struct.Struct("<4sHHHHIIH")
TAIL = END64.size + _LOCATOR.size + END.size
_VERSION, _VERSION64, _DATE = 20, 45, (1 << 5) | 1  # 1980-01-01 00:00:00
_FULL16, _FULL32 = 0xFFFF, 0xFFFF_FFFF
_FORM: Final = "the bundle's own bytes, as it was exported"


def refuse(need: str, found: str) -> BundleError:
    """The refusal of a bundle; what was found is shown in ASCII, cut."""
    return BundleError(
        need=need, found=ascii(found)[1:-1][:120], remedy="fetch the bundle again from its exporter"
    )


def altered(what: str) -> BundleError:
    """The refusal of bytes that are no bundle's own."""
    return refuse(_FORM, f"a repacked or altered archive: {what}")


def check_name(name: str) -> None:
    """Refuses a name outside the layout.

    Raises:
        BundleError: It is one.
    """
    if len(name) > NAME_BYTES or not _NAMES.fullmatch(name):
        raise refuse("file names of the bundle's layout", name)


def local_record(name: bytes, size: int, crc: int) -> bytes:
    """What stands before the bytes of a file."""
    return LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0) + name


def central_record(name: bytes, size: int, crc: int, offset: int) -> bytes:
    """What the directory says of a file."""
    far = FAR.pack(1, 8, offset) if offset >= _FULL32 else b""
    version = _VERSION64 if far else _VERSION
    head = (version, version, 0, 0, 0, _DATE, crc, size, size, len(name), len(far))
    return CENTRAL.pack(b"PK\x01\x02", *head, 0, 0, 0, 0, min(offset, _FULL32)) + name + far


def end_records(count: int, size: int, offset: int) -> bytes:
    """Everything behind the directory of ``count`` files, ``size`` bytes at ``offset``."""
    near = (min(count, _FULL16), min(size, _FULL32), min(offset, _FULL32))
    end = END.pack(b"PK\x05\x06", 0, 0, near[0], near[0], near[1], near[2], 0)
    if near == (count, size, offset) and count != _FULL16 and _FULL32 not in near:
        return end
    rest = END64.size - 12
    numbers = (count, count, size, offset)
    large = END64.pack(b"PK\x06\x06", rest, _VERSION64, _VERSION64, 0, 0, *numbers)
    return large + _LOCATOR.pack(b"PK\x06\x07", 0, offset + size, 1) + end


def most_bytes(name: str) -> int:
    """How large a file of this name may be."""
    return STREAM_BYTES if name in _STREAMED else FILE_BYTES


def order_of(name: str, layout: int) -> tuple[bool, str]:
    """What files are sorted by in a layout."""
    return (layout > 1 and name == MANIFEST, name)


def manifest_pieces(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """``MANIFEST`` of these files (name and SHA-256, sorted by name), in pieces: canonical JSON."""
    before = '{"files":{'
    for name, sha256 in files:
        yield f'{before}"{name}":"sha256:{sha256.hex()}"'.encode("ascii")
        before = ","
    yield (before if before != "," else "").encode("ascii") + b'},"v":1}'
