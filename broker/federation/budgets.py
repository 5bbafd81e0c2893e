# SPDX-License-Identifier: Apache-2.0
"""What is left of a contract's privacy budgets, as programs are told it, from `broker.federation.outlook`.

- Of each contributor: what it spent, what open runs hold beside that, and its cap with the clause it is from.
- Of each recipe: how many rounds the contract still allows, and how many whole runs the caps hold: the fewest
  of any contributor, which is where its training ends at this rate.
- A contract without caps promises nothing to count; it has rounds alone.

Nodes decide by their own ledgers and may hold more back: tighter caps of owners, blocks of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.federation.progress import rounds_before
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.federation.outlook import Outlook, Outlooks
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import RecipeClause
    from policies.encoding import Json

__all__ = ["budgets_of"]


def budgets_of(
    session: Session, contracts: Contracts, outlooks: Outlooks, contract: Contract, *, now_ms: int
) -> dict[str, Json]:
    """Parties and recipes of a contract with what is left to each."""
    found = {one.party: one for one in outlooks.of(session, contract, now_ms=now_ms)}
    return {
        "contract": contract.digest,
        "parties": [_party(contract, found[name]) for name in sorted(found)],
        "recipes": [_recipe(session, contracts, contract, one, found) for one in contract.recipes],
    }


def _party(contract: Contract, one: Outlook) -> dict[str, Json]:
    caps = contract.caps(one.party)
    return {
        "party": one.party,
        "steps": one.steps,
        "epsilon_spent": one.spent,
        "epsilon_with_reserved": one.with_reserved,
        "epsilon_total": one.cap,
        "epsilon_per_release": None if caps is None else caps.epsilon_per_release,
        "delta": None if caps is None else caps.delta,
    }


def _recipe(
    session: Session,
    contracts: Contracts,
    contract: Contract,
    clause: RecipeClause,
    found: dict[str, Outlook],
) -> dict[str, Json]:
    plan = load_recipe(contracts.annex(session, contract, clause.recipe_digest)).plan
    fits: dict[str, int] = {}
    if plan is not None:
        fits = {name: found[name].runs_left(plan) for name in clause.participants if name in found}
    used = rounds_before(session, contract.digest, clause.recipe_digest)
    return {
        "recipe": clause.recipe_digest,
        "recipe_id": clause.id,
        "clause": clause.clause,
        "rounds_used": used,
        "rounds_left": max(0, clause.max_rounds - used),
        "runs_left": min(fits.values()) if fits else None,
        "first_spent": min(fits, key=lambda name: (fits[name], name)) if fits else None,
    }
