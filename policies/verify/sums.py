# SPDX-License-Identifier: Apache-2.0
"""AUD-095 and AUD-096: what the transcripts of opened sums prove, and the sums themselves, computed again.

Under secure aggregation nobody has seen a single update, so an aggregate rests on its transcript. For each:

1. the bundle has the bytes that the entry names                                               AUD-095
2. they prove a sum of this contract, recipe and run: signatures, sets, thresholds, secrets,
   teams that follow from nonces                                                              AUD-095
3. it is the sum of this entry's round, attempt, base model and submissions, the only one of
   the round, and has the digest that the entry names                                         AUD-095
4. the masked vectors that the auditor was given add up to it; a team that was left out for its
   norm is beyond the contract's bound                                                        AUD-096

Of a probe that opened several teams, the sum is over the teams that its ``round.chosen`` names. Where those
are several, its digest is seen in 4 alone. A probe of which none was chosen has no aggregate; its transcript
is looked at all the same. Together the sums of a round pass the rank rule (`policies.secagg.probes`).

A sum that was redone goes on to the model that it gives (AUD-097, `policies.verify.models`); what members say
of it is looked at in `policies.verify.told` (AUD-098).

Masked vectors are kept as long as the contract says and are no part of a bundle. Without them steps 1 to 3
are what there is: the report says how many sums were not redone. Standard library and `cryptography` only.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.secagg import transcript
from policies.secagg.agreed import agreed_terms
from policies.secagg.opening import OpenedSum
from policies.secagg.probes import release_guard
from policies.secagg.record import Record
from policies.verify.models import Models, finish_models
from policies.verify.probes import chosen_in, expected_teams
from policies.verify.told import check_told, finish_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.secagg.terms import Terms
    from policies.secagg.transcript import Checked
    from policies.verify.history import History
    from policies.verify.report import Report

    Vectors = Mapping[str, bytes | memoryview]

__all__ = ["check_sums", "finish_sums"]

_MEMBERS = "sum_members."
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)  # a recipe that is none: AUD-051 says so


@dataclass(frozen=True, slots=True)
class _Sum:
    """One ``aggregate.released`` under secure aggregation, or a ``round.chosen`` without one."""

    history: History
    report: Report
    index: int
    entry: Entry
    contract: Contract

    def lie(self, evidence: str) -> None:
        """AUD-095."""
        self.report.add("AUD-095", evidence, index=self.index)

    @property
    def aggregate(self) -> str | None:
        """Digest of the sum; None where no team was chosen."""
        return self.entry.pub["aggregate"] if self.entry.type is EntryType.AGGREGATE_RELEASED else None

    def submissions(self) -> dict[str | None, str]:
        """Update that each party submitted, of those behind the aggregate."""
        entries = ((ref, self.history.entries.get(ref)) for ref in self.entry.refs)
        return {
            self.history.sender_party(ref): one.pub["update"]
            for ref, one in entries
            if one is not None and one.type is EntryType.SUBMISSION_RECEIVED
        }


def check_sums(
    history: History, report: Report, vectors: Vectors, given: Mapping[str, bytes] = MappingProxyType({})
) -> None:
    """Every aggregate under a contract that asks for secure aggregation.

    Args:
        history: Read and with senders.
        report: Takes the findings.
        vectors: Masked vectors that the auditor was given, by digest.
        given: Models, likewise.
    """
    sums = list(_sums(history, report))
    if not sums:
        return
    if history.grade != "auditor":
        report.tallies["sums.unopened"] += len(sums)
        report.not_checked("AUD-095, 096: transcripts of opened sums (this is a member's bundle)")
        return
    seen: dict[tuple[str | None, int | None], int] = {}
    opened: dict[str | None, list[OpenedSum]] = {}
    models = Models(history, report, given)
    for one in sums:
        first = seen.setdefault((one.entry.run, one.entry.round), one.index)
        if first != one.index:
            one.lie(f"a second sum of round {one.entry.round}; the first is at {first}")
        checked = _proven(one)
        if checked is not None:
            _check_place(one, checked)
            _check_rank(one, checked, opened.setdefault(one.entry.run, []))
            pieces = list[bytes]()
            report.tallies["sums.redone"] += _redo(one, checked, vectors, pieces.append)
            _follow(one, checked, b"".join(pieces), models)
            sizes = (len(checked.survivors(number)) for number in checked.record.opened)
            report.tallies.update(f"{_MEMBERS}{size}" for size in sizes)
    report.tallies["sums.opened"] += len(sums)
    models.finish()
    check_told(history, report)


def finish_sums(history: History, report: Report, vectors: Vectors) -> None:
    """What is told of all runs together."""
    opened, redone = report.tallies["sums.opened"], report.tallies["sums.redone"]
    if not opened:
        if vectors and not report.tallies["sums.unopened"]:
            report.not_checked(f"AUD-096: {len(vectors)} masked vectors, as this bundle has no opened sum")
        return
    sizes = [int(key.removeprefix(_MEMBERS)) for key in report.tallies if key.startswith(_MEMBERS)]
    report.facts["sums"] = {"opened": opened, "redone": redone}
    report.facts["sum_members"] = {"fewest": min(sizes, default=0), "most": max(sizes, default=0)}
    if redone:
        report.recomputed(f"AUD-096: {redone} of {opened} opened sums redone from masked vectors")
    if redone < opened:
        left = f"{opened - redone} of {opened} opened sums"
        report.not_checked(
            f"AUD-096: {left}, whose masked vectors are not at hand ({_why(history, vectors)})"
        )
    finish_models(report)
    finish_told(report)


def _why(history: History, vectors: Vectors) -> str:
    """What an auditor can do about sums that were not redone."""
    submitted = history.of(EntryType.SUBMISSION_RECEIVED) if vectors else iter(())
    if vectors and not any(entry.pub["update"] in vectors for _, entry in submitted):
        return f"none of the {len(vectors)} files belongs to this bundle"
    return "--vectors"


def _sums(history: History, report: Report) -> list[_Sum]:
    """Aggregates that have, and must have, a transcript; AUD-069 names the others. Choices without one."""
    found = []
    for index, entry in history.of(EntryType.AGGREGATE_RELEASED, EntryType.ROUND_CHOSEN):
        if entry.type is EntryType.ROUND_CHOSEN and entry.pub["chosen"]:
            continue
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
    named, recipe, terms = one.entry.pub["transcript"], _recipe(one), _terms(one)
    data = one.history.files.get("transcripts/" + named.removeprefix("sha256:"))
    if data is None or digest(data) != named:
        one.lie(f"transcript {named}: " + ("not in the bundle" if data is None else "other bytes"))
        return None
    if terms is None or recipe is None:
        return None
    try:
        expected = expected_teams(one.contract, recipe, terms)
        return transcript.check(Record.from_bytes(data), terms, expected_teams=expected)
    except IriaiError as error:
        one.lie(f"{error.code}: needs {error.need}; found {error.found}")
        return None


def _recipe(one: _Sum) -> bytes | None:
    """Its bytes in the bundle; None where there are none, which AUD-051 tells."""
    recipe = one.history.recipe_of(one.entry.run) or ""
    return one.history.files.get(f"annexes/{recipe.removeprefix('sha256:')}.json")


def _terms(one: _Sum) -> Terms | None:
    """By the recipe's bytes."""
    data = _recipe(one)
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
    summed = {party: record.online[party].digest for party in _parties(one, checked)}
    submitted = one.submissions()
    if summed != submitted and one.aggregate is not None:
        differ = sorted(
            str(name)
            for name in summed.keys() | submitted.keys()
            if summed.get(str(name)) != submitted.get(name)
        )
        one.lie("its vectors are not the submissions of " + ", ".join(differ))
    teams = _teams(one, checked)
    if len(teams) == 1 and one.aggregate is not None:
        sums = dict(zip(record.opened, record.sums, strict=True))
        if sums.get(teams[0]) != one.aggregate:
            one.lie(f"it opened {' '.join(record.sums)}, the entry names {one.aggregate}")


def _teams(one: _Sum, checked: Checked) -> tuple[int, ...]:
    """Numbers of the teams whose sums are in the aggregate; of one that was opened, that one."""
    opened, entry = checked.record.opened, one.entry
    chosen = chosen_in(one.history, entry.run, entry.round, entry.pub["attempt"])
    if chosen is None:
        if len(opened) > 1:
            one.lie(f"{len(opened)} teams were opened, and none was chosen in the log")
        return opened
    if chosen.pub["transcript"] != entry.pub["transcript"]:
        one.lie("teams were chosen by another transcript")
    return tuple(number for number in opened if number in chosen.pub["chosen"])


def _parties(one: _Sum, checked: Checked) -> list[str]:
    return [party for number in _teams(one, checked) for party in checked.survivors(number)]


def _check_rank(one: _Sum, checked: Checked, opened: list[OpenedSum]) -> None:
    """The rank rule over everything of the round that was opened before."""
    record = checked.record
    supports = tuple(checked.survivors(number) for number in record.opened)
    found = OpenedSum(round=record.round, attempt=record.attempt, supports=supports)
    try:
        release_guard(checked.terms)(opened, found)
    except IriaiError as error:
        one.lie(f"{error.code}: {error.found}")
    opened.append(found)


def _redo(one: _Sum, checked: Checked, vectors: Vectors, seen: Callable[[bytes], None]) -> bool:
    """Step 4; whether the sum was redone, whatever came of it. Its bytes are shown piece by piece."""
    teams, found = _teams(one, checked), dict[str, Any]()
    parties = [party for number in checked.record.opened for party in checked.survivors(number)]
    for party in parties:
        found[party] = vectors.get(checked.record.online[party].digest)
    if any(data is None for data in found.values()):
        return False
    apart = zip(checked.record.opened, checked.record.sums, strict=True)
    try:
        for number, said in apart if len(checked.record.opened) > 1 else ():
            _redo_team(one, checked, found, number, said)
        redone = transcript.recompute(checked, found, teams, seen=seen) if one.aggregate is not None else None
    except IriaiError as error:
        one.report.add("AUD-096", f"needs {error.need}; found {error.found}", index=one.index)
        return True
    if redone != one.aggregate:
        one.report.add("AUD-096", f"they give {redone}", index=one.index)
    return True


def _follow(one: _Sum, checked: Checked, opened: bytes, models: Models) -> None:
    """Gives the sum of a model to AUD-097, if it was redone."""
    if opened and digest(opened) == one.aggregate:
        models.take(one.index, opened, checked.terms.kappa(_parties(one, checked)))


def _redo_team(one: _Sum, checked: Checked, vectors: Vectors, number: int, said: str) -> None:
    """The sum of one opened team, and whether it was beyond the bound if that is why it was left out."""
    squares, entry, terms = _Squares(), one.entry, checked.terms
    chosen = chosen_in(one.history, entry.run, entry.round, entry.pub["attempt"])
    failed = chosen is not None and number in chosen.pub["failed"]
    look = squares.add if failed else (lambda _: None)
    found = transcript.recompute(checked, vectors, (number,), seen=look)
    if found != said:
        one.report.add("AUD-096", f"team {number}: they give {found}", index=one.index)
    norm = math.sqrt(squares.total) * terms.kappa(checked.survivors(number))
    if failed and norm <= float(terms.norm_max):
        evidence = f"team {number} left out for its norm, which is {norm:.6g}, at most {terms.norm_max}"
        one.report.add("AUD-096", evidence, index=one.index)


class _Squares:
    """Sum of the squares of ring values, which are signed."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, piece: bytes) -> None:
        self.total += sum(value * value for (value,) in struct.iter_unpack("<i", piece))
