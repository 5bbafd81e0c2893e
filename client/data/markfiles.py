# SPDX-License-Identifier: Apache-2.0
"""Where a store keeps the marks of its episodes (client.data.marks): ``<root>/marks/<SHA-256>.episodes.bin``.

- One file per import; several are joined into one when there are `_FILES`. It begins with a list, content of
  each episode and how many marks it has; then these, six bytes a mark. The catalogue names the files, so that
  it stays small and is still the one truth: a file is durable before it is named, and what no catalogue names
  is removed with the next import.
- Imports read them, and what forgets episodes. A file that is missing or changed stops these: what it knew
  again would come in as new.
- A store of an earlier version has files without a list, ``<SHA-256>.bin``: nobody can tell whose marks they
  hold. They stay as they are.

    catalogue = write_marks(root, catalogue, [(content, text)])      # before the catalogue is replaced
    for data in read_marks(root, catalogue): index.marks.add_bytes(data)
    holders_of(root, catalogue, runs)                                # contents of episodes that share marks
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from client.data.durable import replace_file, sync
from client.data.errors import StoreDamagedError
from client.data.marks import MARK_BYTES, packed, shared
from policies.encoding import canonical, parse
from policies.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from client.data.catalogue import Catalogue
    from client.data.marks import Runs

__all__ = ["holders_of", "read_marks", "remove_unnamed", "without_marks", "write_marks"]

_FILES: Final = 64
_LISTED: Final = ".episodes"
_SIZE: Final = 8  # bytes that say how long the list is
_Rows = list[tuple[str, bytes]]


def read_marks(root: Path, catalogue: Catalogue) -> list[bytes]:
    """The marks that a catalogue names, six bytes each.

    Raises:
        StoreDamagedError: A file is missing or changed.
    """
    return [_body(_read(root, name)) if _is_listed(name) else _read(root, name) for name in catalogue.marks]


def write_marks(root: Path, catalogue: Catalogue, episodes: Iterable[tuple[str, str]]) -> Catalogue:
    """The catalogue that names the marks of new episodes too; their file is durable.

    Args:
        root: Folder of the store, locked.
        catalogue: As it was.
        episodes: Content and marks of each new episode.

    Raises:
        StoreDamagedError: A file that is to be joined is missing or changed.
    """
    new = [(content, packed([text])) for content, text in episodes if text]
    if not new:
        return catalogue
    listed = [one for one in catalogue.marks if _is_listed(one)]
    joined = listed if len(listed) >= _FILES else []
    before = [row for one in joined for row in _rows(root, one)]
    name = _write(root, [*before, *new])
    return replace(catalogue, marks=(*(one for one in catalogue.marks if one not in (*joined, name)), name))


def without_marks(root: Path, catalogue: Catalogue, contents: Collection[str]) -> Catalogue:
    """The catalogue that names files without the marks of these episodes; those files are durable.

    Raises:
        StoreDamagedError: A file is missing or changed.
    """
    names: list[str] = []
    for name in catalogue.marks:
        rows = _rows(root, name) if _is_listed(name) else []
        left = [row for row in rows if row[0] not in contents]
        if len(left) == len(rows):
            names.append(name)
        elif left:
            names.append(_write(root, left))
    return replace(catalogue, marks=tuple(dict.fromkeys(names)))


def holders_of(root: Path, catalogue: Catalogue, runs: Runs) -> list[str]:
    """Contents of the episodes that have some of these marks, as far as lists tell; most first.

    Raises:
        StoreDamagedError: A file is missing or changed.
    """
    rows = [row for one in catalogue.marks if _is_listed(one) for row in _rows(root, one)]
    found = {content: count for content, data in rows if (count := shared(runs, data))}
    return sorted(found, key=lambda one: (-found[one], one))


def remove_unnamed(root: Path, catalogue: Catalogue) -> None:
    """Removes files that were joined, or written by an import that was killed."""
    named = {_place(root, name) for name in catalogue.marks}
    for path in (root / "marks").glob("*.bin") if (root / "marks").is_dir() else ():
        if path not in named:
            path.unlink()


def _is_listed(name: str) -> bool:
    return name.endswith(_LISTED)


def _place(root: Path, name: str) -> Path:
    return root / "marks" / f"{name}.bin"


def _write(root: Path, rows: Sequence[tuple[str, bytes]]) -> str:
    """Writes a file and gives its name."""
    head = canonical([[content, len(data) // MARK_BYTES] for content, data in rows])
    data = len(head).to_bytes(_SIZE, "big") + head + b"".join(data for _, data in rows)
    name = hashlib.sha256(data).hexdigest() + _LISTED
    folder = root / "marks"
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        sync(root)
    replace_file(_place(root, name), data)
    return name


def _read(root: Path, name: str) -> bytes:
    path = _place(root, name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(name, type(error).__name__) from error
    if hashlib.sha256(data).hexdigest() != name.removesuffix(_LISTED):
        raise _damaged(name, "other bytes")
    return data


def _body(data: bytes) -> bytes:
    return data[_SIZE + int.from_bytes(data[:_SIZE], "big") :]


def _rows(root: Path, name: str) -> _Rows:
    data = _read(root, name)
    size = int.from_bytes(data[:_SIZE], "big")
    try:
        counts = [(str(content), int(count)) for content, count in parse(data[_SIZE : _SIZE + size])]
    except (EncodingError, TypeError, ValueError) as error:
        raise _damaged(name, type(error).__name__) from error
    found, at = [], _SIZE + size
    for content, count in counts:
        found.append((content, data[at : at + count * MARK_BYTES]))
        at += count * MARK_BYTES
    return found


def _damaged(name: str, found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="the marks that the catalogue names, by which recordings are known again",
        found=f"marks/{name[:12]}…: {found}",
        remedy="restore the folder marks of the store from a backup",
    )
