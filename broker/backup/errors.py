# SPDX-License-Identifier: Apache-2.0
"""Why a backup is not made, not believed, or not restored.

BackupError
  BackupDamagedError        backup.damaged      a file, a database or the log in it is not what it should be
  BackupFolderError         backup.folder       the folder that was named cannot be used
  BackupForeignError        backup.foreign      the backup of another broker
  BackupServerError         backup.server       a database on a server, which has tools of its own
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "BackupDamagedError",
    "BackupError",
    "BackupFolderError",
    "BackupForeignError",
    "BackupServerError",
]


class BackupError(IriaiError):
    """Root of refusals about backups."""

    code = "backup.error"
    exit_code = 3


class BackupDamagedError(BackupError):
    """A file of the backup, its database or its log is not what the manifest or the log's key says."""

    code = "backup.damaged"


class BackupFolderError(BackupError):
    """A backup is written to a new folder, read from one with a manifest, and restored into an empty one."""

    code = "backup.folder"
    exit_code = 2


class BackupForeignError(BackupError):
    """The backup is signed by another broker's key."""

    code = "backup.foreign"
    exit_code = 6


class BackupServerError(BackupError):
    """The database is on PostgreSQL, whose own tools copy it."""

    code = "backup.server"
    exit_code = 2
