# SPDX-License-Identifier: Apache-2.0
"""Restoring a backup: into an empty folder, whole and verified, once two operators approved exactly that.

    plan = Plan.of(folder, into, broker_key=key, clock=clock)    verifies the backup on trial
    plan.subject()                      canonical bytes for two operators (`broker.log.approvals`)
    plan.apply(approvals)               names of who approved

- The broker's key comes from another hand than the backup. Operators are those in the backup that this key
  signed; if the broker's own folder is at hand, only those who are in force there still.
- The document names the backup's manifest, the log's size and root, the broker's key and the folder.
- Nothing that is there is overwritten. The folder appears when everything is in it.
- Dumps of PostgreSQL go into databases that hold nothing (`Targets`): the document names them. Without
  names they are those of the backup's own settings. The main one gets its owner, and the broker's role the
  rights that ``iriai-broker init`` gives (`broker.store.roles`): it can change no entry there either.
- What is put anywhere are bytes that the manifest names, also if the backup changes meanwhile: all of them,
  save confidential values that were gone, after their time, when the backup was verified.
- Keys are put back by hand, and so is the newest memory of the signer: a restored log that is older than what
  was signed freezes when the broker starts, and that is right (``iriai-broker log repair``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from broker.backup import servers
from broker.backup.checking import Verified, damaged, present_operators, verify
from broker.backup.errors import BackupFolderError, BackupServerError
from broker.backup.making import held_of
from broker.backup.manifest import MAIN, MAIN_DUMP, PRIVATE_DUMP
from broker.keyfiles import replace_file
from broker.log.approvals import approvers
from broker.settings import Settings
from broker.store.roles import check_roles, prepare
from policies.encoding import canonical
from policies.identity import key_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from broker.backup.manifest import Manifest
    from policies.ports import Clock

__all__ = ["Plan", "Targets"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Databases of PostgreSQL that a restore goes into; all None if the broker is on files.

    Attributes:
        main: URL of the main database, as the broker.
        private: URL of the private one, as the broker, who owns it.
        owner: URL of the main one, as the owner of its tables; used once and kept nowhere.
        server: URL whose server and role make the databases of the trial; `owner` if there is none.
    """

    main: str | None = None
    private: str | None = None
    owner: str | None = None
    server: str | None = None

    def of(self, manifest: Manifest, settings: Settings) -> Targets:
        """With what the settings of a backup say, where nothing else was named and the backup has a dump.

        Raises:
            BackupServerError: A database is missing, or one too many.
        """
        main = _target("--database-url", manifest.main == MAIN_DUMP, self.main, settings.database_url)
        private = self.private or settings.private_db_url
        if manifest.private is not None:
            dump = manifest.private == PRIVATE_DUMP
            private = _target("--private-db-url", dump, self.private, settings.private_db_url)
        return replace(self, main=main, private=private)

    def check(self) -> None:
        """Returns if the databases are there, empty, and of different roles.

        Raises:
            BackupServerError: One holds something, or the owner is missing.
            StoreError: It does not answer, or owner and broker are one.
        """
        if self.main is not None:
            if self.owner is None:
                raise BackupServerError(
                    need="the owner of the main database, whom the broker is not",
                    found="none",
                    remedy="name the database with its owner: --database-owner postgresql://iriai_owner@host/name",
                )
            check_roles(self.owner, broker=self.main)
            servers.check_empty(self.owner)
        if self.private is not None:
            servers.check_empty(self.private)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A restore that can be done; see the module."""

    folder: Path
    into: Path
    found: Verified
    targets: Targets = Targets()

    @classmethod
    def of(
        cls,
        folder: Path,
        into: Path,
        *,
        broker_key: bytes,
        clock: Clock,
        present: Settings | None = None,
        targets: Targets | None = None,
    ) -> Plan:
        """A plan, once the backup holds, and the folder and the databases are empty.

        Args:
            folder: Of the backup.
            into: Where it goes.
            broker_key: Raw public key of the broker whose backup it should be.
            clock: When that is.
            present: Of that broker as it is now, if its folder is at hand.
            targets: Databases on a server; as in the backup's settings what is left out.

        Raises:
            BackupFolderError: No backup, a folder with something in it, or no operators to be read.
            BackupForeignError: The backup of another broker.
            BackupDamagedError, StoreError: The backup does not hold.
            BackupServerError, BackupToolsError: The databases of the trial or of the restore.
        """
        _check_empty(into)
        named = targets or Targets()
        found = verify(folder, broker_key=broker_key, clock=clock, server=named.server or named.owner)
        whole = named.of(found.manifest, Settings.load(folder, environ={}))
        whole.check()
        if present is not None:
            still = present_operators(present)
            both = {key: name for key, name in found.operators.items() if still.get(key) == name}
            found = replace(found, operators=both)
        return cls(folder=folder, into=into.absolute(), found=found, targets=whole)

    @property
    def databases(self) -> dict[str, str]:
        """URLs of the databases of PostgreSQL that it goes into, ``main`` and ``private``."""
        urls = {"main": self.targets.main, "private": self.targets.private}
        return {name: url for name, url in urls.items() if url is not None}

    def subject(self) -> bytes:
        """Canonical bytes that two operators sign."""
        manifest = self.found.manifest
        return canonical(
            {
                "v": 1,
                "action": "log.restore",
                "log": manifest.origin,
                "broker": key_text(manifest.broker_key),
                "backup": manifest.digest,
                "size": manifest.size,
                "signed": self.found.signed,
                "root": f"sha256:{self.found.root.hex()}",
                "into": str(self.into),
            }
            | ({"databases": self.databases} if self.databases else {})
        )

    def apply(self, approvals: Iterable[bytes]) -> tuple[str, ...]:
        """Restores; gives the names of the two who approved.

        Raises:
            LogApprovalError: Not two operators of the backup signed this document.
            BackupDamagedError: The backup is no longer what was verified; nothing is there then.
            BackupFolderError, BackupServerError: Somebody put something there meanwhile.
            StoreError: A server does not take it. What the message says has then to be made empty again.
            OSError: The disk does not take it; nothing is there then.
        """
        names = approvers(self.subject(), approvals, self.found.operators.get)
        _check_empty(self.into)
        self.targets.check()
        partial = self.into.with_name(f".{self.into.name}.{os.getpid()}.partial")
        try:
            self._fill(partial)
            self._fill_databases(partial)
            partial.rename(self.into)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return names

    def _fill(self, partial: Path) -> None:
        partial.mkdir(mode=0o700, parents=True)
        for one in self.found.manifest.files:
            target = partial / ("broker.db" if one.path == MAIN else one.path)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if one.path == self.found.manifest.private and not self.found.private:
                continue  # gone after their time, as `verify` found
            if not (self.folder / one.path).is_file():
                raise damaged(one.path, "no such file any more")
            shutil.copyfile(self.folder / one.path, target)
            target.chmod(0o600)
            if replace(held_of(partial, target), path=one.path) != one:
                raise damaged(one.path, "other bytes than a moment ago")
        for folder in ("models", "keys"):
            (partial / folder).mkdir(mode=0o700, exist_ok=True)
        settings = Settings.load(partial, environ={})
        at_home = replace(
            settings,
            dir=partial,
            config=None,
            private_db=None,
            database_url=self.targets.main,
            private_db_url=self.targets.private,
        )
        at_home.write()
        replace_file(partial / "restored.json", self.subject() + b"\n")

    def _fill_databases(self, partial: Path) -> None:
        """The private one first: a main one without its values would be more than the backup is."""
        targets = self.targets
        for name, url in ((PRIVATE_DUMP, targets.private), (MAIN_DUMP, targets.owner)):
            if url is not None and (partial / name).exists():
                servers.restore(partial / name, url)
                servers.counted(url)
                (partial / name).unlink()
        if targets.main is not None and targets.owner is not None:
            prepare(targets.owner, broker=targets.main)


def _target(option: str, dump: bool, named: str | None, said: str | None) -> str | None:  # noqa: FBT001  a fact
    """Where a database goes: a dump into one that is named, a file into none."""
    chosen = (named or said) if dump else named
    if dump == (chosen is not None):
        return chosen
    raise BackupServerError(
        need=f"a database of PostgreSQL for the dump ({option})"
        if dump
        else f"no {option}: this database of the backup is a file of SQLite",
        found="none" if dump else "one",
        remedy=f"give {option} URL, of an empty database" if dump else f"leave {option} out",
    )


def _check_empty(into: Path) -> None:
    if into.is_dir() and not any(into.iterdir()):
        return
    if into.exists() or into.is_symlink():
        raise BackupFolderError(
            need="an empty folder, or a new one",
            found=f"something in {into}",
            remedy="name another with --into; what is there is not touched",
        )
