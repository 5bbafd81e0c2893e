# SPDX-License-Identifier: Apache-2.0
"""What the log is told of a spend: ``epsilon.spent``, and once per lineage and plan ``budget.opened``.

From the receipt of a touch while its round goes on, or from the ledger where the process died in between.

    with outbox.writing() as letters:
        seal_spend(letters, outbox, budgets, told_of(header, seat, spent, mechanism))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.budgets import judging_mechanism
from client.desktop import check_units
from policies.encoding import decimal_text
from policies.privacy.blocks import HELD_OUT, block_number

if TYPE_CHECKING:
    from client.budgets import Budgets, Touched
    from client.desktop import Desktop
    from client.outbox import Letters, Outbox
    from client.privacy.store import Spend
    from client.seat import Seat
    from policies.exchange import RequestHeader
    from policies.privacy.plan import EvalPlan
    from policies.signing import Envelope

__all__ = ["Told", "seal_spend", "spend_on_query", "told_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A spend as the log is told of it."""

    contract: str
    run: str
    round: int
    lineage: str
    blocks: tuple[str, ...]
    mechanism: str
    plan_digest: str
    steps: int
    rho_nano: int
    epsilon_after: str
    epsilon_max: str

    @classmethod
    def of(cls, one: Touched) -> Told:
        """A spend as the ledger holds it."""
        return cls(
            contract=one.contract,
            run=one.run,
            round=one.round,
            lineage=one.lineage,
            blocks=one.blocks,
            mechanism=one.mechanism,
            plan_digest=one.plan_digest,
            steps=one.steps,
            rho_nano=one.rho_nano,
            epsilon_after=one.epsilon_after,
            epsilon_max=one.epsilon_max,
        )


def told_of(header: RequestHeader, seat: Seat, spent: Spend, mechanism: str) -> Told:
    """A spend of a request that is under work."""
    return Told(
        contract=header.contract,
        run=header.run,
        round=header.round,
        lineage=seat.lineage,
        blocks=spent.blocks,
        mechanism=mechanism,
        plan_digest=spent.plan_digest,
        steps=spent.steps,
        rho_nano=spent.rho_nano,
        epsilon_after=spent.epsilon_after,
        epsilon_max=spent.epsilon_max,
    )


def spend_on_query(
    top: Desktop,
    seat: Seat,
    header: RequestHeader,
    plan: EvalPlan,
    *,
    subject: str,
    held_as: str | None = None,
) -> Told | None:
    """The spend of one query on held-out units, from before a crash if it was paid for already.

    Args:
        top: Of the duties.
        seat: Whose data.
        header: The request.
        plan: What the query costs.
        subject: What is judged; one query about it is paid for once.
        held_as: Name of the reservation in the ledger, where it is not the run's.

    Returns:
        What the log is told; None under a contract without caps.

    Raises:
        PlanMismatchError: Other units would be read than were reserved.
        BudgetExhaustedError: A cap does not hold the plan, or no step is left.
    """
    mechanism = judging_mechanism(header.run, subject)
    manifest = top.learner.units(seat, HELD_OUT).manifest
    for one in top.budgets.touches():
        if one.mechanism == mechanism and one.lineage == seat.lineage:
            store = top.budgets.ledger_of(seat.lineage)
            check_units(header, store.reserved(held_as or header.run, split=HELD_OUT), manifest)
            return Told.of(one)
    spent = top.spend(seat, header, plan, HELD_OUT, manifest=manifest, subject=subject, held_as=held_as)
    return None if spent is None else told_of(header, seat, spent, mechanism)


def seal_spend(letters: Letters, outbox: Outbox, budgets: Budgets, told: Told) -> list[Envelope]:
    """``epsilon.spent``, and before the first one of a lineage and plan ``budget.opened``."""
    sealed = []
    opened = f"budget.opened {told.lineage} {told.plan_digest}"
    if outbox.find(opened) is None:
        state = budgets.ledger_of(told.lineage).state
        body = {
            "unit": state.unit,
            "adjacency": state.adjacency,
            "delta": decimal_text(state.lineage.delta),
            "alpha_star": state.lineage.order,
            "plan": told.plan_digest,
            "lineage": told.lineage,
            "epsilon_max": decimal_text(told.epsilon_max),
        }
        sealed.append(
            letters.seal("budget.opened", body=body, scope=told.contract, run=told.run, slot=opened)
        )
    body = {
        "mechanism": told.mechanism,
        "plan": told.plan_digest,
        "steps": told.steps,
        "lineage": told.lineage,
        "blocks": sorted(map(block_number, told.blocks)),
        "rho_nano": told.rho_nano,
        "epsilon_after": decimal_text(told.epsilon_after),
    }
    slot = f"epsilon.spent {told.mechanism}"
    sealed.append(
        letters.seal(
            "epsilon.spent", body=body, scope=told.contract, run=told.run, round=told.round, slot=slot
        )
    )
    return sealed
