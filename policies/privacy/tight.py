# SPDX-License-Identifier: Apache-2.0
"""The tight figure of a finished plan, by Google's dp_accounting: for statements, never for a decision.

Stopping a sequence of adaptively written contracts by this figure would be invalid (arXiv 2602.06756); the
filter of `policies.privacy.accounting` does that. dp_accounting and pydantic are imported inside the
functions, and nothing on the verifier's path imports this module: `iriai-verify` loads it by name, for
`second_figures`, which needs plain numbers and no pydantic.

A plan whose ``epsilon_rdp`` is above 100 promises nothing, and the tables of a tight accountant grow with it
until no memory holds them: it has no tight figure (`is_too_weak`, `tight_text`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from policies.privacy.accounting import ORDERS, epsilon_text

if TYPE_CHECKING:
    import dp_accounting

    from policies.privacy.plan import DpPlan, EvalPlan

__all__ = [
    "ACCOUNTANT",
    "EPSILON_MOST",
    "Figures",
    "dp_event",
    "epsilon_pld",
    "is_too_weak",
    "second_figures",
    "tight_text",
]

ACCOUNTANT: Final = "dp-accounting 0.6, interval 1e-4"
EPSILON_MOST: Final = 100.0  # by `epsilon_rdp`; the verifier has the same bound
_INTERVAL: Final = 1e-4


class Figures(NamedTuple):
    """Epsilon of a whole plan at its delta: tight, and by the best Rényi order."""

    pld: float
    rdp: float


def dp_event(plan: DpPlan | EvalPlan) -> dp_accounting.DpEvent:
    """The plan as an accounting event: the same fields that make its sampler and its noise."""
    return _event(*_numbers(plan))


def _numbers(plan: DpPlan | EvalPlan) -> tuple[float | None, float, int]:
    """Sampling probability, noise multiplier and steps."""
    from policies.privacy.plan import DpPlan

    q = float(plan.sampling_prob) if isinstance(plan, DpPlan) else None
    return q, float(plan.noise_multiplier), plan.steps


def _event(q: float | None, sigma: float, steps: int) -> dp_accounting.DpEvent:
    import dp_accounting as dpa

    step = dpa.GaussianDpEvent(sigma)
    if q is not None:
        step = dpa.PoissonSampledDpEvent(q, step)
    return dpa.SelfComposedDpEvent(step, steps)


def epsilon_pld(plan: DpPlan | EvalPlan) -> float:
    """Epsilon of all steps at the plan's delta by privacy loss distributions, relation ``zero-out``."""
    return _epsilon_pld(*_numbers(plan), float(plan.delta))


@lru_cache(maxsize=64)  # half a second each, and pages ask again and again
def _epsilon_pld(q: float | None, sigma: float, steps: int, delta: float) -> float:
    return _pld(_event(q, sigma, steps), delta)


def is_too_weak(plan: DpPlan | EvalPlan) -> bool:
    """Whether a plan promises so little that no tight figure of it is computed."""
    return not plan.epsilon_rdp <= EPSILON_MOST


def tight_text(plan: DpPlan | EvalPlan) -> str | None:
    """`epsilon_pld` as statements carry it; None for a plan that is too weak. Takes seconds.

    Raises:
        ImportError: dp_accounting is not installed.
    """
    return None if is_too_weak(plan) else epsilon_text(epsilon_pld(plan))


def _pld(event: dp_accounting.DpEvent, delta: float) -> float:
    import dp_accounting as dpa
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        neighboring_relation=dpa.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=_INTERVAL
    )
    return float(accountant.compose(event).get_epsilon(delta))


@lru_cache(maxsize=64)
def second_figures(*, q: float, sigma: float, steps: int, delta: float) -> Figures:
    """Both figures of a training plan by dp_accounting alone, for whoever checks those of a statement.

    Raises:
        ImportError: dp_accounting is not installed.
    """
    import dp_accounting as dpa
    from dp_accounting.rdp import RdpAccountant

    event = _event(q, sigma, steps)
    accountant = RdpAccountant(orders=ORDERS, neighboring_relation=dpa.NeighboringRelation.REPLACE_SPECIAL)
    return Figures(_epsilon_pld(q, sigma, steps, delta), float(accountant.compose(event).get_epsilon(delta)))
