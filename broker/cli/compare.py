# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract`` for comparing terms: with another contract, and with the past."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from broker.cli.life import contract
from broker.cli.options import Dir, Json, Key, Pin, Url, finish, where_of

__all__ = ["contract"]


@contract.command("diff")
def contract_diff(
    old: Annotated[str, typer.Argument(help="File or digest of a contract.")],
    new: Annotated[str, typer.Argument(help="File or digest of another one.")],
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Shows what is tighter and what is looser, with a request that shows it; exit code 3 if looser."""
    from broker.commands.comparing import contract_diff as work

    where = where_of(directory, url, pin, key)
    finish(lambda: work(where, old, new), as_json=as_json)


@contract.command("dry-run")
def contract_dry_run(
    file: Path,
    *,
    against: Annotated[
        str | None, typer.Option("--against", help="Contract whose records are meant; else all its versions.")
    ] = None,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Tries a proposal on the broker's past decisions: what it would have refused. Writes nothing."""
    from broker.commands.comparing import contract_dry_run as work

    where = where_of(directory, url, pin, key)
    finish(lambda: work(where, file, against=against), as_json=as_json)
