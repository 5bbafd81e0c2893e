# SPDX-License-Identifier: Apache-2.0
"""AUD-077: canaries are committed to before the first update, and revealed as committed before a release."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.privacy.canaries import CanarySecret, check_reveal, per_party
from policies.verify.steps import used_submissions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["Canaries", "asked_of", "check_canaries", "trained_orgs"]

_Maker = tuple[str, str | None]  # organisation and run


@dataclass(frozen=True, slots=True)
class Canaries:
    """What the log shows, by organisation and run.

    Attributes:
        committed: Index of the commitment.
        revealed: Index of the reveal, and the secret, which is the committed one.
    """

    committed: Mapping[_Maker, int] = field(default_factory=dict)
    revealed: Mapping[_Maker, tuple[int, CanarySecret]] = field(default_factory=dict)


def asked_of(contract: Contract | None) -> int:
    """How many canaries a contract asks of each party."""
    if contract is None:
        return 0
    return per_party(contract.release.evidence, contract.aggregation.min_parties)


def check_canaries(history: History, report: Report) -> Canaries:
    """Commitments, reveals, their order beside updates, and releases that lack a reveal."""
    if not any(asked_of(one) for one in history.contracts.values()):
        return Canaries()
    if history.grade != "auditor":
        report.not_checked("AUD-077, 078: canaries of other members (this is a member's bundle)")
        return Canaries()
    committed = _committed(history, report)
    canaries = Canaries(committed, _revealed(history, committed, report))
    _check_order(history, canaries, report)
    for index, entry in history.of(EntryType.MODEL_RELEASED):
        _check_release(history, index, entry, canaries, report)
    return canaries


def trained_orgs(history: History, run: str | None, before: int) -> list[str]:
    """Organisations whose update is in an aggregate of a run."""
    return sorted(
        {
            history.senders[at].org
            for at in used_submissions(history)
            if at < before and history.entries[at].run == run
        }
    )


def _committed(history: History, report: Report) -> dict[_Maker, int]:
    found: dict[_Maker, int] = {}
    for index, entry in history.of(EntryType.CANARY_COMMITTED):
        if index in history.senders:
            maker = history.senders[index].org, entry.run
            if found.setdefault(maker, index) != index:
                report.add("AUD-077", f"a second commitment, after {found[maker]}", index=index)
    return found


def _revealed(
    history: History, committed: Mapping[_Maker, int], report: Report
) -> dict[_Maker, tuple[int, CanarySecret]]:
    found: dict[_Maker, tuple[int, CanarySecret]] = {}
    for index, entry in history.of(EntryType.CANARY_REVEALED):
        if index not in history.senders:
            continue
        maker = history.senders[index].org, entry.run
        at = committed.get(maker, index)
        if at >= index:
            report.add("AUD-077", "revealed without a commitment before it", index=index)
            continue
        before = history.entries[at]
        try:
            secret = check_reveal(
                run=entry.run or "",
                body=history.senders[index].payload["body"],
                commitment=before.pub["commitment"],
                count=asked_of(history.contracts.get(before.scope or "")),
            )
        except IriaiError as error:
            report.add("AUD-077", f"needs {error.need}; found {error.found}", index=index)
            continue
        found.setdefault(maker, (index, secret))
    return found


def _check_order(history: History, canaries: Canaries, report: Report) -> None:
    """Each update that counts came after its commitment and before its reveal."""
    for index in used_submissions(history):
        entry = history.entries[index]
        if not asked_of(history.contracts.get(entry.scope or "")):
            continue
        maker = history.senders[index].org, entry.run
        if canaries.committed.get(maker, index) >= index:
            report.add("AUD-077", "an update without a commitment to canaries before it", index=index)
        if maker in canaries.revealed and canaries.revealed[maker][0] < index:
            report.add("AUD-077", "an update after the canaries of its run were revealed", index=index)


def _check_release(history: History, index: int, entry: Entry, canaries: Canaries, report: Report) -> None:
    if not asked_of(history.contracts.get(entry.scope or "")):
        return
    silent = [
        org
        for org in trained_orgs(history, entry.run, index)
        if canaries.revealed.get((org, entry.run), (index, None))[0] >= index
    ]
    if silent:
        report.add("AUD-077", f"released without the reveals of {len(silent)} parties", index=index)
