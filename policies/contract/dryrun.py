# SPDX-License-Identifier: Apache-2.0
"""What a proposal would have said about the past: recorded requests judged again under other terms.

- It writes nothing and changes nothing; it is `evaluate` over records (`policies.contract.recorded`), and a
  count by clause.
- **Cannot tell is not allowed.** A record that lacks a fact is unknown to the checks that need it. Such a
  decision counts as *cannot tell* under each clause whose check stayed open; it never counts as allowed.
- A decision that was refused then and would be refused now, perhaps by another clause, is *as before*.

    report = dry_run(proposal, recorded, contracts={earlier.digest: earlier})
    for line in report.lines:
        print(line)                      # dp-2: would have refused rounds 12, 40 · 3 cannot tell
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.decision import evaluate
from policies.contract.errors import RequestMalformedError
from policies.contract.findings import Outcome
from policies.contract.recorded import RecordedRequest, as_asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from policies.contract.clauses import Contract
    from policies.contract.decision import Decision

__all__ = ["UNREADABLE", "ClauseReport", "DryRun", "Mark", "RecordedRequest", "dry_run"]

Json = Any  # a JSON value

UNREADABLE: Final = "@record"  # the reserved id under which records are counted that nobody can read
_NOUNS: Final = {
    "TrainRound": ("round", "rounds"),
    "Aggregate": ("the averaging of round", "the averaging of rounds"),
    "Release": ("release", "releases"),
    "Deliver": ("delivery", "deliveries"),
    "Query": ("query", "queries"),
    "Join": ("amendment", "amendments"),
    "Exit": ("exit", "exits"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which past decision is meant."""

    type: str
    party: str | None
    run: str | None
    round: int | None

    def to_json(self) -> dict[str, Json]:
        """The mark as a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClauseReport:
    """What one clause would have done.

    Attributes:
        clause: Its id.
        refused: Allowed then; this clause of the proposal would have refused.
        allowed: Refused then by this clause; the proposal would have allowed.
        cannot_tell: A check of this clause misses a fact.
    """

    clause: str
    refused: tuple[Mark, ...]
    allowed: tuple[Mark, ...]
    cannot_tell: tuple[Mark, ...]

    @property
    def line(self) -> str:
        """The report in one line."""
        parts = [f"would have refused {_named(self.refused)}"] if self.refused else []
        parts += [f"would have allowed {_named(self.allowed)}"] if self.allowed else []
        parts += [f"{len(self.cannot_tell)} cannot tell"] if self.cannot_tell else []
        return f"{self.clause}: " + " · ".join(parts)

    def to_json(self) -> dict[str, Json]:
        """The report as a JSON object."""
        return {
            "clause": self.clause,
            "refused": [one.to_json() for one in self.refused],
            "allowed": [one.to_json() for one in self.allowed],
            "cannot_tell": [one.to_json() for one in self.cannot_tell],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The answer about all records.

    Attributes:
        proposal: Digest of what was tried.
        records: How many past decisions were judged again.
        unchanged: How many would have been decided alike.
        by_clause: One report for each clause that would have made a difference, or cannot tell.
    """

    proposal: str
    records: int
    unchanged: int
    by_clause: tuple[ClauseReport, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """For people."""
        told = f"{self.unchanged} of {self.records} recorded decisions as before"
        return (*(one.line for one in self.by_clause), told)

    def to_json(self) -> dict[str, Json]:
        """The answer as a JSON object."""
        return {
            "proposal": self.proposal,
            "records": self.records,
            "unchanged": self.unchanged,
            "by_clause": [one.to_json() for one in self.by_clause],
        }


def dry_run(
    proposal: Contract, recorded: Iterable[RecordedRequest], *, contracts: Mapping[str, Contract]
) -> DryRun:
    """Judges every recorded request under the proposal and compares, clause by clause.

    Args:
        proposal: The terms to try.
        recorded: Past decisions, in any order.
        contracts: The contracts that judged them, by digest, as far as they are known.
    """
    told: dict[str, dict[str, list[Mark]]] = defaultdict(lambda: defaultdict(list))
    records = unchanged = 0
    for one in recorded:
        records += 1
        effects = list(_effects(proposal, one, contracts.get(one.contract)))
        unchanged += not effects
        for clause, effect, mark in effects:
            told[clause][effect].append(mark)
    reports = (
        ClauseReport(
            clause=clause,
            refused=tuple(by_effect["refused"]),
            allowed=tuple(by_effect["allowed"]),
            cannot_tell=tuple(by_effect["cannot_tell"]),
        )
        for clause, by_effect in sorted(told.items())
    )
    return DryRun(proposal=proposal.digest, records=records, unchanged=unchanged, by_clause=tuple(reports))


def _effects(
    proposal: Contract, one: RecordedRequest, earlier: Contract | None
) -> Iterator[tuple[str, str, Mark]]:
    """Clause and effect of a record; nothing where it would have been decided alike."""
    party = one.request.get("party")
    mark = Mark(
        type=str(one.request.get("type")),
        party=party if isinstance(party, str) else None,
        run=one.run,
        round=one.round,
    )
    try:
        request, state = as_asked(one, earlier, proposal)
    except RequestMalformedError:
        yield UNREADABLE, "cannot_tell", mark
        return
    decision = evaluate(proposal, state, request)
    for clause, effect in _compared(decision, one, proposal.conflict.clause):
        yield clause, effect, mark


def _compared(decision: Decision, one: RecordedRequest, conflict: str) -> Iterator[tuple[str, str]]:
    if decision.allow:
        if not one.allowed:
            yield from ((clause, "allowed") for clause in one.clauses or ("@record",) if clause != conflict)
        return
    against: dict[str, str] = {}
    for finding in decision.refusals:
        if finding.clause == conflict:
            continue  # it repeats what others leave open
        violated = finding.outcome is Outcome.VIOLATED
        if violated or finding.clause not in against:
            against[finding.clause] = "refused" if violated else "cannot_tell"
    refuses = "refused" in against.values()
    if not one.allowed and refuses:
        return  # refused then and now
    for clause, effect in against.items():
        if one.allowed or effect == "cannot_tell":
            yield clause, effect


def _named(marks: tuple[Mark, ...]) -> str:
    """Past decisions in words: rounds by number, the rest by count."""
    by_type: dict[str, list[Mark]] = defaultdict(list)
    for one in marks:
        by_type[one.type].append(one)
    return ", ".join(_named_of(name, by_type[name]) for name in _NOUNS if name in by_type)


def _named_of(name: str, marks: list[Mark]) -> str:
    one, many = _NOUNS[name]
    rounds: dict[str | None, set[int]] = defaultdict(set)
    for mark in marks:
        if mark.round is not None:
            rounds[mark.run].add(mark.round)
    if name not in ("TrainRound", "Aggregate") or not rounds:
        return f"{len(marks)} {one if len(marks) == 1 else many}"
    told = [
        ", ".join(str(number) for number in sorted(numbers)) + (f" of {run}" if len(rounds) > 1 else "")
        for run, numbers in rounds.items()
    ]
    return f"{one if sum(map(len, rounds.values())) == 1 else many} " + "; ".join(told)
