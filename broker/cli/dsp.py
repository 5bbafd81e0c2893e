# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker dsp``: connectors of dataspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["dsp"]

dsp = typer_group("Connectors of dataspaces (dsp.enabled = true in broker.toml).")
counterparty = typer_group("Connectors that may talk to this broker.")
dsp.add_typer(counterparty, name="counterparty")


@command(counterparty, "add", effect="connector {name} gets a new token; an older one of it ends")
def counterparty_add(
    name: str,
    *,
    callback: Annotated[
        str, typer.Option("--callback", help="https address where it is told; the only one.")
    ],
    participant: Annotated[
        str | None, typer.Option("--participant", help="Its id in its dataspace, as agreements name it.")
    ] = None,
    org: Annotated[
        str | None, typer.Option("--org", help="The member that it speaks for; without, open tiers only.")
    ] = None,
    where: Where,
) -> Result:
    """Registers a connector and prints its token once; the same one again gets a new token."""
    from broker.commands import dsp as commands_dsp

    return commands_dsp.counterparty_add(where, name, callback=callback, participant=participant, org=org)


@command(counterparty, "list")
def counterparty_list(where: Where) -> Result:
    """Lists connectors."""
    from broker.commands import dsp as commands_dsp

    return commands_dsp.counterparty_list(where)


@command(counterparty, "remove", effect="the token of connector {name} ends at once", asks=True)
def counterparty_remove(name: str, where: Where) -> Result:
    """Ends a connector's token at once; what it agreed stays."""
    from broker.commands import dsp as commands_dsp

    return commands_dsp.counterparty_remove(where, name)
