# SPDX-License-Identifier: Apache-2.0
"""Step 10: a release has its candidate, evidence and approvals, its model a history without a break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.coherence import owner_of
from policies.log.entries import EntryType
from policies.privacy.statement import NOT_PRIVATE
from policies.verify.documents import check_report, check_statement
from policies.verify.judgements import taken_back
from policies.verify.probes import accepted_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_releases", "finish_releases"]

Json = Any
_ELSEWHERE = frozenset(
    {"privacy-statement", "log-root"}
)  # the release names one, the checkpoint is the other


def check_releases(history: History, report: Report) -> None:
    """AUD-070 to AUD-072 and AUD-076."""
    released = history.released()
    for index, entry in history.of(EntryType.MODEL_RELEASED):
        contract = history.contracts.get(entry.scope or "")
        if contract is None:
            report.add("AUD-070", "its contract is not in the bundle", index=index)
            continue
        _check_gate(history, index, entry, contract, report)
        check_statement(history, index, entry, report)
    for index, entry in history.of(EntryType.MODEL_EXPORTED):
        before = [released.get((scope, *_subject(entry)), index) for scope in history.versions(entry.scope)]
        if min(before, default=index) >= index:
            report.add("AUD-070", "delivered without a release before it", index=index)
    _check_lineage(history, report)


def finish_releases(history: History, report: Report) -> None:
    """What is told of all runs together."""
    report.facts["releases"] = sorted(f"{tier} {model}" for _, model, tier in history.released())
    if report.tallies["not_private"]:  # one such release is what a reader must know, whatever came after
        report.facts["privacy"] = NOT_PRIVATE


def _subject(entry: Entry) -> tuple[str, str]:
    """Model and tier of a release or a delivery."""
    return entry.pub["model"], entry.pub["tier"]


def _check_candidate(history: History, index: int, entry: Entry, report: Report) -> None:
    """AUD-072: the candidate is the model of the run's last aggregate that stands, or refers to it.

    A recipe may release the running average of the models: that is another digest, so the entry that
    evaluated the candidate refers to the aggregate which it was taken after.
    """
    back = taken_back(history, entry.run, index)
    last = max(
        (
            at
            for at, one in history.of(EntryType.AGGREGATE_RELEASED)
            if at < index and one.run == entry.run and one.round not in back
        ),
        default=None,
    )
    if last is None:
        report.add("AUD-072", "no aggregate of its run before it", index=index)
    elif entry.pub["candidate"] != history.entries[last].pub["model"] and last not in entry.refs:
        report.add(
            "AUD-072", f"it is not the model of the aggregate at {last}, nor refers to it", index=index
        )


def _check_gate(history: History, index: int, entry: Entry, contract: Contract, report: Report) -> None:
    """1. evaluated before; 2. nothing failed; 3. evidence complete; 4. approvals; 5. no veto."""
    scopes = history.versions(entry.scope)
    evaluated = [
        one
        for at, one in history.of(EntryType.CANDIDATE_EVALUATED)
        if at < index
        and one.scope in scopes
        and (one.run, one.pub["candidate"]) == (entry.run, entry.pub["model"])
    ]
    if not evaluated:  # 1.
        report.add("AUD-070", "no candidate.evaluated before it", index=index)
        return
    checks = evaluated[-1].pub["checks"]
    missing = set(contract.release.evidence) - set(checks) - _ELSEWHERE
    failed = sorted(name for name, outcome in checks.items() if outcome != "pass")
    if failed:  # 2.
        report.add("AUD-070", "failed " + " ".join(failed), index=index)
    if missing:  # 3.
        report.add("AUD-071", "no " + " ".join(sorted(missing)), index=index)
    if "privacy-statement" in contract.release.evidence and entry.pub["statement"] is None:
        report.add("AUD-071", "no privacy-statement", index=index)
    if history.grade != "auditor":
        report.not_checked("AUD-070: votes of other members (this is a member's bundle)")
        return
    votes = history.votes(entry, before=index)
    _check_votes(votes, index, contract, report)
    _check_heard(history, index, entry, report, votes=votes)


def _check_votes(votes: Mapping[str, str], index: int, contract: Contract, report: Report) -> None:
    groups = {one.group for one in contract.contributors if votes.get(one.party) == "approve"}
    if len(groups) < contract.release.approvals.min:  # 4.
        report.add("AUD-070", f"{len(groups)} approvals, needs {contract.release.approvals.min}", index=index)
    owners = {owner_of(contract, one) for one in contract.release.approvals.veto}
    vetoes = sorted(name for name, vote in votes.items() if vote == "veto" and name in owners)
    if vetoes:  # 5. the owner of a listed clause vetoes alone; others only do not approve
        report.add("AUD-070", "vetoed by " + " ".join(vetoes), index=index)


def _check_heard(
    history: History, index: int, entry: Entry, report: Report, *, votes: Mapping[str, str]
) -> None:
    """AUD-076: who is in the model, or may veto, has voted.

    The end of a chain leaves no gap where it is cut off: only a member's own receipt shows that nothing
    was left out.
    """
    contract = history.contracts[entry.scope or ""]
    contributors = {one.party for one in contract.contributors}
    owners = {owner_of(contract, one) for one in contract.release.approvals.veto}
    expected = contributors & (history.trained(entry.run, before=index) | owners)
    silent = sorted(expected - set(votes))
    if silent:
        report.add("AUD-076", "no vote of " + " ".join(silent), index=index)
    by_org = {one.org: one.party for one in contract.parties}
    last = {by_org[org]: at for org, at in history.heard.get(index, {}).items() if org in by_org}
    vouched: dict[str, int] = {}
    for at in sorted(history.receipted):
        party = history.sender_party(at)
        if party is not None and history.entries[at].scope == entry.scope:
            vouched[party] = at
    cut = sorted(one for one in contributors if vouched.get(one, -1) < last.get(one, 0))
    if cut:
        report.not_checked(
            f"AUD-076: no receipt of the last entry before the release at {index} from {' '.join(cut)}:"
            " a vote that came after may have been left out; ask them for their receipts"
        )


def _check_lineage(history: History, report: Report) -> None:
    """AUD-072: each round starts from the model of the aggregate before, each has contributions."""
    for index, entry in history.of(EntryType.CANDIDATE_EVALUATED):
        _check_candidate(history, index, entry, report)
        check_report(history, index, entry, report)
    last: dict[str | None, str] = {}
    before: dict[str | None, str] = {}
    verdicts = (EntryType.ROUND_JUDGED, EntryType.ROUND_CHOSEN)
    kinds = (EntryType.ROUND_OPENED, EntryType.AGGREGATE_RELEASED, EntryType.SUM_WITHDRAWN, *verdicts)
    for index, entry in history.of(*kinds):
        if entry.type in verdicts:
            if accepted_by(entry) is False:
                last[entry.run] = entry.pub["against"]
        elif entry.type is EntryType.SUM_WITHDRAWN:
            if (entry.pub["model"], entry.pub["against"]) != (last.get(entry.run), before.get(entry.run)):
                report.add("AUD-072", "a sum is withdrawn that is not the newest", index=index)
            last[entry.run] = entry.pub["against"]
        elif entry.type is EntryType.ROUND_OPENED:
            if last.get(entry.run, entry.pub["base_model"]) != entry.pub["base_model"]:
                report.add("AUD-072", "the round starts from another model", index=index)
            last.setdefault(entry.run, entry.pub["base_model"])
        else:
            before[entry.run], last[entry.run] = last.get(entry.run, ""), entry.pub["model"]
            if entry.pub["count"] == 0:
                report.add("AUD-072", "an aggregate of nothing", index=index)
