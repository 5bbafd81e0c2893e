# SPDX-License-Identifier: Apache-2.0
"""How many nodes open a sum, and how many may be bad: the arithmetic of secure aggregation, written once.

Contract load, protocol and verifier use the same five lines; nobody is ever *told* a threshold.

- ``t = floor(2n/3) + 1`` of n contributors open a sum; ``n - t`` may drop out of a round.
- ``c < 2t - n`` colluders: opening takes ``t - c`` honest nodes, each of which helps once per round, so two
  different sums of one round would take ``2(t - c) > n - c`` of them.
- ``max(t, min_parties) - c >= 2``: the fewest that a sum is over have two honest ones, which hide each other.
- ``k_open`` independent groups are left in every opened sum: ``max(min_parties, c + 2)``, and with noise
  shares ``honest_min + c``, for the noise of the honest ones is all there is.
- Heads are not weight: no group may have more than ``max_share`` of the weight of those who are *in an opened
  sum*, whoever dropped out (`share_at_most`). A sum that is nearly one member's update opens that member.
- The heaviest weighs at most `WEIGHT_RATIO` times the lightest: what is lighter is a member in name only,
  counted by the rules above while its update and its noise are lost in the rounding of the sum. At this ratio
  a weight is still 10 000 millionths, and the lightest update at norm C still more than 2^18 grid steps.

- The smallest sum that is ever opened has as many members as must be online, or in a round of teams
  (`policies.secagg.probes`) ``k_open`` groups and no more: what noise shares promise is said about that one.

    threshold(4), drop_outs(4), most_colluders(4, least_online(4, 3))   # (3, 1, 1)
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from policies.contract.registry import HIDING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from policies.contract.clauses import Contract

__all__ = [
    "CONTRIBUTORS_MIN",
    "WEIGHT_RATIO",
    "drop_outs",
    "groups_to_open",
    "least_online",
    "most_colluders",
    "share_at_most",
    "smallest_sum",
    "threshold",
    "weights_fit",
]

_REQUIRED: Final = "required"
CONTRIBUTORS_MIN: Final = 3  # of two, each knows the other's update from the sum
WEIGHT_RATIO: Final = 100  # of the heaviest contributor to the lightest


def threshold(n: int) -> int:
    """Shares that open a secret of n contributors: ``floor(2n/3) + 1``."""
    return 2 * n // 3 + 1


def drop_outs(n: int) -> int:
    """How many of n contributors may be missing from a round that still opens."""
    return n - threshold(n)


def least_online(n: int, min_parties: int) -> int:
    """Contributors that must be left in an opened sum."""
    return max(threshold(n), min_parties)


def most_colluders(n: int, fewest: int) -> int:
    """The largest ``max_colluders`` that n contributors bear, at least ``fewest`` of whom are in each sum."""
    return min(2 * threshold(n) - n - 1, fewest - HIDING)


def groups_to_open(min_parties: int, max_colluders: int, honest_min: int | None) -> int:
    """Independent groups that must be left in an opened sum.

    Args:
        min_parties: Of the contract.
        max_colluders: Likewise.
        honest_min: Of the plan with noise shares, else None.
    """
    shares = 0 if honest_min is None else honest_min + max_colluders
    return max(min_parties, max_colluders + HIDING, shares)


def weights_fit(weights: Collection[Fraction]) -> bool:
    """Whether every contributor's weight is of the size of the others': nobody is there in name only."""
    return max(weights) <= WEIGHT_RATIO * min(weights)


def share_at_most(
    weights: Mapping[str, Fraction], group_of: Mapping[str, str], *, members: int, groups: int
) -> tuple[str, Fraction]:
    """The largest share of the weight that one group can have in a sum that may be opened, and which group.

    Beside all of that group there are as few and as light others as may be: the lightest of the other groups
    until there are enough groups, then the lightest that are left until there are enough members.

    Args:
        weights: Per contributor, above 0.
        group_of: Per contributor.
        members: That must be in the sum, at least.
        groups: Likewise; no more than there are.
    """
    shares: dict[str, Fraction] = {}
    for group in sorted({group_of[one] for one in weights}):
        own = [weight for one, weight in weights.items() if group_of[one] == group]
        others = sorted((weight, one) for one, weight in weights.items() if group_of[one] != group)
        lightest = {group_of[one]: (weight, one) for weight, one in reversed(others)}
        beside = sorted(lightest.values())[: groups - 1]
        rest = [one for one in others if one not in beside]
        beside += rest[: max(0, members - len(own) - len(beside))]
        heavy = sum(own, Fraction(0))
        shares[group] = heavy / (heavy + sum((weight for weight, _ in beside), Fraction(0)))
    found = max(shares, key=lambda one: shares[one])
    return found, shares[found]


def smallest_sum(contract: Contract, recipe: str, honest_min: int | None) -> int:
    """Members of the smallest sum that a run may open; without secure aggregation ``min_parties``.

    It follows from what everybody signed, so nodes, broker and verifier say the same of a run, whoever was
    there in the end.

    Args:
        contract: Of the run.
        recipe: Digest of its recipe.
        honest_min: Of the plan with noise shares, else None.
    """
    pooling, clause = contract.aggregation, contract.recipe(recipe)
    if pooling.secure_aggregation != _REQUIRED or clause is None:
        return pooling.min_parties
    k_open = groups_to_open(pooling.min_parties, pooling.max_colluders, honest_min)
    if _may_have_teams(contract, len(contract.groups(clause.participants)), k_open):
        return k_open
    return max(least_online(len(clause.participants), pooling.min_parties), k_open)


def _may_have_teams(contract: Contract, groups: int, k_open: int) -> bool:
    votes = contract.validation
    if votes is None or groups < 2 * k_open:
        return False
    return None not in (votes.judge_episodes, votes.gain_clip, votes.max_judgings, votes.epsilon)
