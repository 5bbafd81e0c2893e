# SPDX-License-Identifier: Apache-2.0
"""Restoring a backup: into an empty folder, whole and verified, once two operators approved exactly that.

    plan = Plan.of(folder, into, broker_key=key, clock=clock)    verifies the backup on trial
    plan.subject()                      canonical bytes for two operators (`broker.log.approvals`)
    plan.apply(approvals)               names of who approved

- The broker's key comes from another hand than the backup. Operators are those in the backup that this key
  signed; if the broker's own folder is at hand, only those who are in force there still.
- The document names the backup's manifest, the log's size and root, the broker's key and the folder.
- Nothing that is there is overwritten. The folder appears when everything is in it.
- Keys are put back by hand, and so is the newest memory of the signer: a restored log that is older than what
  was signed freezes when the broker starts, and that is right (``iriai-broker log repair``).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from broker.backup.checking import Verified, present_operators, verify
from broker.backup.errors import BackupFolderError
from broker.backup.manifest import MAIN
from broker.keyfiles import replace_file
from broker.log.approvals import approvers
from broker.settings import Settings
from policies.encoding import canonical
from policies.identity import key_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from policies.ports import Clock

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A restore that can be done; see the module."""

    folder: Path
    into: Path
    found: Verified

    @classmethod
    def of(
        cls, folder: Path, into: Path, *, broker_key: bytes, clock: Clock, present: Settings | None = None
    ) -> Plan:
        """A plan, once the backup holds and the folder is empty.

        Args:
            folder: Of the backup.
            into: Where it goes.
            broker_key: Raw public key of the broker whose backup it should be.
            clock: When that is.
            present: Of that broker as it is now, if its folder is at hand.

        Raises:
            BackupFolderError: No backup, a folder with something in it, or no operators to be read.
            BackupForeignError: The backup of another broker.
            BackupDamagedError, StoreError: The backup does not hold.
        """
        _check_empty(into)
        found = verify(folder, broker_key=broker_key, clock=clock)
        if present is not None:
            still = present_operators(present)
            both = {key: name for key, name in found.operators.items() if still.get(key) == name}
            found = replace(found, operators=both)
        return cls(folder=folder, into=into.absolute(), found=found)

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
        )

    def apply(self, approvals: Iterable[bytes]) -> tuple[str, ...]:
        """Restores; gives the names of the two who approved.

        Raises:
            LogApprovalError: Not two operators of the backup signed this document.
            BackupFolderError: Somebody put something into the folder meanwhile.
            OSError: The disk does not take it; nothing is there then.
        """
        names = approvers(self.subject(), approvals, self.found.operators.get)
        _check_empty(self.into)
        partial = self.into.with_name(f".{self.into.name}.{os.getpid()}.partial")
        try:
            self._fill(partial)
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
            if (self.folder / one.path).exists():  # confidential values may be gone
                shutil.copyfile(self.folder / one.path, target)
                target.chmod(0o600)
        for folder in ("models", "keys"):
            (partial / folder).mkdir(mode=0o700, exist_ok=True)
        settings = Settings.load(partial, environ={})
        at_home = replace(settings, dir=partial, config=None, private_db=None)
        at_home.write()
        replace_file(partial / "restored.json", self.subject() + b"\n")


def _check_empty(into: Path) -> None:
    if into.is_dir() and not any(into.iterdir()):
        return
    if into.exists() or into.is_symlink():
        raise BackupFolderError(
            need="an empty folder, or a new one",
            found=f"something in {into}",
            remedy="name another with --into; what is there is not touched",
        )
