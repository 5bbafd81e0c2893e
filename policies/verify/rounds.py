# SPDX-License-Identifier: Apache-2.0
"""Step 7: every submission has its verdict, every count its entries, every aggregate its groups.

Under secure aggregation an aggregate is a sum that its members helped to open. Then it also has at least t
of them, as many groups as the contract opens a sum over, and the digest of a transcript; what that says is
looked at in `policies.verify.sums`. Where teams are summed apart, t members opened them together, and the
aggregate may be over fewer: the transcript has them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from policies.contract.thresholds import groups_to_open, least_online
from policies.log.entries import EntryType
from policies.log.schema import REFUSALS
from policies.verify.ledger import CODES
from policies.verify.report import Report
from policies.verify.spill import Doubles

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import Attempt, AttemptKey, History

__all__ = ["check_rounds", "check_updates", "finish_rounds"]

Json = Any
_ROUNDS, _CONTRIBUTIONS = "rounds.", "contributions."
_WORDS = {
    EntryType.CONTRIBUTION_ACCEPTED: "accepted",
    EntryType.CONTRIBUTION_REFUSED: "refused",
    EntryType.CONTRIBUTION_WITHDRAWN: "withdrawn",
}


def check_rounds(history: History, report: Report) -> None:
    """AUD-048, AUD-052 to AUD-054, AUD-056 and the log's half of AUD-069, in one run."""
    verdicts = _verdicts(history, report)
    _check_refusals(history, report)
    for key, attempt in history.attempts().items():
        _check_submissions(history, key, attempt, verdicts, report)
        if attempt.closed is not None:
            _check_counts(history, attempt, verdicts, report)
        if attempt.aggregate is not None:
            _check_aggregate(history, attempt, verdicts, report)
    closed = [attempt.closed for attempt in history.attempts().values() if attempt.closed is not None]
    report.tallies.update(f"{_ROUNDS}{history.entries[index].pub['outcome']}" for index in closed)
    words = (_WORDS[history.store.kind(one[0])] for one in verdicts.values())
    report.tallies.update(_CONTRIBUTIONS + word for word in words)


def finish_rounds(report: Report) -> None:
    """What is told of all runs together."""
    for name, prefix in (("rounds", _ROUNDS), ("contributions", _CONTRIBUTIONS)):
        counts = {key.removeprefix(prefix): n for key, n in report.tallies.items() if key.startswith(prefix)}
        report.facts[name] = dict(sorted(counts.items()))


def _verdicts(history: History, report: Report) -> dict[int, list[int]]:
    """Indexes of the verdicts on each submission."""
    verdicts: dict[int, list[int]] = defaultdict(list)
    for index, entry in history.of(*_WORDS):
        judged = [
            ref
            for ref in entry.refs
            if history.store.has(ref) and history.store.kind(ref) is EntryType.SUBMISSION_RECEIVED
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


def check_updates(history: History, report: Report) -> None:
    """AUD-048: no update counts twice, in any run; one that comes again and is refused for it counts once."""
    code, doubles = CODES[EntryType.SUBMISSION_RECEIVED], Doubles()
    found = history.ledger.columns("code", "mark")
    doubles.add((mark, index) for index, (own, mark) in found if own == code)
    verdicts: dict[str | None, dict[int, list[int]]] = {}
    for group in doubles.groups():
        seen: dict[str, int] = {}
        for index in group:
            entry = history.entries[index]
            if entry.run not in verdicts:
                verdicts = {entry.run: _verdicts(history.view(entry.run), Report())}  # one run at a time
            judged = {history.store.kind(at) for at in verdicts[entry.run].get(index, [])}
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
    if (contract.aggregation.secure_aggregation == "required") != (entry.pub["transcript"] is not None):
        found = "no transcript" if entry.pub["transcript"] is None else "a transcript of single updates"
        report.add("AUD-069", found, index=index)
    if history.grade == "auditor":
        _check_size(history, index, contract, used, report)


def _check_size(history: History, index: int, contract: Contract, used: list[int], report: Report) -> None:
    """AUD-056: independent groups, and under secure aggregation as many members as open a sum."""
    entry, parties = history.entries[index], [history.sender_party(one) for one in used]
    known = [name for name in parties if name is not None]
    groups, members = len(contract.groups(known)), len(set(known))
    need_groups, need_members = _least(history, entry, contract)
    if groups < need_groups:
        report.add("AUD-056", f"{groups} groups, needs {need_groups}", index=index)
    if members < need_members:
        report.add("AUD-056", f"{members} members, needs {need_members}", index=index)


def _least(history: History, entry: Entry, contract: Contract) -> tuple[int, int]:
    """Groups and members that must be left in an aggregate, by contract and plan alone."""
    pooling, recipe = contract.aggregation, history.recipe_of(entry.run)
    clause = contract.recipe(recipe)
    if pooling.secure_aggregation != "required" or clause is None:
        return pooling.min_parties, 0
    honest = (history.plan_of(recipe) or {}).get("honest_min")
    groups = groups_to_open(
        pooling.min_parties, pooling.max_colluders, honest if isinstance(honest, int) else None
    )
    if contract.validation is not None and len(contract.groups(clause.participants)) >= 2 * groups:
        return groups, 0
    return groups, least_online(len(clause.participants), pooling.min_parties)
