# SPDX-License-Identifier: Apache-2.0
"""Step 7: every submission has its verdict, every count its entries, every aggregate its groups."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.log.schema import REFUSALS

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import Attempt, AttemptKey, History
    from policies.verify.report import Report

__all__ = ["check_rounds"]

Json = Any
_WORDS = {
    EntryType.CONTRIBUTION_ACCEPTED: "accepted",
    EntryType.CONTRIBUTION_REFUSED: "refused",
    EntryType.CONTRIBUTION_WITHDRAWN: "withdrawn",
}


def check_rounds(history: History, report: Report) -> None:
    """AUD-048, AUD-052 to AUD-054 and AUD-056."""
    verdicts = _verdicts(history, report)
    _check_refusals(history, report)
    _check_updates(history, verdicts, report)
    for key, attempt in history.attempts().items():
        _check_submissions(history, key, attempt, verdicts, report)
        if attempt.closed is not None:
            _check_counts(history, attempt, verdicts, report)
        if attempt.aggregate is not None:
            _check_aggregate(history, attempt, verdicts, report)
    closed = [attempt.closed for attempt in history.attempts().values() if attempt.closed is not None]
    outcomes = Counter(history.entries[index].pub["outcome"] for index in closed)
    report.facts["rounds"] = dict(sorted(outcomes.items()))
    report.facts["contributions"] = dict(
        sorted(Counter(_WORDS[history.entries[one[0]].type] for one in verdicts.values()).items())
    )


def _verdicts(history: History, report: Report) -> dict[int, list[int]]:
    """Indexes of the verdicts on each submission."""
    verdicts: dict[int, list[int]] = defaultdict(list)
    for index, entry in history.of(*_WORDS):
        judged = [
            ref
            for ref in entry.refs
            if ref in history.entries and history.entries[ref].type is EntryType.SUBMISSION_RECEIVED
        ]
        if len(judged) != 1 or entry.refs[0] != judged[0]:
            report.add("AUD-052", "a verdict names one submission, first", index=index)
            continue
        submission = history.entries[judged[0]]
        if (submission.run, submission.round) != (entry.run, entry.round):
            report.add("AUD-048", "a verdict on a submission of another round", index=index)
        verdicts[judged[0]].append(index)
    return dict(verdicts)


def _check_refusals(history: History, report: Report) -> None:
    for index, entry in history.of(EntryType.CONTRIBUTION_REFUSED):
        reason, clause = entry.pub["reason"], entry.pub["clause"]
        contract = history.contracts.get(entry.scope or "")
        if reason not in REFUSALS:
            report.add("AUD-053", f"reason {reason}", index=index)
        if clause is None and reason == "contract-refused":
            report.add("AUD-053", "refused by the contract, but by no clause", index=index)
        if clause is None or clause.startswith("@") or contract is None:
            continue
        if contract.clause(clause) is None:
            report.add("AUD-053", f"the contract has no clause {clause}", index=index)


def _check_updates(history: History, verdicts: dict[int, list[int]], report: Report) -> None:
    """No update counts twice; one that comes again and is refused for it counts once."""
    seen: dict[str, int] = {}
    for index, entry in history.of(EntryType.SUBMISSION_RECEIVED):
        judged = {history.entries[at].type for at in verdicts.get(index, [])}
        if judged == {EntryType.CONTRIBUTION_REFUSED}:
            continue
        first = seen.setdefault(entry.pub["update"], index)
        if first != index:
            report.add("AUD-048", f"the update of entry {first} again", index=index)


def _check_submissions(
    history: History, key: AttemptKey, attempt: Attempt, verdicts: dict[int, list[int]], report: Report
) -> None:
    closed = attempt.closed
    if closed is None and attempt.opened is not None:
        report.not_checked(
            f"AUD-052, 054: round {key[1]} attempt {key[2]} is still open at the end of the log"
        )
    for index in attempt.submissions:
        if attempt.opened is None or index < attempt.opened:
            report.add("AUD-052", "a submission for an attempt that is not open", index=index)
        found = verdicts.get(index, [])
        if len(found) > 1:
            report.add("AUD-052", f"{len(found)} verdicts", index=index)
        elif not found and closed is not None:
            report.add("AUD-052", "no verdict", index=index)
        elif found and closed is not None:
            _check_time(history, index, found[0], closed, report)


def _check_time(history: History, submission: int, verdict: int, closed: int, report: Report) -> None:
    entry = history.entries[verdict]
    late = submission > closed
    if late and (entry.type is not EntryType.CONTRIBUTION_REFUSED or entry.pub["reason"] != "round-closed"):
        report.add("AUD-052", "it came after the round was closed, yet was not refused for it", index=verdict)
    elif not late and verdict > closed:
        report.add("AUD-052", "the verdict came after the round was closed", index=verdict)


def _check_counts(history: History, attempt: Attempt, verdicts: dict[int, list[int]], report: Report) -> None:
    """AUD-054: totals, then per party."""
    closed = attempt.closed
    if closed is None:
        return
    entry = history.entries[closed]
    in_time = [index for index in attempt.submissions if index < closed]
    words = {
        index: _WORDS[history.entries[verdicts[index][0]].type] for index in in_time if index in verdicts
    }
    counted = Counter(words.values())
    unread = sum(
        one["verdict"] == "refused" and one["received"] == 0 for one in entry.pub["parties"].values()
    )
    totals = {
        "received": len(in_time),
        "accepted": counted["accepted"],
        "refused": counted["refused"] + unread,  # a reply whose envelopes do not hold leaves no entry
        "withdrawn": counted["withdrawn"],
    }
    wrong = [
        f"{name} {entry.pub[name]}, counted {found}"
        for name, found in totals.items()
        if entry.pub[name] != found
    ]
    if wrong:
        report.add("AUD-054", "; ".join(wrong), index=closed)
    _check_parties(history, attempt, entry, words, report)
    if (entry.pub["outcome"] == "aggregated") != (attempt.aggregate is not None):
        report.add("AUD-054", f"outcome {entry.pub['outcome']}", index=closed)


def _check_parties(
    history: History, attempt: Attempt, entry: Entry, words: dict[int, str], report: Report
) -> None:
    closed = attempt.closed
    by_alias: dict[str, list[int]] = defaultdict(list)
    for index in attempt.submissions:
        if closed is not None and index < closed:
            by_alias[history.entries[index].actor].append(index)
    parties: dict[str, dict[str, Json]] = entry.pub["parties"]
    for name in sorted(set(parties) | set(by_alias)):
        said, came = parties.get(name), len(by_alias[name])
        mine = [words[index] for index in by_alias[name] if index in words]
        best = "accepted" if "accepted" in mine else (mine[0] if mine else None)
        allowed = _NO_ENTRY if best is None else (best,)
        if said is None or said["received"] != came or said["verdict"] not in allowed:
            report.add("AUD-054", f"party {name}: said {said}, counted {came} {best}", index=closed)
        if history.grade == "auditor" and history.org_of(name, entry) is None:
            report.add("AUD-049", f"party {name} is no alias of this round", index=closed)


_NO_ENTRY = ("silent", "declined", "refused")


def _check_aggregate(
    history: History, attempt: Attempt, verdicts: dict[int, list[int]], report: Report
) -> None:
    """AUD-048: exactly the accepted submissions of this attempt; AUD-056: enough independent groups."""
    index = attempt.aggregate
    if index is None:
        return
    entry = history.entries[index]
    used = [
        ref
        for ref in entry.refs
        if ref in history.entries and history.entries[ref].type is EntryType.SUBMISSION_RECEIVED
    ]
    accepted = [
        one
        for one in attempt.submissions
        if any(history.entries[v].type is EntryType.CONTRIBUTION_ACCEPTED for v in verdicts.get(one, []))
    ]
    foreign = sorted(set(used) - set(attempt.submissions))
    if foreign:
        report.add("AUD-048", f"submissions of another round: {foreign[:5]}", index=index)
    if sorted(used) != sorted(accepted) or entry.pub["count"] != len(used):
        report.add(
            "AUD-048", f"{entry.pub['count']} said, {len(used)} used, {len(accepted)} accepted", index=index
        )
    contract = history.contracts.get(entry.scope or "")
    if contract is None:
        return
    groups = set()
    for one in used:
        clause = contract.party(history.sender_party(one))
        if clause is not None and clause.role == "contributor":
            groups.add(clause.group)
    if len(groups) < contract.aggregation.min_parties and history.grade == "auditor":
        report.add("AUD-056", f"{len(groups)} groups, needs {contract.aggregation.min_parties}", index=index)
