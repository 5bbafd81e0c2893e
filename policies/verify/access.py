# SPDX-License-Identifier: Apache-2.0
"""Step 6, who may read confidential values, and who did. AUD-081, AUD-082 (second half), 083, 087, 088.

A *grant* opens fields (all, where it names none) of the entries from an index on to one grantee; it is in
force from its ``access.granted`` to its ``access.revoked``, and to the minute ``until``.

1. every ``access.used`` and ``disclosure.made`` names a grant in force of its grantee, and stays inside it;
2. every grant, revocation and erasure has the ``console.action`` of who ordered just that, by the same
   request; so has every bundle of grade auditor that left while no grant was in force;
3. a field that was erased is not disclosed; an erasure names entries before it;
4. what is neither disclosed nor erased: where the log has grants, a field that grants in force open to every
   grantee is a case for a person (a bundle does not say whose it is), and the others are named as not
   checked. Without grants an auditor is shown everything;
5. values that no grant ever opened are counted, for an operator may show everything.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from policies.log.access import Grant, grants_of
from policies.log.entries import EntryType
from policies.ports import to_ms
from policies.verify.ledger import KEPT_BACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_access", "check_disclosed"]

_T = EntryType
_BY: Final[Mapping[EntryType, tuple[str, ...]]] = {
    _T.ACCESS_GRANTED: ("audit.grant",),
    _T.ACCESS_REVOKED: ("audit.revoke", "auditor.revoke"),
    _T.ERASURE_PERFORMED: ("audit.erase",),
}
"""Actions of operators by which these come about."""
_ORDERED = tuple(_BY)
_FOLLOWED = (_T.ACCESS_GRANTED, _T.ACCESS_REVOKED, _T.ACCESS_USED, _T.DISCLOSURE_MADE, _T.EXPORT_AUDIT_BUNDLE)


def check_access(history: History, report: Report) -> None:
    """AUD-081 and AUD-088."""
    ordered = _check_ordered(history, report)  # 2.
    standing: dict[str, tuple[Grant, str]] = {}
    for index, entry in history.of(*_FOLLOWED):
        if entry.type is _T.ACCESS_GRANTED:
            standing[entry.pub["grant"]] = (grants_of([entry])[0], entry.pub["resource"])
        elif entry.type is _T.ACCESS_REVOKED:
            standing.pop(entry.pub["grant"], None)
        elif entry.type is _T.EXPORT_AUDIT_BUNDLE:
            granted = any(one.in_force(to_ms(entry.ts)) for one, _ in standing.values())
            if entry.pub["grade"] == "auditor" and not granted and entry.pub["bundle"] not in ordered:
                report.add("AUD-088", "a bundle for auditors that nobody ordered or was granted", index=index)
        else:
            for why in _not_granted(index, entry, *standing.get(entry.pub["grant"], (None, ""))):  # 1.
                report.add("AUD-081", why, index=index)


def _check_ordered(history: History, report: Report) -> set[str]:
    """AUD-088 about grants, revocations and erasures; bundles that an operator took."""
    asked = {(entry.pub["request"], one) for _, entry in history.of(*_ORDERED) for one in _BY[entry.type]}
    sent = {entry.pub["bundle"] for _, entry in history.of(_T.EXPORT_AUDIT_BUNDLE)}
    requests, subjects = set[tuple[str, str]](), set[str]()
    for _, entry in history.of(_T.CONSOLE_ACTION) if asked or sent else ():
        if entry.pub["result"] == "done":
            requests |= asked & {(entry.pub["request"], entry.pub["action"])}
            subjects |= sent & {entry.pub["subject"]}
    for index, entry in history.of(*_ORDERED):
        if not any((entry.pub["request"], one) in requests for one in _BY[entry.type]):
            report.add("AUD-088", f"{entry.type} without the console.action of its request", index=index)
    return subjects


def _not_granted(index: int, entry: Entry, grant: Grant | None, resource: str) -> list[str]:
    """Why the grant does not cover the use."""
    if grant is None:
        return [f"grant {entry.pub['grant']} was never given, or is revoked"]
    if not grant.in_force(to_ms(entry.ts)):
        return [f"grant {grant.id} was over"]
    if grant.grantee != entry.pub["grantee"]:
        return [f"the grant is {grant.grantee}'s"]
    if entry.type is _T.ACCESS_USED:
        return [] if resource == entry.pub["resource"] else [f"the grant is for {resource}"]
    fields = set() if grant.fields is None else set(entry.pub["fields"]) - grant.fields
    outside = [one for one in entry.pub["indexes"] if not grant.from_index <= one < index]
    found = [f"fields that it does not open: {' '.join(sorted(fields))}"] if fields else []
    return found + ([f"entries that it does not open: {outside[:5]}"] if outside else [])


def check_disclosed(history: History, report: Report) -> None:
    """AUD-082 (the auditor's bundle opens every commitment), AUD-083 and AUD-087."""
    erased = _erased(history, report)
    if history.grade != "auditor":
        report.not_checked("AUD-082: confidential values of others (this is a member's bundle)")
        return
    if erased:
        report.not_checked(f"AUD-082: {len(erased)} confidential values that were erased")
    granted = any(True for _ in history.of(_T.ACCESS_GRANTED))
    grants, hidden = _in_force(history), 0
    _count_beyond(history, report)  # 5.
    for index, (flags,) in history.ledger.columns("flags"):
        if not flags & KEPT_BACK:
            continue
        entry = history.entries[index]
        told = history.opened.get(index, {})
        kept_back = sorted(name for name in entry.sd if name not in told and (index, name) not in erased)
        if not kept_back:
            continue
        if not granted:
            report.add("AUD-082", "not disclosed: " + " ".join(kept_back), index=index)
            continue
        owed = [name for name in kept_back if grants and _owed(grants, index, name)]  # 4.
        if owed:
            report.add("AUD-083", " ".join(owed), index=index)
        hidden += len(kept_back) - len(owed)
    if hidden:
        report.not_checked(f"AUD-082: {hidden} confidential values that no grant in force opens to everybody")


def _in_force(history: History) -> Mapping[str, list[Grant]]:
    """Grants in force at the end of the history, by grantee."""
    standing = grants_of(entry for _, entry in history.of(_T.ACCESS_GRANTED, _T.ACCESS_REVOKED))
    last = history.entries.get(history.size - 1)
    found: dict[str, list[Grant]] = defaultdict(list)
    for one in standing:
        if last is None or one.in_force(to_ms(last.ts)):
            found[one.grantee].append(one)
    return found


def _owed(grants: Mapping[str, Iterable[Grant]], index: int, name: str) -> bool:
    """Whether every grantee has a grant that opens the field."""
    return all(any(one.opens(index, name) for one in held) for held in grants.values())


def _count_beyond(history: History, report: Report) -> None:
    """Values in the bundle that none of the grants opens, in force or over."""
    grants = grants_of(entry for _, entry in history.of(_T.ACCESS_GRANTED))
    if not grants or any(one.fields is None and not one.from_index for one in grants):
        return
    beyond = 0
    for index in range(history.size):
        told = history.opened.get(index, {})
        beyond += sum(not any(one.opens(index, name) for one in grants) for name in told)
    if beyond:
        report.not_checked(f"AUD-081: {beyond} values are shown that no grant opens; an operator may do so")


def _erased(history: History, report: Report) -> set[tuple[int, str]]:
    """Entries and fields that were erased; AUD-087 about each that is here nevertheless."""
    erased: dict[tuple[int, str], int] = {}
    for index, entry in history.of(_T.ERASURE_PERFORMED):
        for at in entry.pub["indexes"]:
            if at >= index:
                report.add("AUD-087", f"it erases entry {at}, which comes later", index=index)
            erased.update({(at, name): index for name in entry.pub["fields"]})
    for (at, name), index in sorted(erased.items()):  # 3.
        if name in history.opened.get(at, {}):
            report.add("AUD-087", f"{name}: disclosed, though erased at {index}", index=at)
    return set(erased)
