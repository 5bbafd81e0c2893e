# SPDX-License-Identifier: Apache-2.0
"""Step 10, incidents that nobody closed. AUD-086.

An incident is the kind and the evidence that ``incident.declared`` names, in one contract and run; it is open
until ``incident.closed`` names the same. A closing that is no member's own counts only with an operator's
``incident.close`` before it, one for each. What happened, and whether it matters, a person decides.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from policies.log.entries import EntryType
from policies.verify.ledger import CLOSES, CODES, MEMBER, SCOPED

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_incidents", "subject_of"]

_DECLARED: Final = CODES[EntryType.INCIDENT_DECLARED]
_CLOSED: Final = CODES[EntryType.INCIDENT_CLOSED]
_ACTION: Final = CODES[EntryType.CONSOLE_ACTION]
_FIELDS: Final = ("code", "flags", "request", "env", "scope", "run")


def subject_of(entry: Entry) -> bytes:
    """Digest of the kind and the evidence of an incident, 32 bytes."""
    return sha256(f"{entry.pub['kind']} {entry.pub['evidence']}".encode("ascii")).digest()


def check_incidents(history: History, report: Report) -> None:
    """AUD-086. An ``incident.close`` is used up by the next closing of the broker's own behind it."""
    still: dict[tuple[int, bytes, bytes, bytes], int] = {}
    unused = 0
    for index, (code, flags, request, env, scope, run) in history.ledger.columns(*_FIELDS):
        if code == _ACTION and request == CLOSES:
            unused += 1
        if code not in (_DECLARED, _CLOSED):
            continue
        named = subject_of(history.entries[index]) if flags & MEMBER else env
        about = (flags & SCOPED, scope, run, named)
        if code == _DECLARED:
            still.setdefault(about, index)
        elif flags & MEMBER:
            still.pop(about, None)
        elif unused:
            unused -= 1
            still.pop(about, None)
    for index in still.values():
        entry = history.entries[index]
        where = "" if entry.run is None else f" in {entry.run}"
        report.add("AUD-086", f"{entry.pub['kind']}{where}, evidence {entry.pub['evidence']}", index=index)
