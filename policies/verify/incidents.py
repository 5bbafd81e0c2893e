# SPDX-License-Identifier: Apache-2.0
"""Step 10, incidents that nobody closed. AUD-086.

An incident is the kind and the evidence that ``incident.declared`` names, in one contract and run; it is open
until ``incident.closed`` names the same. A closing that is no member's own counts only with an operator's
``incident.close`` before it, one for each. What happened, and whether it matters, a person decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_incidents"]


def check_incidents(history: History, report: Report) -> None:
    """AUD-086."""
    still: dict[tuple[Any, ...], int] = {}
    ordered = _ordered(history)
    for index, entry in history.of(EntryType.INCIDENT_DECLARED, EntryType.INCIDENT_CLOSED):
        about = (entry.scope, entry.run, entry.pub["kind"], entry.pub["evidence"])
        if entry.type is EntryType.INCIDENT_DECLARED:
            still.setdefault(about, index)
        elif entry.env is not None or index in ordered:
            still.pop(about, None)
    for (_, run, kind, evidence), index in still.items():
        where = "" if run is None else f" in {run}"
        report.add("AUD-086", f"{kind}{where}, evidence {evidence}", index=index)


def _ordered(history: History) -> set[int]:
    """Closings of the broker's own behind an action that no closing before them had used."""
    closed = [index for index, entry in history.of(EntryType.INCIDENT_CLOSED) if entry.env is None]
    if not closed:
        return set()
    actions = [
        index
        for index, entry in history.of(EntryType.CONSOLE_ACTION)
        if (entry.pub["action"], entry.pub["result"]) == ("incident.close", "done")
    ]
    found, used = set(), 0
    for index in closed:
        if used < len(actions) and actions[used] < index:
            found.add(index)
            used += 1
    return found
