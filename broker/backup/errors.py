# SPDX-License-Identifier: Apache-2.0
"""Why a backup is not made, not believed, or not restored.

BackupError
  BackupDamagedError        backup.damaged      a file, a database or the log in it is not what it should be
  BackupFolderError         backup.folder       the folder that was named cannot be used
  BackupForeignError        backup.foreign      the backup of another broker
  BackupServerError         backup.server       a server of PostgreSQL does not give or take what it should
  BackupToolsError          backup.tools        pg_dump or pg_restore of the server's version is not here
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "BackupDamagedError",
    "BackupError",
    "BackupFolderError",
    "BackupForeignError",
    "BackupServerError",
    "BackupToolsError",
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
    """A server of PostgreSQL does not let this role read, make or fill a database, or none was named."""

    code = "backup.server"
    exit_code = 2


class BackupToolsError(BackupError):
    """The programs that copy a database of PostgreSQL, in its server's version, are not installed here."""

    code = "backup.tools"
    exit_code = 2
