# SPDX-License-Identifier: Apache-2.0
"""Step 7, contributions that their party took back. AUD-073.

1. Who withdraws is who submitted: both envelopes are under a key of one organisation;
2. no aggregate after the withdrawal is made of the submission, and no verdict accepts it.

A sum that was released before stands: what it told cannot be taken back, and later sums do not have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.entries import EntryType

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_withdrawals"]

_USES = (EntryType.AGGREGATE_RELEASED, EntryType.CONTRIBUTION_ACCEPTED)


def check_withdrawals(history: History, report: Report) -> None:
    """AUD-073."""
    withdrawn: dict[int, int] = {}
    for index, entry in history.of(EntryType.CONTRIBUTION_WITHDRAWN, *_USES):
        if entry.type is EntryType.CONTRIBUTION_WITHDRAWN:
            for ref in entry.refs:
                _check_sender(history, index, ref, report)  # 1.
                withdrawn.setdefault(ref, index)
            continue
        for ref in entry.refs:  # 2.
            if ref in withdrawn:
                report.add(
                    "AUD-073", f"{entry.type} of entry {ref}, withdrawn at {withdrawn[ref]}", index=index
                )
    report.tallies["withdrawn"] += len(withdrawn)


def _check_sender(history: History, index: int, submission: int, report: Report) -> None:
    mine, theirs = history.senders.get(index), history.senders.get(submission)
    if mine is not None and theirs is not None and mine.org != theirs.org:
        report.add("AUD-073", f"entry {submission} is of {theirs.org}, not of {mine.org}", index=index)
