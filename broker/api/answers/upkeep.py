# SPDX-License-Identifier: Apache-2.0
"""What the rooms answer in which operators look after the pool: invitations, freezing, budgets."""

from __future__ import annotations

from broker.api.answers.values import ABSENT, Digest, Millis, Name
from broker.api.declared import Shown

__all__ = ["Budgets", "Frozen", "InviteEnded", "Invites"]


class InviteLine(Shown):
    """An invitation, without its secret, which nobody has but its receiver."""

    id: str
    state: str
    legal_name: str
    country: str
    group: str | None
    expires_ms: Millis
    created_by: Name


class Invites(Shown):
    """Invitations, those that end last first."""

    invites: list[InviteLine]
    next: str = ABSENT


class InviteEnded(Shown):
    """An invitation that nobody can use any more."""

    id: str
    state: str


class Frozen(Shown):
    """That the log takes nothing any more, and who ordered it."""

    frozen: str
    size: int


class PartyBudget(Shown):
    """What a contributor spent, with what open runs hold, and its caps."""

    party: Name
    steps: int
    epsilon_spent: str
    epsilon_with_reserved: str
    epsilon_total: str | None
    epsilon_per_release: str | None
    delta: str | None


class RecipeBudget(Shown):
    """What is left of a recipe: rounds by its clause, whole runs by the caps, and whose cap ends first."""

    recipe: Digest
    recipe_id: str
    clause: str
    rounds_used: int
    rounds_left: int
    runs_left: int | None
    first_spent: Name | None


class Budgets(Shown):
    """Budgets of a contract, by the broker's mirror."""

    contract: Digest
    parties: list[PartyBudget]
    recipes: list[RecipeBudget]
