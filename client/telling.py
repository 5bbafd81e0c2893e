# SPDX-License-Identifier: Apache-2.0
"""What the log is told of a spend: ``epsilon.spent``, and once per lineage and plan ``budget.opened``.

From the receipt of a touch while its round goes on, or from the ledger where the process died in between.

    with outbox.writing() as letters:
        seal_spend(letters, outbox, budgets, told_of(header, seat, spent, mechanism))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.encoding import decimal_text
from policies.privacy.blocks import block_number

if TYPE_CHECKING:
    from client.budgets import Budgets, Touched
    from client.guard import Seat
    from client.outbox import Letters, Outbox
    from client.privacy.store import Spend
    from policies.exchange import RequestHeader
    from policies.signing import Envelope

__all__ = ["Told", "seal_spend", "told_of"]


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
