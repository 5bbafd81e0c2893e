# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker doctor``, ``print-unit``, ``config`` and ``backup``: the broker's own host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Dir, Home, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result

__all__ = ["backup", "config", "stand_on"]

config = typer_group("Settings: option, environment, file, default.")
backup = typer_group("Backups: made while the broker serves, tested on trial, restored by two people.")

_Folder = Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder of a backup.")]
_Whose = Annotated[
    str | None,
    typer.Option("--broker-key", help="Whose backup it should be: ed25519:…, as init and status print it."),
]
_Server = Annotated[
    str | None,
    typer.Option("--server", help="PostgreSQL whose role may make databases, for the trial of dumps."),
]


def stand_on(app: typer.Typer) -> None:
    """Puts the commands that have no group on the program itself."""

    @command(app, "doctor")
    def doctor(directory: Home) -> Result:
        """Runs numbered checks of the broker, each with what to do; exits with 3 if one failed."""
        from broker.commands import house

        return house.doctor(directory)

    @command(app, "print-unit")
    def print_unit(directory: Home) -> Result:
        """Prints a unit of systemd for this broker."""
        from broker.commands import house

        return house.print_unit(directory)


@command(config, "show")
def config_show(directory: Home) -> Result:
    """Shows every setting with its value and where it comes from."""
    from broker.commands import house

    return house.config_show(directory)


@command(config, "check")
def config_check(directory: Home) -> Result:
    """Reads the settings as the broker would when it starts; nothing is started."""
    from broker.commands import house

    return house.config_check(directory)


@command(backup, "create", effect="databases, models and settings are copied to {out}; keys are not")
def backup_create(
    *,
    directory: Home,
    out: Annotated[Path, typer.Option("--out", help="New folder; best on another disk.")],
    private: Annotated[
        bool, typer.Option("--private/--no-private", help="With the confidential values, for 7 days.")
    ] = True,
) -> Result:
    """Makes a backup, also while the broker serves. Keys and the signer's memory are in none."""
    from broker.commands import backup as commands_backup

    return commands_backup.backup_create(directory, out, private=private)


@command(backup, "list")
def backup_list(directory: Home) -> Result:
    """Lists backups that were made here, and when one was last restored on trial."""
    from broker.commands import backup as commands_backup

    return commands_backup.backup_list(directory)


@command(backup, "verify")
def backup_verify(
    folder: _Folder, *, broker_key: _Whose = None, server: _Server = None, directory: Dir = None
) -> Result:
    """Restores a backup of this broker on trial: every digest, page and entry. Remembered with --dir."""
    from broker.commands import backup as commands_backup

    return commands_backup.backup_verify(directory, folder, broker_key=broker_key, server=server)


@command(
    backup, "restore", effect="the backup in {folder} is restored into {into}, once two approved", asks=True
)
def backup_restore(
    folder: _Folder,
    *,
    into: Annotated[Path, typer.Option("--into", help="Empty or new folder.")],
    approvals: Annotated[
        list[Path] | None, typer.Option("--approval", help="From `log approve`; of two operators.")
    ] = None,
    broker_key: _Whose = None,
    main: Annotated[
        str | None,
        typer.Option("--database-url", help="Empty database of PostgreSQL; else the one in the backup."),
    ] = None,
    private: Annotated[
        str | None, typer.Option("--private-db-url", help="Another empty one, for its confidential values.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option("--database-owner", help="The main database's URL for the owner of its tables."),
    ] = None,
    server: _Server = None,
    directory: Dir = None,
) -> Result:
    """Restores a backup of this broker into an empty folder. Without approvals: says what two sign."""
    from broker.backup import Targets
    from broker.commands import backup as commands_backup

    return commands_backup.backup_restore(
        folder,
        into,
        approvals or [],
        place=directory,
        broker_key=broker_key,
        targets=Targets(main=main, private=private, owner=owner, server=server),
    )
