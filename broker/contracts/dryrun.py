# SPDX-License-Identifier: Apache-2.0
"""Dry run at the broker: what a proposal would have said about the broker's own past decisions.

- Looked at are decisions of the points ``broker`` and ``gate``, the newest first, up to a bound; those of
  nodes are theirs to look at, at home (`client.contract.dryrun`).
- Run and round are the log's: a decision is named by the entry that recorded it.
- Nothing is written, nothing is logged, and nobody but an operator may ask: a proposal is a secret too.

    report = dry_run_here(store, contracts, proposal, against=None)
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.contracts.errors import NotPartyError
from broker.store.tables import contract_document, log_entry
from broker.store.tables import decision as decision_table
from policies.contract.dryrun import DryRun, RecordedRequest, dry_run
from policies.limits import DRY_RUN_RECORDS
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Row

    from broker.contracts.service import Contracts
    from broker.store import Session, Store
    from policies.contract import Contract

__all__ = ["dry_run_here"]

_OWN: Final = frozenset({"broker", "gate"})
_AT_ONCE: Final = 500  # rows of one question to the database


def dry_run_here(store: Store, contracts: Contracts, proposal: Contract, *, against: str | None) -> DryRun:
    """Judges the recorded requests of a contract again, under a proposal.

    Args:
        store: The broker's databases.
        contracts: Its contracts.
        proposal: The terms to try.
        against: Digest of the contract whose records are meant; every version of the proposal's contract id
            if None.

    Raises:
        NotPartyError: No such contract here.
    """
    with store.read() as session:
        meant = _meant(session, proposal, against)
        known = {name: contracts.get(name) for name in meant}
        return dry_run(proposal, _recorded(session, meant), contracts=known)


def _meant(session: Session, proposal: Contract, against: str | None) -> list[str]:
    table = contract_document
    wanted = table.c.contract_id == proposal.contract_id if against is None else table.c.digest == against
    found = list(session.scalars(select(table.c.digest).where(wanted)))
    if against is not None and not found:
        raise NotPartyError(
            need="a contract of this broker", found=against, remedy="contract list shows them"
        )
    return found


def _recorded(session: Session, contracts: Sequence[str]) -> Iterator[RecordedRequest]:
    entries = session.execute(
        select(log_entry.c.body)
        .where((log_entry.c.type == EntryType.DECISION_RECORDED.value) & log_entry.c.scope.in_(contracts))
        .order_by(log_entry.c.idx.desc())
        .limit(DRY_RUN_RECORDS)
    )
    for rows in _batches(entries.scalars()):
        logged = {one["pub"]["decision"]: one for one in map(json.loads, rows) if one["pub"]["point"] in _OWN}
        kept = session.execute(select(decision_table).where(decision_table.c.digest.in_(list(logged))))
        for row in kept:
            yield _record(row, logged[row.digest])


def _batches(rows: Iterator[bytes]) -> Iterator[tuple[bytes, ...]]:
    while batch := tuple(itertools.islice(rows, _AT_ONCE)):
        yield batch


def _record(row: Row[Any], entry: dict[str, Any]) -> RecordedRequest:
    pub = entry["pub"]
    return RecordedRequest(
        contract=row.contract,
        request=json.loads(row.request),
        state=json.loads(row.state),
        allowed=pub["outcome"] == "allow",
        clauses=tuple(pub["clauses"]),
        run=entry.get("run"),
        round=entry.get("round"),
    )
