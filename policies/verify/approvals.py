# SPDX-License-Identifier: Apache-2.0
"""Step 5, what one person may not do alone. AUD-080.

1. An organisation enters with two approvers or more, and before its ``org.onboarded`` each of them has a
   ``console.action`` ``org.approve`` about the same evidence, which lets nobody else in;
2. an action that needs two (`policies.verify.ledger.BY_TWO`) is done by two operators about the same subject;
3. an entry that says what happened by such an action (`policies.verify.effects`) has it before it, by two
   operators, about exactly this; no approval serves for two entries.

What was approved is a document, whose digest the actions name. An auditor's bundle without it is a finding:
nothing says then what the two were asked. So is a document that no action names. A member's view has not the
documents about others; there an approval of the same action counts, once, and the report says so. So it does
where the bundle does not show what an entry is about: an alias without its key, a log key that no policy and
no entry gives.

What the approvers of an organisation read is no file of the bundle: that the evidence is about this
organisation and this key, nothing here shows, and the report says so.

Operators are told apart by their names, which the log shows; that two names are two people, or that somebody
was asked, it cannot show.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from policies.limits import APPROVALS_NEEDED
from policies.log.entries import EntryType
from policies.verify.approved import FOLDER
from policies.verify.effects import ELSEWHERE, FOLLOWED, UNSAID, Effects, approved
from policies.verify.ledger import BY_TWO

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.effects import Need
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_approvals"]

_APPROVE = "org.approve"
_LOOKED_AT = frozenset({_APPROVE, *BY_TWO})


def check_approvals(history: History, report: Report) -> None:
    """AUD-080."""
    said, effects = _Said(history), Effects(history)
    for index in heapq.merge(history.actions, *map(history.indexes, FOLLOWED)):
        entry = history.entries[index]
        if entry.type is EntryType.CONSOLE_ACTION:
            said.hear(index, entry)
            continue
        if entry.type is EntryType.ORG_ONBOARDED:
            _check_entry(index, entry, said, report)  # 1.
            report.not_checked("AUD-080: that what let each organisation in was about it and its key")
        for need in effects.needs(index, entry):
            if isinstance(need, str):
                report.add("AUD-080", need, index=index)
            else:
                _check_effect(index, need, said, report)  # 3.
    for name in history.files.container.names(FOLDER):
        if not said.is_subject(f"sha256:{name.removeprefix(FOLDER).removesuffix('.json')}"):
            report.add("AUD-080", f"{name}: no action of an operator is about it")
    for action, subject, operators, index in said.alone():  # 2.
        report.add("AUD-080", f"{action} of {subject} by {' '.join(operators)} alone", index=index)


def _check_effect(index: int, need: Need, said: _Said, report: Report) -> None:
    found = said.spend(need)
    if found is None:
        report.add("AUD-080", f"no {need.action} of this by two operators before it", index=index)
    elif found is UNSAID and report.grade == "auditor" and need.key is not None:
        report.add("AUD-080", f"{need.action} by two operators, of a document that is not here", index=index)
    elif found is UNSAID or need.key is None:
        report.not_checked(f"AUD-080: what each {need.action} was about: the bundle does not show all of it")


def _check_entry(index: int, entry: Entry, said: _Said, report: Report) -> None:
    approvers = set(entry.pub["approvers"])
    silent = sorted(approvers - said.by(_APPROVE, entry.pub["evidence"]))
    if said.was_used(entry.pub["evidence"]):
        report.add("AUD-080", "what let another organisation in", index=index)
    if len(approvers) < APPROVALS_NEEDED:
        report.add("AUD-080", f"{len(approvers)} approvers, needs {APPROVALS_NEEDED}", index=index)
    if silent:
        report.add("AUD-080", f"no {_APPROVE} of {' '.join(silent)}", index=index)


class _Said:
    """What operators did so far. It grows with what takes two people, not with the log."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._by: dict[tuple[str, str | None], set[str]] = defaultdict(set)
        self._last: dict[tuple[str, str | None], int] = {}
        self._ready: dict[str, Counter[bytes]] = defaultdict(Counter)
        self._used: set[str] = set()
        self._subjects: set[str] = set()

    def by(self, action: str, subject: str | None) -> set[str]:
        """Who did this."""
        return self._by.get((action, subject), set())

    def is_subject(self, subject: str) -> bool:
        """Whether an action that takes two was about this."""
        return subject in self._subjects

    def was_used(self, evidence: str) -> bool:
        """Whether an organisation was let in on this before; the next one finds that it was."""
        known = evidence in self._used
        self._used.add(evidence)
        return known

    def hear(self, index: int, entry: Entry) -> None:
        """One more action."""
        action, subject, operator = (entry.pub[name] for name in ("action", "subject", "operator"))
        if entry.pub["result"] != "done" or action not in _LOOKED_AT:
            return
        operators = self._by[action, subject]
        self._subjects.add(subject)
        grows = operator not in operators
        operators.add(operator)
        self._last[action, subject] = index
        if grows and len(operators) == APPROVALS_NEEDED:
            self._ready[action][approved(self._history, action, subject)] += 1

    def spend(self, need: Need) -> bytes | None:
        """What two people approved that allows this, which no other entry used up; None if nothing does."""
        ready = self._ready[need.action]
        fitting = [need.key, UNSAID] if need.key is not None else [one for one in ready if one != ELSEWHERE]
        found = next((one for one in fitting if ready[one] > 0), None)
        if found is not None:
            ready[found] -= 1
        return found

    def alone(self) -> list[tuple[str, str | None, list[str], int]]:
        """Actions that need two and were done by one: action, subject, who, the last entry."""
        return [
            (action, subject, sorted(operators), self._last[action, subject])
            for (action, subject), operators in self._by.items()
            if action in BY_TWO and len(operators) < APPROVALS_NEEDED
        ]
