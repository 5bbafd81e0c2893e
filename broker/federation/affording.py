# SPDX-License-Identifier: Apache-2.0
"""Whether the contract's caps can hold a run at all, by the broker's own mirror: asked before it is opened.

- Runs that are open count with the steps that they took, not with their whole plan: what they hold may become
  free. So a refusal here is one that no waiting changes.
- It refuses only where too few groups are left without the parties whose budget is spent.
- `rounds_left` refuses where all rounds of the recipe are used; a run with fewer than its own is opened.
- Nodes decide by their own ledgers, which may know more: an owner's tighter cap, blocks of data.

    check_affordable(session, contracts, contract, contract.recipes[0])
"""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING

from broker.federation.mirror import epsilon_after
from broker.federation.progress import rounds_before
from broker.runs.ending import EPSILON_CHECKS
from policies.contract import Outcome, TrainRound, evaluate
from policies.contract.errors import RefusedError
from policies.contract.render import remedy_text
from policies.privacy.errors import BudgetExhaustedError
from policies.recipe import load as load_recipe
from policies.rounds import need_of, too_few

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.contracts.service import Contracts
    from broker.federation.outlook import Outlook
    from broker.store import Session
    from policies.contract import Contract, Finding
    from policies.contract.clauses import RecipeClause
    from policies.privacy import DpPlan

__all__ = ["check_affordable", "rounds_left", "whole_runs"]


def check_affordable(
    session: Session, contracts: Contracts, contract: Contract, clause: RecipeClause
) -> None:
    """Returns if enough groups have the budget for one more run of a recipe, or may have it.

    Raises:
        BudgetExhaustedError: They do not; with the clause, the figure and the remedy of the first party.
    """
    plan = load_recipe(contracts.annex(session, contract, clause.recipe_digest)).plan
    if plan is None:
        return
    seated = {one.party for one in contracts.seats(contract)} & set(clause.participants)
    need = need_of(contract, clause.recipe_digest)
    spent: dict[str, Finding] = {}
    groups = {one.party: one.group for one in contract.contributors if one.party in seated}
    for party in sorted(groups):
        found = _against(session, contracts, contract, party, plan)
        if found is not None:
            spent[party] = found
    if not spent or not too_few(groups, spent, *need):
        return
    first = max(spent.values(), key=lambda one: Decimal(one.found))
    raise BudgetExhaustedError(
        need=f"{first.check} {first.need} for {need.groups} groups",
        found=f"{first.found} after this run, of {', '.join(spent)}",
        remedy=remedy_text(first.remedy),
        clause=first.clause,
    )


def rounds_left(session: Session, contract: Contract, clause: RecipeClause) -> int:
    """How many rounds of a recipe the contract still allows, in all its versions and runs together.

    Raises:
        RefusedError: None; with the clause.
    """
    used = rounds_before(session, contract.digest, clause.recipe_digest)
    if used >= clause.max_rounds:
        raise RefusedError(
            need=f"a round of {clause.id} that is left of max_rounds {clause.max_rounds}, all runs together",
            found=f"{used} rounds used, 0 left",
            remedy=remedy_text("stop-or-amend"),
            clause=clause.clause,
        )
    return clause.max_rounds - used


def whole_runs(
    session: Session,
    contracts: Contracts,
    contract: Contract,
    clause: RecipeClause,
    outlooks: Mapping[str, Outlook],
) -> int | None:
    """How many whole runs of a recipe still fit, one after the other; None without a privacy budget.

    None fits exactly if the next one would be refused, by the same functions. Beyond that it is what is left
    once open runs took all that they hold.

    Args:
        session: Of the main database.
        contracts: Knows plans and seats.
        contract: Whose caps.
        clause: Of the recipe.
        outlooks: What the parties have left.
    """
    plan = load_recipe(contracts.annex(session, contract, clause.recipe_digest)).plan
    if plan is None:
        return None
    try:
        check_affordable(session, contracts, contract, clause)
        rounds = rounds_left(session, contract, clause)
    except (BudgetExhaustedError, RefusedError):
        return 0
    seated = {one.party for one in contracts.seats(contract)} & set(clause.participants)
    groups = {one.party: one.group for one in contract.contributors if one.party in seated}
    left = {party: outlooks[party].runs_left(plan) for party in groups if party in outlooks}
    by_rounds = -(-rounds * plan.steps_per_round // plan.steps)
    need = need_of(contract, clause.recipe_digest)
    for fits in sorted(set(left.values())):
        over = {party for party, runs in left.items() if runs <= fits}
        if too_few(groups, over, *need):
            return max(min(fits, by_rounds), 1)
    return max(by_rounds, 1)


def _against(
    session: Session, contracts: Contracts, contract: Contract, party: str, plan: DpPlan
) -> Finding | None:
    """What a cap says against one more run of a plan by one party."""
    after = epsilon_after(session, contracts, contract, party=party, plan=plan, run_id="", held=False)
    facts = dict.fromkeys(field.name for field in fields(TrainRound))
    facts |= {
        "party": party,
        "epsilon_after_release": after.release,
        "epsilon_after_total": after.total,
    }
    judged = evaluate(contract, contracts.state(contract, session), TrainRound(**facts))
    over = (one for one in judged.findings if one.check in EPSILON_CHECKS)
    return next((one for one in over if one.outcome is Outcome.VIOLATED), None)
