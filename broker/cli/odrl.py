# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for other dataspaces: a contract as ODRL policies, and the checked way back."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from broker.cli.compare import contract
from broker.cli.options import Dir, Json, Key, Pin, Url, finish, where_of

__all__ = ["contract"]


@contract.command("export")
def contract_export(
    digest: str,
    *,
    form: Annotated[str, typer.Option("--format", help="Only odrl: messages of the Dataspace Protocol.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder, a file for each policy; else standard output.")
    ] = None,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Writes a contract as ODRL policies, each naming the contract's digest and its clauses."""
    from broker.commands import odrl as commands_odrl

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_odrl.contract_export(where, digest, form=form, out=out), as_json=as_json)


@contract.command("import")
def contract_import(
    file: Path,
    *,
    catenax: Annotated[
        bool, typer.Option("--catenax", help="Only list what of a Catena-X policy a contract could say.")
    ] = False,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Reads policies of our profile, names what it refuses, and compares them with the broker's contract."""
    from broker.commands import odrl as commands_odrl

    if catenax:
        finish(lambda: commands_odrl.contract_catenax(file), as_json=as_json)
    here = directory is not None or url is not None
    where = where_of(directory, url, pin, key) if here else None
    finish(lambda: commands_odrl.contract_import(where, file), as_json=as_json)
