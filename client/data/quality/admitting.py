# SPDX-License-Identifier: Apache-2.0
"""Whether a data set is good enough for a recipe: this node's own word, before a round reads any of it.

A recipe's ``quality`` block lists checks that must be ``PASS``, and openly those for which
``UNDETERMINED`` is enough. `DataAdmission.require` refuses, in this order: (1) no certificate that this node
signed, (2) one that no longer says what the data say, (3) one that does not grant what the block requires.
A recipe without the block asks for nothing. Check 6 is made here with the recipe's bound, because a
certificate knows no recipe.

The data are read again only where a file of them changed since the last look (name, size, time, inode).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.data.errors import QualityRefusedError
from client.data.quality.accepted import folder_of
from client.data.quality.certificate import read_certificate, verified
from client.data.quality.report import check_dataset
from client.data.store import Store
from policies.quality_certificate import unmet

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from policies.ports import Clock
    from policies.quality_certificate import QualityCertificate, State
    from policies.recipe import Recipe

__all__ = ["DataAdmission"]

_Seen = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True)
class DataAdmission:
    """Judges data sets of a store by their certificates.

    Attributes:
        root: Folder of the store.
        node_key: Secret of this node that episodes are keyed with.
        keys: Public keys of this node, the present one and former ones.
        clock: Gives the day of what a certificate would say now.
    """

    root: Path
    node_key: bytes = field(repr=False)
    keys: Collection[bytes]
    clock: Clock
    _tracked: dict[tuple[str, str], State] = field(default_factory=dict, repr=False)
    _looked: dict[str, tuple[_Seen, QualityCertificate]] = field(default_factory=dict, repr=False)

    def require(self, dataset: str, recipe: Recipe, *, clause: str) -> None:
        """Returns if the data set may be used for the recipe.

        Raises:
            CertificateVoidError: No certificate, or one that is void.
            QualityRefusedError: It does not grant what the recipe requires; the clause is named.
        """
        block = recipe.quality
        if block is None:
            return
        certificate = self._current(dataset)
        if block.tracking_p95 is not None and "tracking" in block.require:
            certificate = self._with_tracking(certificate, recipe)
        required, open_to = tuple(block.require), tuple(block.accept_undetermined)
        lacking = unmet(certificate, require=required, accept_undetermined=open_to)
        if certificate.verdict != "admitted" or lacking:
            states = ", ".join(f"{name} {_state(certificate, name)}" for name in lacking)
            raise QualityRefusedError(
                need="PASS for " + ", ".join(required),
                found=f"verdict {certificate.verdict}" + (f"; {states}" if states else ""),
                remedy="iriai-node data check shows where; mend it at the source and import again",
                clause=clause,
            )

    def _current(self, dataset: str) -> QualityCertificate:
        """The certificate, compared with the data if they changed since the last look."""
        seen = self._files(dataset)
        known = self._looked.get(dataset)
        if known is not None and known[0] == seen:
            return known[1]
        self._looked.pop(dataset, None)
        kept, _ = read_certificate(self.root, dataset, self.keys)
        found = verified(kept, check_dataset(self.root, dataset), node_key=self.node_key, clock=self.clock)
        self._looked[dataset] = (seen, found)
        return found

    def _with_tracking(self, certificate: QualityCertificate, recipe: Recipe) -> QualityCertificate:
        """The same with check 6 against the recipe's own bound, which the certificate does not know."""
        key = (certificate.digest, recipe.digest)
        if key not in self._tracked:
            report = check_dataset(self.root, certificate.dataset, recipe=recipe)
            self._tracked = {key: report.states["tracking"]}
        states = {**certificate.states, "tracking": self._tracked[key]}
        return certificate.model_copy(update={"states": states})

    def _files(self, dataset: str) -> _Seen:
        store = Store(self.root)
        folders = (
            store.folder(dataset, store.catalogue().dataset(dataset)),
            folder_of(self.root, dataset),
        )
        paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        told = ((str(path), path.stat()) for path in paths)
        return tuple((name, one.st_size, one.st_mtime_ns, one.st_ino) for name, one in told)


def _state(certificate: QualityCertificate, name: str) -> str:
    return next(
        (state for check, state in certificate.states.items() if check == name), "unknown to this version"
    )
