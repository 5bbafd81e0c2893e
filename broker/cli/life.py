# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for contracts in force: where one stands, and the broker's own halt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.contract import contract
from broker.cli.options import Clause, Text, command

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["contract"]


@command(contract, "status")
def contract_status(digest: str, where: Where) -> Result:
    """Shows where a contract stands: halts, exits, its end, and every notice."""
    from broker.commands import life as commands_life

    return commands_life.contract_lifecycle(where, digest)


@command(contract, "lifecycle", hidden=True)
def contract_lifecycle(digest: str, where: Where) -> Result:
    """The same as `contract status`."""
    from broker.commands import life as commands_life

    return commands_life.contract_lifecycle(where, digest)


@command(contract, "resume", effect="nothing: a halt ends by the word of every contributor")
def contract_resume(
    digest: Annotated[str, typer.Argument(help="File or digest of a contract.")], where: Where
) -> Result:
    """Says whose word ends a halt: every contributor's, at their own nodes; the broker has none."""
    from broker.commands import life as commands_life

    return commands_life.contract_resume(where, digest)


@command(
    contract, "halt", effect="everything under {digest} stops until every contributor has resumed", asks=True
)
def contract_halt(
    digest: str,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like log.disputed.")],
    clause: Clause = None,
    text: Text = None,
    where: Where,
) -> Result:
    """Stops everything under a contract. It goes on when every contributor has resumed."""
    from broker.commands import life as commands_life

    return commands_life.contract_halt(where, digest, code=reason, clause=clause, text=text)
