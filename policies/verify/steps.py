# SPDX-License-Identifier: Apache-2.0
"""AUD-079: the step receipt of every update that is in a model, beside the plan and the spends in the log.

An update that is sent again in a later attempt has the ledger that it was trained under: the heads before are
those of other rounds and of attempts before the one that it names.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.privacy.errors import AuditFailedError
from policies.privacy.receipts import check_receipt

if TYPE_CHECKING:
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["check_steps", "used_submissions"]

Json = Any
_Maker = tuple[str, str | None]  # organisation and run
_Slot = tuple[int | None, int]  # round and attempt


def used_submissions(history: History) -> list[int]:
    """Indexes of submissions that an aggregate refers to, in order."""
    return sorted(
        {
            ref
            for _, one in history.of(EntryType.AGGREGATE_RELEASED)
            for ref in one.refs
            if ref in history.senders and history.entries[ref].type is EntryType.SUBMISSION_RECEIVED
        }
    )


def check_steps(history: History, report: Report) -> None:
    """Counts each organisation's steps in a run, entry by entry, and looks at its receipts."""
    used = set(used_submissions(history))
    steps: dict[_Maker, int] = defaultdict(int)
    heads: dict[_Maker, list[tuple[_Slot, str]]] = defaultdict(list)
    for index, entry in history.of(EntryType.EPSILON_SPENT, EntryType.SUBMISSION_RECEIVED):
        sender = history.senders.get(index)
        if sender is None:
            continue
        maker, body = (sender.org, entry.run), sender.payload["body"]
        if entry.type is EntryType.EPSILON_SPENT:
            steps[maker] += 0 if "/eval/" in body["mechanism"] else body["steps"]
            continue
        receipt, plan = body.get("receipt"), history.plan_of(history.recipe_of(entry.run))
        if plan is not None and index in used:
            trained = body.get("trained") or body["attempt"]
            same = {(entry.round, one) for one in range(trained, body["attempt"])}
            before = [head for slot, head in heads[maker] if slot not in same]
            wrong = _wrong(receipt, plan, steps=steps[maker], heads=before)
            if wrong is not None:
                report.add("AUD-079", wrong, index=index)
        if receipt is not None:
            heads[maker].append(((entry.round, body["attempt"]), receipt["ledger_head"]))


def _wrong(receipt: Json, plan: Json, *, steps: int, heads: list[str]) -> str | None:
    try:
        check_receipt(receipt, plan_steps=int(plan["steps"]), steps=steps, heads=heads)
    except AuditFailedError as error:
        return f"needs {error.need}; found {error.found}"
    except (KeyError, TypeError, ValueError):
        return None  # the plan does not parse: AUD-062 says so
    return None
