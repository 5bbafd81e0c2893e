# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker dsp``: connectors of dataspaces."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli.options import Dir, Json, Key, Pin, Url, finish, typer_group, where_of

__all__ = ["dsp"]

dsp = typer_group("Connectors of dataspaces (dsp.enabled = true in broker.toml).")
counterparty = typer_group("Connectors that may talk to this broker.")
dsp.add_typer(counterparty, name="counterparty")


@counterparty.command("add")
def counterparty_add(
    name: str,
    *,
    callback: Annotated[
        str, typer.Option("--callback", help="https address where it is told; the only one.")
    ],
    participant: Annotated[
        str | None, typer.Option("--participant", help="Its id in its dataspace, as agreements name it.")
    ] = None,
    org: Annotated[
        str | None, typer.Option("--org", help="The member that it speaks for; without, open tiers only.")
    ] = None,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Registers a connector and prints its token once; the same one again gets a new token."""
    from broker.commands import dsp as commands_dsp

    where = where_of(directory, url, pin, key)
    finish(
        lambda: commands_dsp.counterparty_add(
            where, name, callback=callback, participant=participant, org=org
        ),
        as_json=as_json,
    )


@counterparty.command("list")
def counterparty_list(
    *, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None, as_json: Json = False
) -> None:
    """Lists connectors."""
    from broker.commands import dsp as commands_dsp

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_dsp.counterparty_list(where), as_json=as_json)


@counterparty.command("remove")
def counterparty_remove(
    name: str,
    *,
    directory: Dir = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Ends a connector's token at once; what it agreed stays."""
    from broker.commands import dsp as commands_dsp

    where = where_of(directory, url, pin, key)
    finish(lambda: commands_dsp.counterparty_remove(where, name), as_json=as_json)
