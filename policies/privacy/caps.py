# SPDX-License-Identifier: Apache-2.0
"""Caps on epsilon, with the order at which they are counted, and what a plan costs. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from policies.privacy.accounting import filter_order, rho_max_nano
from policies.privacy.blocks import TRAIN, split_charged
from policies.privacy.errors import BudgetError, OrderUnfitError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Cap", "plan_facts"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A cap on epsilon at delta, with its filter order fixed; decimal strings, as in contracts.

    Attributes:
        scope: Digest of the contract, or the lineage.
        epsilon_total: The cap.
        epsilon_per_release: Largest epsilon of one plan.
        delta: Delta of both.
        before: Digests of the versions that the contract superseded: what was spent under them counts under
            this cap too, or an amendment would begin the budget anew.
        declared: Order that was declared before, and stays: a lineage's, once its cap was tightened.
    """

    scope: str
    epsilon_total: str
    epsilon_per_release: str
    delta: str
    before: tuple[str, ...] = ()
    declared: int | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """Everything whose spends this cap is about."""
        return (self.scope, *self.before)

    @property
    def order(self) -> int:
        """Filter order: the declared one, else the one that follows from the caps."""
        if self.declared is not None:
            return self.declared
        return filter_order(
            epsilon_total=self.epsilon_total,
            epsilon_per_release=self.epsilon_per_release,
            delta=self.delta,
        )

    @property
    def rho_max_nano(self) -> int:
        """What the cap holds at its order, in billionths."""
        return rho_max_nano(epsilon=float(self.epsilon_total), delta=float(self.delta), order=self.order)

    def as_dict(self) -> Json:
        """JSON value that a ledger entry carries."""
        earlier = {"before": list(self.before)} if self.before else {}
        return earlier | {
            "scope": self.scope,
            "epsilon_total": self.epsilon_total,
            "epsilon_per_release": self.epsilon_per_release,
            "delta": self.delta,
            "order": self.order,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Cap:
        """The cap that an entry carries.

        Raises:
            OrderUnfitError: The order written beside it is not the one that follows from it.
        """
        cap = cls(
            scope=value["scope"],
            epsilon_total=value["epsilon_total"],
            epsilon_per_release=value["epsilon_per_release"],
            delta=value["delta"],
            before=tuple(value.get("before", ())),
        )
        if value["order"] != cap.order:
            raise OrderUnfitError(
                need=f"order {cap.order}", found=str(value["order"]), remedy="the order follows from the caps"
            )
        return cap

    def tightened(self, epsilon_total: str) -> Cap:
        """A lower cap at the same order; an order that were chosen after models were seen would be no filter.

        Raises:
            BudgetError: It is not lower, or no number above 0.
        """
        try:
            lower = 0 < Decimal(epsilon_total) < Decimal(self.epsilon_total)
        except (InvalidOperation, ValueError):
            lower = False
        if not lower:
            raise BudgetError(
                need=f"an epsilon above 0 and below {self.epsilon_total}",
                found=ascii(epsilon_total)[1:-1][:40],
                remedy="a cap is tightened only; for a looser one there have to be new data",
            )
        release = min(self.epsilon_per_release, epsilon_total, key=Decimal)
        return replace(self, epsilon_total=epsilon_total, epsilon_per_release=release, declared=self.order)


def plan_facts(document: Mapping[str, Any]) -> tuple[float, float, int, int]:
    """Sampling probability, noise multiplier, steps and steps per touch of a plan's document.

    Raises:
        BudgetError: An unknown kind of plan.
    """
    trains = split_charged(document) == TRAIN
    q, per_touch = (
        (float(document["sampling_prob"]), int(document["steps_per_round"])) if trains else (1.0, 1)
    )
    return q, float(document["noise_multiplier"]), int(document["steps"]), per_touch
