# SPDX-License-Identifier: Apache-2.0
"""Step 4, every note in reach: published checkpoints, receipts, the note of the audit before.

1. it parses, and is a checkpoint without extension lines (AUD-010);
2. a log key of the policy signed it (AUD-011; of a receipt AUD-016, of ``--since`` AUD-015);
3. cosignatures by witnesses of the policy hold (AUD-014; of a receipt AUD-016); those by ML-DSA-44 keys are
   AUD-019 wherever they stand;
4. it is a prefix of the tree of the bundle (AUD-014, AUD-016, AUD-015);
5. published sizes grow, and end with the bundle's (AUD-014).

A receipt has one of two grades: ``signed``, by the log alone, or ``witnessed``, by the policy's quorum too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.errors import EncodingError
from policies.log.checkpoint import KeyKind, open_checkpoint, open_note, parse_checkpoint, parse_note
from policies.log.errors import LogError, MlDsaMissingError, NoteError, ProofError, QuorumError
from policies.log.merkle import verify_inclusion
from policies.log.proofs import parse_receipt
from policies.verify.reading import checkpoint_lines
from policies.verify.report import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.checkpoint import Checkpoint, Note, VerifierKey
    from policies.verify.contradictions import SignedNotes
    from policies.verify.history import History
    from policies.verify.report import Report

_NAMED = 10
__all__ = ["Cosigned", "check_checkpoints", "check_receipts", "check_since", "cosignatures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A checkpoint with cosignatures that hold: its size, and when each key of the policy signed it."""

    size: int
    times: Mapping[VerifierKey, int]


def log_keys(history: History) -> tuple[VerifierKey, ...]:
    """The log's Ed25519 keys of the policy: without one of them a note proves nothing."""
    return tuple(key for key in history.policy.logs if key.kind is KeyKind.LOG)


def cosignatures(history: History, note: str, rule: str, where: str, report: Report) -> Cosigned:
    """Cosignatures of a note that hold; what does not is a finding under ``rule``, or AUD-019.

    Args:
        history: For the policy.
        note: Of which step 1 and 2 hold.
        rule: Of Ed25519 cosignatures that fail.
        where: Where the note stands, in words.
        report: Gets the findings.
    """
    times: dict[VerifierKey, int] = {}
    parsed = parse_note(note)
    if len(parsed.signatures) > 1:
        known = [key for key in history.policy.keys if key.kind is not KeyKind.LOG]
        plain = [key for key in known if key.kind is KeyKind.COSIGNER]
        heavy = [key for key in known if key.kind is KeyKind.ML_DSA_44]
        for keys, named in ((plain, rule), (heavy, "AUD-019")):
            times |= _times(_opened(note, keys, named, where, report))
    return Cosigned(size=parse_checkpoint(parsed.text).size, times=times)


def _times(opened: Note | None) -> dict[VerifierKey, int]:
    return {} if opened is None else {key: opened.times[key.name] for key in opened.verified}


def _opened(note: str, keys: list[VerifierKey], rule: str, where: str, report: Report) -> Note | None:
    if not keys:
        return None
    try:
        return open_note(note, keys)
    except QuorumError:
        return None
    except MlDsaMissingError:
        report.not_checked("AUD-019: ML-DSA-44 signatures: the cryptography library here has none")
    except NoteError as error:
        report.add(rule, f"{where}: needs {error.need}; found {error.found}")
    return None


# --- published checkpoints ---


def check_checkpoints(history: History, signed: SignedNotes, report: Report) -> list[Cosigned]:
    """AUD-010, AUD-011, AUD-014 and AUD-019 for every published checkpoint; those that somebody cosigned."""
    newest: Checkpoint | None = None
    cosigned: list[Cosigned] = []
    try:
        for note in checkpoint_lines(history.files):
            checkpoint = _checked(history, note, newest, report)
            if checkpoint is None:
                continue
            newest, where = checkpoint, f"checkpoint of size {checkpoint.size}"
            signed.take(checkpoint, where)
            found = cosignatures(history, note, "AUD-014", where, report)
            if found.times:
                cosigned.append(found)
    except EncodingError as error:
        report.add("AUD-010", f"checkpoints.log: needs {error.need}; found {error.found}")
        return cosigned
    if newest is None or newest.size != history.size:
        report.add("AUD-014", "checkpoints.log does not end with the bundle's checkpoint")
    return cosigned


def _checked(history: History, note: str, before: Checkpoint | None, report: Report) -> Checkpoint | None:
    """The checkpoint of a published note; None after a finding that leaves none."""
    try:
        parse_checkpoint(parse_note(note).text)
    except NoteError as error:
        report.add("AUD-010", f"checkpoints.log: needs {error.need}; found {error.found}")
        return None
    try:
        checkpoint = open_checkpoint(note, log_keys(history))
    except (NoteError, QuorumError) as error:
        report.add("AUD-011", f"checkpoints.log: needs {error.need}; found {error.found}")
        return None
    why = _not_prefix(history, checkpoint)
    if why:
        report.add("AUD-014", f"checkpoint of size {checkpoint.size}: {why}")
    if before is not None and checkpoint.size <= before.size:
        report.add("AUD-014", f"size {checkpoint.size} published after {before.size}")
    return checkpoint


def _not_prefix(history: History, checkpoint: Checkpoint) -> str:
    """Why a signed checkpoint is no prefix of the tree; empty if it is one."""
    if checkpoint.origin != history.checkpoint.origin:
        return f"of another log, {checkpoint.origin}"
    if checkpoint.size > history.size:
        return (
            f"beyond this bundle, which ends at {history.size}: entries were cut off, or the bundle is older"
        )
    if history.tree.root(checkpoint.size) != checkpoint.root:
        return "another root: two histories were signed"
    return ""


# --- the note of the audit before ---


def check_since(history: History, since: str | None, signed: SignedNotes, report: Report) -> None:
    """AUD-015: the note of an earlier audit, or one that somebody printed, is a prefix of this history."""
    if since is None:
        report.not_checked("AUD-015: that this history extends an earlier one (--since)")
        return
    try:
        checkpoint = open_checkpoint(since, log_keys(history))
    except LogError as error:
        report.add("AUD-015", f"--since: needs {error.need}; found {error.found}")
        return
    signed.take(checkpoint, "--since")
    why = _not_prefix(history, checkpoint)
    if why:
        report.add("AUD-015", f"--since, size {checkpoint.size}: {why}")
    cosignatures(history, since, "AUD-015", "--since", report)
    report.facts["since"] = checkpoint.size


# --- receipts ---


def check_receipts(
    history: History, receipts: Mapping[str, str], signed: SignedNotes, report: Report
) -> None:
    """AUD-016 for the receipts in the bundle and for those that the auditor brought.

    Args:
        history: Of the bundle.
        receipts: Text by name of the auditor's own receipts.
        signed: Gets their notes.
        report: Gets the findings.
    """
    grades: Counter[str] = Counter()
    for name, data in history.files.under("receipts/"):
        named = int(name.removeprefix("receipts/").removesuffix(".tlog-proof"))
        _receipted(history, name, data.decode("utf-8", "replace"), named, signed, report=report)
    junk = []
    for name, text in receipts.items():
        if not _is_receipt(text):
            junk.append(name)
            continue
        found = _receipted(history, name, text, None, signed, report=report)
        if found is not None:
            history.receipted.add(found[0])
            grades[found[1]] += 1
    if junk:  # what a member handed over by mistake says nothing of the log
        shown = " ".join(junk[:_NAMED]) + (" ..." if len(junk) > _NAMED else "")
        report.not_checked(f"AUD-016: {len(junk)} of {len(receipts)} files given as receipts, which are none")
        report.remarks.append(plain(f"no receipts: {shown}; ask who gave them for the files as kept"))
    if not receipts:
        report.not_checked("AUD-016: no receipts of members were given (--receipts)")
    report.facts["receipts"] = len(receipts)
    report.facts["receipts_by_grade"] = dict(sorted(grades.items()))


def _is_receipt(text: str) -> bool:
    try:
        parse_receipt(text)
    except LogError:
        return False
    return True


def _receipted(
    history: History, name: str, text: str, named: int | None, signed: SignedNotes, *, report: Report
) -> tuple[int, str] | None:
    """The index that a receipt is for, and its grade; None after a finding."""
    try:
        receipt = parse_receipt(text)
        if named is not None and receipt.index != named:
            report.add("AUD-016", f"{name}: of entry {receipt.index}")
            return None
        checkpoint = open_checkpoint(receipt.note, log_keys(history))
        signed.take(checkpoint, name)
        beyond = receipt.index >= history.size
        if not beyond:
            verify_inclusion(
                leaf_hash=history.tree.leaf(receipt.index),
                index=receipt.index,
                size=checkpoint.size,
                proof=receipt.proof,
                root=checkpoint.root,
            )
    except LogError as error:
        code = "" if isinstance(error, ProofError) else f"{error.code}: "
        report.add("AUD-016", f"{name}: {code}needs {error.need}; found {error.found}")
        return None
    why = _not_prefix(history, checkpoint)
    if why or beyond:
        index = None if beyond else receipt.index
        about = f"entry {receipt.index}, " if beyond else ""
        report.add("AUD-016", f"{name}: {about}{why}", index=index)
        return None
    found = cosignatures(history, receipt.note, "AUD-016", name, report)
    policy = history.policy
    witnessed = policy.n > 0 and policy.satisfied(found.times)
    return receipt.index, "witnessed" if witnessed else "signed"
