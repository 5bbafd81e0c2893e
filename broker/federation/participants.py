# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run: contributors with a data set in the recipe, and the node behind each key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.contract import PlanFacts
from policies.log.entries import alias

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Participant", "participants", "plan_facts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One contributor of a run.

    Attributes:
        party: Short name in the contract.
        group: Independent group; what ``min_parties`` counts.
        key: The pinned key of the contract, as text; equal to the enrolled node's.
        node: Node id.
        node_key: The same key, raw.
        alias_key: Makes this organisation's names in the log.
        dataset: The data set that the recipe clause names for it.
    """

    party: str
    group: str
    key: str
    node: str
    node_key: bytes
    alias_key: bytes
    dataset: str

    def alias(self, scope: str | None, run: str | None, round: int | None) -> str:  # noqa: A002
        """This organisation's name in entries of a scope, run and round."""
        return alias(self.alias_key, scope, run, round)


def participants(contracts: Contracts, contract: Contract, recipe: Recipe) -> tuple[Participant, ...]:
    """The contributors of a recipe whose organisation is active now, by party name."""
    clause = contract.recipe(recipe.digest)
    if clause is None:
        return ()
    found = []
    for seat in contracts.seats(contract):
        party = contract.party(seat.party)
        datasets = clause.datasets_of(seat.party)
        if party is None or not datasets:
            continue
        found.append(
            Participant(
                party=seat.party,
                group=party.group,
                key=party.key,
                node=seat.member.node,
                node_key=seat.member.key,
                alias_key=seat.member.alias_key,
                dataset=datasets[0],
            )
        )
    return tuple(sorted(found, key=lambda one: one.party))


def plan_facts(recipe: Recipe) -> PlanFacts:
    """What the contract is asked about the recipe's privacy plan."""
    plan = recipe.plan
    if plan is None:
        return PlanFacts.none()
    return PlanFacts(
        mode="dp",
        unit=plan.unit,
        adjacency=plan.adjacency,
        delta=plan.delta,
        noise=plan.noise,
        filter="rdp-fixed-order",
    )
