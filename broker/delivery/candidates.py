# SPDX-License-Identifier: Apache-2.0
"""What is said about a candidate at the gate: which clauses refused it, or what its open tiers wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.contracts.lineage import made_ms, versions
from broker.contracts.waiting import opens_ms, recorded
from broker.store.tables import log_entry, run
from policies.log.entries import EntryType, check_entry

if TYPE_CHECKING:
    from sqlalchemy import Row

    from broker.store import Session
    from policies.contract import Contract
    from policies.encoding import Json

__all__ = ["PRIVATE", "is_closed", "refused_by", "report_of", "waits_for"]

RELEASED: Final = "released"
WAITING: Final = "waiting"
PRIVATE: Final = "private"  # the tier that never leaves its owner


def refused_by(session: Session, row: Row[Any]) -> list[Json]:
    """Clauses by which the gate refused a candidate, in all tiers."""
    of = (log_entry.c.run == row.run_id) & (log_entry.c.type == EntryType.MODEL_REFUSED.value)
    clauses: set[str] = set()
    for body in session.scalars(select(log_entry.c.body).where(of)):
        entry = check_entry(body)
        if entry.pub["model"] == row.digest:
            decided = session.scalars(select(log_entry.c.body).where(log_entry.c.idx.in_(entry.refs)))
            clauses |= {clause for one in decided for clause in check_entry(one).pub["clauses"]}
    return sorted(clauses)


def report_of(session: Session, row: Row[Any]) -> str | None:
    """Digest of the report of a candidate's last evaluation, or None."""
    of = (log_entry.c.run == row.run_id) & (log_entry.c.type == EntryType.CANDIDATE_EVALUATED.value)
    bodies = session.scalars(select(log_entry.c.body).where(of).order_by(log_entry.c.idx.desc()))
    pubs = (check_entry(body).pub for body in bodies)
    return next((str(pub["report"]) for pub in pubs if pub["candidate"] == row.digest), None)


def waits_for(session: Session, contract: Contract, row: Row[Any]) -> dict[str, Json]:
    """What the open tiers of a candidate wait for, and when the clock may open one."""
    done = _decided(session, contract, row.digest)
    known = recorded(session, row.run_id, row.digest)
    still = {tier: one for tier, one in known.items() if tier not in done and one.findings}
    at_ms, clause = made_ms(session, row.run_id), contract.recipe(row.recipe_digest)
    times = [
        opens_ms(contract, tier, still[tier.tier].checks, made_ms=at_ms)
        for tier in contract.tiers
        if clause is not None and tier.recipe == clause.id and tier.tier in still
    ]
    shown = ("clause", "check", "need", "found")
    return {
        "waits_for": [
            {"tier": tier, **{name: found[name] for name in shown}}
            for tier, one in sorted(still.items())
            for found in one.findings
        ],
        "opens_ms": min((one for one in times if one is not None), default=None),
    }


def is_closed(session: Session, contract: Contract, run_id: str, name: str, state: str) -> bool:
    """Whether no vote can change anything any more: every tier is decided."""
    if state == RELEASED:
        recipe = session.scalar(select(run.c.recipe_digest).where(run.c.run_id == run_id))
        clause, done = contract.recipe(recipe), _decided(session, contract, name)
        own = {one.tier for one in contract.tiers if clause is not None and one.recipe == clause.id}
        return own - {PRIVATE} <= done
    return state != WAITING


def _decided(session: Session, contract: Contract, name: str) -> set[str]:
    """Tiers in which the gate decided about a candidate for good."""
    of = log_entry.c.scope.in_(versions(session, contract.digest)) & log_entry.c.type.in_(
        (EntryType.MODEL_RELEASED.value, EntryType.MODEL_REFUSED.value)
    )
    entries = [check_entry(body) for body in session.scalars(select(log_entry.c.body).where(of))]
    return {str(one.pub["tier"]) for one in entries if one.pub["model"] == name}
