# SPDX-License-Identifier: Apache-2.0
"""``iriai-node audit``: this member's own view of the log, for an audit of its own."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["audit"]

audit = group("This member's own view of the log.")


@audit.callback()
def _audit() -> None:
    """Keeps `bundle` a command of its own, although it is the only one."""


@command(audit, "bundle")
def audit_bundle(
    *, out: Annotated[Path, typer.Option("--out", help="New file.")], dry_run: DryRun = False, one: Open
) -> Answer:
    """Fetches every entry of the log, with what is this member's own opened, as one file; the log says so."""
    from client.own_log import take_bundle

    if dry_run:
        one.member.client.look_only()
    return take_bundle(one.member, out)
