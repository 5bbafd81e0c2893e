# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker key``: the broker's own keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cli.log import Approvals  # noqa: TC001  typer reads the annotations
from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["key"]

key = typer_group("The broker's own keys.")


@command(key, "list")
def key_list(*, directory: Home) -> Result:
    """Lists the broker's own keys: purpose, id, age, end."""
    from broker.commands import keys

    return keys.key_list(directory)


@command(
    key,
    "rotate",
    effect="the log gets a new key once two operators approved it; the old one signs beside it for 30 days",
    asks=True,
)
def key_rotate(*, directory: Home, approvals: Approvals = None) -> Result:
    """Gives the log a new key; both sign for 30 days. Without approvals: says what two operators sign."""
    from broker.commands import log as commands_log

    return commands_log.log_rotate_key(directory, approvals or [])
