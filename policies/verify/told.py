# SPDX-License-Identifier: Apache-2.0
"""AUD-098: whether members saw the sums that the log has.

Under ``group_mac: on`` the broker shows members the newest opened sum, whose tag they check. The next update
of each names that sum, signed (``checked`` of ``submission.received``): round, attempt, digest (of a probe,
of each opened team). If the transcript in the log opened another one, the broker showed one sum and logged
another: one honest member is enough. That the entry is about what its transcript opened is AUD-095.

- Only updates that the broker accepted count. It accepts none that names another sum than it showed: so no
  member makes a broker look like a liar. What refused updates name is told apart.
- The last sum of a run is in nobody's next update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.entries import EntryType
from policies.log.schema import CHECKED_SUM
from policies.verify.probes import sums_of

if TYPE_CHECKING:
    from policies.verify.history import AttemptKey, History
    from policies.verify.report import Report

__all__ = ["check_told", "finish_told"]

_RULE = "AUD-098"


def check_told(history: History, report: Report) -> None:
    """Compares what members checked with what was logged."""
    sums = _sums(history)
    accepted = {entry.refs[0] for _, entry in history.of(EntryType.CONTRIBUTION_ACCEPTED) if entry.refs}
    named: set[AttemptKey] = set()
    refused: set[str] = set()
    for index, entry in history.of(EntryType.SUBMISSION_RECEIVED):
        told = history.stated(index).get("checked")
        if not CHECKED_SUM.holds(told) or told is None:
            continue
        place = entry.run, told["round"], told["attempt"]
        if place not in sums:
            continue
        at, logged = sums[place]
        party = str(history.sender_party(index))
        if told["sums"] == logged:
            named.add(place)
        elif index in accepted:
            said = f"{party} was shown {' '.join(told['sums'])} ({index}), the log has {' '.join(logged)}"
            report.add(_RULE, said, index=at)
        else:
            refused.add(party)
    if refused:
        report.not_checked(f"{_RULE}: other sums in refused updates of {' '.join(sorted(refused))}; ask them")
    report.tallies["told.sums"] += len(sums)
    report.tallies["told.named"] += len(named)


def finish_told(report: Report) -> None:
    """What is told of all runs together."""
    sums, named = report.tallies["told.sums"], report.tallies["told.named"]
    if named < sums:
        report.not_checked(f"{_RULE}: {sums - named} of {sums} sums, which no member's next update names")


def _sums(history: History) -> dict[AttemptKey, tuple[int, list[str]]]:
    """Attempt → index of the entry with its transcript, and digests of the sums that this opened."""
    found: dict[AttemptKey, tuple[int, list[str]]] = {}
    for index, entry in history.of(EntryType.AGGREGATE_RELEASED, EntryType.ROUND_CHOSEN):
        opened = sums_of(history, entry.pub["transcript"] or "")
        if opened:
            found[entry.run, entry.round, entry.pub["attempt"]] = index, list(opened.values())
    return found
