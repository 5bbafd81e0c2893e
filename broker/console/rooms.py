# SPDX-License-Identifier: Apache-2.0
"""Every room of the console, in the order of the navigation. A new room is one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.console import account, entering, people_pages, reference
from broker.console.auditor import entries, lineage, papers, people, replay, verdict
from broker.console.operator import (
    budgets,
    catalogue,
    comparison,
    contract,
    contract_acts,
    contracts,
    decisions,
    health,
    incidents,
    invitations,
    keys,
    member,
    member_acts,
    members,
    negotiation,
    operators,
    overview,
    proposals,
    releases,
    rounds,
    run,
    runs,
)
from broker.console.public import models

if TYPE_CHECKING:
    from broker.console.screens import Room, Route

__all__ = ["ROOMS", "all_routes"]

ROOMS: Final[tuple[Room, ...]] = (
    overview.room,
    proposals.room,
    members.room,
    member.room,
    member_acts.room,
    invitations.room,
    contracts.room,
    contract.room,
    contract_acts.room,
    negotiation.room,
    comparison.room,
    catalogue.room,
    runs.room,
    run.room,
    rounds.room,
    budgets.room,
    releases.room,
    decisions.room,
    incidents.room,
    keys.room,
    health.room,
    operators.room,
    verdict.room,
    replay.room,
    lineage.room,
    entries.room,
    people.room,
    papers.room,
    people_pages.room,
    account.room,
    entering.room,
    reference.room,
    models.room,
)


def all_routes() -> tuple[Route, ...]:
    """Every screen, act, stream and file of the console, in the order of the navigation."""
    return tuple(route for room in ROOMS for route in room.routes)
