# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker log``, on the broker's host: how the log is, two ways out of a freeze, a new key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["log"]

log = typer_group("The log: how it is, how it is repaired or ended, its key. The broker is stopped for it.")

Approvals = Annotated[
    list[Path] | None, typer.Option("--approval", help="From `log approve`; of two operators.")
]


@command(log, "status")
def log_status(*, directory: Home) -> Result:
    """Shows size, keys and, of a frozen log, why. Exits with 7 if it is frozen."""
    from broker.commands import log as commands_log

    return commands_log.log_status(directory)


@command(log, "approve")
def log_approve(
    document: Annotated[Path, typer.Argument(help="What `log repair` or `log succeed` printed.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="Your operator key file.")],
) -> Result:
    """Signs such a document, after you have read it; works anywhere."""
    from broker.commands import log as commands_log

    return commands_log.log_approve(document, key)


@command(log, "repair")
def log_repair(
    *,
    directory: Home,
    bundle: Annotated[Path, typer.Option("--from-bundle", help="Auditor's bundle of this log.")],
    approvals: Approvals = None,
) -> Result:
    """Puts back signed entries that a frozen log lost. Without approvals: says what two operators sign."""
    from broker.commands import log as commands_log

    return commands_log.log_repair(directory, bundle, approvals or [])


@command(log, "succeed")
def log_succeed(
    successor: Annotated[str, typer.Argument(metavar="NEW_ORIGIN", help="Name of the new log.")],
    *,
    directory: Home,
    cause: Annotated[
        str | None,
        typer.Option("--reason", help="A reason code, if the log is open; such as key-compromised."),
    ] = None,
    approvals: Approvals = None,
    main: Annotated[
        str | None, typer.Option("--database-url", help="Empty database of PostgreSQL for the new log.")
    ] = None,
    private: Annotated[
        str | None, typer.Option("--private-db-url", help="Another empty one, for its confidential values.")
    ] = None,
) -> Result:
    """Ends the log and begins another that names it. Without approvals: says what two operators sign."""
    from broker.commands import log as commands_log

    return commands_log.log_succeed(
        directory,
        successor,
        cause=cause,
        approvals=approvals or [],
        databases=None if main is None else (main, private),
    )


@command(log, "rotate-key")
def log_rotate_key(*, directory: Home) -> Result:
    """Makes a new key for the log; both sign for 30 days. A key that was stolen needs `log succeed`."""
    from broker.commands import log as commands_log

    return commands_log.log_rotate_key(directory)
