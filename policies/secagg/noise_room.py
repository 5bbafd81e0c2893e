# SPDX-License-Identifier: Apache-2.0
"""Whether noise shares fit the ring of a run: asked before anybody signs, trains or pays.

A share that does not fit is refused by the node that drew it (``update.unfit``), when its budget is spent:
every round would cost, and none would open.

    check_noise_room(recipe.plan, agreed_terms(contract, recipe.canonical, run=run))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.privacy.shares import check_room

if TYPE_CHECKING:
    from policies.privacy.plan import DpPlan
    from policies.secagg.terms import Terms

__all__ = ["check_noise_room"]


def check_noise_room(plan: DpPlan | None, terms: Terms) -> None:
    """Returns if noise shares of a plan fit the ring of these terms, or if there are none.

    Raises:
        SharesUnfitError: They do not fit.
    """
    if plan is None or plan.noise != "shares":
        return
    check_room(
        plan,
        parameters=terms.dimension,
        parties=terms.n,
        largest=2**terms.bits / terms.scale * float(plan.normalizer),
        clause=terms.clause,
    )
