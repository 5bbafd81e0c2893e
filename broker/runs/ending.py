# SPDX-License-Identifier: Apache-2.0
"""Why a run ended before its last round, read from what the log and the rounds say.

1. the contract had ended when the run was closed, or a party had left whose updates are in its model;
2. an operator stopped it;
3. what it failed of, as its row keeps it: too few nodes that begin with the same weights, an error of the
   broker's own;
4. decisions that refused in the newest round that came to no model: the clauses;
5. members said no, for good or for too long, and too few groups were left: who, and by which code;
6. no model in as many attempts in a row as end a run: how many answered in the last one;
7. the plan has no step left.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.lineage import trained
from broker.runs.incidents import incidents_of
from broker.runs.remedies import remedy_of
from broker.runs.verdicts import counts_of, pause_between, who_said
from broker.store.tables import decision, log_entry, round_
from policies.contract.errors import RefusedError
from policies.contract.findings import HOUR_MS
from policies.contract.lifecycle import run_over
from policies.contract.render import remedy_text
from policies.limits import LOST_ROUNDS_MAX
from policies.log.entries import EntryType, check_entry
from policies.ports import iso_s
from policies.privacy.errors import BudgetExhaustedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping

    from broker.runs.verdicts import Pause
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.lifecycle import Life
    from policies.encoding import Json
    from policies.log.entries import Entry

__all__ = ["EPSILON_CHECKS", "why_it_ended"]

EPSILON_CHECKS: Final = frozenset({"epsilon-release", "epsilon-total"})
"""Checks of the evaluator about a budget."""

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
        ``reason`` as a sentence, ``code`` and ``remedy`` (None where there is none), ``round``, ``clauses``,
        and ``findings`` with clause, check, need, found and remedy.
    """
    run_id, over = row["run_id"], None
    if row["outcome"] == "stopped":
        over = run_over(contract, life, _closed_at(session, run_id), trained(session, run_id))
    if over is not None:
        remedy = "train again without it, or go on under a new contract"
        return _ended(over[1], code=RefusedError.code, clauses=(over[0],), remedy=remedy)
    if row["outcome"] is None or row["round"] >= rounds_wanted:
        return None
    return _why(session, row, contract=contract, whole=whole)


def _why(session: Session, row: RowMapping, *, contract: Contract, whole: bool) -> dict[str, Json]:
    """Why it ended early, though its contract went on."""
    if row["stop_ms"] is not None:
        return _ended(f"an operator stopped it after round {row['round']}")
    if row["error"] is not None:
        return _failed(json.loads(row["error"]), whole=whole)
    number, refused = _refused(session, row["run_id"], after=row["round"])
    if refused:
        return _by_clauses(session, number, refused, whole=whole)
    return _otherwise(session, row, contract=contract, whole=whole)


def _ended(
    reason: str,
    *,
    code: str | None = None,
    remedy: str | None = None,
    number: int | None = None,
    clauses: Sequence[str] = (),
    findings: Sequence[Json] = (),
) -> dict[str, Json]:
    return {
        "reason": reason,
        "code": code,
        "remedy": remedy,
        "round": number,
        "clauses": list(clauses),
        "findings": list(findings),
    }


def _failed(error: dict[str, str], *, whole: bool) -> dict[str, Json]:
    """What it failed of; who said what is for operators."""
    if not whole:
        return _ended("it failed; the operator knows of what", code=error["code"])
    reason = f"needs {error['need']}; found {error['found']}"
    clauses = [error["clause"]] if error["clause"] else []
    return _ended(reason, code=error["code"], remedy=error["remedy"], clauses=clauses)


def _by_clauses(
    session: Session, number: int | None, refused: list[Entry], *, whole: bool
) -> dict[str, Json]:
    """Decisions that refused; a spent budget has its own code."""
    clauses = sorted({clause for one in refused for clause in one.pub["clauses"]})
    points = " and ".join(sorted({str(one.pub["point"]) for one in refused}))
    found = _findings(session, refused)
    spent = any(one["check"] in EPSILON_CHECKS for one in found)
    return _ended(
        f"refused in round {number} by {', '.join(clauses)} (point {points})",
        code=BudgetExhaustedError.code if spent else RefusedError.code,
        remedy="; ".join(dict.fromkeys(one["remedy"] for one in found)) or None,
        number=number,
        clauses=clauses,
        findings=list(found) if whole else (),
    )


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


def _findings(session: Session, refused: list[Entry]) -> list[dict[str, str]]:
    """What the decisions refused for, once each; what is violated before what is not known."""
    names = [str(one.pub["decision"]) for one in refused]
    records = session.scalars(select(decision.c.bytes).where(decision.c.digest.in_(names)))
    shown: dict[tuple[str | bool, ...], dict[str, str]] = {}
    for record in records:
        for one in json.loads(record)["findings"]:
            if one["outcome"] != "satisfied" and one["check"] != "unknown":
                kept = {name: str(one[name]) for name in ("clause", "check", "need", "found")}
                kept["remedy"] = remedy_text(str(one["remedy"]))
                shown[(one["outcome"] != "violated", *kept.values())] = kept
    return [shown[key] for key in sorted(shown)][:_FINDINGS]


def _otherwise(session: Session, row: RowMapping, *, contract: Contract, whole: bool) -> dict[str, Json]:
    last = (
        session.execute(
            select(round_).where(round_.c.run_id == row["run_id"]).order_by(round_.c.round, round_.c.attempt)
        )
        .mappings()
        .all()
    )
    pause = pause_between(contract, row["recipe_digest"], [one.party for one in contract.contributors], last)
    if pause is not None:
        return _declined(pause, last[-1], whole=whole)
    lost = [one for one in last if one["round"] > row["round"]]
    if len({one["round"] for one in lost}) >= LOST_ROUNDS_MAX:
        counts = counts_of(lost[-1])
        return _ended(
            f"{LOST_ROUNDS_MAX} rounds in a row came to no model; in the last attempt {counts['unused']} "
            f"updates held, {counts['refused']} were refused and {counts['silent']} members were silent",
            remedy="round.closed in the log says who was silent",
        )
    if row["outcome"] == "failed":
        return _ended("an error that no round shows: the line run.failed of the broker's own output names it")
    if incidents_of(session, row["run_id"]):
        return _ended("members are out of the run by incidents, and too few groups are left")
    return _ended("the plan has no step left", remedy="open a run of a recipe whose plan has more steps")


def _declined(pause: Pause, last: RowMapping, *, whole: bool) -> dict[str, Json]:
    """Members said no, for good or for too long."""
    who = who_said(pause.codes) if whole else f"{len(pause.codes)} of its members"
    hours = (last["at_ms"] - pause.since_ms) // HOUR_MS
    long = f" over {hours} hours" if hours else ""
    counts = counts_of(last)
    return _ended(
        f"{who} said no in round {pause.round}, asked {pause.times} times{long}, and too few groups were "
        f"left ({counts['unused']} updates held, {counts['unasked']} members were not asked)",
        code="run.declined",
        remedy=remedy_of(pause.codes.values(), last["run_id"]) if whole else None,
        number=pause.round,
    )
