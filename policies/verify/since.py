# SPDX-License-Identifier: Apache-2.0
"""Step 6, the audit before this one. AUD-120.

An auditor ends an audit with a signed ``audit.concluded`` about a checkpoint, and begins the next one with
the note of that checkpoint. So with ``--since``:

1. the log has a conclusion;
2. the newest one is about the checkpoint of ``--since``: its signed ``seen`` has that size and root. Where
   the envelope is not at hand, its ``checkpoint`` is the digest of the note, or of the note's three lines.

Whoever the auditor is: a conclusion of somebody else in between is a case for a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.log.checkpoint import parse_checkpoint, parse_note
from policies.log.entries import EntryType
from policies.log.envelope import Seen
from policies.log.errors import NoteError

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_concluded"]


def check_concluded(history: History, since: str | None, report: Report) -> None:
    """AUD-120."""
    concluded = [index for index, _ in history.of(EntryType.AUDIT_CONCLUDED)]
    report.facts["concluded"] = len(concluded)
    if since is None:
        if concluded:
            report.not_checked(
                f"AUD-120: the audit concluded at entry {concluded[-1]} is not what this one begins with"
            )
        return
    try:
        parsed = parse_note(since)
        checkpoint = parse_checkpoint(parsed.text)
    except NoteError:
        return  # AUD-015 names it
    if not concluded:  # 1.
        report.add("AUD-120", f"no audit.concluded in the log, --since is of size {checkpoint.size}")
        return
    index = concluded[-1]
    sender = history.senders.get(index)
    if sender is None:  # 2.
        same = history.entries[index].pub["checkpoint"] in (
            digest(since.encode()),
            digest(parsed.text.encode()),
        )
    else:
        seen = Seen.from_json(sender.payload["seen"])
        same = (seen.size, seen.root) == (checkpoint.size, checkpoint.root)
    if not same:
        report.add("AUD-120", f"it is not about the checkpoint of size {checkpoint.size}", index=index)
