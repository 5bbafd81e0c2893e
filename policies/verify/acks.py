# SPDX-License-Identifier: Apache-2.0
"""Step 7, what members say of closed rounds, and chains that began anew. AUD-055 and AUD-047.

A node that was told of a closed round signs what it was told: the entry's index, its leaf hash, and how many
submissions of its own were counted. So a broker that told one member another history of a round than it
logged has signed, or lacks a signature.

1. ``closed`` is an entry before it, a ``round.closed`` of the same contract, run and round;
2. ``leaf`` is ``sha256:`` and the hex of that entry's leaf hash;
3. ``count`` is what that entry says was received of its sender;
4. whoever acknowledges a round has acknowledged every earlier one of the run that lists it as received: an
   acknowledgement that is missing between two others was left out, or never sent.

That nobody acknowledged, or not the last rounds of a run, is named and no finding: a node that went away says
nothing, and an envelope that was left out breaks its chain (AUD-043).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from policies.log.entries import EntryType
from policies.verify.ledger import CODES, SIGNED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_acks", "check_resets", "finish_acks"]

_Acked = dict[tuple[str | None, str], set[int]]
"""Run and organisation -> indexes of the closed rounds that it acknowledged."""


def check_acks(history: History, report: Report) -> None:
    """AUD-055."""
    acked: _Acked = defaultdict(set)
    for index, entry in history.of(EntryType.ROUND_ACK):
        closed = _closed(history, index, entry, report)  # 1.
        if closed is None:
            continue
        if entry.pub["leaf"] != "sha256:" + history.tree.leaf(entry.pub["closed"]).hex():  # 2.
            report.add("AUD-055", f"entry {entry.pub['closed']} has another leaf hash", index=index)
        sender = history.senders.get(index)
        if sender is not None:
            _check_count(index, entry, closed, report)  # 3.
            acked[entry.run, sender.org].add(entry.pub["closed"])
    if history.grade == "auditor":
        _check_missing(history, acked, report)  # 4.


def _closed(history: History, index: int, entry: Entry, report: Report) -> Entry | None:
    """The entry that an acknowledgement is about; None after a finding."""
    at = entry.pub["closed"]
    closed = history.entries.get(at) if at < index else None
    place = (entry.scope, entry.run, entry.round)
    if (
        closed is None
        or closed.type is not EntryType.ROUND_CLOSED
        or (closed.scope, closed.run, closed.round) != place
    ):
        report.add("AUD-055", f"entry {at} is no round.closed of this round before it", index=index)
        return None
    return closed


def _check_count(index: int, entry: Entry, closed: Entry, report: Report) -> None:
    told: Mapping[str, int] = closed.pub["parties"].get(entry.actor, {"received": 0})
    if entry.pub["count"] != told["received"]:
        report.add(
            "AUD-055",
            f"it counted {entry.pub['count']} of its own, the round was closed with {told['received']}",
            index=index,
        )


def _check_missing(history: History, acked: _Acked, report: Report) -> None:
    newest = {place: max(found) for place, found in acked.items()}
    silent = 0
    for index, closed in history.of(EntryType.ROUND_CLOSED):
        heard = [name for name, one in closed.pub["parties"].items() if one["received"]]
        orgs = [org for name in heard if (org := history.org_of(name, closed)) is not None]
        for org in sorted(orgs):
            place = (closed.run, org)
            if index in acked.get(place, ()):
                continue
            if index < newest.get(place, -1):
                report.add("AUD-055", f"no round.ack of {org}, which acknowledged later ones", index=index)
            else:
                silent += 1
    report.tallies["acks.silent"] += silent


def finish_acks(report: Report) -> None:
    """What is told of all runs together."""
    silent = report.tallies["acks.silent"]
    if silent:
        report.not_checked(
            f"AUD-055: {silent} times a member did not sign that it heard how a round was closed. Normal"
            " where it left before, or its software does not sign this yet; else ask it to compare the counts"
            " of round.closed with its own"
        )


def check_resets(history: History, report: Report) -> None:
    """AUD-047: every new chain of a node that lost its old one, and what it says of that one."""
    last: dict[str, tuple[str, int]] = {}  # chain -> organisation, newest number
    if not any(True for _ in history.of(EntryType.CHAIN_RESET)):
        return
    for index, row in history.ledger.rows():
        maker = history.senders.maker(index) if row.flags & SIGNED else None
        if maker is None:
            continue
        if row.code == CODES[EntryType.CHAIN_RESET]:
            body = history.senders[index].payload["body"]
            old, said = body["old_chain"], body["last_seq"]
            org, newest = last.get(old, ("", -1))
            known = "the log has none of it" if org != maker.org else f"the log has it up to {newest}"
            why = body["reason"]
            report.add("AUD-047", f"{maker.org}: {why}; chain {old} ended at {said}, {known}", index=index)
        chain = row.chain.hex()
        last[chain] = (maker.org, max(row.seq, last.get(chain, ("", -1))[1]))
