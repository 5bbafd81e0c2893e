# SPDX-License-Identifier: Apache-2.0
"""What the demo's report claims about privacy and about sums, on what it rests, and what it does not cover.

- With noise shares the figure rests on ``honest_min`` makers in each sum; so it stands beside the figures for
  makers who collude with the broker: those of the signed statement, in the smallest sum that the contract
  lets open, and those in the smallest sum that was opened.
- Secure aggregation is the contract's: each node refuses to answer in another way. How many sums were opened,
  over how many makers, and how many of them were redone from masked vectors, is the auditor's count, not the
  broker's.

    privacy_claim(recipe, contract, spent={"kita": {"spent": "7.8", "steps": 380}, …}, fewest=4)
    sums_claim(contract, {"opened": 380, "redone": 380}, {"fewest": 4, "most": 4})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.contract.thresholds import smallest_sum
from policies.privacy.accounting import epsilon_text
from policies.privacy.shares import epsilon_by_colluders
from policies.privacy.statement_words import promise

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
    recipe: Recipe, contract: Contract, spent: Mapping[str, Mapping[str, Any]], *, fewest: int = 0
) -> dict[str, Any]:
    """The part of the report about privacy.

    Args:
        recipe: That was trained.
        contract: Of the run.
        spent: Party → what its node says that the run cost; not looked at without a plan.
        fewest: Makers in the smallest sum that was opened; 0 if no sum was proven.
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
    allowed = smallest_sum(contract, recipe.digest, plan.honest_min)
    facts = {"unit": plan.unit, "epsilon_rdp": epsilon_text(plan.epsilon_rdp), "delta": plan.delta}
    return {
        "private": recipe.is_private,
        "verdict": "PRIVATE" if recipe.is_private else "NOT PRIVATE",
        "unit": plan.unit,
        "epsilon": epsilon_text(plan.epsilon_rdp),
        "delta": plan.delta,
        "promise": promise(facts, "a maker"),
        "noise": plan.noise,
        "honest_min": plan.honest_min,
        "sum_allowed": allowed,
        "epsilon_by_colluders": _by_colluders(plan, allowed),
        "sum_opened": fewest,
        "epsilon_by_colluders_opened": _by_colluders(plan, fewest) if fewest > allowed else None,
        "per_party": {party: dict(one) for party, one in spent.items()},
        "not_protected": list(_NOT_COVERED),
    }


def _by_colluders(plan: DpPlan, summed: int) -> list[str] | None:
    """Epsilon if 0, 1, … of the others in a sum of so many collude; None where it rests on nobody."""
    if plan.noise != "shares":
        return None
    return [epsilon_text(one) for one in epsilon_by_colluders(plan, summed)]


def sums_claim(contract: Contract, counted: Mapping[str, int], members: Mapping[str, int]) -> dict[str, Any]:
    """The part of the report about sums: what the broker could open, how often, over whom, who checked it.

    Args:
        contract: Of the run.
        counted: ``opened`` and ``redone``, as the auditor says.
        members: ``fewest`` and ``most`` in a sum, likewise; 0 where no sum was proven.
    """
    return {
        "secure_aggregation": contract.aggregation.secure_aggregation == "required",
        "group_mac": contract.aggregation.group_mac == "on",
        "opened": counted["opened"],
        "redone": counted["redone"],
        "members": _span(members["fewest"], members["most"]),
    }


def _span(fewest: int, most: int) -> str:
    return str(most) if fewest == most else f"{fewest} to {most}"


def rests_on(privacy: Mapping[str, Any]) -> str:
    """The claim's condition in words; empty where it rests on no other maker."""
    rows = privacy.get("epsilon_by_colluders")
    if not rows:
        return ""
    honest = privacy["honest_min"]
    lost = f"with one of them on the broker's side epsilon {rows[len(rows) - honest + 1]}"
    return f"rests on {honest} honest makers in each sum: {lost}, on the own share alone {rows[-1]}"
