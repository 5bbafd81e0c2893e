# SPDX-License-Identifier: Apache-2.0
"""Step 7, probes: which teams there are, what judges said of them, and whether the right ones make the model.

`expected_teams` is for the transcripts of sums: teams follow from nonces (AUD-095). `check_choice` makes the
broker's choice again (AUD-094). For each ``round.chosen``:

1. it is about the base model of its attempt, beside the model that was accepted last, and its transcript
   opened just these teams;
2. it refers to every judgement of the round that is about these models and sums, and to nothing else;
3. of the teams within the norm bound, those are chosen that the judges' gains come to
   (`policies.robustness.scores`); which teams are beyond it is seen in the sums themselves, so only where
   masked vectors are at hand (`policies.verify.sums`).

In a member's bundle the figures of others have no sender; the choice is not made again there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.robustness.scores import choice, gains_of
from policies.secagg.probes import probes_of
from policies.secagg.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.robustness.votes import Union
    from policies.secagg.contexts import Teams
    from policies.secagg.terms import Terms
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["accepted_by", "check_choice", "chosen_in", "expected_teams", "sums_of"]

_RULE = "AUD-094"


def expected_teams(
    contract: Contract, recipe: bytes, terms: Terms
) -> Callable[[int, Mapping[str, bytes]], list[Teams]] | None:
    """The teams that a round of a run may have, from its members' nonces; None: one, everybody."""
    probes = probes_of(contract, recipe, terms)
    if probes is None:
        return None
    return lambda number, reveals: [probes.teams(number, reveals) or (tuple(reveals),)]


def accepted_by(entry: Entry) -> bool | None:
    """Whether a verdict or a choice says that a model stands; None if nobody was asked."""
    if entry.type is EntryType.ROUND_JUDGED:
        return bool(entry.pub["verdict"] == "accepted")
    return None if entry.pub["failed"] == entry.pub["opened"] else bool(entry.pub["chosen"])


def chosen_in(history: History, run: str | None, number: int | None, attempt: int) -> Entry | None:
    """The choice of an attempt, if it was a probe's."""
    for _, entry in history.of(EntryType.ROUND_CHOSEN):
        if (entry.run, entry.round, entry.pub["attempt"]) == (run, number, attempt):
            return entry
    return None


def sums_of(history: History, transcript: str) -> dict[int, str]:
    """Team → digest of its opened sum, by a transcript of the bundle; empty if there is none."""
    data = history.files.get("transcripts/" + transcript.removeprefix("sha256:"), b"")
    try:
        record = Record.from_bytes(data)
    except IriaiError:
        return {}
    return dict(zip(record.opened, record.sums, strict=True))


def check_choice(
    history: History, report: Report, index: int, entry: Entry, *, against: str, plan: Mapping[str, Any]
) -> None:
    """Checks 1 to 3.

    Args:
        history: Read and with senders.
        report: Takes the findings.
        index: Of the ``round.chosen``.
        entry: It.
        against: Model that was accepted last.
        plan: Document of the plan of votes.
    """
    pub, lie = entry.pub, _liar(report, index)
    attempt = history.attempts()[(entry.run, entry.round, pub["attempt"])]
    base = None if attempt.opened is None else history.entries[attempt.opened].pub["base_model"]
    if (pub["base"], pub["against"]) != (base, against):  # 1.
        lie("not about the attempt's model beside the accepted one")
    if not set(pub["failed"]) | set(pub["chosen"]) <= set(pub["opened"]) or set(pub["failed"]) & set(
        pub["chosen"]
    ):
        lie("a team that was not opened, or one that failed and was chosen")
        return
    if history.grade != "auditor":
        report.not_checked(f"{_RULE}: judgements of teams by other members (this is a member's bundle)")
        return
    sums = sums_of(history, pub["transcript"])
    if sums and sorted(sums) != sorted(pub["opened"]):
        lie("its transcript opened other teams")
    within = [one for one in sorted(sums) if one not in pub["failed"]]
    said = _judgements(history, index, entry, [sums[one] for one in within])  # 2.
    if sorted(entry.refs) != sorted(said) or pub["judges"] != len(said):
        lie(f"{pub['judges']} judgements said, {len(said)} counted")
    contract = history.contracts.get(entry.scope or "")
    if contract is None or not sums:
        return
    found: Union = frozenset()
    if within:
        found = choice(
            dict(said.values()),
            teams=len(within),
            groups={one.party: one.group for one in contract.contributors},
            plan=plan,
            least=contract.aggregation.min_parties,
        )
    counted = [within[one] for one in sorted(found)]
    if list(pub["chosen"]) != counted:  # 3.
        lie(f"teams {pub['chosen']} said, {counted} counted")


def _judgements(
    history: History, before: int, chosen: Entry, sums: Sequence[str]
) -> dict[int, tuple[str, Mapping[Union, int]]]:
    """Judgements about these sums: entry → party and figures."""
    contract = history.contracts.get(chosen.scope or "")
    judges = set() if contract is None else {one.party for one in contract.contributors}
    about = chosen.pub["base"], chosen.pub["against"], list(sums)
    found: dict[int, tuple[str, Mapping[Union, int]]] = {}
    for at, entry in history.of(EntryType.ROUND_SCORED):
        party, gains = history.sender_party(at), gains_of(history.stated(at).get("gains"), len(sums))
        named = entry.pub["base"], entry.pub["against"], list(entry.pub["sums"])
        here = (entry.run, entry.round) == (chosen.run, chosen.round) and at < before
        if here and named == about and gains is not None and party in judges:
            found[at] = str(party), gains
    return found


def _liar(report: Report, index: int) -> Callable[[str], None]:
    return lambda evidence: report.add(_RULE, evidence, index=index)
