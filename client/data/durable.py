# SPDX-License-Identifier: Apache-2.0
"""How the store writes: aside, flushed to the disk, then renamed into its place in one step."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

__all__ = ["FULL", "open_own", "remove", "replace_file", "sync", "sync_tree", "write_json"]

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_json(path: Path, value: Mapping[str, Any] | None) -> None:
    """Readable JSON with sorted keys; not durable before `sync`."""
    text = json.dumps(value, indent=4, sort_keys=True)
    path.write_bytes(text.encode("utf-8") + b"\n")


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file durably: after a crash it has its old bytes or the new ones."""
    aside = path.with_name(f".new-{path.name}")
    with open_own(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync(path.parent)


def sync_tree(folder: Path, durable: Collection[Path]) -> None:
    """Makes a folder with all that is in it durable, but for files that are so already."""
    for path in sorted(folder.rglob("*")):
        if path not in durable:
            sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Makes a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_own(path: Path, flags: int) -> BinaryIO:
    """Opens a file of the store to write; a link in its place is refused (`OSError`), not followed."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(handle, "ab" if flags & os.O_APPEND else "wb")


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
