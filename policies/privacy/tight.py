# SPDX-License-Identifier: Apache-2.0
"""The tight figure of a finished plan, by Google's dp_accounting: for statements, never for a decision.

Stopping a sequence of adaptively written contracts by this figure would be invalid (arXiv 2602.06756); the
filter of `policies.privacy.accounting` does that. dp_accounting is imported inside the functions, and nothing
on the verifier's path imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.privacy.plan import DpPlan, EvalPlan

if TYPE_CHECKING:
    import dp_accounting

__all__ = ["ACCOUNTANT", "dp_event", "epsilon_pld"]

ACCOUNTANT: Final = "dp-accounting 0.6, interval 1e-4"
_INTERVAL: Final = 1e-4


def dp_event(plan: DpPlan | EvalPlan) -> dp_accounting.DpEvent:
    """The plan as an accounting event: the same fields that make its sampler and its noise."""
    import dp_accounting as dpa

    step = dpa.GaussianDpEvent(float(plan.noise_multiplier))
    if isinstance(plan, DpPlan):
        step = dpa.PoissonSampledDpEvent(float(plan.sampling_prob), step)
    return dpa.SelfComposedDpEvent(step, plan.steps)


def epsilon_pld(plan: DpPlan | EvalPlan) -> float:
    """Epsilon of all steps at the plan's delta by privacy loss distributions, relation ``zero-out``."""
    import dp_accounting as dpa
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        neighboring_relation=dpa.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=_INTERVAL
    )
    accountant.compose(dp_event(plan))
    return float(accountant.get_epsilon(float(plan.delta)))
