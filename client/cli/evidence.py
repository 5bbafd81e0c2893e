# SPDX-License-Identifier: Apache-2.0
"""``iriai-node outbox`` and ``iriai-node receipt``: what left this site, and proofs that the log holds it.

``receipts`` is the older name of ``receipt``, with the same commands.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import All, DryRun, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["outbox", "receipt", "receipts"]

outbox = group("What left this site.")
receipt = group("Proofs that the log holds what this node sent.")
receipts = group("The same as receipt.")


@command(outbox, "list")
def outbox_list(
    *,
    run_id: Annotated[str | None, typer.Option("--run", help="Only what left for this run.")] = None,
    every: All = False,
    one: Open,
) -> Answer:
    """What left this site: when, bytes, kind, digest, clause, receipts; equal rows in one line."""
    from client import ledgers

    return ledgers.outbox_list(one.outbox, run=run_id, every=every)


@command(outbox, "show")
def outbox_show(
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="Digest, 12 digits do, or index in the log.")],
    one: Open,
) -> Answer:
    """One transmission: what it was, the clause that allowed it, what was signed in it, each receipt."""
    from client import transmissions

    return transmissions.show(one.outbox, entry)


@command(outbox, "export")
def outbox_export(
    *,
    out: Annotated[Path, typer.Option("--out", help="New file: *.csv or *.json.")],
    run_id: Annotated[str | None, typer.Option("--run", help="Only what left for this run.")] = None,
    one: Open,
) -> Answer:
    """Writes everything that left this site as a table; equal rows are not folded."""
    from client import transmissions

    return transmissions.export(one.outbox, out, run=run_id)


@command(receipt, "fetch")
@command(receipts, "fetch")
def receipts_fetch(*, dry_run: DryRun = False, one: Open) -> Answer:
    """Fetches and checks the receipts that are missing."""
    from client import releases

    if dry_run:
        return releases.receipts_missing(one.outbox)
    return releases.receipts_fetch(one.member, one.outbox)


@command(receipt, "list")
@command(receipts, "list")
def receipts_list(*, every: All = False, one: Open) -> Answer:
    """Envelopes of this node: entries, grades of their receipts, checkpoints; equal rows in one line."""
    from client import releases

    return releases.receipts_list(one.outbox, every=every)


@command(receipt, "verify")
@command(receipts, "verify")
def receipts_verify(
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody for the current head.")] = False,
    one: Open,
) -> Answer:
    """Checks every receipt again, and that the log extends what this node saw; exit 7 shows the evidence."""
    from client import releases

    asked = None if offline else one.member
    return releases.receipts_verify(asked, one.outbox, one.member.log_keys.all)


@command(receipt, "export")
@command(receipts, "export")
def receipts_export(
    *, out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if missing.")], one: Open
) -> Answer:
    """Writes every receipt as a file `<index>.tlog-proof`, the form that an auditor's verifier reads."""
    from client import releases

    return releases.receipts_export(one.outbox, out)
