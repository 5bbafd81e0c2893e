# SPDX-License-Identifier: Apache-2.0
"""Verifying a backup by restoring it on trial: the only proof that it could be restored.

1. The manifest is signed by the broker whose backup it should be: anybody can sign one with a key of their
own, with operators of their own in it. 2. The folder holds exactly the files of the manifest, each with its
digest; confidential values may be gone once their time is over. 3. A copy in a temporary folder, or of a
dump a database that is made and dropped, opens with this version of the program, as a broker's store would.
What is put there are bytes of step 2, also if the folder changes meanwhile: a dump is a program of SQL.
4. Its pages, log, tiles, envelopes and note hold (`broker.backup.looking`), and they are those that the
manifest says. 5. The test is remembered.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from broker.backup import remembered, servers
from broker.backup.errors import (
    BackupDamagedError,
    BackupFolderError,
    BackupForeignError,
    BackupServerError,
)
from broker.backup.looking import check_log, check_pages, reading
from broker.backup.making import held_of
from broker.backup.manifest import MAIN_DUMP, MANIFEST, PRIVATE, PRIVATE_DUMP, Manifest, open_manifest
from broker.backup.remembered import Passed
from broker.membership.directory import ACTIVE
from broker.store import Store, tables
from policies.identity import key_text, parse_key
from policies.log.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from broker.settings import Database, Settings
    from broker.store import Session
    from policies.ports import Clock

__all__ = ["Verified", "damaged", "present_operators", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A backup that could be restored.

    Attributes:
        manifest: What it says of itself; all of it holds.
        signed: Entries that its note signs.
        root: Their root.
        private: Whether confidential values are in it.
        overdue: Whether they should be gone by now.
        operators: Names of the operators in it by their keys.
    """

    manifest: Manifest
    signed: int
    root: bytes
    private: bool
    overdue: bool
    operators: dict[bytes, str]


def verify(
    folder: Path,
    *,
    broker_key: bytes,
    clock: Clock,
    settings: Settings | None = None,
    server: str | None = None,
) -> Verified:
    """Restores a backup on trial; see the module.

    Args:
        folder: Of the backup.
        broker_key: Raw public key of the broker whose backup it should be, from another hand.
        clock: When that is.
        settings: Of that broker, which then remembers the test, if its folder is at hand.
        server: URL of a database of PostgreSQL whose server and role make the trial's, if there are dumps.

    Raises:
        BackupFolderError: There is no backup in the folder.
        BackupForeignError: Step 1.
        BackupDamagedError: Steps 1 to 4.
        BackupServerError, BackupToolsError: Step 3, of dumps.
        StoreError: Step 3, another version of the program.
    """
    # 1.
    manifest = open_manifest(folder)
    if manifest.broker_key != broker_key:
        raise BackupForeignError(
            need=f"a backup signed by {key_text(broker_key)}",
            found=key_text(manifest.broker_key),
            remedy="name a backup of this broker; its key is what init and status print",
        )
    # 2.
    now_ms = clock.now_ms()
    until = manifest.private_until_ms
    private = _check_files(folder, manifest, over=until is not None and until < now_ms)
    # 3. and 4.
    with ExitStack() as held:
        place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="iriai-restore-")))
        trial = _Trial(folder=folder, manifest=manifest, place=place, server=server, clock=clock, held=held)
        signed, root, operators = _on_trial(trial, private=private)
    # 5.
    if settings is not None:
        passed = Passed(
            path=str(folder.absolute()), at_ms=now_ms, manifest=manifest.digest, size=manifest.size
        )
        remembered.tested(settings, passed)
    return Verified(
        manifest=manifest,
        signed=signed,
        root=root,
        private=private,
        overdue=private and until is not None and until < now_ms,
        operators=operators,
    )


def _check_files(folder: Path, manifest: Manifest, *, over: bool) -> bool:
    """Whether confidential values are there, once every file is as the manifest says."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if not path.is_dir() and path != folder / MANIFEST
    }
    wanted = {one.path: one for one in manifest.files}
    if over and manifest.private not in found:
        wanted.pop(str(manifest.private), None)
    for path in sorted(found.keys() ^ wanted.keys()):
        raise damaged(path, "one that the manifest does not name" if path in found else "no such file")
    for path, one in sorted(wanted.items()):
        if found[path].is_symlink() or not found[path].is_file():
            raise damaged(path, "no regular file")
        if held_of(folder, found[path]) != one:
            raise damaged(path, "other bytes")
    if manifest.main not in wanted:
        raise damaged(manifest.main, "no such file")
    return manifest.private in wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Where the databases of a backup are put, and what undoes that."""

    folder: Path
    manifest: Manifest
    place: Path
    server: str | None
    clock: Clock
    held: ExitStack

    def put(self, name: str | None) -> Database:
        """Where a database of the backup is for the trial; an empty file if it has none."""
        if name is None:
            return self.place / PRIVATE
        copy = self.place / name
        shutil.copyfile(self.folder / name, copy)
        if held_of(self.place, copy) not in self.manifest.files:
            raise damaged(name, "other bytes than a moment ago")
        if name in {MAIN_DUMP, PRIVATE_DUMP}:
            return self._restored(copy)
        check_pages(copy)
        return copy

    def _restored(self, copy: Path) -> str:
        if self.server is None:
            raise BackupServerError(
                need="a server of PostgreSQL for a database of the trial",
                found="none",
                remedy="name one with --server postgresql://role@host/postgres; the role may make databases",
            )
        url = self.held.enter_context(servers.scratch(self.server, copy.stem, self.clock))
        servers.restore(copy, url)
        return url


def _on_trial(trial: _Trial, *, private: bool) -> tuple[int, bytes, dict[bytes, str]]:
    manifest = trial.manifest
    main, secret = trial.put(manifest.main), trial.put(manifest.private if private else None)
    store = Store.open(main, secret, trial.place / "signer.db", trial=True)
    try:
        with store.read() as session:
            looked = check_log(session, manifest.vkeys)
            operators = _operators(session)
        said = open_checkpoint(manifest.note, manifest.vkeys).origin if manifest.note else manifest.origin
    finally:
        store.close()
    if (looked.size, looked.note, said) != (manifest.size, manifest.note, manifest.origin):
        raise damaged(manifest.main, f"a log of {looked.size} entries that is not the manifest's")
    return looked.signed, looked.root, operators


def _operators(session: Session) -> dict[bytes, str]:
    found = session.execute(tables.operator.select().where(tables.operator.c.state == ACTIVE))
    return {parse_key(row.key): row.name for row in found}


def present_operators(settings: Settings) -> dict[bytes, str]:
    """Names of the operators of a broker as it is now, by their keys; its database is only read.

    Raises:
        BackupFolderError: It cannot be read.
    """
    try:
        with reading(settings.main_database) as session:
            return _operators(session)
    except (DBAPIError, sqlite3.Error) as error:
        raise BackupFolderError(
            need=f"operators in {settings.dir / 'broker.db'}"
            if settings.database_url is None
            else "operators in the database of database_url",
            found=type(error).__name__,
            remedy="if this database is damaged, leave --dir out and give --broker-key",
        ) from error


def damaged(path: str, found: str) -> BackupDamagedError:
    """What to say of a file that is not what the manifest says."""
    return BackupDamagedError(
        need=f"{path} as the manifest says", found=found, remedy="use another backup; this one is damaged"
    )
