# SPDX-License-Identifier: Apache-2.0
"""Verifying a backup by restoring it on trial: the only proof that it could be restored.

1. The manifest is signed by the broker whose backup it should be: anybody can sign one with a key of their
own, with operators of their own in it. 2. The folder holds exactly the files of the manifest, each with its
digest; confidential values may be gone once their time is over. 3. A copy in a temporary folder opens with
this version of the program, as a broker's store would. 4. Its pages, log, tiles, envelopes and note hold
(`broker.backup.looking`), and they are those that the manifest says. 5. The test is remembered.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from broker.backup import remembered
from broker.backup.errors import BackupDamagedError, BackupFolderError, BackupForeignError
from broker.backup.looking import check_log, check_pages, reading
from broker.backup.making import held_of
from broker.backup.manifest import MAIN, MANIFEST, PRIVATE, Manifest, open_manifest
from broker.backup.remembered import Passed
from broker.membership.directory import ACTIVE
from broker.store import Store, tables
from policies.identity import key_text, parse_key
from policies.log.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from broker.settings import Settings
    from broker.store import Session
    from policies.ports import Clock

__all__ = ["Verified", "present_operators", "verify"]


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


def verify(folder: Path, *, broker_key: bytes, clock: Clock, settings: Settings | None = None) -> Verified:
    """Restores a backup on trial; see the module.

    Args:
        folder: Of the backup.
        broker_key: Raw public key of the broker whose backup it should be, from another hand.
        clock: When that is.
        settings: Of that broker, which then remembers the test, if its folder is at hand.

    Raises:
        BackupFolderError: There is no backup in the folder.
        BackupForeignError: Step 1.
        BackupDamagedError: Steps 1 to 4.
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
    with tempfile.TemporaryDirectory(prefix="iriai-restore-") as name:
        signed, root, operators = _on_trial(folder, Path(name), manifest, private=private)
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
    if over and PRIVATE not in found:
        wanted.pop(PRIVATE, None)
    for path in sorted(found.keys() ^ wanted.keys()):
        raise _damaged(path, "one that the manifest does not name" if path in found else "no such file")
    for path, one in sorted(wanted.items()):
        if found[path].is_symlink() or not found[path].is_file():
            raise _damaged(path, "no regular file")
        if held_of(folder, found[path]) != one:
            raise _damaged(path, "other bytes")
    if MAIN not in wanted:
        raise _damaged(MAIN, "no such file")
    return PRIVATE in wanted


def _on_trial(
    folder: Path, trial: Path, manifest: Manifest, *, private: bool
) -> tuple[int, bytes, dict[bytes, str]]:
    for name in (MAIN, *([PRIVATE] * private)):
        shutil.copyfile(folder / name, trial / name)
        check_pages(trial / name)
    store = Store.open(trial / MAIN, trial / PRIVATE, trial / "signer.db")
    try:
        with store.read() as session:
            looked = check_log(session, manifest.vkeys)
            operators = _operators(session)
        said = open_checkpoint(manifest.note, manifest.vkeys).origin if manifest.note else manifest.origin
    finally:
        store.close()
    if (looked.size, looked.note, said) != (manifest.size, manifest.note, manifest.origin):
        raise _damaged(MAIN, f"a log of {looked.size} entries that is not the manifest's")
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
        with reading(settings.dir / "broker.db") as session:
            return _operators(session)
    except (DBAPIError, sqlite3.Error) as error:
        raise BackupFolderError(
            need=f"operators in {settings.dir / 'broker.db'}",
            found=type(error).__name__,
            remedy="if this database is damaged, leave --dir out and give --broker-key",
        ) from error


def _damaged(path: str, found: str) -> BackupDamagedError:
    return BackupDamagedError(
        need=f"{path} as the manifest says", found=found, remedy="use another backup; this one is damaged"
    )
