# SPDX-License-Identifier: Apache-2.0
"""The manifest of a backup: every file with its digest, and what the log in it was, signed by the broker.

- ``manifest.json`` is a DSSE envelope under the broker's key: no bit of it can be another unnoticed.
- It names the key that signed it. Whoever has the broker's folder compares it with the broker's own; whoever
  has not compares it by another way, as with any key.
- The log's note in it is signed by the log's own key. Its size says what a restore would give.
- Private keys are in no backup (``"keys": "separate"``): they are copied once, by hand, when they are made
  (docs/how-to/operator.md). The signer's memory is in none either: that is how a restore is noticed.
- Confidential values have to be erasable, so their copy has a short life of its own (``private.until``). A
  backup without them is whole; the entries that they belong to stay provable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.backup.errors import BackupDamagedError, BackupFolderError
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.identity import key_text, parse_key
from policies.log.vkeys import VerifierKey
from policies.ports import iso_s, to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from pathlib import Path

    from policies.identity import SigningKey

__all__ = [
    "MAIN",
    "MAIN_DUMP",
    "MANIFEST",
    "PRIVATE",
    "PRIVATE_DUMP",
    "Held",
    "Manifest",
    "open_manifest",
    "seal_manifest",
]

MANIFEST: Final = "manifest.json"
MAIN: Final = "main.db"
PRIVATE: Final = "private.db"
MAIN_DUMP: Final = "main.dump"
"""Instead of `MAIN`, of a database of PostgreSQL."""
PRIVATE_DUMP: Final = "private.dump"
"""Instead of `PRIVATE`."""
_TYPE: Final = "application/vnd.iriai.backup.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One file: its path below the backup's folder, with slashes; its size; its digest."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself.

    Attributes:
        origin: Name of the log.
        broker_key: Raw public key that signed the manifest.
        vkeys: Keys of the log.
        made_ms: When it was made.
        software: Version of the program.
        revisions: Schema of each database.
        size: Entries in the log.
        note: The newest note that the log signed over them.
        private_until_ms: When the confidential values have to be gone; None if they are not in it.
        files: All of them.
        digest: Of the manifest itself; empty before it is sealed.
    """

    origin: str
    broker_key: bytes
    vkeys: tuple[VerifierKey, ...]
    made_ms: int
    software: str
    revisions: dict[str, str]
    size: int
    note: str
    private_until_ms: int | None
    files: tuple[Held, ...]
    digest: str = ""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(one.bytes for one in self.files)

    @property
    def main(self) -> str:
        """Path of the main database; `MAIN` also where there is none."""
        return MAIN_DUMP if self._names(MAIN_DUMP) and not self._names(MAIN) else MAIN

    @property
    def private(self) -> str | None:
        """Path of the confidential values; None if they are not in it."""
        return next((one for one in (PRIVATE, PRIVATE_DUMP) if self._names(one)), None)

    def _names(self, path: str) -> bool:
        return any(one.path == path for one in self.files)


def seal_manifest(made: Manifest, key: SigningKey) -> bytes:
    """The manifest as a file."""
    until = made.private_until_ms
    said = {
        "v": 1,
        "origin": made.origin,
        "broker_key": key_text(key.public),
        "made": iso_s(made.made_ms),
        "software": made.software,
        "revisions": made.revisions,
        "log": {"size": made.size, "note": made.note, "vkeys": [one.text() for one in made.vkeys]},
        "keys": "separate",
        "private": None if until is None else {"until": iso_s(until)},
        "files": [{"path": one.path, "bytes": one.bytes, "sha256": one.sha256} for one in made.files],
    }
    return Envelope.seal(canonical(said), _TYPE, key).to_bytes()


def open_manifest(folder: Path) -> Manifest:
    """The manifest of a backup, its signature checked under the key that it names.

    Raises:
        BackupFolderError: There is none in the folder.
        BackupDamagedError: It is not as it was signed.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BackupFolderError(
            need=f"a backup in {folder}",
            found=f"no {MANIFEST}",
            remedy="name a folder that iriai-broker backup create made",
        ) from error
    try:
        envelope = Envelope.from_bytes(data)
        key = parse_key(str(canonical_of(envelope.payload)["broker_key"]))
        return _parsed(envelope.open_as(_TYPE, key), key, digest(data))
    except (IriaiError, ValueError, KeyError, TypeError) as error:
        raise BackupDamagedError(
            need=f"{folder / MANIFEST} as the broker signed it",
            found=error.code if isinstance(error, IriaiError) else type(error).__name__,
            remedy="use another backup; nothing of this one is to be believed",
        ) from error


def canonical_of(payload: bytes) -> dict[str, Any]:
    """A payload before its signature was checked: only to learn which key it names."""
    from policies.encoding import parse

    said: dict[str, Any] = parse(payload)
    return said


def _parsed(said: dict[str, Any], key: bytes, named: str) -> Manifest:
    private = said["private"]
    return Manifest(
        origin=said["origin"],
        broker_key=key,
        vkeys=tuple(VerifierKey.parse(one) for one in said["log"]["vkeys"]),
        made_ms=to_ms(said["made"]),
        software=said["software"],
        revisions=said["revisions"],
        size=said["log"]["size"],
        note=said["log"]["note"],
        private_until_ms=None if private is None else to_ms(private["until"]),
        files=tuple(_held(one) for one in said["files"]),
        digest=named,
    )


def _held(said: dict[str, Any]) -> Held:
    one = Held(path=said["path"], bytes=said["bytes"], sha256=said["sha256"])
    parts = one.path.split("/")
    if one.path.startswith("/") or not all(parts) or {".", ".."} & set(parts):
        raise ValueError(one.path)
    return one
