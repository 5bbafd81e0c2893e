# SPDX-License-Identifier: Apache-2.0
"""Step 4, notes that the log signed and that cannot both be true. AUD-100 and AUD-101.

Everything that the log signed and that is at hand is laid beside the bundle's checkpoint: published
checkpoints, notes of receipts, the note of ``--since``.

1. A note of a size up to the bundle's has the root that this tree has at that size, or the log signed two
   histories (only if the entries give the bundle's own root: else nothing follows, AUD-020);
2. two notes of one size have one root, also beyond the bundle;
3. a note of a larger size cannot be compared without more tiles: it is named.

Each pair is evidence: keep both notes. ``iriai-verify compare-checkpoints`` writes them into one file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.log.checkpoint import Checkpoint
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["SignedNotes"]


class SignedNotes:
    """Collects what the log signed; one for each audit."""

    def __init__(self, history: History, report: Report) -> None:
        self._history = history
        self._report = report
        self._beyond: dict[int, tuple[bytes, str]] = {}
        self._whole = history.tree.root() == history.checkpoint.root

    def take(self, checkpoint: Checkpoint, where: str) -> None:
        """One more note whose log signature holds."""
        ours = self._history.checkpoint
        if checkpoint.origin != ours.origin:
            return
        if checkpoint.size > ours.size:  # 2.
            root, before = self._beyond.setdefault(checkpoint.size, (checkpoint.root, where))
            if root != checkpoint.root:
                self._contradict(checkpoint, where, root, before)
            return
        if checkpoint.size == ours.size:
            expected = ours.root
        elif self._whole:
            expected = self._history.tree.root(checkpoint.size)
        else:
            return
        if checkpoint.root != expected:  # 1.
            self._contradict(checkpoint, where, expected, f"the bundle's checkpoint of size {ours.size}")

    def _contradict(self, checkpoint: Checkpoint, where: str, root: bytes, other: str) -> None:
        self._report.add(
            "AUD-100",
            f"size {checkpoint.size}: {where} has root {checkpoint.root.hex()}; {other} needs {root.hex()}",
        )

    def close(self) -> None:
        """After the last note: what could not be compared."""
        for size, (_, where) in sorted(self._beyond.items()):  # 3.
            self._report.add(
                "AUD-101", f"{where}, size {size}: the bundle ends at {self._history.checkpoint.size}"
            )
