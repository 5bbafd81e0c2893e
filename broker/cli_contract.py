# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract``: draft, check, offer, watch and end contracts."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from broker.cli_options import Dir, Json, Key, Pin, Url, finish, typer_group, where_of

__all__ = ["contract"]

contract = typer_group("Contracts: draft, check, offer, watch.")


@contract.command("offer")
def contract_offer(
    file: Path,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipe", help="Bytes of a recipe, repeatable.")
    ] = None,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Offers a contract (YAML or canonical JSON) with its recipes to its parties."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.contract_offer(where, file, recipes or []), as_json=as_json)


@contract.command("list")
def contract_list(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Lists contracts and who has not signed yet."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.contract_list(where), as_json=as_json)


@contract.command("show")
def contract_show(
    digest: str,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Shows a contract in plain words."""
    from broker import commands

    where = where_of(directory, url, pin, key)
    finish(lambda: commands.contract_show(where, digest), as_json=as_json)
