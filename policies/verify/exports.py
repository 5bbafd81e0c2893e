# SPDX-License-Identifier: Apache-2.0
"""Step 10, deliveries: the recipient's tier and the embargo allow each. AUD-074.

AUD-059 takes the decision behind a delivery again, on the facts that the broker told; this rule takes the
facts from the log alone, for each ``model.exported``:

1. the contract has the tier for the recipe of the run;
2. the recipient is a party of the contract that the tier serves: ``consortium`` every contributor,
   ``participant`` who has a data set in the recipe, ``open`` everybody, ``private`` nobody;
3. ``embargo_days`` have passed since the run's last aggregate before the release (minutes are shown, so the
   minute of the end counts as passed).

Not looked at: a least share of the contributions, which no entry shows.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from policies.log.entries import EntryType

if TYPE_CHECKING:
    from policies.contract.clauses import Contract, TierClause
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_exports"]


def check_exports(history: History, report: Report) -> None:
    """AUD-074."""
    made: dict[str | None, list[int]] = defaultdict(list)
    for index, entry in history.of(EntryType.AGGREGATE_RELEASED):
        made[entry.run].append(index)
    released: dict[tuple[str | None, str, str], int] = {}
    for index, entry in history.of(EntryType.MODEL_RELEASED, EntryType.MODEL_EXPORTED):
        subject = (entry.run, entry.pub["model"], entry.pub["tier"])
        if entry.type is EntryType.MODEL_RELEASED:
            released.setdefault(subject, index)
            continue
        contract = history.contracts.get(entry.scope or "")
        if contract is None or contract.recipe(history.recipe_of(entry.run)) is None:
            continue  # AUD-050 and AUD-051 name it
        clause = _tier(history, entry, contract)
        if clause is None:  # 1.
            report.add("AUD-074", f"the contract has no tier {entry.pub['tier']} for it", index=index)
            continue
        _check_recipient(history, index, entry, clause, report)  # 2.
        aggregates = made[entry.run]
        before = bisect_left(aggregates, released.get(subject, index))
        if before:
            _check_embargo(history.entries[aggregates[before - 1]], index, entry, clause, report=report)  # 3.


def _tier(history: History, entry: Entry, contract: Contract) -> TierClause | None:
    recipe = contract.recipe(history.recipe_of(entry.run))
    if recipe is None:
        return None
    fitting = (one for one in contract.tiers if (one.tier, one.recipe) == (entry.pub["tier"], recipe.id))
    return next(fitting, None)


def _check_recipient(history: History, index: int, entry: Entry, clause: TierClause, report: Report) -> None:
    contract = history.contracts[entry.scope or ""]
    recipe = contract.recipe(history.recipe_of(entry.run))
    org = history.org_of(entry.pub["recipient"], entry)
    if org is None:
        if history.grade == "auditor":
            report.add("AUD-074", f"recipient {entry.pub['recipient']} is nobody of this log", index=index)
        return
    party = history.party(entry.scope, org)
    name = None if party is None else party.party
    tiers: dict[str, set[str | None]] = {
        "consortium": {one.party for one in contract.contributors},
        "participant": set(() if recipe is None else recipe.participants),
        "open": {name},
        "private": set(),
    }
    if name not in tiers[clause.tier]:
        report.add("AUD-074", f"tier {clause.tier} does not serve {name or org}", index=index)
    if clause.min_contribution is not None:
        report.not_checked("AUD-074: least shares of the contributions, which no entry shows")


def _check_embargo(made: Entry, index: int, entry: Entry, clause: TierClause, *, report: Report) -> None:
    if clause.embargo_days is None:
        return
    end = dt.datetime.fromisoformat(made.ts) + dt.timedelta(days=clause.embargo_days)
    if dt.datetime.fromisoformat(entry.ts) < end:
        report.add(
            "AUD-074",
            f"delivered at {entry.ts}; made at {made.ts}, embargo {clause.embargo_days} days",
            index=index,
        )
