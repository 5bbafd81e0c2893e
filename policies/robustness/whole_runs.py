# SPDX-License-Identifier: Apache-2.0
"""Whether the caps of a contract hold one whole run of each recipe's plan, as a node's ledger counts.

A cap is counted at one order, which follows from the caps alone and is the same for every party. A plan
whose own epsilon is exactly the cap may have it at another order, and cost more at this one than the cap
holds: it looks equal, and its first run is refused as ``budget.exhausted``. The linter cannot tell, for a
contract names its recipes by their digests; whoever has their bytes can. It is a warning and no refusal: what
a run costs stays each node's own affair.

    for one in runs_without_room(contract, {recipe.digest: recipe.plan_document}):
        print(one.clause, one.parties, one.total, one.found)
    # recipe-1 ('kita', 'nord') 8 epsilon 8.990722 at the filter's order 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.privacy.accounting import epsilon_filter, epsilon_text
from policies.privacy.errors import OrderUnfitError, PlanIncompleteError
from policies.robustness.held_out import cap_from, held_out_cost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.clauses import Contract
    from policies.privacy.caps import Cap

__all__ = ["WithoutRoom", "runs_without_room"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutRoom:
    """A recipe of which no whole run fits.

    Attributes:
        clause: Of the recipe.
        parties: Under whose caps, in the order of the clause.
        total: Their epsilon in all.
        found: What one run stands at by the filter, and at which order; or that no order holds one.
    """

    clause: str
    parties: tuple[str, ...]
    total: str
    found: str


def runs_without_room(
    contract: Contract, plans: Mapping[str, Mapping[str, Any] | None]
) -> tuple[WithoutRoom, ...]:
    """The recipes whose training plan does not fit once, under the caps of whom.

    Args:
        contract: The text.
        plans: Documents of training plans by their recipes' digests; what is missing is passed over.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for clause, party, cap, plan in _charged(contract, plans):
        told = _over(cap, plan)
        if told is not None:
            found.setdefault((clause, cap.epsilon_total, told), []).append(party)
    return tuple(
        WithoutRoom(clause=clause, parties=tuple(parties), total=total, found=told)
        for (clause, total, told), parties in found.items()
    )


def _charged(
    contract: Contract, plans: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[tuple[str, str, Cap, Mapping[str, Any]]]:
    """Each recipe with each party that pays for it."""
    for recipe in contract.recipes:
        plan = plans.get(recipe.recipe_digest)
        for party in recipe.participants if plan is not None else ():
            caps = contract.caps(party)
            if caps is not None and plan is not None:
                yield recipe.clause, party, cap_from(caps, contract.digest), plan


def _over(cap: Cap, plan: Mapping[str, Any]) -> str | None:
    """What one run stands at, where that is over the cap."""
    try:
        cost = held_out_cost(cap, [plan])
        if cost <= cap.rho_max_nano:
            return None
    except (OrderUnfitError, PlanIncompleteError) as error:
        return f"{error.found}: {error.need}"
    stands = epsilon_text(epsilon_filter(rho_nano=cost, delta=float(cap.delta), order=cap.order))
    return f"epsilon {stands} at the filter's order {cap.order}"
