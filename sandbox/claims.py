# SPDX-License-Identifier: Apache-2.0
"""What the demo's report claims about privacy and about sums, on what it rests, and what it does not cover.

- With noise shares the figure rests on ``honest_min`` makers; so it stands beside the figures for makers who
  collude with the broker, counted in the smallest sum that the contract lets open.
- Secure aggregation is the contract's: each node refuses to answer in another way. How many sums were opened,
  and how many of them were redone from masked vectors, is the auditor's count, not the broker's.

    privacy_claim(recipe, contract, spent={"kita": {"spent": "7.8", "steps": 380}, …})
    sums_claim(contract, {"opened": 380, "redone": 380})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.contract.thresholds import least_online
from policies.privacy.accounting import epsilon_text
from policies.privacy.shares import epsilon_by_colluders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract import Contract
    from policies.privacy.plan import DpPlan
    from policies.recipe import Recipe

__all__ = ["privacy_claim", "rests_on", "sums_claim"]

_NOT_COVERED: Final = (
    "facts about many episodes of one maker (product mix), if the broker and the others pool what they see",
    "that a maker takes part, and when it answers",
)


def privacy_claim(
    recipe: Recipe, contract: Contract, spent: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The part of the report about privacy.

    Args:
        recipe: That was trained.
        contract: Of the run.
        spent: Party → what its node says that the run cost; not looked at without a plan.
    """
    plan = recipe.plan
    if plan is None:
        return {
            "private": False,
            "verdict": "NOT PRIVATE",
            "unit": "episode",
            "epsilon": "inf",
            "delta": None,
            "per_party": {party: {"spent": "no claim", "steps": 0} for party in spent},
            "not_protected": ["anything: this run is NOT PRIVATE"],
        }
    return {
        "private": recipe.is_private,
        "verdict": "PRIVATE" if recipe.is_private else "NOT PRIVATE",
        "unit": plan.unit,
        "epsilon": epsilon_text(plan.epsilon_rdp),
        "delta": plan.delta,
        "noise": plan.noise,
        "honest_min": plan.honest_min,
        "epsilon_by_colluders": _by_colluders(plan, contract, len(spent)),
        "per_party": {party: dict(one) for party, one in spent.items()},
        "not_protected": list(_NOT_COVERED),
    }


def _by_colluders(plan: DpPlan, contract: Contract, parties: int) -> list[str] | None:
    """Epsilon if 0, 1, … of the others in the smallest sum collude; None where it rests on nobody."""
    if plan.noise != "shares":
        return None
    fewest = least_online(parties, contract.aggregation.min_parties)
    return [epsilon_text(one) for one in epsilon_by_colluders(plan, fewest)]


def sums_claim(contract: Contract, counted: Mapping[str, int]) -> dict[str, Any]:
    """The part of the report about sums: what the broker could open, how often, and who checked it."""
    return {
        "secure_aggregation": contract.aggregation.secure_aggregation == "required",
        "group_mac": contract.aggregation.group_mac == "on",
        "opened": counted["opened"],
        "redone": counted["redone"],
    }


def rests_on(privacy: Mapping[str, Any]) -> str:
    """The claim's condition in words; empty where it rests on no other maker."""
    rows = privacy.get("epsilon_by_colluders")
    if not rows:
        return ""
    return f"rests on {privacy['honest_min']} honest makers; on the own share alone epsilon {rows[-1]}"
