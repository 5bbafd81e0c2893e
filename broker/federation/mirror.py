# SPDX-License-Identifier: Apache-2.0
"""The broker's mirror of the nodes' budgets, recomputed from plans and steps.

The node's own ledger decides; the mirror accuses. Both use the fixed-order filter of the contract's caps, so
that they
give the same digits for the same history: closed runs count the steps that were taken, an open run counts
its whole plan. What was spent under the versions that a contract superseded counts under its caps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import BigInteger, cast, func, select

from broker.contracts.lineage import versions
from broker.store.tables import ledger_mirror, run
from policies.contract import EpsilonAfter
from policies.privacy.accounting import epsilon_filter, epsilon_text, filter_order
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract import Contract
    from policies.privacy import DpPlan

__all__ = ["epsilon_after"]

OPEN_STATES = ("running", "judging")


def epsilon_after(
    session: Session,
    contracts: Contracts,
    contract: Contract,
    *,
    party: str,
    plan: DpPlan,
    run_id: str,
    held: bool = True,
) -> EpsilonAfter:
    """Both figures of one party if this run goes on: its whole plan counts as spent.

    Args:
        session: Of the main database.
        contracts: Knows plans of other runs.
        contract: Whose caps.
        party: Whose figures.
        plan: Of this run.
        run_id: This run.
        held: What other open runs hold counts too; else only the steps that they took.
    """
    order = _order(contract, party)
    rho = plan.steps * plan.rho_step_nano(order=order)
    for row in _rows(session, contract, party):
        if row.run == run_id:
            continue
        one = _plan(session, contracts, row.contract, row.recipe)
        steps = one.steps if held and row.state in OPEN_STATES else row.steps
        rho += steps * one.rho_step_nano(order=order)
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


class _Run(NamedTuple):
    """A run of some version of a contract, and the steps that a party took in it."""

    contract: str
    recipe: str
    run: str
    state: str
    steps: int


def _rows(session: Session, contract: Contract, party: str) -> list[_Run]:
    """Each run, under any version of the contract up to this one, that this party trained in."""
    columns = (run.c.contract, run.c.recipe_digest, run.c.run_id, run.c.state)
    query = (
        select(*columns, cast(func.sum(ledger_mirror.c.steps), BigInteger))
        .join(ledger_mirror, ledger_mirror.c.run_id == run.c.run_id)
        .where(run.c.contract.in_(versions(session, contract.digest)) & (ledger_mirror.c.party == party))
        .group_by(*columns)
        .order_by(run.c.run_id)
    )
    return [_Run(*row) for row in session.execute(query)]


def _plan(session: Session, contracts: Contracts, contract: str, recipe_digest: str) -> DpPlan:
    plan = load_recipe(contracts.annex(session, contracts.get(contract), recipe_digest)).plan
    if plan is None:
        from policies.errors import InvariantError

        raise InvariantError(
            need="a plan behind spent steps", found="none", remedy="report this with the broker's log"
        )
    return plan
