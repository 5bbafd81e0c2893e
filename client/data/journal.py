# SPDX-License-Identifier: Apache-2.0
"""The journal of an import: which source files are done, so that a killed import goes on where it was.

- One line per checkpoint, appended and flushed: source files finished since the last one, data files that are
  durable, the episodes in them, and what the importer counted. A line that was cut short, or whose checksum
  differs, was never written, nor was any behind it.
- The first line is the key: digest of everything that decides what the import writes. Another map, field
  list, node key, store or version of this program has another key, and begins anew.
- The checksum is an HMAC under a secret of the import's key, which hangs on the node's key: nobody else who
  can write here makes a line that counts. Data files are known by their SHA-256.
- A journal lies beside the draft, never in it, and goes when the import is committed or refused.

    journal = Journal(path, key, secret)
    journal.read()                # () or the checkpoints, oldest first
    journal.append(checkpoint)    # durable when it returns
"""

from __future__ import annotations

import hmac
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.data.durable import open_own, remove, sync
from client.data.episodes import EpisodeMeta, StoredEpisode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Checkpoint", "Journal"]

_SCHEMA: Final = "iriai-import-journal/2"
_SUM: Final = 64  # hex digits of HMAC-SHA256


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What became durable since the checkpoint before, and the state at this one.

    ``files``: SHA-256 of source files, in order. ``parts``: data files and their SHA-256. ``episodes``: each
    with its marks (client.data.marks).
    """

    files: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    episodes: tuple[tuple[StoredEpisode, str], ...]
    state: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON value; only this program reads it."""
        return {
            "files": list(self.files),
            "parts": [list(part) for part in self.parts],
            "episodes": [[_row(stored), marks] for stored, marks in self.episodes],
            "state": dict(self.state),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint behind its JSON value."""
        return cls(
            files=tuple(value["files"]),
            parts=tuple((str(name), str(sha256)) for name, sha256 in value["parts"]),
            episodes=tuple((_stored(row), str(marks)) for row, marks in value["episodes"]),
            state=value["state"],
        )


class Journal:
    """The journal of one draft. Nothing is written before the first checkpoint."""

    def __init__(self, path: Path, key: str, secret: bytes = b"") -> None:
        self._path, self._key, self._secret = path, key, secret
        self._bytes = 0  # of the lines that are whole

    def read(self) -> tuple[Checkpoint, ...]:
        """Checkpoints of an import with this key; none if there was none."""
        if not self._key or not self._path.is_file():
            return ()
        whole = []
        for line in self._path.read_bytes().splitlines(keepends=True):
            value = self._checked(line)
            if value is None:
                break
            whole.append((value, len(line)))
        if not whole or whole[0][0] != {"schema": _SCHEMA, "key": self._key}:
            return ()
        self._bytes = sum(size for _, size in whole)
        return tuple(Checkpoint.from_dict(value) for value, _ in whole[1:])

    def append(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint; it is on the disk when this returns. Without a key nothing is kept."""
        if not self._key:
            return
        new = not self._path.exists()
        with open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            if new:
                file.write(self._line({"schema": _SCHEMA, "key": self._key}))
            file.write(self._line(checkpoint.as_dict()))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync(self._path.parent)

    def trim(self) -> None:
        """Cuts off a line that was not written whole, so that the next one starts a line of its own."""
        os.truncate(self._path, self._bytes)

    def give_up(self) -> None:
        """Removes it and keeps none from now on."""
        self._key = ""
        self.remove()

    def remove(self) -> None:
        """Removes it."""
        remove(self._path)

    def _sum(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, text, "sha256").hex().encode("ascii")

    def _line(self, value: Mapping[str, Any]) -> bytes:
        text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
        return self._sum(text) + b" " + text + b"\n"

    def _checked(self, line: bytes) -> dict[str, Any] | None:
        named, text = line[:_SUM], line[_SUM + 1 : -1]
        if line[-1:] != b"\n" or not hmac.compare_digest(self._sum(text), named):
            return None
        found: dict[str, Any] = json.loads(text)
        return found


def _row(stored: StoredEpisode) -> dict[str, Any]:
    meta = stored.meta.as_dict()
    meta["unit_ids"] = [owner.hex() for owner in stored.meta.unit_ids]
    return {"chunk": stored.chunk, "file": stored.file, "start": stored.start, "meta": meta}


def _stored(row: Mapping[str, Any]) -> StoredEpisode:
    owners = tuple(bytes.fromhex(owner) for owner in row["meta"]["unit_ids"])
    meta = {**row["meta"], "unit_ids": owners, "rights": tuple(row["meta"]["rights"])}
    return StoredEpisode(chunk=row["chunk"], file=row["file"], start=row["start"], meta=EpisodeMeta(**meta))
