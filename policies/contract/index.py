# SPDX-License-Identifier: Apache-2.0
"""What follows from a contract's clauses alone, worked out once when it is parsed: lookups for the evaluator.

An `Index` belongs to its contract and holds nothing that the clauses do not say. It exists before the clauses
are known to agree (`policies.contract.coherence` uses it), so where a name stands twice the first one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, TypeVar

from policies.contract.registry import ASKED_AT, FORBIDDEN_CHECKS, KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from policies.contract.clauses import Clause, Contract, PartyClause, RecipeClause

__all__ = ["Index"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Lookups of one contract.

    Attributes:
        clauses: Every clause, nested ones too, in document order.
        by_id: The same by id.
        judged: For each request type the clauses that it is judged by, in document order.
        parties: By short name.
        names: Those names.
        contributors: Parties that contribute, by clause id.
        group_of: Group of each contributor.
        recipes: By digest.
        digests: Those digests.
        recipe_ids: By id.
        seeded: Ids of recipes that start from a seed set.
        forbidden: Checks of the forbidden uses.
        secrets: Every field that is somebody's trade secret.
        weights: Weight of each contributor as a whole number; only ratios count.
    """

    clauses: tuple[Clause, ...]
    by_id: Mapping[str, Clause]
    judged: Mapping[str, tuple[Clause, ...]]
    parties: Mapping[str, PartyClause]
    names: tuple[str, ...]
    contributors: tuple[PartyClause, ...]
    group_of: Mapping[str, str]
    recipes: Mapping[str, RecipeClause]
    digests: tuple[str, ...]
    recipe_ids: Mapping[str, RecipeClause]
    seeded: frozenset[str]
    forbidden: frozenset[str]
    secrets: frozenset[str]
    weights: Mapping[str, int]

    @classmethod
    def of(cls, contract: Contract, clauses: Iterable[Clause]) -> Index:
        """The index of a contract's clauses."""
        listed = tuple(clauses)
        uses = {one.clause: FORBIDDEN_CHECKS[one.check][1] for one in contract.forbidden}
        asked = [(one, uses.get(one.clause, KINDS[one.KIND].requests)) for one in listed]
        contributors = tuple(one for one in contract.parties if one.role == "contributor")
        return cls(
            clauses=listed,
            by_id=_first((one.clause, one) for one in listed),
            judged={name: tuple(one for one, types in asked if name in types) for name in sorted(ASKED_AT)},
            parties=_first((one.party, one) for one in contract.parties),
            names=tuple(one.party for one in contract.parties),
            contributors=contributors,
            group_of={one.party: one.group for one in reversed(contributors)},
            recipes=_first((one.recipe_digest, one) for one in contract.recipes),
            digests=tuple(one.recipe_digest for one in contract.recipes),
            recipe_ids=_first((one.id, one) for one in contract.recipes),
            seeded=frozenset(one.recipe for one in contract.seed_sets),
            forbidden=frozenset(one.check for one in contract.forbidden),
            secrets=frozenset(name for one in contract.fields.trade_secret for name in one.fields),
            weights=_whole_weights(contract, contributors),
        )


def _first(pairs: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def _whole_weights(contract: Contract, contributors: tuple[PartyClause, ...]) -> dict[str, int]:
    table = contract.aggregation.fixed_weights
    if table is None:
        return {one.party: 1 for one in contributors}
    exact = {one.party: Fraction(one.weight) for one in table}
    scale = lcm(*(one.denominator for one in exact.values()))
    return {name: int(one * scale) for name, one in exact.items()}
