# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker log``: how the log is, what is in it, a freeze, two ways out of it, a new key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["log"]

log = typer_group("The log: what is in it, how it is, how it is frozen, repaired or ended.")

Approvals = Annotated[
    list[Path] | None, typer.Option("--approval", help="From `log approve`; of two operators.")
]


@command(log, "status")
def log_status(*, directory: Home) -> Result:
    """Shows size, keys and, of a frozen log, why. Exits with 7 if it is frozen."""
    from broker.commands import log as commands_log

    return commands_log.log_status(directory)


@command(log, "entries")
def log_entries(
    *,
    start: Annotated[
        int | None, typer.Option("--from", min=0, help="First entry; without it, the newest.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=10_000, help="How many.")] = 50,
    kind: Annotated[str | None, typer.Option("--type", help="Only of this type, as console.action.")] = None,
    where: Where,
) -> Result:
    """Shows entries of the log as they were written."""
    from broker.commands import log_reading

    return log_reading.log_entries(where, start=start, count=count, kind=kind)


@command(log, "verify")
def log_verify(*, directory: Home) -> Result:
    """Hashes the whole log again and compares it with its newest note; the broker may serve."""
    from broker.commands import log_reading

    return log_reading.log_verify(directory)


@command(
    log, "freeze", effect="the log takes nothing and signs nothing until two operators open it", asks=True
)
def log_freeze(
    *,
    reason: Annotated[str, typer.Option("--reason", help="A reason code, such as intrusion-suspected.")],
    where: Where,
) -> Result:
    """Stops the log at once; one operator is enough. Reads go on; only `log repair` opens it again."""
    from broker.commands import log_reading

    return log_reading.log_freeze(where, reason=reason)


@command(log, "approve", effect="your approval of the document in {document} is signed")
def log_approve(
    document: Annotated[Path, typer.Argument(help="What log repair, log succeed or key rotate printed.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="Your operator key file.")],
) -> Result:
    """Signs such a document, after you have read it; works anywhere."""
    from broker.commands import log as commands_log

    return commands_log.log_approve(document, key)


@command(
    log,
    "repair",
    effect="what the bundle in {bundle} has and the log lost is put back, once two approved",
    asks=True,
)
def log_repair(
    *,
    directory: Home,
    bundle: Annotated[Path, typer.Option("--from-bundle", help="Auditor's bundle of this log.")],
    approvals: Approvals = None,
) -> Result:
    """Puts back signed entries that a frozen log lost. Without approvals: says what two operators sign."""
    from broker.commands import log as commands_log

    return commands_log.log_repair(directory, bundle, approvals or [])


@command(log, "succeed", effect="the log ends for good and {successor} goes on, once two approved", asks=True)
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


@command(
    log,
    "rotate-key",
    effect="the log gets a new key once two operators approved it; the old one signs beside it for 30 days",
    asks=True,
    hidden=True,
)
def log_rotate_key(*, directory: Home, approvals: Approvals = None) -> Result:
    """The same as `key rotate`. A key that was stolen needs `log succeed`."""
    from broker.commands import log as commands_log

    return commands_log.log_rotate_key(directory, approvals or [])
