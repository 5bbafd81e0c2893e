# SPDX-License-Identifier: Apache-2.0
"""``iriai-node key``: by which key this node is known, which it had, and a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Yes, ask, command, group
from client.clock import SystemClock
from client.entropy import SystemEntropy

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["key", "key_rotate"]

key = group("This node's keys: public halves and fingerprints; private keys are never shown.")


@command(key, "show")
def key_show(home: Home) -> Answer:
    """Public keys and fingerprints of this node, former ones with their end, and the pinned broker's."""
    from client.own_keys import key_show as shown

    return shown(home.need(), entropy=SystemEntropy())


@command(key, "rotate")
def key_rotate(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "key.age",
    home: Home,
    yes: Yes = False,
) -> Answer:
    """Gives this node a new key in all its contracts. Stop the worker first; repeat it after a crash."""
    from client import rotating

    return rotating.rotate_key(
        home,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        code=reason,
        confirm=ask("This node is about to be known by a new key, with the fingerprint:", yes=yes),
    )
