# SPDX-License-Identifier: Apache-2.0
"""The broker's mirror of the nodes' budgets, recomputed from plans and steps.

The node's own ledger decides; the mirror accuses. Both use the fixed-order filter of the contract's caps, so
that they
give the same digits for the same history: closed runs count the steps that were taken, an open run counts
its whole plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from broker.store.tables import ledger_mirror, run
from policies.contract import EpsilonAfter
from policies.privacy.accounting import epsilon_filter, epsilon_text, filter_order
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract import Contract
    from policies.privacy import DpPlan

__all__ = ["Spent", "epsilon_after", "spent_by"]

OPEN_STATES = ("running", "judging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Noisy steps of one party under one contract, and what they come to."""

    party: str
    steps: int
    rho_nano: int
    epsilon: str


def spent_by(session: Session, contracts: Contracts, contract: Contract, party: str) -> Spent:
    """What a party really spent under a contract: only steps that were taken."""
    order = _order(contract, party)
    rows = _rows(session, contract, party)
    rho = sum(
        steps * _plan(session, contracts, contract, recipe).rho_step_nano(order=order)
        for recipe, steps, _, _ in rows
    )
    return Spent(
        party=party,
        steps=sum(steps for _, steps, _, _ in rows),
        rho_nano=rho,
        epsilon=_epsilon(rho, contract, party, order),
    )


def epsilon_after(
    session: Session, contracts: Contracts, contract: Contract, *, party: str, plan: DpPlan, run_id: str
) -> EpsilonAfter:
    """Both figures of one party if this run goes on: its whole plan counts as spent."""
    order = _order(contract, party)
    rho = plan.steps * plan.rho_step_nano(order=order)
    for recipe, steps, other, state in _rows(session, contract, party):
        if other == run_id:
            continue
        one = _plan(session, contracts, contract, recipe)
        rho += (one.steps if state in OPEN_STATES else steps) * one.rho_step_nano(order=order)
    return EpsilonAfter(release=epsilon_text(plan.epsilon_rdp), total=_epsilon(rho, contract, party, order))


def _epsilon(rho_nano: int, contract: Contract, party: str, order: int) -> str:
    caps = contract.caps(party)
    if caps is None or rho_nano == 0:
        return "0.000000"
    return epsilon_text(epsilon_filter(rho_nano=rho_nano, delta=float(caps.delta), order=order))


def _order(contract: Contract, party: str) -> int:
    caps = contract.caps(party)
    if caps is None:
        return 2
    return filter_order(
        epsilon_total=caps.epsilon_total, epsilon_per_release=caps.epsilon_per_release, delta=caps.delta
    )


def _rows(session: Session, contract: Contract, party: str) -> list[tuple[str, int, str, str]]:
    """(recipe digest, steps taken, run id, state) of each run of the contract that this party trained in."""
    query = (
        select(run.c.recipe_digest, func.sum(ledger_mirror.c.steps), run.c.run_id, run.c.state)
        .join(ledger_mirror, ledger_mirror.c.run_id == run.c.run_id)
        .where((run.c.contract == contract.digest) & (ledger_mirror.c.party == party))
        .group_by(run.c.run_id, run.c.recipe_digest, run.c.state)
    )
    return [(row[0], int(row[1]), row[2], row[3]) for row in session.execute(query)]


def _plan(session: Session, contracts: Contracts, contract: Contract, recipe_digest: str) -> DpPlan:
    plan = load_recipe(contracts.annex(session, contract, recipe_digest)).plan
    if plan is None:
        from policies.errors import InvariantError

        raise InvariantError(
            need="a plan behind spent steps", found="none", remedy="report this with the broker's log"
        )
    return plan
