# SPDX-License-Identifier: Apache-2.0
"""The bundle: one file with everything an offline audit needs. Pure: bytes in, bytes out.

- **One form.** A zip with stored files only, names sorted by their ASCII bytes, one fixed time, no extra
  fields, comments or attributes. A reader accepts exactly the bytes that `pack` would have written, so no
  byte of the container can change unseen.
- **Closed names.** Anything else in the zip is refused, and so is a path with ``..``, a link, a duplicate.
- **Bounds** on count, sizes and name lengths hold before anything is looked at. Nothing is compressed, so
  nothing inflates.

========================  ==========================================================================
BUNDLE                    ``{"format","grade","origin","size","software","v"}``
MANIFEST                  ``{"files":{name: digest},"v":1}``: of all other files
checkpoint                the signed note of the bundle's size
checkpoints.log           every published note, oldest first, one ``{"note": text}`` per line
policy                    the broker's copy; trust is never taken from it
keys/aliases.json         ``{org id: base64 of its alias key}``
contracts/<hex>.json      canonical bytes of a contract; ``.dsse`` beside it: its signatures
annexes/<hex>.json        recipes, by digest
consents/<hex>.json       donors' consents that seed clauses name (DSSE), by digest
notices/<hex>.json        statements about a contract (DSSE), by the digest of what was signed
tile/entries/<N>[.p/<W>]  256 entries each (the last: W), every body behind its length as u16, big-endian
envelopes/<N>.jsonl       ``{"envelope","index"}``: members' envelopes of that tile's entries
decisions/<N>.jsonl       ``{"decision","index","request","salt","state"}``: what a decision was about
disclosures/<N>.jsonl     ``{"field","index","salt","value"}``: opened commitments
receipts/<index>.tlog-proof    receipts as given out
statements/<hex>.json     privacy statements, by digest
transcripts/<hex>         what an opened sum is redone from, by digest
========================  ==========================================================================

``<N>`` is written in groups of three digits, all but the last after an ``x``: ``x001/x234/067`` (C2SP
tlog-tiles). Lines of ``.jsonl`` files are canonical JSON.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import b64, canonical, digest
from policies.limits import BUNDLE_BYTES, BUNDLE_FILES, LOG_BODY_MAX
from policies.log.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.signing import Envelope

__all__ = [
    "FORMAT",
    "TILE",
    "Contents",
    "DecisionRecord",
    "Disclosure",
    "files_of",
    "pack",
    "split_tile",
    "tile_name",
    "tile_names",
    "unpack",
]

Json = Any
FORMAT = "iriai-bundle/1"
TILE = 256
FILE_BYTES = 64 * 1024 * 1024  # one file; 256 entries with their envelopes need far less
NAME_BYTES = 200

_HEX = "[0-9a-f]{64}"
_N = r"(x\d{3}/){0,4}\d{3}"
_NAMES = re.compile(
    "BUNDLE|MANIFEST|checkpoint|checkpoints\\.log|policy|keys/aliases\\.json"
    f"|contracts/{_HEX}\\.(json|dsse)|(annexes|consents|notices|statements)/{_HEX}\\.json"
    f"|tile/entries/{_N}(\\.p/[1-9]\\d{{0,2}})?|(envelopes|decisions|disclosures)/{_N}\\.jsonl"
    f"|transcripts/{_HEX}"
    r"|receipts/(0|[1-9]\d{0,15})\.tlog-proof",
    re.ASCII,
)

# zip, PKWARE APPNOTE 6.3.10: sections 4.3.7, 4.3.12, 4.3.16
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION, _DATE = 20, (1 << 5) | 1  # 1980-01-01 00:00:00
_OFFSET_MAX = 0xFFFF_FFFE
_COUNT_MAX = 0xFFFE


_FORM: Final = "the bundle's own bytes, as it was exported"


def _refuse(need: str, found: str) -> BundleError:
    return BundleError(
        need=need, found=ascii(found)[1:-1][:120], remedy="fetch the bundle again from its exporter"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What an entry ``decision.recorded`` was about, enough to take the decision again.

    Attributes:
        index: Of the entry.
        decision: Digest of the decision's bytes, as in the entry.
        request: The request as JSON.
        state: The contract's state as JSON.
        salt: 16 bytes that the decision's commitment to the request was made with.
    """

    index: int
    decision: str
    request: Json
    state: Json
    salt: bytes

    def to_json(self) -> dict[str, Json]:
        """One line of ``decisions/``."""
        return {
            "decision": self.decision,
            "index": self.index,
            "request": self.request,
            "salt": self.salt.hex(),
            "state": self.state,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """An opened commitment of one entry."""

    index: int
    field: str
    salt: bytes
    value: Json

    def to_json(self) -> dict[str, Json]:
        """One line of ``disclosures/``."""
        return {"field": self.field, "index": self.index, "salt": self.salt.hex(), "value": self.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        origin: Of the log.
        note: Signed checkpoint of ``len(bodies)`` entries.
        notes: Every published note up to that size, oldest first.
        policy: Text of the broker's copy of the policy, as named by the genesis entry.
        software: Version of the exporting broker.
        bodies: All entry bodies in order.
        envelopes: Members' envelopes by index.
        grade: ``auditor``, or ``member`` for one member's own view.
        aliases: Alias key (32 bytes) by organisation id.
        contracts: Canonical bytes and signatures of each contract.
        annexes: Recipes' bytes.
        consents: Donors' consents that seed clauses name.
        notices: Statements of parties about a contract: halts, resumes, exits, rotations, attestations,
            admissions.
        decisions: One record per ``decision.recorded``.
        disclosures: Opened commitments.
        receipts: Receipt text by index.
        statements: Privacy statements' bytes.
        transcripts: Of opened sums.
    """

    origin: str
    note: str
    notes: Sequence[str]
    policy: str
    software: str
    bodies: Sequence[bytes]
    envelopes: Mapping[int, Envelope]
    grade: str = "auditor"
    aliases: Mapping[str, bytes] = field(default_factory=dict)
    contracts: Iterable[tuple[bytes, Envelope]] = ()
    annexes: Iterable[bytes] = ()
    consents: Iterable[bytes] = ()
    notices: Iterable[Envelope] = ()
    decisions: Iterable[DecisionRecord] = ()
    disclosures: Iterable[Disclosure] = ()
    receipts: Mapping[int, str] = field(default_factory=dict)
    statements: Iterable[bytes] = ()
    transcripts: Iterable[bytes] = ()


def tile_name(number: int) -> str:
    """``<N>`` of the module docstring."""
    parts = [f"{number % 1000:03d}"]
    while number >= 1000:  # noqa: PLR2004  groups of three digits
        number //= 1000
        parts.insert(0, f"x{number % 1000:03d}")
    return "/".join(parts)


def tile_names(size: int) -> dict[str, tuple[int, int]]:
    """Names of the entry tiles of a log of ``size`` entries, each with its range ``[start, end)``."""
    names = {}
    for start in range(0, size, TILE):
        end = min(start + TILE, size)
        suffix = "" if end - start == TILE else f".p/{end - start}"
        names[f"tile/entries/{tile_name(start // TILE)}{suffix}"] = (start, end)
    return names


def join_tile(bodies: Sequence[bytes]) -> bytes:
    """One entry tile: each body behind its length as u16, big-endian."""
    return b"".join(len(body).to_bytes(2, "big") + body for body in bodies)


def split_tile(data: bytes, count: int) -> list[bytes]:
    """The bodies of an entry tile.

    Raises:
        BundleError: Not exactly ``count`` bodies, one above the bound, or bytes left over.
    """
    bodies: list[bytes] = []
    at = 0
    for _ in range(count):
        size = int.from_bytes(data[at : at + 2], "big")
        body = bytes(data[at + 2 : at + 2 + size])
        if at + 2 + size > len(data) or not 0 < size <= LOG_BODY_MAX:
            raise _refuse(f"{count} framed bodies of at most {LOG_BODY_MAX} bytes", f"{len(bodies)}")
        bodies.append(body)
        at += 2 + size
    if at != len(data):
        raise _refuse("nothing after the last body", f"{len(data) - at} bytes")
    return bodies


def _packs(folder: str, lines: Iterable[tuple[int, dict[str, Json]]]) -> dict[str, bytes]:
    """Lines by entry index, as packs of 256 that are aligned with the entry tiles."""
    packs: dict[str, list[bytes]] = {}
    for index, line in lines:
        packs.setdefault(f"{folder}/{tile_name(index // TILE)}.jsonl", []).append(canonical(line) + b"\n")
    return {name: b"".join(pack) for name, pack in packs.items()}


def _hex(data: bytes) -> str:
    return digest(data).removeprefix("sha256:")


def files_of(contents: Contents) -> dict[str, bytes]:
    """Every file of a bundle by name, `MANIFEST` included."""
    size = len(contents.bodies)
    files = {
        "BUNDLE": canonical(
            {
                "format": FORMAT,
                "grade": contents.grade,
                "origin": contents.origin,
                "size": size,
                "software": contents.software,
                "v": 1,
            }
        ),
        "checkpoint": contents.note.encode("utf-8"),
        "checkpoints.log": b"".join(canonical({"note": note}) + b"\n" for note in contents.notes),
        "policy": contents.policy.encode("utf-8"),
        "keys/aliases.json": canonical({org: b64(key) for org, key in contents.aliases.items()}),
    }
    for name, (start, end) in tile_names(size).items():
        files[name] = join_tile(contents.bodies[start:end])
    for data, signatures in contents.contracts:
        files[f"contracts/{_hex(data)}.json"] = data
        files[f"contracts/{_hex(data)}.dsse"] = signatures.to_bytes()
    files |= {f"annexes/{_hex(data)}.json": data for data in contents.annexes}
    files |= {f"consents/{_hex(data)}.json": data for data in contents.consents}
    files |= {f"notices/{_hex(one.payload)}.json": one.to_bytes() for one in contents.notices}
    files |= {f"statements/{_hex(data)}.json": data for data in contents.statements}
    files |= {f"transcripts/{_hex(data)}": data for data in contents.transcripts}
    receipts = contents.receipts.items()
    files |= {f"receipts/{index}.tlog-proof": text.encode() for index, text in receipts}
    envelopes = sorted(contents.envelopes.items())
    files |= _packs("envelopes", ((i, {"envelope": one.to_json(), "index": i}) for i, one in envelopes))
    decisions = sorted(contents.decisions, key=lambda one: one.index)
    files |= _packs("decisions", ((one.index, one.to_json()) for one in decisions))
    disclosures = sorted(contents.disclosures, key=lambda one: (one.index, one.field))
    files |= _packs("disclosures", ((one.index, one.to_json()) for one in disclosures))
    files["MANIFEST"] = manifest_of(files)
    return files


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """The ``MANIFEST`` that fits these files."""
    return canonical(
        {"files": {name: digest(data) for name, data in files.items() if name != "MANIFEST"}, "v": 1}
    )


def _check_names(names: Sequence[str]) -> None:
    if len(names) > min(BUNDLE_FILES, _COUNT_MAX):
        raise _refuse(f"at most {min(BUNDLE_FILES, _COUNT_MAX)} files", str(len(names)))
    for name in names:
        if len(name) > NAME_BYTES or not _NAMES.fullmatch(name):
            raise _refuse("file names of the bundle's layout", name)
    if list(names) != sorted(set(names)):
        raise _refuse("each name once, sorted", "another order")


def _local(name: bytes, data: bytes | memoryview) -> bytes:
    crc, size = zlib.crc32(data), len(data)
    return _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0) + name


def _central(name: bytes, data: bytes | memoryview, offset: int) -> bytes:
    crc, size = zlib.crc32(data), len(data)
    head = (_VERSION, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name))
    return _CENTRAL.pack(b"PK\x01\x02", *head, 0, 0, 0, 0, 0, offset) + name


def _directory(files: Mapping[str, bytes | memoryview]) -> bytes:
    """Everything after the last file: the central directory and its end."""
    entries, offset = [], 0
    for name, data in files.items():
        encoded = name.encode("ascii")
        entries.append(_central(encoded, data, offset))
        offset += _LOCAL.size + len(encoded) + len(data)
    directory = b"".join(entries)
    if offset + len(directory) > min(BUNDLE_BYTES, _OFFSET_MAX):
        raise _refuse(f"at most {BUNDLE_BYTES} bytes", f"{offset + len(directory)}")
    count = len(files)
    return directory + _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), offset, 0)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The zip of these files.

    Raises:
        BundleError: A name outside the layout, too many files, or too many bytes.
    """
    ordered = {name: files[name] for name in sorted(files)}
    _check_names(list(ordered))
    for name, data in ordered.items():
        if len(data) > FILE_BYTES:
            raise _refuse(f"at most {FILE_BYTES} bytes per file", f"{name}: {len(data)}")
    parts: list[bytes] = []
    for name, data in ordered.items():
        parts += [_local(name.encode("ascii"), data), data]
    return b"".join([*parts, _directory(ordered)])


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of a bundle, if it is exactly the zip that `pack` writes for them.

    1. total size; 2. walk the local headers; 3. names; 4. each header and the whole directory are the ones
    that `pack` writes.

    Raises:
        BundleError: The first of these that does not hold.
    """
    if len(data) > BUNDLE_BYTES:  # 1.
        raise _refuse(f"at most {BUNDLE_BYTES} bytes", f"{len(data)}")
    view = memoryview(data)
    files: dict[str, bytes] = {}
    heads: list[tuple[int, int]] = []
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":  # 2.
        name, start, end = _walk(data, at)
        if name in files or len(files) >= BUNDLE_FILES:
            raise _refuse("each name once, and not too many", name)
        files[name] = bytes(view[start:end])
        heads.append((at, start))
        at = end
    _check_names(list(files))  # 3.
    for (head, start), (name, content) in zip(heads, files.items(), strict=True):  # 4.
        if view[head:start] != _local(name.encode("ascii"), content):
            raise _refuse(_FORM, f"a repacked or altered archive: the header of {name}")
    if view[at:] != _directory(files):
        raise _refuse(_FORM, "a repacked or altered archive: its directory")
    return files


def _walk(data: bytes, at: int) -> tuple[str, int, int]:
    """Name, start and end of the file whose local header is at ``at``."""
    if at + _LOCAL.size > len(data):
        raise _refuse("a whole file header", "the end of the bundle")
    *_, size, length, extra = _LOCAL.unpack_from(data, at)
    start = at + _LOCAL.size + length
    end = start + size
    if extra or length > NAME_BYTES or size > FILE_BYTES or end > len(data):
        raise _refuse("stored files within the bounds, no extra fields", f"{size} bytes, {extra} extra")
    try:
        name = data[start - length : start].decode("ascii")
    except UnicodeDecodeError as error:
        raise _refuse("ASCII names", "other bytes") from error
    return name, start, end
