# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker incident``: what went wrong, and that it is dealt with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["incident"]

incident = typer_group("Incidents that the log declares.")


@command(incident, "list")
def incident_list(where: Where) -> Result:
    """Lists incidents with the index of their entries; the open ones first."""
    from broker.commands import incident as commands_incident

    return commands_incident.incident_list(where)


@command(incident, "close", effect="the incident of entry {index} is written down as dealt with: {reason}")
def incident_close(
    index: Annotated[int, typer.Argument(min=0, help="Of its entry, as incident list shows it.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="A reason code, such as outbox-restored.")],
    where: Where,
) -> Result:
    """Writes down that an incident is dealt with, by whom and how."""
    from broker.commands import incident as commands_incident

    return commands_incident.incident_close(where, index, reason=reason)
