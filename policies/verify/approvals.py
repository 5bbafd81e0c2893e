# SPDX-License-Identifier: Apache-2.0
"""Step 5, what one person may not do alone. AUD-080.

1. An organisation enters with two approvers or more, and before its ``org.onboarded`` each of them has a
   ``console.action`` ``org.approve`` about the same evidence;
2. an action that needs two (`policies.verify.ledger.BY_TWO`) is done by two operators about the same subject.

Operators are told apart by their names, which the log shows; that two names are two people, it cannot show.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING

from policies.limits import APPROVALS_NEEDED
from policies.log.entries import EntryType
from policies.verify.ledger import BY_TWO

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_approvals"]

_APPROVE = "org.approve"
_LOOKED_AT = frozenset({_APPROVE, *BY_TWO})


def check_approvals(history: History, report: Report) -> None:
    """AUD-080."""
    said: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    last: dict[tuple[str, str | None], int] = {}
    onboarded = (index for index, _ in history.of(EntryType.ORG_ONBOARDED))
    for index in heapq.merge(history.actions, onboarded):
        entry = history.entries[index]
        if entry.type is EntryType.CONSOLE_ACTION:
            if entry.pub["result"] == "done" and entry.pub["action"] in _LOOKED_AT:
                about = (entry.pub["action"], entry.pub["subject"])
                said[about].add(entry.pub["operator"])
                last[about] = index
            continue
        approvers = set(entry.pub["approvers"])  # 1.
        silent = sorted(approvers - said[_APPROVE, entry.pub["evidence"]])
        if len(approvers) < APPROVALS_NEEDED:
            report.add("AUD-080", f"{len(approvers)} approvers, needs {APPROVALS_NEEDED}", index=index)
        if silent:
            report.add("AUD-080", f"no {_APPROVE} of {' '.join(silent)}", index=index)
    for (action, subject), operators in said.items():  # 2.
        if action in BY_TWO and len(operators) < APPROVALS_NEEDED:
            alone = " ".join(sorted(operators))
            report.add("AUD-080", f"{action} of {subject} by {alone} alone", index=last[action, subject])
