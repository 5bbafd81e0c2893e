# SPDX-License-Identifier: Apache-2.0
"""Why a run ended before its last round, read from what the log and the rounds say; nothing is kept for it.

1. the contract had ended when the run was closed, or a party had left whose updates are in its model;
2. decisions that refused in the newest round that came to no model: the clauses;
3. the same members said no, attempt after attempt, and too few groups were left;
4. no model in as many attempts in a row as end a run: how many answered in the last one;
5. anything else is an error of the broker's own, or too few nodes that derive the same initial weights; the
   broker's output has the line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.contracts.lineage import trained
from broker.runs.verdicts import declined_of
from broker.store.tables import decision, log_entry, round_
from policies.contract.lifecycle import run_over
from policies.limits import LOST_ROUNDS_MAX, REFUSED_ATTEMPTS
from policies.log.entries import EntryType, check_entry
from policies.ports import iso_s

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.lifecycle import Life
    from policies.encoding import Json
    from policies.log.entries import Entry

__all__ = ["why_it_ended"]

_FINDINGS = 20


def why_it_ended(
    session: Session, row: RowMapping, *, contract: Contract, life: Life, rounds_wanted: int, whole: bool
) -> dict[str, Json] | None:
    """Why a run has fewer rounds than its recipe, or no candidate; None if it goes on, or has both.

    Args:
        session: Of the main database.
        row: Of the run.
        contract: Of the run.
        life: Of the contract.
        rounds_wanted: By the recipe.
        whole: Also what was found, which may be about one party: for operators.

    Returns:
        ``reason`` as a sentence, ``round``, ``clauses``, and ``findings`` with clause, check, need and found.
    """
    if row["outcome"] is None:
        return None
    ended = None
    if row["outcome"] == "stopped":
        ended = run_over(contract, life, _closed_at(session, row["run_id"]), trained(session, row["run_id"]))
    if ended is not None:
        return {"reason": ended[1], "round": None, "clauses": [ended[0]], "findings": []}
    if row["round"] >= rounds_wanted:
        return None
    number, refused = _refused(session, row["run_id"], after=row["round"])
    if refused:
        clauses = sorted({clause for one in refused for clause in one.pub["clauses"]})
        points = " and ".join(sorted({str(one.pub["point"]) for one in refused}))
        return {
            "reason": f"refused in round {number} by {', '.join(clauses)} (point {points})",
            "round": number,
            "clauses": clauses,
            "findings": _findings(session, refused) if whole else [],
        }
    return {"reason": _otherwise(session, row, whole=whole), "round": None, "clauses": [], "findings": []}


def _closed_at(session: Session, run_id: str) -> str:
    """When a run was closed, by its entry."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.RUN_CLOSED.value)
    return iso_s(session.scalar(select(log_entry.c.ts_ms).where(of)) or 0)


def _refused(session: Session, run_id: str, *, after: int) -> tuple[int | None, list[Entry]]:
    """The newest round without a model in which something was refused, and those decisions."""
    bodies = session.scalars(
        select(log_entry.c.body)
        .where(
            (log_entry.c.run == run_id)
            & (log_entry.c.round > after)
            & (log_entry.c.type == EntryType.DECISION_RECORDED.value)
        )
        .order_by(log_entry.c.idx.desc())
    )
    found: list[Entry] = []
    for body in bodies:
        entry = check_entry(body)
        if found and entry.round != found[0].round:
            break
        if entry.pub["outcome"] == "refuse":
            found.append(entry)
    return (found[0].round if found else None), found


def _findings(session: Session, refused: list[Entry]) -> list[Json]:
    """What the decisions refused for, once each; what is violated before what is not known."""
    names = [str(one.pub["decision"]) for one in refused]
    records = session.scalars(select(decision.c.bytes).where(decision.c.digest.in_(names)))
    shown: dict[tuple[str | bool, ...], Json] = {}
    for record in records:
        for one in json.loads(record)["findings"]:
            if one["outcome"] != "satisfied" and one["check"] != "unknown":
                kept = {name: str(one[name]) for name in ("clause", "check", "need", "found")}
                shown[(one["outcome"] != "violated", *kept.values())] = kept
    return [shown[key] for key in sorted(shown)][:_FINDINGS]


def _declined_again(verdicts: list[str]) -> frozenset[str]:
    """Members that said no in as many of the newest attempts as end a run."""
    newest = [declined_of(one) for one in verdicts[:REFUSED_ATTEMPTS]]
    return frozenset.intersection(*newest) if len(newest) == REFUSED_ATTEMPTS else frozenset()


def _otherwise(session: Session, row: RowMapping, *, whole: bool) -> str:
    last = session.execute(
        select(round_.c.model, round_.c.accepted, round_.c.refused, round_.c.verdicts)
        .where(round_.c.run_id == row["run_id"])
        .order_by(round_.c.round.desc(), round_.c.attempt.desc())
        .limit(LOST_ROUNDS_MAX)
    ).all()
    same = _declined_again([one.verdicts for one in last])
    if same:
        who = ", ".join(sorted(same)) if whole else f"{len(same)} of its members"
        return (
            f"{who} said no in {REFUSED_ATTEMPTS} attempts in a row, and too few groups were left; "
            f"in the last one {last[0].accepted} updates held; iriai-node guard explain says why at the node"
        )
    if len(last) == LOST_ROUNDS_MAX and all(one.model is None for one in last):
        return (
            f"{LOST_ROUNDS_MAX} attempts in a row came to no model; "
            f"in the last one {last[0].accepted} updates held and {last[0].refused} were refused"
        )
    if row["outcome"] == "failed":
        return "an error that no round shows: the line run.failed of the broker's own output names it"
    return "the plan has no step left"
