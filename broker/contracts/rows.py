# SPDX-License-Identifier: Apache-2.0
"""One line about each contract, for its parties and for the operators: what it is, where it stands.

A text that a counter-offer replaced is not listed; it can still be read by its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.contracts.errors import NotPartyError
from broker.contracts.pools import pool_of_text
from broker.contracts.service import COUNTERED, FINALIZED, TERMINATED, signers_of
from broker.membership.directory import Member, Operator
from broker.store.tables import contract_document

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.negotiation.pool import Lane
    from policies.encoding import Json

__all__ = ["row_of", "rows_for"]


def rows_for(session: Session, contracts: Contracts, caller: Member | Operator) -> list[dict[str, Json]]:
    """The caller's contracts; all of them for operators. The newest is last."""
    found = session.execute(
        select(contract_document.c.digest)
        .where(contract_document.c.state != COUNTERED)
        .order_by(contract_document.c.at_ms, contract_document.c.digest)
    ).all()
    listed = []
    for row in found:
        contract = contracts.read_in(session, row.digest)
        try:
            listed.append(row_of(session, contracts, contract, caller))
        except NotPartyError:
            continue
    return listed


def row_of(
    session: Session, contracts: Contracts, contract: Contract, caller: Member | Operator
) -> dict[str, Json]:
    """One line about a contract.

    Raises:
        NotPartyError: The caller is a member and no party.
    """
    party = contracts.party_of(contract, caller).party if isinstance(caller, Member) else None
    state = session.scalar(
        select(contract_document.c.state).where(contract_document.c.digest == contract.digest)
    )
    pool = pool_of_text(session, contract.digest)
    lanes = () if pool is None else pool.lanes
    return {
        "digest": contract.digest,
        "contract_id": contract.contract_id,
        "version": contract.version,
        "supersedes": contract.supersedes,
        "title": contract.title,
        "state": state,
        "standing": "TERMINATED" if state == TERMINATED else contracts.standing(contract, session),
        "sign_by": contract.sign_by,
        "party": party,
        "signed": sorted(signers_of(session, contract.digest)),
        "waiting_for": [] if pool is None or state == FINALIZED else list(pool.waiting_for),
        "negotiation": None if pool is None else pool.id,
        "lane": next((_lane(one) for one in lanes if one.party == party), None),
        "lanes": {one.party: one.state.value for one in lanes},
        "round": None if pool is None else pool.round,
        "every_lane": [_named_lane(one) for one in lanes] if isinstance(caller, Operator) else [],
        "recipes": [{"id": one.id, "digest": one.recipe_digest} for one in contract.recipes],
    }


def _lane(one: Lane) -> dict[str, Json]:
    return {
        "pid": one.pid,
        "round": one.round,
        "state": one.state.value,
        "deadline_ms": one.deadline_ms,
    }


def _named_lane(one: Lane) -> dict[str, Json]:
    """A lane as operators see it; of the others' lanes, a contributor sees the state alone."""
    return {**_lane(one), "party": one.party, "digest": one.digest}
