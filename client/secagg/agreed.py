# SPDX-License-Identifier: Apache-2.0
"""What this node's own contract and recipe fix for the sums of a run. A message decides none of it.

- `terms_here` are the terms; the broker computes the same from the same documents.
- `check_shares` is the node's own word about noise shares, whatever contract and broker say: a share
  protects nothing by itself. The checks, in this order: secure aggregation; the conditions of
  `policies.privacy.shares.check_conditions`, with groups and colluders of the contract; a ring that has room
  for sum and noise (`check_room`), and a grid that is fine enough (`check_grid`).
- `grid_step` is one step of the ring in units of the clipped sum: the update is that sum over the plan's
  public normaliser, and the ring has ``terms.scale`` steps per unit of an update.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from policies.privacy.errors import SharesUnfitError
from policies.privacy.shares import check_conditions, check_grid
from policies.secagg.agreed import agreed_terms
from policies.secagg.noise_room import check_noise_room

if TYPE_CHECKING:
    from client.seat import Seat
    from policies.privacy.plan import DpPlan
    from policies.secagg.terms import Terms

__all__ = ["REQUIRED", "check_noise", "check_shares", "grid_step", "terms_here"]

REQUIRED: Final = "required"


def terms_here(seat: Seat, run: str) -> Terms:
    """The terms of a run, by local files only.

    Raises:
        ThresholdError: The contract's numbers carry no safe threshold.
        SharesUnfitError: Noise shares under unequal weights.
    """
    return agreed_terms(seat.held.contract, seat.recipe.canonical, run=run)


def grid_step(plan: DpPlan | None, terms: Terms) -> float | None:
    """One step of the ring in units of the clipped sum under noise shares; None without them."""
    if plan is None or plan.noise != "shares":
        return None
    return float(plan.normalizer) / terms.scale


def check_noise(plan: DpPlan | None, secure_aggregation: str, clause: str) -> None:
    """Refuses a plan with noise shares where the broker would see each update by itself.

    Raises:
        SharesUnfitError: It is so.
    """
    if plan is not None and plan.noise == "shares" and secure_aggregation != REQUIRED:
        raise SharesUnfitError(
            need="secure aggregation, so that only a sum of many shares is seen",
            found=f"secure aggregation {secure_aggregation}",
            remedy="a plan with noise: local-full, under a contract that says so",
            clause=clause,
        )


def check_shares(seat: Seat, run: str, secure_aggregation: str) -> None:
    """Returns if the noise of a seat's plan protects what is sent in this way.

    Raises:
        SharesUnfitError: It does not.
        ThresholdError: The contract's numbers carry no safe threshold.
    """
    plan = seat.recipe.plan
    check_noise(plan, secure_aggregation, seat.held.contract.privacy.clause)
    if plan is None or plan.noise != "shares":
        return
    terms = terms_here(seat, run)
    check_conditions(
        plan,
        groups=len(terms.groups(terms.parties)),
        max_colluders=terms.max_colluders,
        secure_aggregation=True,
    )
    check_noise_room(plan, terms)
    step = grid_step(plan, terms)
    _check_grid(plan, terms.dimension, terms.n, step if step is not None else 0.0)


@lru_cache(maxsize=32)
def _check_grid(plan: DpPlan, parameters: int, parties: int, step: float) -> None:
    """Once per plan: the accounting behind it takes long beside a round."""
    check_grid(plan, parameters=parameters, parties=parties, grid_step=step)
