# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for contracts in force: where one stands, and the broker's own halt."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.contract import contract
from broker.cli.options import Dir, Json, Key, Pin, Url, finish, where_of

__all__ = ["contract"]


@contract.command("lifecycle")
def contract_lifecycle(
    digest: str,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Shows where a contract stands: halts, exits, its end, and every notice."""
    from broker.commands import life as commands_life

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_life.contract_lifecycle(where, digest), as_json=as_json)


@contract.command("halt")
def contract_halt(
    digest: str,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like log.disputed.")],
    clause: Annotated[str | None, typer.Option("--clause", help="The clause that is the reason.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="One line for the parties.")] = None,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Stops everything under a contract. It goes on when every contributor has resumed."""
    from broker.commands import life as commands_life

    where = where_of(directory, url, pin, key)
    finish(
        lambda: commands_life.contract_halt(where, digest, code=reason, clause=clause, text=text),
        as_json=as_json,
    )
