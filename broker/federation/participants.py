# SPDX-License-Identifier: Apache-2.0
"""Who takes part in a run: contributors with a data set in the recipe, and the node behind each key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from policies.identity import key_text
from policies.log.entries import alias

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Participant", "participants", "under_present_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """One contributor of a run.

    Attributes:
        party: Short name in the contract.
        group: Independent group; what ``min_parties`` counts.
        key: The enrolled node's key, as text: the one that the contract pins, or that it rotated to.
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


def participants(
    contracts: Contracts, contract: Contract, recipe: Recipe, *, active: bool = True
) -> tuple[Participant, ...]:
    """The contributors of a recipe, by party name.

    Args:
        contracts: Knows the member behind each pinned key.
        contract: Of the run.
        recipe: Of the run.
        active: Only those whose organisation takes part now; else also those that took part once.
    """
    clause = contract.recipe(recipe.digest)
    if clause is None:
        return ()
    if active:
        seats = {one.party: one.member for one in contracts.seats(contract)}
    else:
        seats = {one.party: contracts.member_of(contract, one.party) for one in contract.contributors}
    found = []
    for name, member in sorted(seats.items()):
        party = contract.party(name)
        datasets = clause.datasets_of(name)
        if party is None or not datasets:
            continue
        found.append(
            Participant(
                party=name,
                group=party.group,
                key=key_text(member.key),
                node=member.node,
                node_key=member.key,
                alias_key=member.alias_key,
                dataset=datasets[0],
            )
        )
    return tuple(found)


def under_present_key(contracts: Contracts, contract: Contract, sender: Participant) -> Participant:
    """A participant with the key that its node has by now: a round may have been opened under another."""
    key = contracts.member_of(contract, sender.party).key
    return sender if key == sender.node_key else replace(sender, key=key_text(key), node_key=key)
