# SPDX-License-Identifier: Apache-2.0
"""Backups of a broker: made while it serves, tested by restoring them on trial, restored by two people.

`create` makes a folder with a signed manifest, `verify` restores it on trial and remembers that, `Plan` is
what two operators sign for a restore, and `record` says when a backup was made and when one was tested.
"""

from __future__ import annotations

from broker.backup.checking import Verified, verify
from broker.backup.errors import (
    BackupDamagedError,
    BackupError,
    BackupFolderError,
    BackupForeignError,
    BackupServerError,
    BackupToolsError,
)
from broker.backup.making import create
from broker.backup.manifest import Manifest, open_manifest
from broker.backup.remembered import Facts, Kept, Passed, record
from broker.backup.restoring import Plan, Targets

__all__ = [
    "BackupDamagedError",
    "BackupError",
    "BackupFolderError",
    "BackupForeignError",
    "BackupServerError",
    "BackupToolsError",
    "Facts",
    "Kept",
    "Manifest",
    "Passed",
    "Plan",
    "Targets",
    "Verified",
    "create",
    "open_manifest",
    "record",
    "verify",
]
