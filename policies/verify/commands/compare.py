# SPDX-License-Identifier: Apache-2.0
"""``compare-checkpoints``: whether these notes of one log can all be true, AUD-100 and AUD-101.

A file is a note, a receipt (whose note counts), or an ``equivocation.proof``, which is checked as it is.

1. a log key of the policy signed each; they are of one log; 2. notes of one size have one root; 3. with
``--bundle``: each note up to the bundle's size has the root that its entries give at that size; 4. what is
larger, or without a bundle of another size, cannot be compared (AUD-101).

Two that contradict each other are written into one file (``--out``, ``equivocation.proof``), which proves
by itself, to whoever knows the log's key, that the log signed two histories. Exit: 0 all can be true · 3
two cannot · 6 not signed by a log key of the policy · 7 some could not be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from policies.log.checkpoint import KeyKind, open_checkpoint
from policies.log.equivocation import parse_evidence, prove
from policies.log.errors import AuditError, NoteError, ProofError
from policies.log.proofs import parse_receipt
from policies.verify.commands.answers import answer, say
from policies.verify.commands.inputs import read_bundle, read_policy, read_text, write_new
from policies.verify.commands.notes import RECEIPT, note_of
from policies.verify.errors import InputError
from policies.verify.reading import Unreadable, read_history
from policies.verify.report import EXIT_CLEAN, EXIT_ERROR, EXIT_REVIEW, Report, plain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from policies.log.checkpoint import Checkpoint
    from policies.log.equivocation import Evidence
    from policies.log.policy import Policy
    from policies.log.vkeys import VerifierKey
    from policies.verify.history import History

__all__ = ["run"]

Json = Any
_EVIDENCE_BYTES = 256 * 1024
_EVIDENCE = "iriai-equivocation/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A note that the log signed, and the file it came from."""

    name: str
    note: str
    head: Checkpoint


class _Comparison:
    """What was found about a set of notes."""

    def __init__(self, keys: Sequence[VerifierKey]) -> None:
        self._keys = keys
        self.contradictions: list[str] = []
        self.made: list[Evidence] = []
        self.apart: list[str] = []
        self.agreed: list[str] = []

    def given(self, evidence: Evidence) -> None:
        """A contradiction that somebody else found; it must hold for who sees nothing but the evidence."""
        self.contradictions.append(evidence.check(self._keys))

    def convict(self, evidence: Evidence) -> None:
        """One more contradiction, found here; it must hold likewise."""
        self.given(evidence)
        self.made.append(evidence)

    def same_sizes(self, notes: Sequence[Signed]) -> None:
        """Step 2."""
        for one, other in pairwise(notes):
            if one.head.size == other.head.size and one.head.root != other.head.root:
                self.convict(prove(one.note, other.note))

    def against(self, ours: Signed, history: History, notes: Sequence[Signed]) -> None:
        """Steps 3 and 4 with a bundle."""
        for one in notes:
            if one.head.size > ours.head.size:
                self.apart.append(f"{one.name}: size {one.head.size}, the bundle ends at {ours.head.size}")
            elif one.head.size and history.tree.root(one.head.size) != one.head.root:
                self.convict(prove(one.note, ours.note, history.tree))
            else:
                self.agreed.append(f"{one.name}: size {one.head.size} is a prefix of the bundle")

    def alone(self, notes: Sequence[Signed]) -> None:
        """Step 4 without a bundle."""
        sizes = sorted({one.head.size for one in notes})
        if len(sizes) > 1:
            self.apart.append("sizes " + " ".join(str(one) for one in sizes) + ": give --bundle")
        elif not self.contradictions:
            self.agreed.append(f"all are of size {sizes[0]} with one root")


def run(options: argparse.Namespace) -> int:
    """Runs ``compare-checkpoints``."""
    policy = read_policy(options.policy)
    keys = [key for key in policy.logs if key.kind is KeyKind.LOG]
    found = _Comparison(keys)
    notes = _read(options, found, keys)
    if len(notes) + len(found.contradictions) + (options.bundle is not None) < 2:  # noqa: PLR2004  a pair
        raise InputError(need="two notes, or one and --bundle", found="fewer", remedy="name another note")
    if len({one.head.origin for one in notes}) > 1:
        raise InputError(
            need="notes of one log",
            found=plain(" ".join(sorted({one.head.origin for one in notes}))),
            remedy="compare notes of each log apart",
        )
    found.same_sizes(notes)
    if options.bundle is not None:
        report = Report()
        ours, history = _bundle(options, policy, report)
        if ours is None or history is None:
            say(*report.lines())
            return report.exit_code
        found.against(ours, history, notes)
    elif notes:
        found.alone(notes)
    return _tell(options, found)


def _read(options: argparse.Namespace, found: _Comparison, keys: Sequence[VerifierKey]) -> list[Signed]:
    """Step 1: the notes, by size; an evidence file convicts at once."""
    notes = []
    for path in options.notes:
        text = read_text(path, most=_EVIDENCE_BYTES)
        if text.startswith(_EVIDENCE):
            found.given(parse_evidence(text))
            continue
        note = _note(path, text)
        try:
            head = open_checkpoint(note, keys)
        except NoteError as error:
            raise NoteError(need=error.need, found=f"{path}: {error.found}", remedy=error.remedy) from error
        notes.append(Signed(name=plain(path.name), note=note, head=head))
    return sorted(notes, key=lambda one: (one.head.size, one.head.root))


def _note(path: Path, text: str) -> str:
    """The note in a file; a receipt's is inside it.

    Raises:
        InputError: It is neither a note nor a receipt.
    """
    try:
        note = parse_receipt(text).note if text.startswith(RECEIPT) else text
    except ProofError as error:
        raise InputError(
            need="a receipt as its node keeps it",
            found=plain(f"{path.name}: needs {error.need}; found {error.found}"),
            remedy="ask its holder for the file again, unchanged",
        ) from error
    note_of(path, note, "compare-checkpoints")
    return note


def _bundle(
    options: argparse.Namespace, policy: Policy, report: Report
) -> tuple[Signed | None, History | None]:
    try:
        history = read_history(read_bundle(options.bundle), policy, report)
    except Unreadable:
        return None, None
    if history.tree.root() != history.checkpoint.root:
        return None, None  # AUD-020: entries that do not give the signed root compare nothing
    note = history.files["checkpoint"].decode("utf-8")
    return Signed(name=plain(options.bundle.name), note=note, head=history.checkpoint), history


def _tell(options: argparse.Namespace, found: _Comparison) -> int:
    lines = [f"agrees    {one}" for one in found.agreed]
    lines += [f"review  AUD-101 {one}" for one in found.apart]
    lines += [f"error   AUD-100 {plain(words)}" for words in found.contradictions]
    written = None
    if found.made:
        written = options.out
        write_new(written, found.made[0].to_text().encode("utf-8"))
        lines.append(f"evidence  {plain(str(written))}: send it to every member")
    error = None
    if found.contradictions:
        error = AuditError(
            need="notes that can all be true",
            found=plain(found.contradictions[0]),
            remedy="keep the evidence and send it to every member; no round goes on under this log",
        )
    say(*lines, "VERDICT   " + _verdict(found))
    if options.json:
        answer(
            {
                "agreed": found.agreed,
                "not_comparable": found.apart,
                "contradictions": list(found.contradictions),
                "evidence": None if written is None else str(written),
            },
            error,
        )
    if found.contradictions:
        return EXIT_ERROR
    return EXIT_REVIEW if found.apart else EXIT_CLEAN


def _verdict(found: _Comparison) -> str:
    if found.contradictions:
        return f"the log signed two histories ({len(found.contradictions)} contradictions)"
    if found.apart:
        return f"nothing contradicts, {len(found.apart)} could not be compared"
    return "these notes can all be true"
