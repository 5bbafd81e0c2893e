# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker db`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.answers import Result, plain
from broker.errors import UsageError
from broker.federation.occupying import while_stopped
from broker.settings import Settings, database_url
from broker.store import Store
from broker.store.migrations import HEADS
from broker.store.roles import prepare

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check", "migrate", "upgrade"]


def check(directory: Path) -> Result:
    """Which schema each database has."""
    from broker.doctor import databases
    from broker.doctor.findings import looked

    settings = Settings.load(directory)
    found = looked(1, "doctor.migrations", lambda: databases.schema(settings))
    text = (found.found,) if found.ok else (plain(found.found), f"remedy: {found.remedy}")
    return Result(
        data={"wanted": dict(HEADS), "ok": found.ok, "found": plain(found.found), "remedy": found.remedy},
        text=text,
        exit_code=0 if found.ok else _FAILED,
    )


def upgrade(directory: Path, *, owner: str | None, auditor: str | None) -> Result:
    """Brings the databases to this program's schema.

    Raises:
        UsageError: A database of PostgreSQL, and nobody named its owner; or the reverse.
        AlreadyRunningError: The broker serves just now.
    """
    settings = Settings.load(directory)
    if settings.database_url is not None and owner is None:
        raise UsageError(
            need="--database-owner URL",
            found="a database of PostgreSQL, whose tables the broker does not own",
            remedy="name its URL for the owner of the tables",
        )
    return _upgraded(directory) if owner is None else migrate(directory, owner=owner, auditor=auditor)


@while_stopped
def _upgraded(directory: Path) -> Result:
    settings = Settings.load(directory)
    Store.open(settings.main_database, settings.private_database, settings.signer_path).close()
    return Result(data={"revisions": dict(HEADS)}, text=(f"databases    at {', '.join(HEADS.values())}",))


_FAILED = 3


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
