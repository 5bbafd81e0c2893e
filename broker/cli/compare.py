# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for comparing terms: with another contract, and with the past."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.life import contract
from broker.cli.options import command

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["contract"]


@command(contract, "diff")
def contract_diff(
    old: Annotated[str, typer.Argument(help="File or digest of a contract.")],
    new: Annotated[str, typer.Argument(help="File or digest of another one.")],
    where: Where,
) -> Result:
    """Shows what is tighter and what is looser, with a request that shows it; exit code 3 if looser."""
    from broker.commands.comparing import contract_diff as work

    return work(where, old, new)


@command(contract, "prove")
def contract_prove(
    old: Annotated[str, typer.Argument(help="File or digest of a contract.")],
    new: Annotated[str, typer.Argument(help="File or digest of another one.")],
    where: Where,
) -> Result:
    """Proves that a text is no looser, or shows a case that it allows anew; exit code 3 unless proven."""
    from broker.commands.comparing import contract_prove as work

    return work(where, old, new)


@command(contract, "dry-run")
def contract_dry_run(
    file: Path,
    *,
    against: Annotated[
        str | None, typer.Option("--against", help="Contract whose records are meant; else all its versions.")
    ] = None,
    where: Where,
) -> Result:
    """Tries a proposal on the broker's past decisions: what it would have refused. Writes nothing."""
    from broker.commands.comparing import contract_dry_run as work

    return work(where, file, against=against)
