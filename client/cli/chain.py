# SPDX-License-Identifier: Apache-2.0
"""``iriai-node chain``: the numbered chain of this node's envelopes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Open, Yes, ask, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["chain"]

_QUESTION = "You are about to end a chain of this node's envelopes for good; the auditor will ask why:"

chain = group("The numbered chain of this node's envelopes.")


class Reason(StrEnum):
    """Why a chain cannot go on."""

    DISK_LOSS = "disk-loss"
    RESTORE = "restore"


@command(chain, "show")
def chain_show(one: Open) -> Answer:
    """The chain that is sealed on: name, envelopes, what waits for a receipt, and chains before it."""
    from client.chains import chain_show as shown

    return shown(one.outbox)


@command(chain, "reset")
def chain_reset(
    *,
    reason: Annotated[Reason, typer.Option(help="disk-loss: it is gone; restore: it is an old copy.")],
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Begins a new chain after outbox.db was lost or restored; the worker must not run."""
    from client.chains import reset_chain

    confirm = ask(_QUESTION, yes=yes, prompt="End it for good?")
    return reset_chain(one.member, one.outbox, reason=reason.value, confirm=confirm)
