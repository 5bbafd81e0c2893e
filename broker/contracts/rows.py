# SPDX-License-Identifier: Apache-2.0
"""One line about each contract, for its parties and for the operators: what it is, where it stands.

A text that a counter-offer replaced is not listed; it can still be read by its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.auth.proposals import Proposals, State
from broker.contracts.errors import NotPartyError
from broker.contracts.pools import pool_of_text
from broker.contracts.service import COUNTERED, TERMINATED, signers_of
from broker.membership.directory import Member, Operator
from broker.store.tables import contract_document

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.negotiation.pool import Lane, Pool
    from policies.encoding import Json

__all__ = ["ACTIVATE", "places_for", "row_of", "rows_for", "waiting_for"]

ACTIVATE: Final = "contract.activate"
"""What makes a text final that everybody signed; it takes two people (`broker.acts.contracts`)."""


def rows_for(session: Session, contracts: Contracts, caller: Member | Operator) -> list[dict[str, Json]]:
    """The caller's contracts; all of them for operators. The newest is last."""
    places = places_for(session, contracts, caller)
    return [row_of(session, contracts, contracts.read_in(session, name), caller) for _, name in places]


def places_for(session: Session, contracts: Contracts, caller: Member | Operator) -> list[tuple[int, str]]:
    """Time and digest of each of the caller's contracts, in the order in which they are listed."""
    found = session.execute(
        select(contract_document.c.at_ms, contract_document.c.digest)
        .where(contract_document.c.state != COUNTERED)
        .order_by(contract_document.c.at_ms, contract_document.c.digest)
    ).all()
    return [(row.at_ms, row.digest) for row in found if _is_of(session, contracts, row.digest, caller)]


def _is_of(session: Session, contracts: Contracts, name: str, caller: Member | Operator) -> bool:
    if isinstance(caller, Operator):
        return True
    try:
        contracts.party_of(contracts.read_in(session, name), caller)
    except NotPartyError:
        return False
    return True


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
        "waiting_for": waiting_for(contract, pool),
        "approved": None if pool is None else pool.approved,
        "proposal": _proposal(session, contract, caller),
        "negotiation": None if pool is None else pool.id,
        "lane": next((_lane(one) for one in lanes if one.party == party), None),
        "lanes": {one.party: one.state.value for one in lanes},
        "round": None if pool is None else pool.round,
        "every_lane": [_named_lane(one) for one in lanes] if isinstance(caller, Operator) else [],
        "recipes": [{"id": one.id, "digest": one.recipe_digest} for one in contract.recipes],
    }


def _proposal(session: Session, contract: Contract, caller: Member | Operator) -> str | None:
    """Id of what waits for the broker's second person, as operators see it."""
    if isinstance(caller, Member):
        return None
    same = Proposals().of(session, ACTIVATE, {"contract": contract.digest})
    return next((one.id for one in same if one.state is State.PROPOSED), None)


def waiting_for(contract: Contract, pool: Pool | None) -> list[str]:
    """Short names of who has something to say; the broker's, where its second person has not approved."""
    if pool is None:
        return []
    return [contract.broker.party] if pool.held else list(pool.waiting_for)


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
