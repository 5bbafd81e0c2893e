# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker db`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Result
from broker.errors import UsageError
from broker.federation.occupying import while_stopped
from broker.settings import Settings, database_url
from broker.store.migrations import HEADS
from broker.store.roles import prepare

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["migrate"]


@while_stopped
def migrate(directory: Path, *, owner: str, auditor: str | None) -> Result:
    """Migrates the main database of a broker as the owner of its tables, and sets everybody's rights.

    Raises:
        UsageError: The broker runs on SQLite.
        AlreadyRunningError: It serves just now.
        StoreError: See `broker.store.roles.prepare`.
    """
    settings = Settings.load(directory)
    if settings.database_url is None:
        raise UsageError(
            need=f"database_url in {settings.file}",
            found="a broker on SQLite files",
            remedy="nothing has to be done: these are migrated when the broker starts",
        )
    prepare(database_url("--database-owner", owner), broker=settings.database_url, auditor=auditor)
    data = {"revision": HEADS["main"], "auditor": auditor}
    return Result(data=data, text=(f"database     at {HEADS['main']}, rights are set",))
