# SPDX-License-Identifier: Apache-2.0
"""The bundle: one file with everything an offline audit needs. Pure: bytes in, bytes out.

The container is a zip in exactly one byte form, of bounded size (`policies.log.zipform`). There are two
formats: ``iriai-bundle/2`` is 1 with the hash tiles of its size, so that the unzipped bundle *is* a static
log of C2SP tlog-tiles, and with ``MANIFEST`` behind all other files. What is written as a stream, entry
pack by entry pack, uses `BundleWriter`; `files_of` and `pack` make small ones in memory.

========================  ==========================================================================
BUNDLE                    ``{"format","grade","origin","size","software","v"}``
MANIFEST                  ``{"files":{name: digest},"v":1}``: of all other files
checkpoint                the signed note of the bundle's size
checkpoints.log           every published note with its cosignatures, oldest first, one ``{"note": text}`` per
                          line
policy                    the broker's copy; trust is never taken from it
keys/aliases.json         ``{org id: base64 of its alias key}``
contracts/<hex>.json      canonical bytes of a contract; ``.dsse`` beside it: its signatures
annexes/<hex>.json        recipes, by digest
approvals/<hex>.json      what two people of the broker approved, canonical JSON, by digest
consents/<hex>.json       donors' consents that seed clauses name (DSSE), by digest
notices/<hex>.json        statements about a contract (DSSE), by the digest of what was signed
tile/<L>/<N>[.p/<W>]      hash tiles of the bundle's size (format 2)
tile/entries/<N>[.p/<W>]  256 entries each (the last: W), every body behind its length as u16, big-endian
envelopes/<N>.jsonl       ``{"envelope","index"}``: members' envelopes of that tile's entries
decisions/<N>.jsonl       ``{"decision","index","request","salt","state"}``: what a decision was about
disclosures/<N>.jsonl     ``{"field","index","salt","value"}``: opened commitments
receipts/<index>.tlog-proof    receipts as given out
statements/<hex>.json     privacy statements, by digest
timestamps/<size>.tsr     time stamps (RFC 3161) over a checkpoint
transcripts/<hex>         what an opened sum is redone from, by digest
witnesses/<hex>.json      statements about witness keys (DSSE), by digest of payload
========================  ==========================================================================

``<N>`` is written in groups of three digits, all but the last after an ``x``: ``x001/x234/067`` (C2SP
tlog-tiles). Lines of ``.jsonl`` files are canonical JSON.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from policies.encoding import b64, canonical, digest
from policies.limits import LOG_BODY_MAX
from policies.log.bundle_writer import BundleWriter
from policies.log.container import Container
from policies.log.merkle import HASH_BYTES, leaf_hash
from policies.log.tiles import entries_path, tile_root, tiles_of
from policies.log.zipform import FILE_BYTES, MANIFEST, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from policies.signing import Envelope

__all__ = [
    "FILE_BYTES",
    "FORMAT",
    "TILE",
    "VERSIONS",
    "BundleWriter",
    "Container",
    "Contents",
    "DecisionRecord",
    "Disclosure",
    "files_of",
    "head_bytes",
    "pack",
    "split_tile",
    "tile_name",
    "tile_names",
    "unpack",
]

Json = Any
FORMAT = "iriai-bundle/1"
VERSIONS: Mapping[int, str] = MappingProxyType({1: FORMAT, 2: "iriai-bundle/2"})
"""Formats by version. 2 has the hash tiles of its size, and `MANIFEST` behind all files."""
TILE = 256


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
        approvals: Bytes of what two people of the broker approved.
        consents: Donors' consents that seed clauses name.
        notices: Statements of parties about a contract: halts, resumes, exits, rotations, attestations,
            admissions.
        decisions: One record per ``decision.recorded``.
        disclosures: Opened commitments.
        receipts: Receipt text by index.
        statements: Privacy statements' bytes.
        transcripts: Of opened sums.
        witnesses: Statements about witness keys.
        timestamps: Tokens by size of the checkpoint that they are over.
        version: Of the format.
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
    approvals: Iterable[bytes] = ()
    consents: Iterable[bytes] = ()
    notices: Iterable[Envelope] = ()
    decisions: Iterable[DecisionRecord] = ()
    disclosures: Iterable[Disclosure] = ()
    receipts: Mapping[int, str] = field(default_factory=dict)
    statements: Iterable[bytes] = ()
    transcripts: Iterable[bytes] = ()
    witnesses: Iterable[Envelope] = ()
    timestamps: Mapping[int, bytes] = field(default_factory=dict)
    version: int = 1


def tile_name(number: int) -> str:
    """``<N>`` of the module docstring."""
    return entries_path(number).removeprefix("tile/entries/")


def tile_names(size: int) -> dict[str, tuple[int, int]]:
    """Names of the entry tiles of a log of ``size`` entries, each with its range ``[start, end)``."""
    names = {}
    for start in range(0, size, TILE):
        end = min(start + TILE, size)
        names[entries_path(start // TILE, end - start)] = (start, end)
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
            raise refuse(f"{count} framed bodies of at most {LOG_BODY_MAX} bytes", f"{len(bodies)}")
        bodies.append(body)
        at += 2 + size
    if at != len(data):
        raise refuse("nothing after the last body", f"{len(data) - at} bytes")
    return bodies


def _packs(folder: str, lines: Iterable[tuple[int, dict[str, Json]]]) -> dict[str, bytes]:
    """Lines by entry index, as packs of 256 that are aligned with the entry tiles."""
    packs: dict[str, list[bytes]] = {}
    for index, line in lines:
        packs.setdefault(f"{folder}/{tile_name(index // TILE)}.jsonl", []).append(canonical(line) + b"\n")
    return {name: b"".join(pack) for name, pack in packs.items()}


def _hex(data: bytes) -> str:
    return digest(data).removeprefix("sha256:")


def head_bytes(*, version: int, grade: str, origin: str, size: int, software: str) -> bytes:
    """The file ``BUNDLE``."""
    head = {"format": VERSIONS[version], "grade": grade, "origin": origin, "size": size}
    return canonical(head | {"software": software, "v": version})


def hash_tiles(leaves: Sequence[bytes]) -> dict[str, bytes]:
    """The hash tiles of a small log by path, from its leaf hashes."""
    levels, files = [list(leaves)], {}
    for name in tiles_of(len(leaves)):
        if name.level == len(levels):
            below = [b"".join(levels[-1][at : at + TILE]) for at in range(0, len(levels[-1]), TILE)]
            levels.append([tile_root(one) for one in below if len(one) == TILE * HASH_BYTES])
        start = name.n * TILE
        files[name.path()] = b"".join(levels[name.level or 0][start : start + name.width])
    return files


def files_of(contents: Contents) -> dict[str, bytes]:
    """Every file of a bundle by name, `MANIFEST` included."""
    size = len(contents.bodies)
    files = {
        "BUNDLE": head_bytes(
            version=contents.version,
            grade=contents.grade,
            origin=contents.origin,
            size=size,
            software=contents.software,
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
    files |= {f"approvals/{_hex(data)}.json": data for data in contents.approvals}
    files |= {f"consents/{_hex(data)}.json": data for data in contents.consents}
    files |= {f"notices/{_hex(one.payload)}.json": one.to_bytes() for one in contents.notices}
    files |= {f"statements/{_hex(data)}.json": data for data in contents.statements}
    files |= {f"transcripts/{_hex(data)}": data for data in contents.transcripts}
    files |= {f"witnesses/{_hex(one.payload)}.json": one.to_bytes() for one in contents.witnesses}
    files |= {f"timestamps/{at}.tsr": token for at, token in contents.timestamps.items()}
    if contents.version > 1:
        files |= hash_tiles([leaf_hash(body) for body in contents.bodies])
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


def pack(files: Mapping[str, bytes]) -> bytes:
    """The container of these files, in the layout of the format that their ``BUNDLE`` names.

    Raises:
        BundleError: A name outside the layout, too many files, or too many bytes.
    """
    layout = 2 if VERSIONS[2] in files.get("BUNDLE", b"").decode("utf-8", "replace") else 1
    made = io.BytesIO()
    writer = BundleWriter(made, layout=layout)
    for name in sorted(files):
        if not (layout > 1 and name == MANIFEST):
            writer.add(name, files[name])
    if layout > 1 and MANIFEST in files:
        writer.add(MANIFEST, files[MANIFEST])
    writer.finish()
    return made.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of a bundle in memory, if it is exactly what `pack` writes for them.

    Raises:
        BundleError: It is not.
    """
    container = Container(len(data), lambda start, length: data[start : start + length])
    for one in container.files():
        container.check_file(one)
    return {one.name: container.bytes_of(one) for one in container.files()}
