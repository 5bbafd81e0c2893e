# SPDX-License-Identifier: Apache-2.0
"""Room for bundles that are made to be downloaded: one at a time, a whole file or none.

    async with exports.room(key_id) as path:
        ...                     write the file; if this raises, nothing of it is left
    exports.release(path)       once it was sent, or was not: the response does it whatever happens
    async with exports.quiet():
        ...                     meanwhile none is written

Each key has one at a time, from its question until the file is released: who reads nothing of it gets no
second one. Of members and auditors together there are at most `EXPORTS_MAX`; operators always find room. Who
asks for more is sent away. Files that a crash left are removed at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextlib import asynccontextmanager
from tempfile import mkstemp
from typing import TYPE_CHECKING, Final

from broker.auditing.errors import ExportBusyError, ExportRefusedError
from policies.limits import EXPORTS_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

__all__ = ["Exports"]

_PREFIX: Final = ".bundle-"


class Exports:
    """For one event loop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: asyncio.Lock | None = None
        self._there: dict[str, bool] = {}
        self._holders: dict[Path, str] = {}

    @asynccontextmanager
    async def room(self, key_id: str, *, is_operator: bool = False) -> AsyncIterator[Path]:
        """An empty file that only the owner may read; waits for its turn, keeps its place if all is well.

        Raises:
            ExportBusyError: This key has one already, or all places are taken.
            ExportRefusedError: The disk or the folder does not allow it.
        """
        self._take(key_id, is_operator=is_operator)
        path: Path | None = None
        try:
            async with self._turn():
                path = self._new()
                self._holders[path] = key_id
                yield path
        except BaseException as error:
            self.release(path)
            self._there.pop(key_id, None)
            if isinstance(error, OSError):
                raise _refused(error) from error
            raise

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """A time in which no bundle is written."""
        async with self._turn():
            yield

    def _take(self, key_id: str, *, is_operator: bool) -> None:
        if key_id in self._there:
            raise _busy("one bundle of a key at a time", "another that is being made or sent")
        others = sum(not operators for operators in self._there.values())
        if not is_operator and others >= EXPORTS_MAX:
            raise _busy(f"at most {EXPORTS_MAX} bundles at a time", f"{others}")
        self._there[key_id] = is_operator

    def _turn(self) -> asyncio.Lock:
        self._lock = self._lock or asyncio.Lock()
        return self._lock

    def _new(self) -> Path:
        descriptor, name = mkstemp(prefix=_PREFIX, dir=self._folder)
        os.close(descriptor)
        return self._folder / name

    def release(self, path: Path | None) -> None:
        """Removes a file and gives its place back; repeatable."""
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        holder = self._holders.pop(path, None)
        if holder is not None:
            self._there.pop(holder, None)

    def clear(self) -> None:
        """Removes what a crash left; before anybody is served."""
        for path in self._folder.glob(_PREFIX + "*"):
            self.release(path)


def _busy(need: str, found: str) -> ExportBusyError:
    remedy = "wait for it to end, then ask again; a download that was cut gives its place back"
    return ExportBusyError(need=need, found=found, remedy=remedy)


def _refused(error: OSError) -> ExportRefusedError:
    return ExportRefusedError(
        need="room for the bundle, and permission to write in the broker's folder",
        found=error.strerror or type(error).__name__,
        remedy="make room on the disk, then ask again; nothing of the bundle is left",
    )
