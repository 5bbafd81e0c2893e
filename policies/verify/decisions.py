# SPDX-License-Identifier: Apache-2.0
"""Step 8: decisions are taken again, their facts compared with the log, and steps with their decisions.

1. every ``decision.recorded`` has a record; evaluating the contract on it gives the digest, outcome and
clauses in the entry;
2. what the record says about contract and step is what the log says (`policies.verify.facts`);
3. an accepted submission follows an allowing decision of the broker and of its node; an aggregate, a
release, a delivery, an exit and a successor follow an allowing one of the broker. A release and a delivery
name theirs; no decision permits two steps, and none that allowed a release or a delivery stands without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.decision import decision_bytes, evaluate
from policies.contract.requests import (
    Aggregate,
    ContractState,
    Deliver,
    Exit,
    Join,
    Release,
    Request,
    TrainRound,
    request_from_json,
    state_from_json,
)
from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.verify.facts import request_facts, state_facts
from policies.verify.recount import Recount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.recount import Tables
    from policies.verify.report import Report

__all__ = ["check_decisions", "finish_decisions"]

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision that was taken again and agreed."""

    request: Request
    state: ContractState
    allow: bool
    point: str


def check_decisions(history: History, tables: Tables, report: Report) -> None:
    """AUD-059, in one run."""
    decided: dict[int, Decided] = {}
    counted = Recount(history, tables)
    for index, entry in history.of(EntryType.DECISION_RECORDED):
        if (entry.pub["point"] == "node") != (entry.env is not None):  # whose word it is, allowed or refused
            report.add("AUD-059", f"point {entry.pub['point']} by {entry.actor}", index=index)
        one = _replayed(history, index, entry, report)
        if one is not None:
            decided[index] = one
            _check_told(history, counted, index, one, report)
    for index, found in counted.too_many():
        report.add("AUD-059", found, index=index)
    _check_submissions(history, decided, report)
    _check_steps(history, decided, report)
    for what in _NOT_TOLD if decided else ():
        report.not_checked(f"AUD-059: {what}")
    report.tallies["decisions.replayed"] += len(decided)
    report.tallies["decisions.refused"] += sum(not d.allow for d in decided.values())


def finish_decisions(report: Report) -> None:
    """What is told of all runs together."""
    report.facts["decisions"] = {
        name: report.tallies[f"decisions.{name}"] for name in ("replayed", "refused")
    }


def _replayed(history: History, index: int, entry: Entry, report: Report) -> Decided | None:
    record, contract = history.decisions.get(index), history.contracts.get(entry.scope or "")
    if record is None:
        _missing_record(history, index, entry, report)
        return None
    if contract is None:
        report.add("AUD-059", "its contract is not in the bundle", index=index)
        return None
    try:
        request = history.store.requests.get(index) or request_from_json(record.request)
        state = state_from_json(record.state)
        decision = evaluate(contract, state, request)
        again = decision_bytes(
            decision,
            contract_digest=contract.digest,
            point=entry.pub["point"],
            request=request,
            state=state,
            salt16=record.salt,
        )
    except IriaiError as error:
        report.add("AUD-059", f"{error.code}: needs {error.need}; found {error.found}", index=index)
        return None
    allow, clauses = decision.allow, list(decision.clauses)
    if not digest(again) == record.decision == entry.pub["decision"]:
        report.add("AUD-059", f"taken again it is {digest(again)}", index=index)
        return None
    if (entry.pub["outcome"] == "allow") != allow or entry.pub["clauses"] != clauses:
        report.add(
            "AUD-059", f"logged {entry.pub['outcome']}, taken again {allow} {' '.join(clauses)}", index=index
        )
        return None
    return Decided(request=request, state=state, allow=allow, point=entry.pub["point"])


def _missing_record(history: History, index: int, entry: Entry, report: Report) -> None:
    """A broker has its own records; a node's may be missing where its reply came too late to be read."""
    if history.grade != "auditor":
        report.not_checked("AUD-059: decisions of others (this is a member's bundle)")
    elif entry.env is None:
        report.add("AUD-059", "no record of the decision in the bundle", index=index)
    else:
        report.not_checked("AUD-059: decisions of nodes whose reply came too late to be used")


_NOT_TOLD: Final = (
    "epsilon_after_total of a decision (the spends themselves: AUD-060 to 063)",
    "that updates were finite and within norm_bound (no update is in the log)",
    "that an attestation was made before what it permitted (attestations are no entries)",
)
"""Facts of decisions that nothing in the log can bear out."""


def _check_told(history: History, counted: Recount, index: int, one: Decided, report: Report) -> None:
    """The state and the facts are the log's.

    A node may refuse by what it knows and the log does not: its own halt, which is on its way.
    """
    entry = history.entries[index]
    told = one.allow or entry.env is None
    whole = told and history.grade == "auditor"  # a member's bundle lacks notices of others
    wrong = state_facts(history, index, entry, one.state, whole=whole)
    if wrong:
        report.add("AUD-059", "judged in another state: " + " ".join(wrong), index=index)
    wrong = request_facts(history, index, entry, one.request, one.point) if told else []
    wrong += counted.facts(index, entry, one.request, one.point) if told else []
    if wrong:
        report.add("AUD-059", "facts differ from the log: " + " ".join(wrong), index=index)


def _check_submissions(history: History, decided: dict[int, Decided], report: Report) -> None:
    """Before each accepted submission the broker allowed asking its party, and the node allowed training."""
    if history.grade != "auditor":
        return
    asked: dict[tuple[str | None, int | None, str | None], int] = {}
    trained: dict[tuple[str | None, int | None, str], list[int]] = {}
    for index, one in sorted(decided.items()):
        entry = history.entries[index]
        if not one.allow or not isinstance(one.request, TrainRound):
            continue
        if one.point == "node":
            trained.setdefault((entry.run, entry.round, entry.actor), []).append(index)
        else:
            asked.setdefault((entry.run, entry.round, one.request.party), index)
    accepted = {ref for _, entry in history.of(EntryType.CONTRIBUTION_ACCEPTED) for ref in entry.refs}
    for attempt in history.attempts().values():
        start = attempt.opened if attempt.opened is not None else -1
        for index in sorted(accepted.intersection(attempt.submissions)):
            entry = history.entries[index]
            found = trained.get((entry.run, entry.round, entry.actor), [])
            if not any(start < at < index for at in found):
                report.add("AUD-059", "no allowing decision of the node before it", index=index)
            if asked.get((entry.run, entry.round, history.sender_party(index)), index) >= index:
                report.add("AUD-059", "no allowing decision of the broker to ask it", index=index)


_STEPS: Mapping[EntryType, tuple[type[Request], bool]] = {
    EntryType.AGGREGATE_RELEASED: (Aggregate, True),
    EntryType.MODEL_RELEASED: (Release, True),
    EntryType.MODEL_REFUSED: (Release, False),
    EntryType.MODEL_EXPORTED: (Deliver, True),
    EntryType.CONTRACT_EXITED: (Exit, True),
    EntryType.CONTRACT_AMENDED: (Join, True),
}
"""Which decision a step of the broker needs, and what it must have said."""


_NAMING = frozenset({EntryType.MODEL_RELEASED, EntryType.MODEL_REFUSED, EntryType.MODEL_EXPORTED})
"""Steps that name their one decision."""


def _check_steps(history: History, decided: dict[int, Decided], report: Report) -> None:
    used: dict[int, int] = {}
    places = _places(history, decided)
    for index, entry in history.of(*(one for one in _STEPS if history.owns(one))):
        if index in history.void:
            continue  # it has no effect: nothing had to allow it
        wanted, allow = _STEPS[entry.type]
        _check_named(history, index, entry, report)
        at = _deciding(history, index, entry, decided, places, wanted=wanted)
        if at is None:
            if history.grade == "auditor":
                report.add("AUD-059", f"no {wanted.__name__} decision for it", index=index)
            continue
        if used.setdefault(at, index) != index:
            report.add("AUD-059", f"the decision at {at} permitted entry {used[at]} already", index=index)
        found = decided[at]
        if found.allow is not allow:
            said = "allow" if found.allow else "refuse"
            report.add("AUD-059", f"{entry.type}, yet the decision was {said}", index=index)
        wrong = _step_facts(history, index, entry, found.request)
        if wrong:
            report.add("AUD-059", "decided about another step: " + " ".join(wrong), index=index)
    for at, one in sorted(decided.items()):
        hidden = isinstance(one.request, Release | Deliver) and one.allow and at not in used
        if hidden and one.point != "node":
            report.add("AUD-059", "it allowed a step, and the log has none that names it", index=at)


def _check_named(history: History, index: int, entry: Entry, report: Report) -> None:
    named = [
        ref
        for ref in entry.refs
        if ref in history.entries and history.entries[ref].type is EntryType.DECISION_RECORDED
    ]
    if entry.type in _NAMING and len(named) != 1:
        report.add("AUD-059", f"{entry.type} names {len(named)} decisions, needs one", index=index)


_Place = tuple[str | None, str | None, int | None]


def _places(history: History, decided: dict[int, Decided]) -> dict[_Place, list[int]]:
    """Decisions by contract, run and round, ascending."""
    found: dict[_Place, list[int]] = {}
    for at in sorted(decided):
        one = history.entries[at]
        found.setdefault((one.scope, one.run, one.round), []).append(at)
    return found


def _deciding(
    history: History,
    index: int,
    entry: Entry,
    decided: dict[int, Decided],
    places: dict[_Place, list[int]],
    *,
    wanted: type[Request],
) -> int | None:
    """Index of the broker's decision that a step refers to.

    An aggregate may name none: then it is the last one in its run and round.
    """
    at = list(reversed([ref for ref in entry.refs if ref in decided]))
    if entry.type not in _NAMING:
        same = places.get((entry.scope, entry.run, entry.round), [])
        at += [one for one in reversed(same) if one < index]
    for one in at:
        fits = history.entries[one].scope == entry.scope and one < index
        if fits and isinstance(decided[one].request, wanted) and decided[one].point != "node":
            return one
    return None


def _step_facts(history: History, index: int, entry: Entry, request: Request) -> list[str]:
    """Names of facts that differ between a decision and the step that it permitted."""
    if isinstance(request, Aggregate):
        parties = {
            history.sender_party(ref)
            for ref in entry.refs
            if ref in history.entries and history.entries[ref].type is EntryType.SUBMISSION_RECEIVED
        }
        same = set(request.survivors or ()) == parties or history.grade != "auditor"
        return [] if same else ["survivors"]
    if isinstance(request, Deliver):
        wrong = [name for name in ("model", "tier") if getattr(request, name) != entry.pub[name]]
        return wrong if _is_recipient(history, entry, request) else [*wrong, "recipient"]
    if isinstance(request, Release):
        return _release_facts(history, index, entry, request)
    if isinstance(request, Exit):
        return [] if request.notice == entry.pub["notice"] else ["notice"]
    if isinstance(request, Join):
        said = {"stage": "effect", "kind": entry.pub["kind"], "supersedes": entry.pub["old"]}
        return [name for name, value in said.items() if getattr(request, name) != value]
    return ["type"]


def _is_recipient(history: History, entry: Entry, request: Deliver) -> bool:
    """Whether the alias that a delivery names is that of the party which was decided about."""
    org = history.org_of(entry.pub["recipient"], entry)
    clause = history.party(entry.scope, org)
    if org is None and history.grade != "auditor":
        return True  # another member's alias key is not in a member's bundle
    return clause is not None and clause.party == request.party


def _release_facts(history: History, index: int, entry: Entry, request: Release) -> list[str]:
    wrong = [name for name in ("model", "tier") if getattr(request, name) != entry.pub[name]]
    if history.grade != "auditor":
        return wrong
    if set(request.cohort or ()) != history.trained(entry.run, before=index):
        wrong.append("cohort")
    votes = history.votes(entry, before=index)
    if set(request.approvals or ()) - {party for party, vote in votes.items() if vote == "approve"}:
        wrong.append("approvals")
    if {party for party, vote in votes.items() if vote == "veto"} - set(request.vetoes or ()):
        wrong.append("vetoes")
    return wrong
