# SPDX-License-Identifier: Apache-2.0
"""Whether every site can pay for what is asked of its held-out episodes: candidates, and votes on rounds.

Both read the same units and come out of the same budget, each under a plan of its own. A node's ledger holds
all steps of a plan before the first of them (`policies.privacy.ledger`), so a contract whose caps have no
room for the two together ends in runs whose candidates nobody can judge. It is refused before anybody signs,
by the ledger's own arithmetic: per party of a recipe,

1. the caps have an order to count at;
2. each plan by itself is within the cap per release;
3. steps times cost of both, at the order of the party's caps, are within what its cap in all holds.

One run is counted; how many a contract is meant for is its own affair. Without privacy terms nothing is paid,
and without votes there is one plan, which each site sees in the recipe: nothing is checked here.

    check_held_out(contract, recipes)                # ContractInvalidError, with the clause
    held_out_left(cap, [evaluation, votes])          # nano-rho that are left after one run; below 0: no room
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policies.contract.errors import ContractInvalidError
from policies.privacy.accounting import epsilon_filter, epsilon_rdp, epsilon_text, rho_step_nano
from policies.privacy.caps import Cap, plan_facts
from policies.privacy.errors import OrderUnfitError, PlanIncompleteError
from policies.robustness.plan import votes_plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.contract.clauses import Caps, Contract, ValidationClause
    from policies.recipe import Recipe

__all__ = ["cap_from", "check_held_out", "held_out_cost", "held_out_left"]

_LESS = (
    "a smaller epsilon in the validation clause, fewer steps or more noise in the recipe's evaluation, or a "
    "larger cap"
)


def check_held_out(contract: Contract, recipes: Mapping[str, Recipe]) -> None:
    """Refuses a contract under which some site could not pay for one run's evaluation and votes.

    Args:
        contract: The text.
        recipes: Its recipes, all of them, by digest.

    Raises:
        ContractInvalidError: With the clause of the votes, or of the cap.
    """
    validation = contract.validation
    if validation is None:
        return
    for clause in contract.recipes:
        evaluation = recipes[clause.recipe_digest].evaluation.document
        votes = _votes(validation, evaluation)
        if votes is None:
            return
        for party in clause.participants:
            caps, where = contract.caps(party), f"in {clause.id} by {party}"
            if caps is not None:
                _check_party(cap_from(caps, contract.digest), caps, validation, (evaluation, votes), where)


def cap_from(caps: Caps, scope: str) -> Cap:
    """The cap that a node counts at under these terms."""
    return Cap(
        scope=scope,
        epsilon_total=caps.epsilon_total,
        epsilon_per_release=caps.epsilon_per_release,
        delta=caps.delta,
    )


def held_out_cost(cap: Cap, plans: Sequence[Mapping[str, Any]]) -> int:
    """What all steps of these plans cost at a cap's order, in billionths of rho.

    Raises:
        OrderUnfitError: The cap has no order.
    """
    facts = [plan_facts(one) for one in plans]
    return sum(steps * rho_step_nano(q=q, sigma=sigma, order=cap.order) for q, sigma, steps, _ in facts)


def held_out_left(cap: Cap, plans: Sequence[Mapping[str, Any]]) -> int:
    """What a cap still holds after one run of these plans; below 0: it has no room for them.

    Raises:
        OrderUnfitError: The cap has no order.
    """
    return cap.rho_max_nano - held_out_cost(cap, plans)


def _votes(clause: ValidationClause, evaluation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        return votes_plan(clause, evaluation)
    except PlanIncompleteError as error:
        raise _refuse(clause.clause, error.need, error.found) from error


def _check_party(
    cap: Cap, caps: Caps, clause: ValidationClause, plans: Sequence[Mapping[str, Any]], where: str
) -> None:
    try:
        cost, left = held_out_cost(cap, plans), held_out_left(cap, plans)
    except (OrderUnfitError, PlanIncompleteError) as error:  # 1.
        raise _refuse(caps.total_clause, error.need, error.found) from error
    for plan in plans:  # 2.
        q, sigma, steps, _ = plan_facts(plan)
        found = epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=float(plan["delta"])))
        if float(found) > float(cap.epsilon_per_release):
            need = (
                f"queries on held-out episodes {where} within epsilon_per_release {cap.epsilon_per_release}"
            )
            raise _refuse(caps.release_clause, need, f"epsilon {found}")
    if left < 0:  # 3.
        after = epsilon_text(epsilon_filter(rho_nano=cost, delta=float(cap.delta), order=cap.order))
        need = f"evaluation and votes of one run {where} within epsilon_total {cap.epsilon_total}"
        raise _refuse(clause.clause, need, f"epsilon {after} at order {cap.order}")


def _refuse(clause: str, need: str, found: str) -> ContractInvalidError:
    return ContractInvalidError(clause=clause, need=need, found=found[:160], remedy=_LESS)
