# SPDX-License-Identifier: Apache-2.0
"""Which files of a path are one recording: a bag as people send it, with its ``metadata.yaml`` or without.

- A file is a recording. A folder with ``metadata.yaml`` is one recording, in the order that it lists: a bag
  that was split while it was recorded goes on from file to file.
- A folder without ``metadata.yaml`` is one recording per file, in the order of names (10 after 9): nothing
  says that they follow each other.
- A folder of such folders holds the recordings of each, one level deep.
- ``metadata.yaml`` is read for nothing but names; it must not point out of its folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from client.data.errors import FileInvalidError, FormatUnknownError, TooLargeError
from client.data.readers.files import check_file, read_bounded, sha256_file
from client.data.readers.foreign import parsing
from policies.limits import BAG_FILES, BAG_METADATA_BYTES

__all__ = ["Recording", "beside", "has_bag", "recordings", "sha256_files"]

_METADATA: Final = "metadata.yaml"
_BESIDE: Final = ("-wal", "-journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Files that follow each other. ``name`` is what an import report calls them."""

    name: str
    files: tuple[Path, ...]


def has_bag(path: Path, suffix: str) -> bool:
    """Whether a path is, or holds, a file of this suffix."""
    if path.is_dir():
        return bool(_files(path, suffix)) or any(_files(folder, suffix) for folder in _folders(path))
    return path.suffix.lower() == suffix


def recordings(path: Path, suffix: str) -> list[Recording]:
    """The recordings of a path, in an order that depends on names alone.

    Raises:
        FileInvalidError: ``metadata.yaml`` cannot be read, or names a file that is not there.
        FormatUnknownError: The bag is compressed as a whole.
        TooLargeError: More files than a folder may have.
    """
    if not path.is_dir():
        return [Recording(name=path.name, files=(path,))]
    found = _bag(path, suffix, "")
    if not found:
        found = [one for folder in _folders(path) for one in _bag(folder, suffix, f"{folder.name}/")]
    if sum(len(one.files) for one in found) > BAG_FILES:
        raise TooLargeError(
            need=f"at most {BAG_FILES} files", found=f"{path.name}: more", remedy="import parts of the folder"
        )
    return found


def beside(file: Path) -> list[Path]:
    """What sqlite left beside its file and belongs to it: a log that is not empty."""
    found = [Path(f"{file}{end}") for end in _BESIDE]
    linked = next((path for path in found if path.is_symlink()), None)
    if linked is not None:
        raise FileInvalidError(
            need="the log of a bag beside it", found=f"{linked.name}: a link", remedy="copy the log itself"
        )
    return [path for path in found if path.is_file() and check_file(path)]


def sha256_files(files: tuple[Path, ...]) -> str:
    """64 hex digits: SHA-256 of the only file, or of the digests of several in their order, logs included."""
    digests = [sha256_file(part) for file in files for part in (file, *beside(file))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _bag(folder: Path, suffix: str, prefix: str) -> list[Recording]:
    files = _files(folder, suffix)
    if files and (folder / _METADATA).is_file():
        return [Recording(name=folder.name, files=_listed(folder, suffix))]
    return [Recording(name=f"{prefix}{file.name}", files=(file,)) for file in files]


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith(".")]
    except PermissionError:
        return []  # of another user, beside what is ours
    return sorted(found, key=_natural)


def _folders(path: Path) -> list[Path]:
    return sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_natural)


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.split(r"(\d{1,18})", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts if part)


def _listed(folder: Path, suffix: str) -> tuple[Path, ...]:
    """The files that ``metadata.yaml`` names, in its order."""
    info = _information(folder / _METADATA)
    if info.get("compression_mode") not in (None, "", "NONE", "none"):
        raise FormatUnknownError(
            need="a bag that is not compressed as a whole",
            found=f"{folder.name}: compression_mode {ascii(info.get('compression_mode'))[:20]}",
            remedy="ros2 bag convert, with compression_mode none",
        )
    names = info.get("relative_file_paths")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _invalid(folder, "no relative_file_paths")
    files = []
    for name in names:
        inner = PurePosixPath(name).name  # some recorders write the folder's name before it
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise _invalid(folder, "a path that leaves the folder")
        found = next((p for p in (folder / name, folder / inner) if p.is_file()), None)
        if found is None or found.suffix.lower() != suffix:
            raise _invalid(folder, f"{ascii(name)[1:61]} is listed and not there")
        files.append(found)
    return tuple(files)


def _information(path: Path) -> dict[str, Any]:
    import yaml

    with parsing(path):  # the library's tags raise whatever their text makes them (`!!int ""`)
        found = yaml.safe_load(read_bounded(path, BAG_METADATA_BYTES))
    info = found.get("rosbag2_bagfile_information") if isinstance(found, dict) else None
    if not isinstance(info, dict):
        raise _invalid(path.parent, "no rosbag2_bagfile_information")
    return info


def _invalid(folder: Path, found: str) -> FileInvalidError:
    return FileInvalidError(
        need="metadata.yaml as ros2 bag writes it",
        found=f"{folder.name}: {found}",
        remedy="ros2 bag reindex, or remove metadata.yaml: the files are read without it",
    )
