# SPDX-License-Identifier: Apache-2.0
"""Step 7, votes on rounds: every count is made again, and what a rejection asks for was done. AUD-094.

For each run under a contract whose validation clause asks for votes (`policies.robustness.plan`), along its
entries:

1. ``round.judged`` is about the model of that round's aggregate, beside the model that was accepted last;
2. it refers to every vote on the round before it, and to nothing else but the aggregate; each vote names the
   same two models;
3. verdict, counts and ``rejected_rounds`` are what the votes come to (`policies.robustness.votes`);
4. no more rounds are judged than the contract pays for, and none that is drawn goes unjudged once the next
   one is opened;
5. after a rejection the next round begins with the accepted model; after as many in a row as the contract
   allows, no round is opened before an operator's ``run.resume``;
6. ``round.chosen`` of a probe stands for the vote on that round: what it chooses is made again
   (`policies.verify.probes`), and made the round's model, which stands. If it is none, that is a rejection;
7. ``sum.withdrawn`` takes back an accepted model too: the one that was accepted before it stands again.

In a member's bundle the votes of others have no sender; counts of groups are not made again there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.robustness.plan import votes_plan
from policies.robustness.votes import Course, is_judged, tally
from policies.verify.history import RESUME
from policies.verify.probes import accepted_by, check_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract, ValidationClause
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["RESUME", "check_judgements", "rejections_before", "taken_back", "votes_of"]

Json = Any
_RULE = "AUD-094"
_OF_RUNS = (
    EntryType.ROUND_OPENED,
    EntryType.AGGREGATE_RELEASED,
    EntryType.ROUND_VOTED,
    EntryType.ROUND_JUDGED,
    EntryType.ROUND_CHOSEN,
    EntryType.SUM_WITHDRAWN,
    EntryType.CONSOLE_ACTION,
)


def votes_of(contract: Contract | None, recipe: Mapping[str, Json]) -> dict[str, Json] | None:
    """Document of the plan of votes on rounds under a contract and recipe; None where there are none."""
    evaluation = recipe.get("evaluation")
    if contract is None or not isinstance(evaluation, dict):
        return None
    try:
        return votes_plan(contract.validation, evaluation)
    except (IriaiError, KeyError, ValueError, TypeError, OverflowError):  # a recipe of another shape
        return None


@dataclass(slots=True)
class _Run:
    """A run as far as it was read."""

    course: Course | None = None
    models: dict[int, tuple[int, str]] = field(default_factory=dict)  # round -> its aggregate and model
    votes: dict[int, list[int]] = field(default_factory=dict)
    judged: set[int] = field(default_factory=set)
    back: str | None = None  # the model that the next round begins with
    stood: str | None = None  # accepted before the model that stands
    chosen: tuple[int, int] | None = None  # a probe whose model is not there yet: its round, and the entry


def check_judgements(history: History, report: Report) -> None:
    """AUD-094."""
    runs: dict[str | None, _Run] = {}
    resumed = {digest((entry.run or "").encode()): entry.run for _, entry in history.of(EntryType.RUN_OPENED)}
    for index, entry in history.of(*_OF_RUNS):
        if entry.type is EntryType.CONSOLE_ACTION:
            run = runs.get(resumed.get(entry.pub["subject"]))
            if entry.pub["action"] == RESUME and run is not None and run.course is not None:
                run.course = run.course.resumed()
            continue
        _STEPS[entry.type](history, report, runs.setdefault(entry.run, _Run()), index, entry)
    rejected = sum(run.course.total for run in runs.values() if run.course is not None)
    report.tallies["rejected_rounds"] += rejected


def rejections_before(history: History, run: str | None, index: int) -> int:
    """Rejections in a row in a run, as its entries below an index say; an operator's resume ends them."""
    count = 0
    kinds = (EntryType.ROUND_JUDGED, EntryType.ROUND_CHOSEN, EntryType.CONSOLE_ACTION)
    for at, entry in history.of(*kinds):
        if at >= index:
            break
        if entry.type is not EntryType.CONSOLE_ACTION and entry.run == run:
            count = entry.pub["rejected_rounds"]
        elif entry.type is EntryType.CONSOLE_ACTION and entry.pub["action"] == RESUME:
            count = 0 if entry.pub["subject"] == digest((run or "").encode()) else count
    return count


def taken_back(history: History, run: str | None, index: int) -> set[int]:
    """Rounds of a run whose models were taken back below an index: all since the one that stands."""
    back: set[int] = set()
    stands = [0]
    for at, entry in history.of(EntryType.ROUND_JUDGED, EntryType.ROUND_CHOSEN, EntryType.SUM_WITHDRAWN):
        if at >= index or entry.run != run or entry.round is None:
            continue
        if entry.type is EntryType.SUM_WITHDRAWN:
            back.add(entry.round)
            stands = [one for one in stands if one != entry.round]
        elif accepted_by(entry):
            stands.append(entry.round)
        elif accepted_by(entry) is not None:
            back |= set(range(stands[-1] + 1, entry.round + 1))
    return back


def _opened(history: History, report: Report, run: _Run, index: int, entry: Entry) -> None:
    base, clause = entry.pub["base_model"], _clause(history, entry)
    if run.course is None:
        run.course = Course(accepted=base)
    if run.back is not None and base != run.back:
        report.add(
            _RULE, "the round after a rejection begins with another than the accepted model", index=index
        )
    run.back = None
    if run.chosen is not None:
        report.add(_RULE, "teams were chosen, and made no model", index=run.chosen[1])
        run.chosen = None
    if clause is not None and run.course.paused(clause.max_rejected_rounds):
        report.add(_RULE, f"opened after {run.course.rejections} rejections in a row", index=index)
    for number in sorted(set(run.models) - run.judged):
        made = history.entries[run.models[number][0]]
        if all(_is_due(history, run, number, one) for one in (made, entry)):  # also where a successor rules
            report.add(_RULE, f"round {number} is drawn, and was not voted on", index=index)
            run.judged.add(number)  # said once


def _released(_history: History, _report: Report, run: _Run, index: int, entry: Entry) -> None:
    number = entry.round or 0
    run.models[number] = index, entry.pub["model"]
    if run.chosen is not None and run.chosen[0] == number and run.course is not None:  # 6.
        run.stood = run.course.accepted
        run.course, run.chosen = run.course.after(entry.pub["model"], accepted=True), None


def _voted(_history: History, _report: Report, run: _Run, index: int, entry: Entry) -> None:
    run.votes.setdefault(entry.round or 0, []).append(index)


def _judged(history: History, report: Report, run: _Run, index: int, entry: Entry) -> None:
    number, pub, course = entry.round or 0, entry.pub, run.course
    aggregate, model = run.models.get(number, (None, None))
    if course is None or aggregate is None or number in run.judged:
        report.add(_RULE, "a verdict on a round without a model, or a second one", index=index)
        return
    if (pub["model"], pub["against"]) != (model, course.accepted):  # 1.
        report.add(_RULE, "not about the round's model beside the accepted one", index=index)
    votes = run.votes.get(number, [])
    if sorted(entry.refs) != sorted([*votes, aggregate]):  # 2.
        report.add(_RULE, "it leaves votes out, or refers to others", index=index)
    about = {(history.entries[at].pub["model"], history.entries[at].pub["against"]) for at in votes}
    if about - {(pub["model"], pub["against"])}:
        report.add(_RULE, "votes on other models", index=index)
    if not _is_due(history, run, number, entry):  # 4.
        report.add(_RULE, f"round {number} is not one that is voted on", index=index)
    _recount(history, report, votes, index, entry)  # 3.
    accepted = pub["verdict"] == "accepted"
    run.stood = course.accepted if accepted else run.stood
    run.course = course = course.after(pub["model"], accepted=accepted)
    if pub["rejected_rounds"] != course.rejections:
        report.add(
            _RULE, f"{pub['rejected_rounds']} rejections said, {course.rejections} counted", index=index
        )
    run.judged.add(number)
    run.back = None if accepted else course.accepted  # 5.


def _withdrawn(_history: History, _report: Report, run: _Run, _index: int, entry: Entry) -> None:
    """7. AUD-072 looks at where the run goes on from."""
    run.back = None
    if run.course is not None and run.stood is not None and run.course.accepted == entry.pub["model"]:
        run.course = replace(run.course, accepted=run.stood)


def _chosen(history: History, report: Report, run: _Run, index: int, entry: Entry) -> None:
    """6."""
    number, course = entry.round or 0, run.course
    if course is None or number in run.judged or number in run.models:
        report.add(_RULE, "a choice of teams in a round that was judged before", index=index)
        return
    contract = history.contracts.get(entry.scope or "")
    plan = votes_of(contract, history.recipes.get(history.recipe_of(entry.run) or "", {}))
    if plan is None or not _is_due(history, run, number, entry):
        report.add(_RULE, f"round {number} is not one whose teams are judged", index=index)
        return
    check_choice(history, report, index, entry, against=course.accepted, plan=plan)
    accepted, after = accepted_by(entry), course
    if accepted is not None:
        run.judged.add(number)
        after = course.after(course.accepted, accepted=accepted)
    if entry.pub["rejected_rounds"] != after.rejections:
        report.add(
            _RULE, f"{entry.pub['rejected_rounds']} rejections said, {after.rejections} counted", index=index
        )
    if accepted:
        run.chosen = number, index
    elif accepted is not None:
        run.course, run.back = after, course.accepted  # 5.


def _recount(history: History, report: Report, votes: list[int], index: int, entry: Entry) -> None:
    contract, clause = history.contracts.get(entry.scope or ""), _clause(history, entry)
    if contract is None or clause is None:
        report.add(_RULE, "a verdict under a contract that asks for no votes", index=index)
        return
    if history.grade != "auditor":
        report.not_checked(f"{_RULE}: votes of other members (this is a member's bundle)")
        return
    said: dict[str, bool] = {}
    groups = {one.party: one.group for one in contract.contributors}
    for at in votes:
        party = history.sender_party(at)
        if party in groups:
            said[str(party)] = history.entries[at].pub["vote"] == "accept"
    least = contract.aggregation.min_parties
    found = tally(said, groups=groups, quorum=clause.quorum, least=least)
    told = entry.pub["accepting"], entry.pub["voting"], entry.pub["verdict"] == "accepted"
    if told != (found.accepting, found.voting, found.accepted):
        report.add(
            _RULE, f"{told[0]} of {told[1]} said, {found.accepting} of {found.voting} counted", index=index
        )


def _clause(history: History, entry: Entry) -> ValidationClause | None:
    """The validation clause behind an entry, where it asks for votes on rounds."""
    contract = history.contracts.get(entry.scope or "")
    recipe = history.recipes.get(history.recipe_of(entry.run) or "", {})
    return None if contract is None or votes_of(contract, recipe) is None else contract.validation


def _is_due(history: History, run: _Run, number: int, entry: Entry) -> bool:
    clause = _clause(history, entry)
    recipe = history.recipes.get(history.recipe_of(entry.run) or "", {})
    if clause is None or clause.max_judgings is None:
        return False
    return is_judged(
        entry.run or "",
        number,
        rounds=int(recipe.get("rounds", 0)),
        judgings=clause.max_judgings,
        used=len(run.judged),
    )


_STEPS = {
    EntryType.ROUND_OPENED: _opened,
    EntryType.AGGREGATE_RELEASED: _released,
    EntryType.ROUND_VOTED: _voted,
    EntryType.ROUND_JUDGED: _judged,
    EntryType.ROUND_CHOSEN: _chosen,
    EntryType.SUM_WITHDRAWN: _withdrawn,
}
