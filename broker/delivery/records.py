# SPDX-License-Identifier: Apache-2.0
"""What the log and the rows have of one candidate: its tests, votes, tiers, and packages that were given out.

Read by the index of its run. Who downloaded is read from the newest exports of its contract, a bounded
number of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.store.tables import candidate, log_entry, model, release, run, statement
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.store import Session

__all__ = ["Cast", "Exported", "Tested", "exports_of", "find_candidate", "tests_of", "tiers_of", "votes_of"]

_EXPORTS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """A vote as the log has it; the last one of a party counts."""

    index: int
    actor: str
    scope: str
    vote: str
    clause: str | None
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """An evaluation of a candidate: each check with its outcome, and the report behind it."""

    index: int
    at_ms: int
    checks: dict[str, str]
    report: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A package that was given out, to a name of the log."""

    index: int
    recipient: str
    scope: str
    tier: str
    at_ms: int


def find_candidate(session: Session, digest: str) -> Any:  # noqa: ANN401  a row, or None
    """The candidate of a digest, with its run; None if there is none."""
    return session.execute(
        select(
            candidate.c.digest,
            candidate.c.state,
            run.c.run_id,
            run.c.contract,
            run.c.recipe_digest,
            run.c.recipe_id,
            run.c.opened_ms,
            model.c.round,
        )
        .join(run, run.c.run_id == candidate.c.run_id)
        .outerjoin(model, model.c.digest == candidate.c.digest)
        .where(candidate.c.digest == digest)
    ).first()


def votes_of(session: Session, run_id: str, digest: str) -> tuple[Cast, ...]:
    """Every vote on a candidate in its run, oldest first."""
    return tuple(
        Cast(
            index=row.idx,
            actor=row.actor,
            scope=row.scope,
            vote=str(pub["vote"]),
            clause=pub["clause"],
            at_ms=row.ts_ms,
        )
        for row, pub in _of_run(session, run_id, EntryType.VOTE_CAST)
        if pub["subject"] == digest
    )


def tests_of(session: Session, run_id: str, digest: str) -> tuple[Tested, ...]:
    """Every evaluation of a candidate, oldest first."""
    found = [
        (row, pub)
        for row, pub in _of_run(session, run_id, EntryType.CANDIDATE_EVALUATED)
        if pub["candidate"] == digest
    ]
    names = [pub["report"] for _, pub in found]
    kept = session.execute(select(statement.c.digest, statement.c.bytes).where(statement.c.digest.in_(names)))
    documents = {row.digest: json.loads(row.bytes) for row in kept}
    return tuple(
        Tested(
            index=row.idx,
            at_ms=row.ts_ms,
            checks=dict(pub["checks"]),
            report=str(pub["report"]),
            document=documents.get(pub["report"], {}),
        )
        for row, pub in found
    )


def tiers_of(session: Session, digest: str) -> Sequence[Any]:
    """Rows of the tiers that a model was released in."""
    rows = session.execute(select(release).where(release.c.model == digest).order_by(release.c.tier))
    return rows.all()


def exports_of(session: Session, scopes: Sequence[str], digest: str, *, most: int) -> tuple[Exported, ...]:
    """The newest packages of a model that were given out, newest first."""
    kind = log_entry.c.type == EntryType.MODEL_EXPORTED.value
    columns = (log_entry.c.idx, log_entry.c.scope, log_entry.c.ts_ms, log_entry.c.body)
    query = select(*columns).where(kind & log_entry.c.scope.in_(scopes)).order_by(log_entry.c.idx.desc())
    found: list[Exported] = []
    for row in session.execute(query.limit(_EXPORTS)):
        pub = json.loads(row.body)["pub"]
        if pub["model"] == digest and len(found) < most:
            found.append(
                Exported(
                    index=row.idx,
                    recipient=str(pub["recipient"]),
                    scope=row.scope,
                    tier=str(pub["tier"]),
                    at_ms=row.ts_ms,
                )
            )
    return tuple(found)


def _of_run(session: Session, run_id: str, kind: EntryType) -> list[tuple[Any, dict[str, Any]]]:
    of = (log_entry.c.run == run_id) & (log_entry.c.type == kind.value)
    columns = (log_entry.c.idx, log_entry.c.actor, log_entry.c.scope, log_entry.c.ts_ms, log_entry.c.body)
    rows = session.execute(select(*columns).where(of).order_by(log_entry.c.idx))
    return [(row, json.loads(row.body)["pub"]) for row in rows]
