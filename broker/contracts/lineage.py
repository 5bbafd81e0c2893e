# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from and when: the facts about models that the evaluator is asked with.

Times are those of the log's own entries, so that an auditor finds the same ones; a row of the business tables
that no entry backs says nothing here. Cohorts are the parties whose update was accepted in a round that gave
a model. Earlier releases count under every version of a contract: whoever amends it does not start afresh.

    made_ms(session, run_id)            time of the last aggregate of a run
    released_ms(session, scopes, model) tier → time of its release
    trained(session, run_id)            parties whose update is in the run's model
    earlier_cohorts(session, scopes, recipe, but=candidate)
    scopes_of(session, run_id)          contracts that a run has been under, newest first
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from broker.store.prepared import Prepared
from broker.store.tables import contract_document, log_entry, model, round_, run
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from broker.store import Session

__all__ = [
    "earlier_cohorts",
    "final_successor",
    "made_ms",
    "released_ms",
    "run_of",
    "scopes_of",
    "trained",
    "versions",
]

_FINAL = "finalized"
_BEFORE: Final = Prepared(
    select(contract_document.c.supersedes).where(contract_document.c.digest == bindparam("contract"))
)
_OF_RUN: Final = Prepared(select(run.c.contract).where(run.c.run_id == bindparam("run")))
_OPENED: Final = Prepared(
    select(log_entry.c.scope).where(
        (log_entry.c.run == bindparam("run")) & (log_entry.c.type == EntryType.RUN_OPENED.value)
    )
)


def made_ms(session: Session, run_id: str) -> int | None:
    """When the last aggregate of a run was made, by its entry; None before the first."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.AGGREGATE_RELEASED.value)
    found: int | None = session.scalar(
        select(log_entry.c.ts_ms).where(of).order_by(log_entry.c.idx.desc()).limit(1)
    )
    return found


def released_ms(session: Session, scopes: tuple[str, ...], name: str) -> dict[str, int]:
    """Tiers in which a model was released under these contracts, each with the time of its first entry."""
    of = log_entry.c.scope.in_(scopes) & (log_entry.c.type == EntryType.MODEL_RELEASED.value)
    rows = session.execute(select(log_entry.c.body, log_entry.c.ts_ms).where(of).order_by(log_entry.c.idx))
    found: dict[str, int] = {}
    for row in rows:
        pub = json.loads(row.body)["pub"]
        if pub["model"] == name:
            found.setdefault(str(pub["tier"]), row.ts_ms)
    return found


def run_of(session: Session, name: str) -> str | None:
    """The run that a model came from, or None."""
    found: str | None = session.scalar(select(model.c.run_id).where(model.c.digest == name))
    return found


def trained(session: Session, run_id: str) -> frozenset[str]:
    """Parties whose update is in a run's model."""
    found: set[str] = set()
    rows = session.scalars(
        select(round_.c.verdicts).where((round_.c.run_id == run_id) & round_.c.model.is_not(None))
    )
    for text in rows:
        found |= {party for party, verdict in json.loads(text).items() if verdict == "accepted"}
    return frozenset(found)


def earlier_cohorts(
    session: Session, scopes: tuple[str, ...], recipe: str, *, but: str
) -> tuple[tuple[str, ...], ...]:
    """Cohorts of what was released under these contracts and this recipe, each once, sorted.

    Args:
        session: Of the main database.
        scopes: Digests of the contract and the versions before it.
        recipe: Digest of the recipe.
        but: The model that is asked about; another tier of it is no other output.
    """
    of = log_entry.c.scope.in_(scopes) & (log_entry.c.type == EntryType.MODEL_RELEASED.value)
    names = {json.loads(body)["pub"]["model"] for body in session.scalars(select(log_entry.c.body).where(of))}
    runs = session.scalars(
        select(run.c.run_id)
        .join(model, model.c.run_id == run.c.run_id)
        .where(model.c.digest.in_(names - {but}) & (run.c.recipe_digest == recipe))
    )
    return tuple(sorted({tuple(sorted(trained(session, one))) for one in runs}))


def versions(session: Session, contract: str) -> tuple[str, ...]:
    """Digests of a contract and of the versions that it superseded, newest first."""
    found: list[str] = []
    name: str | None = contract
    while name is not None:
        found.append(name)
        row = _BEFORE.first(session, {"contract": name})
        name = None if row is None else row[0]
    return tuple(found)


def scopes_of(session: Session, run_id: str) -> tuple[str, ...]:
    """Contracts that a run has been under since it was opened, newest first; empty if nobody opened it."""
    now = _OF_RUN.first(session, {"run": run_id})
    opened = _OPENED.first(session, {"run": run_id})
    if now is None:
        return ()
    chain = versions(session, now[0])
    return chain[: chain.index(opened[0]) + 1] if opened is not None and opened[0] in chain else chain[:1]


def final_successor(session: Session, contract: str) -> str | None:
    """Digest of the final successor of a contract, in effect or not yet; None without one."""
    of = (contract_document.c.supersedes == contract) & (contract_document.c.state == _FINAL)
    found: str | None = session.scalar(select(contract_document.c.digest).where(of))
    return found
