# SPDX-License-Identifier: Apache-2.0
"""Step 3, second half, and step 4: rules about entries as such, earlier checkpoints, receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.errors import EncodingError
from policies.log.checkpoint import open_checkpoint, parse_checkpoint, parse_note
from policies.log.entries import EntryType
from policies.log.errors import LogError, NoteError, ProofError, QuorumError
from policies.log.proofs import parse_receipt
from policies.verify.reading import checkpoint_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.checkpoint import Checkpoint
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_checkpoints", "check_entries", "check_receipts"]

_T = EntryType
_SUBMISSION = frozenset({_T.SUBMISSION_RECEIVED})
_VERDICTS = frozenset({_T.CONTRIBUTION_ACCEPTED, _T.CONTRIBUTION_REFUSED, _T.CONTRIBUTION_WITHDRAWN})
_EVIDENCE = frozenset(
    {
        _T.CANDIDATE_EVALUATED,
        _T.EVALUATION_RECEIVED,
        _T.VOTE_CAST,
        _T.DECISION_RECORDED,
        _T.AGGREGATE_RELEASED,
        _T.MODEL_RELEASED,
    }
)
_ROUND = _SUBMISSION | _VERDICTS | {_T.ROUND_OPENED, _T.DECISION_RECORDED, _T.EPSILON_SPENT}
REFS: Mapping[EntryType, frozenset[EntryType]] = {
    _T.CONTRIBUTION_ACCEPTED: _SUBMISSION | {_T.DECISION_RECORDED},
    _T.CONTRIBUTION_REFUSED: _SUBMISSION | {_T.DECISION_RECORDED},
    _T.CONTRIBUTION_WITHDRAWN: _SUBMISSION,
    _T.AGGREGATE_RELEASED: _ROUND,
    _T.ROUND_CLOSED: _ROUND | {_T.AGGREGATE_RELEASED},
    _T.ROUND_OPENED: frozenset({_T.RUN_OPENED, _T.DECISION_RECORDED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED}),
    _T.ROUND_JUDGED: frozenset({_T.ROUND_VOTED, _T.AGGREGATE_RELEASED}),
    _T.ROUND_CHOSEN: frozenset({_T.ROUND_SCORED}),
    _T.SUM_WITHDRAWN: frozenset({_T.AGGREGATE_RELEASED}),
    _T.RUN_OPENED: frozenset({_T.CONTRACT_FINALIZED, _T.DECISION_RECORDED}),
    _T.RUN_CLOSED: frozenset({_T.RUN_OPENED, _T.ROUND_CLOSED, _T.AGGREGATE_RELEASED}),
    _T.CANDIDATE_EVALUATED: _EVIDENCE,
    _T.MODEL_RELEASED: _EVIDENCE,
    _T.MODEL_REFUSED: _EVIDENCE,
    _T.MODEL_EXPORTED: _EVIDENCE,
    _T.CONTRACT_FINALIZED: frozenset({_T.CONTRACT_SIGNED, _T.CONTRACT_PROPOSED}),
}
"""Types that an entry of a type may refer to; a type that is not here may refer to any."""


def check_entries(history: History, report: Report) -> None:
    """AUD-032 to AUD-036 and AUD-090."""
    ids: dict[bytes, int] = {}
    frozen: int | None = None
    latest = ""
    for index, entry in sorted(history.entries.items()):
        if entry.log != history.checkpoint.origin:
            report.add("AUD-032", f"log {entry.log}", index=index)
        if (entry.type is _T.LOG_GENESIS) != (index == 0):
            report.add("AUD-033", f"{entry.type} at index {index}", index=index)
        _check_refs(history, index, report)
        if ids.setdefault(entry.id, index) != index:
            report.add("AUD-035", f"the same event as entry {ids[entry.id]}", index=index)
        if frozen is not None:
            report.add("AUD-036", f"the log was frozen at {frozen}", index=index)
        if entry.type is _T.LOG_FROZEN:
            frozen = index
        if entry.ts < latest:
            report.add("AUD-090", f"{entry.ts} after {latest}", index=index)
        latest = max(latest, entry.ts)
    genesis = history.entries.get(0)
    named = genesis.pub.get("policy") if genesis is not None else None
    if named != digest(history.files["policy"]):
        report.add("AUD-033", f"genesis names policy {named}", index=0)


def _check_refs(history: History, index: int, report: Report) -> None:
    entry = history.entries[index]
    permitted = REFS.get(entry.type)
    for ref in entry.refs:
        target = history.entries.get(ref)
        if ref >= index:
            report.add("AUD-034", f"refers to {ref}", index=index)
        elif permitted is not None and target is not None and target.type not in permitted:
            report.add("AUD-034", f"{entry.type} refers to {target.type}", index=index)


def check_checkpoints(history: History, report: Report) -> None:
    """AUD-010, AUD-011 and AUD-014 for every published checkpoint; the newest must be among them."""
    newest = None
    try:
        for note in checkpoint_lines(history.files["checkpoints.log"]):
            newest = _check_note(history, note, newest, report)
    except EncodingError as error:
        report.add("AUD-010", f"checkpoints.log: needs {error.need}; found {error.found}")
        return
    if newest is None or newest.size != history.size:
        report.add("AUD-014", "checkpoints.log does not end with the bundle's checkpoint")


def _check_note(history: History, note: str, before: Checkpoint | None, report: Report) -> Checkpoint | None:
    try:
        parse_checkpoint(parse_note(note).text)
    except NoteError as error:
        report.add("AUD-010", f"checkpoints.log: needs {error.need}; found {error.found}")
        return before
    try:
        checkpoint = open_checkpoint(note, history.policy.logs)
    except (NoteError, QuorumError) as error:
        report.add("AUD-011", f"checkpoints.log: needs {error.need}; found {error.found}")
        return before
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


def check_receipts(history: History, receipts: Mapping[str, str], report: Report) -> None:
    """AUD-016 for the receipts in the bundle and for those that the auditor brought.

    Args:
        history: Of the bundle.
        receipts: Text by name of the auditor's own receipts.
        report: Gets the findings.
    """
    for name, data in history.files.items():
        if name.startswith("receipts/"):
            named = int(name.removeprefix("receipts/").removesuffix(".tlog-proof"))
            _receipted(history, name, data.decode("utf-8", "replace"), named, report)
    for name, text in receipts.items():
        index = _receipted(history, name, text, None, report)
        if index is not None:
            history.receipted.add(index)
    if not receipts:
        report.not_checked("AUD-016: no receipts of members were given (--receipts)")
    report.facts["receipts"] = len(receipts)


def _receipted(history: History, name: str, text: str, named: int | None, report: Report) -> int | None:
    """The index that a receipt is for; None after a finding."""
    try:
        receipt = parse_receipt(text)
        if named is not None and receipt.index != named:
            report.add("AUD-016", f"{name}: of entry {receipt.index}")
            return None
        if receipt.index >= history.size:
            note = open_checkpoint(receipt.note, history.policy.logs)
            report.add("AUD-016", f"{name}: entry {receipt.index}, {_not_prefix(history, note)}")
            return None
        checkpoint = receipt.verify(history.tree.leaf(receipt.index), history.policy.logs)
    except ProofError as error:
        report.add("AUD-016", f"{name}: needs {error.need}; found {error.found}")
        return None
    except LogError as error:
        report.add("AUD-016", f"{name}: {error.code}: needs {error.need}; found {error.found}")
        return None
    why = _not_prefix(history, checkpoint)
    if why:
        report.add("AUD-016", f"{name}: {why}", index=receipt.index)
        return None
    return receipt.index
