# SPDX-License-Identifier: Apache-2.0
"""The files of a source while it is imported: that they stay what they were, and what they keep private.

- `Watch` notes size, inode and times of each file before the first byte is read. A file that another program
  wrote to, replaced or removed meanwhile would be stored under the digest of other bytes: the import is
  refused. Files that come in addition are of the next import. Hidden files and ``.part`` are nobody's yet.
- A folder that `data export` or the store wrote names the columns that its site keeps to itself
  (``iriai/private.json``). Imported again they stay so, under any map.

    watch = Watch(source)
    ...                      # reads
    watch.check()            # ChangedWhileReadError
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from client.data.errors import ChangedWhileReadError, FileInvalidError
from client.data.layout import PRIVATE
from client.data.readers.files import read_bounded
from policies.limits import DATASET_META_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.series import Probe

__all__ = ["Watch", "private_columns"]

_PART: Final = ".part"


class Watch:
    """What the files of a source are when the import begins."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._before = {path: _state(path) for path in _files(source)}

    def check(self) -> None:
        """Refuses a source of which a file is not what it was.

        Raises:
            ChangedWhileReadError: It is not.
        """
        changed = sorted(path for path, state in self._before.items() if _state(path) != state)
        if changed:
            raise ChangedWhileReadError(
                need="files that stay as they are while they are read",
                found=f"{changed[0].name}: written to meanwhile",
                remedy="wait until the recorder has closed it, then import again; nothing was stored",
            )


def _files(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    for path in source.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if not hidden and path.suffix != _PART and path.is_file():
            yield path


def _state(path: Path) -> tuple[int, int, int, int] | None:
    """No program sets the change time, so a file whose modification time was put back shows too."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def private_columns(source: Path, probe: Probe) -> list[str]:
    """Channels of a source that a site of this program keeps to itself.

    Raises:
        FileInvalidError: ``iriai/private.json`` is there and of another form.
    """
    path = source / PRIVATE
    if not source.is_dir() or not path.exists():
        return []
    try:
        kept = {str(one) for one in json.loads(read_bounded(path, DATASET_META_BYTES))["columns"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileInvalidError(
            need="a list of private columns", found=f"{PRIVATE}: another form", remedy="export it again"
        ) from error
    names = probe.extra.get("names") or {}
    return [
        channel
        for channel, name in names.items()
        if f"{channel.split('.', 1)[0]}.{str(name).rsplit('_', 1)[0]}" in kept
    ]
