# SPDX-License-Identifier: Apache-2.0
"""``iriai-node witness``: what this node cosigned, who vouches for the log, and evidence against it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["witness"]

witness = group("This node as a witness of the log, and who vouches for it.")


@command(witness, "status")
def witness_status(one: Open) -> Answer:
    """What this node cosigned, and who vouches for the log; exit 75 if too few do for a contract."""
    from client.witnessing import showing

    return showing.witness_status(one.member, one.shelf, one.outbox)


@command(witness, "cosign")
def witness_cosign(*, dry_run: DryRun = False, one: Open) -> Answer:
    """Checks the newest head of the log against all that was seen here, and cosigns it, once."""
    from client.witnessing import showing

    if dry_run:
        return showing.witness_look(one.member, one.outbox)
    return showing.witness_cosign(one.member, one.shelf, one.outbox)


@command(witness, "evidence")
def witness_evidence(
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Copy equivocation.proof here.")] = None,
    one: Open,
) -> Answer:
    """The evidence that the log told two histories, checked again; exit 7 if there is any."""
    from client.witnessing import showing

    return showing.witness_evidence(one.member, one.outbox, out)
