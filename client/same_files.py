# SPDX-License-Identifier: Apache-2.0
"""Whether an open SQLite database is still the one that other processes open by its path.

A write-ahead log lives as long as anybody has its database open. Should the database or its log be another
file all the same (restored from a backup under a running worker, deleted by hand, a lock that was lost), then
what is written here is seen by nobody else, and two processes number one chain apart from each other. So
every writing transaction looks, and refuses.

    files = SameFiles(path)      # once the database is open, inside its first transaction
    files.check()              # inside every later one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.errors import OutboxError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SameFiles"]


class SameFiles:
    """Remembers which files a database and its write-ahead log are."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, path.with_name(f"{path.name}-wal"))
        self._known = self._found()

    def check(self) -> None:
        """Returns while both are the same files.

        Raises:
            OutboxError: They are not.
        """
        if self._found() != self._known:
            raise OutboxError(
                need=f"{self._paths[0].name} and its write-ahead log as this process opened them",
                found="other files in their place",
                remedy="stop the worker and start it again; then iriai-node receipt verify",
            )

    def _found(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._paths]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
