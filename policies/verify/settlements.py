# SPDX-License-Identifier: Apache-2.0
"""Step 10, settlements, as far as the log alone tells them. AUD-075.

For each ``settlement.stated`` whose shares are disclosed (alias to decimal):

1. the contract has an incentives clause, and the method is the clause's;
2. shares are decimals of parties that contribute under the contract, and come to exactly 1; nobody is at the
   same time paid and unknown;
3. method ``flat``: everybody with a share has the same one, to the last digit, and took part: an update of
   theirs is in an aggregate of the contract before it;
4. and nobody is left out whose update is in an aggregate between the statement of the period before and this
   one; where the contract asks for a minimum of participation, that is named as not checked;
5. a period is stated once, or once more with the same shares.

Values of a group probe are made from gains that only the members' held-out data give: named as not checked.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.log.kinds import DECIMAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_settlements"]

_DIGIT = Decimal("0.000001")  # shares that are cut to six digits may differ in the last
_FLAT = "flat"


def check_settlements(history: History, report: Report) -> None:
    """AUD-075."""
    stated: dict[tuple[str | None, str], Any] = {}
    for index, entry in history.of(EntryType.SETTLEMENT_STATED):
        contract = history.contracts.get(entry.scope or "")
        clause = None if contract is None else contract.incentives
        if contract is not None and (clause is None or clause.method != entry.pub["method"]):  # 1.
            found = "none" if clause is None else clause.method
            report.add("AUD-075", f"method {entry.pub['method']}, the contract has {found}", index=index)
        shares = history.opened.get(index, {}).get("shares")
        if shares is None:
            report.not_checked("AUD-075: settlements whose shares are not disclosed")
            continue
        known = _shares(history, index, entry, shares, report)  # 2.
        if known and entry.pub["method"] == _FLAT:
            _check_flat(history, index, entry, known, report)  # 3.
            _check_unpaid(history, index, entry, known, report)  # 4.
        elif known:
            report.not_checked(f"AUD-075: shares by {entry.pub['method']}: gains are with the members")
        if stated.setdefault((entry.scope, entry.pub["period"]), shares) != shares:  # 5.
            report.add("AUD-075", f"period {entry.pub['period']} again, with other shares", index=index)


def _shares(
    history: History,
    index: int,
    entry: Entry,
    shares: Any,  # noqa: ANN401  as disclosed
    report: Report,
) -> dict[str, Decimal]:
    """Shares by party; empty after a finding."""
    if not isinstance(shares, dict) or not all(DECIMAL.holds(one) for one in shares.values()):
        report.add("AUD-075", "shares are no decimals by alias", index=index)
        return {}
    found: dict[str, Decimal] = {}
    for name, text in shares.items():
        clause = history.party(entry.scope, history.org_of(name, entry))
        if clause is None or clause.role != "contributor":
            report.add("AUD-075", f"{name} is no contributor of the contract", index=index)
            return {}
        found[clause.party] = Decimal(text)
    if sum(found.values()) != 1:
        report.add("AUD-075", f"shares come to {sum(found.values())}", index=index)
        return {}
    return found


def _check_flat(
    history: History, index: int, entry: Entry, shares: Mapping[str, Decimal], report: Report
) -> None:
    paid = {name: one for name, one in shares.items() if one}
    if max(paid.values()) - min(paid.values()) > _DIGIT:
        report.add("AUD-075", "flat shares that differ", index=index)
    idle = sorted(set(paid) - _took_part(history, entry, 0, index))
    if idle:
        report.add("AUD-075", f"a share for {' '.join(idle)}, in no aggregate before", index=index)


def _check_unpaid(
    history: History, index: int, entry: Entry, shares: Mapping[str, Decimal], report: Report
) -> None:
    contract = history.contracts[entry.scope or ""]
    before = [
        at
        for at, one in history.of(EntryType.SETTLEMENT_STATED)
        if at < index and one.scope == entry.scope and one.pub["period"] != entry.pub["period"]
    ]
    unpaid = _took_part(history, entry, max(before, default=0), index) - {
        name for name, one in shares.items() if one
    }
    if unpaid and contract.incentives is not None and contract.incentives.min_participation is not None:
        report.not_checked(f"AUD-075: whether {' '.join(sorted(unpaid))} took part enough for a share")
    elif unpaid:
        report.add("AUD-075", f"no share for {' '.join(sorted(unpaid))}, in an aggregate before", index=index)


def _took_part(history: History, entry: Entry, start: int, end: int) -> set[str]:
    """Parties with an update in an aggregate of a settlement's contract, between two entries."""
    used: set[str | None] = set()
    for at, one in history.of(EntryType.AGGREGATE_RELEASED):
        if start <= at < end and one.scope == entry.scope:
            used |= {history.sender_party(ref) for ref in one.refs}
    return {name for name in used if name is not None}
