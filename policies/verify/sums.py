# SPDX-License-Identifier: Apache-2.0
"""AUD-095 and AUD-096: what the transcripts of opened sums prove, and the sums themselves, computed again.

Under secure aggregation nobody has seen a single update, so an aggregate rests on its transcript. For each:

1. the bundle has the bytes that the entry names                                               AUD-095
2. they prove a sum of this contract, recipe and run: signatures, sets, thresholds, secrets    AUD-095
3. it is the sum of this entry's round, attempt, base model and submissions, the only one of
   the round, and has the digest that the entry names                                         AUD-095
4. the masked vectors that the auditor was given add up to it                                  AUD-096

Masked vectors are kept as long as the contract says and are no part of a bundle. Without them steps 1 to 3
are what there is: the report says how many sums were not redone. Standard library and `cryptography` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.secagg import transcript
from policies.secagg.agreed import agreed_terms
from policies.secagg.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.secagg.terms import Terms
    from policies.secagg.transcript import Checked
    from policies.verify.history import History
    from policies.verify.report import Report

    Vectors = Mapping[str, bytes | memoryview]

__all__ = ["check_sums"]

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)  # a recipe that is none: AUD-051 says so


@dataclass(frozen=True, slots=True)
class _Sum:
    """One ``aggregate.released`` under secure aggregation."""

    history: History
    report: Report
    index: int
    entry: Entry
    contract: Contract

    def lie(self, evidence: str) -> None:
        """AUD-095."""
        self.report.add("AUD-095", evidence, index=self.index)

    def submissions(self) -> dict[str | None, str]:
        """Update that each party submitted, of those behind the aggregate."""
        entries = ((ref, self.history.entries.get(ref)) for ref in self.entry.refs)
        return {
            self.history.sender_party(ref): one.pub["update"]
            for ref, one in entries
            if one is not None and one.type is EntryType.SUBMISSION_RECEIVED
        }


def check_sums(history: History, report: Report, vectors: Vectors) -> None:
    """Every aggregate under a contract that asks for secure aggregation.

    Args:
        history: Read and with senders.
        report: Takes the findings.
        vectors: Masked vectors that the auditor was given, by digest.
    """
    sums = list(_sums(history, report))
    if not sums:
        return
    if history.grade != "auditor":
        report.not_checked("AUD-095, 096: transcripts of opened sums (this is a member's bundle)")
        return
    seen: dict[tuple[str | None, int | None], int] = {}
    redone = 0
    for one in sums:
        first = seen.setdefault((one.entry.run, one.entry.round), one.index)
        if first != one.index:
            one.lie(f"a second sum of round {one.entry.round}; the first is at {first}")
        checked = _proven(one)
        if checked is not None:
            _check_place(one, checked)
            redone += _redo(one, checked, vectors)
    report.facts["sums"] = {"opened": len(sums), "redone": redone}
    if redone < len(sums):
        report.not_checked(
            f"AUD-096: {len(sums) - redone} of {len(sums)} opened sums, whose masked vectors are not at hand "
            "(--vectors)"
        )
    report.not_checked("models of rounds from opened sums: each node computes them for itself")


def _sums(history: History, report: Report) -> list[_Sum]:
    """Aggregates that have, and must have, a transcript; AUD-069 names the others."""
    found = []
    for index, entry in history.of(EntryType.AGGREGATE_RELEASED):
        contract = history.contracts.get(entry.scope or "")
        if (
            contract is not None
            and contract.aggregation.secure_aggregation == "required"
            and entry.pub["transcript"] is not None
        ):
            found.append(_Sum(history, report, index, entry, contract))
    return found


def _proven(one: _Sum) -> Checked | None:
    """Steps 1 and 2."""
    named, terms = one.entry.pub["transcript"], _terms(one)
    data = one.history.files.get("transcripts/" + named.removeprefix("sha256:"))
    if data is None or digest(data) != named:
        one.lie(f"transcript {named}: " + ("not in the bundle" if data is None else "other bytes"))
        return None
    if terms is None:
        return None
    try:
        return transcript.check(Record.from_bytes(data), terms)
    except IriaiError as error:
        one.lie(f"{error.code}: needs {error.need}; found {error.found}")
        return None


def _terms(one: _Sum) -> Terms | None:
    """By the recipe's bytes in the bundle; None where there are none, which AUD-051 tells."""
    recipe = one.history.recipe_of(one.entry.run) or ""
    data = one.history.files.get(f"annexes/{recipe.removeprefix('sha256:')}.json")
    if data is None:
        return None
    try:
        return agreed_terms(one.contract, data, run=one.entry.run or "")
    except IriaiError as error:
        one.lie(f"no sum may be opened: {error.code}: needs {error.need}; found {error.found}")
    except _MALFORMED:
        pass
    return None


def _check_place(one: _Sum, checked: Checked) -> None:
    """Step 3."""
    record, entry, history = checked.record, one.entry, one.history
    attempt = history.attempts()[(entry.run, entry.round, entry.pub["attempt"])]
    opened = None if attempt.opened is None else history.entries[attempt.opened].pub["base_model"]
    said = (entry.round, entry.pub["attempt"], opened)
    if (record.round, record.attempt, record.base_model) != said:
        one.lie(f"it is of round {record.round}, attempt {record.attempt}, model {record.base_model}")
    summed = {party: record.online[party].digest for party in checked.survivors(0)}
    submitted = one.submissions()
    if summed != submitted:
        differ = sorted(
            str(name)
            for name in summed.keys() | submitted.keys()
            if summed.get(str(name)) != submitted.get(name)
        )
        one.lie("its vectors are not the submissions of " + ", ".join(differ))
    if record.sums != (entry.pub["aggregate"],):
        one.lie(f"it opened {' '.join(record.sums)}, the entry names {entry.pub['aggregate']}")


def _redo(one: _Sum, checked: Checked, vectors: Vectors) -> bool:
    """Step 4; whether the sum was redone, whatever came of it."""
    found = {party: vectors.get(checked.record.online[party].digest) for party in checked.survivors(0)}
    at_hand: dict[str, Any] = {party: data for party, data in found.items() if data is not None}
    if len(at_hand) < len(found):
        return False
    try:
        redone = transcript.recompute(checked, at_hand)
    except IriaiError as error:
        one.report.add("AUD-096", f"needs {error.need}; found {error.found}", index=one.index)
        return True
    if redone != one.entry.pub["aggregate"]:
        one.report.add("AUD-096", f"they give {redone}", index=one.index)
    return True
