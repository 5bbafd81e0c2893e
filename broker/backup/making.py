# SPDX-License-Identifier: Apache-2.0
"""Making a backup while the broker serves: databases by SQLite's online copy or ``pg_dump``, then the files.

1. The folder is new. 2. The main database is copied in one snapshot, and what is in it holds: the pages of a
file, and the log (`broker.backup.looking`). 3. Then the private one, which has at least its values. 4. Its
pages hold, of a file. 5. Settings, certificate, policy, models, checkpoints of runs and transcripts of sums
are copied. 6. The manifest is signed and written last: a folder without one is no backup. 7. It is remembered
(`broker.backup.remembered`), and copies of confidential values whose time is over are deleted from older
backups.

Not in it: private keys, the signer's memory, the engine's own state, masked vectors, what a running exchange
keeps.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from broker.backup import remembered
from broker.backup.errors import BackupDamagedError, BackupFolderError
from broker.backup.looking import Looked, check_log, check_pages, reading
from broker.backup.manifest import (
    MAIN,
    MAIN_DUMP,
    MANIFEST,
    PRIVATE,
    PRIVATE_DUMP,
    Held,
    Manifest,
    open_manifest,
    seal_manifest,
)
from broker.backup.remembered import Kept
from broker.backup.servers import dumped
from broker.keyfiles import load_key, replace_file
from broker.store.migrations import HEADS
from policies.limits import BACKUP_PRIVATE_DAYS
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.settings import Database, Settings
    from policies.ports import Clock

__all__ = ["create"]

_PIECE: Final = 1024 * 1024
_DAY_MS: Final = 86_400_000
_FOLDERS: Final = ("models", "transcripts")
_STATE_OF_AN_EXCHANGE: Final = "secagg"


def create(settings: Settings, out: Path, *, clock: Clock, private: bool = True) -> Manifest:
    """Makes a backup in a new folder; see the module.

    Raises:
        BackupFolderError: Step 1.
        BackupDamagedError: Steps 2 and 4: what would be copied is damaged already.
        BackupServerError, BackupToolsError: Steps 2 and 3, on PostgreSQL.
        KeyFileError: The broker's key cannot be read.
        OSError: The disk does not take it.
    """
    key = load_key(settings.keys / "broker.key")
    vkeys = tuple(VerifierKey(settings.origin, load_key(path).public) for path in settings.log_keys)
    # 1.
    try:
        out.mkdir(mode=0o700)
    except FileExistsError as error:
        raise BackupFolderError(
            need="a new folder", found=f"{out} is there already", remedy="name another with --out"
        ) from error
    try:
        made_ms = clock.now_ms()
        # 2.
        looked = _copy_main(settings.main_database, out, vkeys)
        # 3. and 4.
        if private:
            _copy_private(settings.private_database, out)
        # 5.
        for source, path in _files(settings):
            _copy(source, out / path)
        # 6.
        made = Manifest(
            origin=settings.origin,
            broker_key=key.public,
            vkeys=vkeys,
            made_ms=made_ms,
            software=version("iriai"),
            revisions={"main": HEADS["main"], "private": HEADS["private"]},
            size=looked.size,
            note=looked.note,
            private_until_ms=made_ms + BACKUP_PRIVATE_DAYS * _DAY_MS if private else None,
            files=tuple(_held(out)),
        )
        replace_file(out / MANIFEST, seal_manifest(made, key), mode=0o600)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    # 7.
    kept = open_manifest(out)
    _forget_private(settings, made_ms)
    remembered.add(
        settings,
        Kept(
            path=str(out.absolute()),
            at_ms=made_ms,
            manifest=kept.digest,
            size=kept.size,
            bytes=kept.bytes,
            private_until_ms=kept.private_until_ms,
        ),
    )
    return kept


def _copy_main(source: Database, out: Path, vkeys: tuple[VerifierKey, ...]) -> Looked:
    """The copy, and what the log in it is."""
    if isinstance(source, Path):
        _copy_database(source, out / MAIN)
        check_pages(out / MAIN)
        with reading(out / MAIN) as session:
            return check_log(session, vkeys)
    with dumped(source, out / MAIN_DUMP) as session:
        looked = check_log(session, vkeys)
    _synced(out / MAIN_DUMP, 0o600)
    return looked


def _copy_private(source: Database, out: Path) -> None:
    if isinstance(source, Path):
        _copy_database(source, out / PRIVATE)
        check_pages(out / PRIVATE)
        return
    with dumped(source, out / PRIVATE_DUMP):
        pass
    _synced(out / PRIVATE_DUMP, 0o600)


def _copy_database(source: Path, target: Path) -> None:
    """One snapshot, in one file; writers go on meanwhile."""
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, and none appears beside it when it is read
    except sqlite3.DatabaseError as error:
        raise BackupDamagedError(
            need=f"a database in {source}",
            found=str(error)[:200],
            remedy="keep the folder as it is; iriai-broker doctor and iriai-broker log status say more",
        ) from error
    _synced(target, 0o600)


def _files(settings: Settings) -> Iterator[tuple[Path, str]]:
    """What is copied beside the databases: where it lies, and its path in the backup."""
    yield from ((settings.file, "broker.toml"), (settings.tls_chain, "tls.pem"))
    if settings.policy.exists():
        yield settings.policy, "policy.txt"
    for folder in _FOLDERS:
        for path in sorted((settings.dir / folder).glob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path, f"{folder}/{path.name}"
    for path in sorted((settings.dir / "runs").rglob("*")):
        inner = path.relative_to(settings.dir)
        if path.is_file() and _STATE_OF_AN_EXCHANGE not in inner.parts and not path.name.startswith("."):
            yield path, inner.as_posix()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return  # deleted since it was listed, as old checkpoints are; no database names it
    _synced(target, 0o600)


def _synced(path: Path, mode: int) -> None:
    path.chmod(mode)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _held(folder: Path) -> Iterator[Held]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield held_of(folder, path)


def held_of(folder: Path, path: Path) -> Held:
    """A file as a manifest names it."""
    hashed, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
            size += len(piece)
    return Held(path=path.relative_to(folder).as_posix(), bytes=size, sha256=f"sha256:{hashed.hexdigest()}")


def _forget_private(settings: Settings, now_ms: int) -> None:
    """Deletes copies of confidential values whose time is over, where they still lie."""
    for one in remembered.record(settings).backups:
        if one.private_until_ms is not None and one.private_until_ms < now_ms:
            for name in (PRIVATE, PRIVATE_DUMP):
                (Path(one.path) / name).unlink(missing_ok=True)
