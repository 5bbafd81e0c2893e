# SPDX-License-Identifier: Apache-2.0
"""AUD-061: behind every private update in an aggregate stands one spend of its maker, and it serves once.

Under secure aggregation a round has a second attempt with the *same* update: its noise is the same, so
nothing more is told about any unit, and nothing more is spent. Its submission names the attempt that was paid
(`trained`). Such a step is charged once: the spend is the member's own, of an earlier attempt of this round,
logged before; no spend of the later attempt stands beside it; and no spend serves two aggregates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.entries import EntryType
from policies.verify.spends import read_spends

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report
    from policies.verify.spends import Spend

__all__ = ["check_payments"]


def check_payments(history: History, report: Report) -> None:
    """AUD-061: behind every private submission in an aggregate stands its spend, in the aggregate's refs."""
    if history.grade != "auditor":
        report.not_checked("AUD-061: spends of other members (this is a member's bundle)")
        return
    book = _Book(read_spends(history))
    for index, entry in history.of(EntryType.AGGREGATE_RELEASED):
        for ref in entry.refs:
            submission, sender = history.entries.get(ref), history.senders.get(ref)
            if submission is None or submission.type is not EntryType.SUBMISSION_RECEIVED or sender is None:
                continue
            if submission.pub["plan"] is not None:
                wrong = _unpaid(history, book, sender.org, index=index, ref=ref)
                if wrong is not None:
                    report.add("AUD-061", wrong, index=index)


class _Book:
    """Spends by their index and by whose they are, and which aggregate each of them served."""

    def __init__(self, spends: list[Spend]) -> None:
        self.by_index = {one.index: one for one in spends}
        self.runs = {(one.org, one.mechanism) for one in spends}
        self.served: dict[int, int] = {}


def _unpaid(history: History, book: _Book, org: str, *, index: int, ref: int) -> str | None:
    """What is wrong with the payment for a submission in an aggregate; None if it was paid once."""
    entry, submission = history.entries[index], history.entries[ref]
    attempt, trained = entry.pub["attempt"], history.stated(ref).get("trained")
    contract = history.contracts.get(entry.scope or "")
    summed = contract is not None and contract.aggregation.secure_aggregation == "required"
    if trained is not None and not (summed and 0 < trained < attempt):
        return f"the submission at {ref} names attempt {trained}, from which nothing is sent again"
    mechanism = f"{entry.run}/{entry.round}/{trained or attempt}"
    paid = [
        one
        for one in (book.by_index[at] for at in entry.refs if at in book.by_index)
        if (one.org, one.mechanism, one.plan) == (org, mechanism, submission.pub["plan"])
        and one.steps >= submission.pub["steps"]
        and (trained is None or one.index < ref)
    ]
    if not paid:
        return f"no spend for the submission at {ref}"
    if trained is not None and (org, f"{entry.run}/{entry.round}/{attempt}") in book.runs:
        return f"two spends for the submission at {ref}, which was trained once"
    first = book.served.setdefault(paid[0].index, index)
    return None if first == index else f"the spend at {paid[0].index} served the aggregate at {first} already"
