# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for other dataspaces: a contract as ODRL policies, and the checked way back."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.compare import contract
from broker.cli.options import command

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["contract"]


@command(contract, "export")
def contract_export(
    digest: str,
    *,
    form: Annotated[str, typer.Option("--format", help="Only odrl: messages of the Dataspace Protocol.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder, a file for each policy; else standard output.")
    ] = None,
    where: Where,
) -> Result:
    """Writes a contract as ODRL policies, each naming the contract's digest and its clauses."""
    from broker.commands import odrl as commands_odrl

    return commands_odrl.contract_export(where, digest, form=form, out=out)


@command(contract, "import")
def contract_import(
    file: Path,
    *,
    catenax: Annotated[
        bool, typer.Option("--catenax", help="Only list what of a Catena-X policy a contract could say.")
    ] = False,
    where: Where,
) -> Result:
    """Reads policies of our profile, names what it refuses, and compares them with the broker's contract."""
    from broker.commands import odrl as commands_odrl

    if catenax:
        return commands_odrl.contract_catenax(file)
    asked = where.directory is not None or where.url is not None
    return commands_odrl.contract_import(where if asked else None, file)
