# SPDX-License-Identifier: Apache-2.0
"""``iriai-node runs``: the runs that asked this node for rounds, and the owner's word about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Open, command, group, opened

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["runs"]

runs = group("Runs that asked this node for rounds; stop one, or let it go on.")


@command(runs, "list")
def runs_list(one: Open) -> Answer:
    """Every run that asked for rounds here: the last answer, whether you stopped it, how far it is."""
    from client import owner_runs

    return owner_runs.listed(one.home, one.outbox, one.shelf)


@command(runs, "stop")
def runs_stop(run_id: str, home: Home, *, dry_run: DryRun = False) -> Answer:
    """Stops a run for this node, at once: nothing more is trained for it, and no update of it leaves."""
    from client import owner_runs, withdrawing

    if dry_run:
        with opened(home.need()) as one:
            return withdrawing.preview_run(one.home, one.shelf, one.outbox, run_id)
    return owner_runs.stop(home.need(), run_id)


@command(runs, "resume")
def runs_resume(
    run_id: Annotated[str | None, typer.Argument(help="The run.")] = None,
    *,
    all_damaged: Annotated[
        bool, typer.Option("--all-damaged", help="Every run, where which were stopped cannot be read.")
    ] = False,
    dry_run: DryRun = False,
    home: Home,
) -> Answer:
    """Lets the next round of a stopped run in again."""
    from client import owner_runs

    if (run_id is None) != all_damaged:
        raise typer.BadParameter("name a run, or say --all-damaged")
    if run_id is None:
        return owner_runs.resume_all_damaged(home.need(), dry_run=dry_run)
    return owner_runs.resume(home.need(), run_id, dry_run=dry_run)
