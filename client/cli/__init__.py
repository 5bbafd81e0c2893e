# SPDX-License-Identifier: Apache-2.0
"""``iriai-node``: the owner's command line. Libraries are imported inside commands; torch never is.

Every command prints sentences to standard error, with ``--json`` one envelope to standard output, and ends
with 0, or: 1 our bug, 2 usage, 3 a check failed, 4 denied by policy, 5 peer unreachable, 6 identity, 7
needs a human, 75 try again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from client.answers import Answer
from client.cli.audit import audit as audit_group
from client.cli.budget import budget as budget_group
from client.cli.catalogue import catalogue as catalogue_group
from client.cli.chain import chain as chain_group
from client.cli.config import config as config_group
from client.cli.evidence import outbox as outbox_group
from client.cli.evidence import receipt as receipt_group
from client.cli.evidence import receipts as receipts_group
from client.cli.guard import guard as guard_group
from client.cli.key import key as key_group
from client.cli.life import LEAVES, Unreleased
from client.cli.life import contract as contract_group
from client.cli.models import models as models_group
from client.cli.options import (
    Command,
    Config,
    Dir,
    DryRun,
    Open,
    Yes,
    ask,
    command,
    end,
    group,
    opened,
    tell,
)
from client.cli.page import page as page_command
from client.cli.privacy import privacy as privacy_group
from client.cli.recipe import recipe as recipe_group
from client.cli.record import data as data_group
from client.cli.release import release as release_group
from client.cli.runs import runs as runs_group
from client.cli.seed import seed as seed_group
from client.cli.statement import statement as statement_group
from client.cli.witness import witness as witness_group
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.errors import UsageError
from client.layers import locate
from client.settings import PRIVATE_UMASK, Home

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["app", "main"]

_STOPS = "You are about to stop this run for this node; runs resume lets it go on:"

app = group("A manufacturer's node: its data, its contract, its budget, its models.", completion=True)
for _name, _one in (
    ("config", config_group),
    ("key", key_group),
    ("data", data_group),
    ("catalogue", catalogue_group),
    ("contract", contract_group),
    ("guard", guard_group),
    ("budget", budget_group),
    ("privacy", privacy_group),
    ("recipe", recipe_group),
    ("runs", runs_group),
    ("seed", seed_group),
    ("outbox", outbox_group),
    ("chain", chain_group),
    ("receipt", receipt_group),
    ("witness", witness_group),
    ("audit", audit_group),
    ("release", release_group),
    ("models", models_group),
    ("statement", statement_group),
):
    app.add_typer(_one, name=_name)
app.add_typer(receipts_group, name="receipts", hidden=True)


@command(app, "init")
def init(
    home: Home,
    *,
    legal_name: Annotated[str, typer.Option(help="Of the organisation, as on the invitation.")] = "",
    country: Annotated[str, typer.Option(help="Two letters.")] = "",
    dry_run: DryRun = False,
) -> Answer:
    """Makes the node's keys, on this machine and nowhere else. Safe to repeat."""
    from client.membership import initialise

    if dry_run:
        there = (home.keys / "node.key").exists()
        words = "is here: nothing would be made" if there else "would be made, with new keys"
        return Answer(data={"dry_run": True, "exists": there}, text=(f"the node in {home.root} {words}",))
    return initialise(home, entropy=SystemEntropy(), legal_name=legal_name, country=country)


@command(app, "join")
def join(url: str, invite: str, home: Home, *, yes: Yes = False) -> Answer:
    """Checks who answers at URL against the invitation and asks to be let in."""
    from client import membership

    confirm = ask("Compare the broker's fingerprint with the operator, by telephone:", yes=yes)
    return membership.join(home, url, invite, clock=SystemClock(), entropy=SystemEntropy(), confirm=confirm)


@command(app, "status")
def status(one: Open) -> Answer:
    """Who this node is, whether it was approved, what its worker does."""
    from client import membership
    from client.witnessing.showing import standings

    return membership.status(one.member, standings(one.member, one.shelf, one.outbox))


@app.command(cls=Command)  # no `command`: it says nothing as JSON
def run(folder: Dir = None, config: Config = None) -> None:
    """Keeps a worker running that answers the broker, until it is stopped."""

    def work() -> Answer:
        from client.federation.supervise import supervise
        from client.settings import locked

        home = locate(folder, config)
        with opened(home) as one:
            one.outbox.check_open()
            locked(one.home).close()  # a second one would start its worker for ever
        code = supervise([sys.executable, "-m", "client.node", *home.options], on_event=_worker_event)
        return Answer(data={}, exit_code=code)

    end(work, as_json=False)


app.command("page", cls=Command)(page_command)


def _worker_event(name: str, facts: Mapping[str, int]) -> None:
    import json

    line = {"event": f"worker-{name}", **facts}
    print(json.dumps(line, sort_keys=True), file=sys.stderr, flush=True)  # noqa: T201  the supervisor's log


@command(app, "pause")
def pause(home: Home, *, dry_run: DryRun = False) -> Answer:
    """Trains and judges nothing from now on; works at once, also for a running worker."""
    from client.pausing import set_paused

    return set_paused(home, paused=True, dry_run=dry_run)


@command(app, "resume")
def resume(home: Home, *, dry_run: DryRun = False) -> Answer:
    """Ends a pause."""
    from client.pausing import set_paused

    return set_paused(home, paused=False, dry_run=dry_run)


@command(app, "withdraw")
def withdraw(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|CONTRACT]", help="What to end; none shows what there is."),
    ] = None,
    *,
    unreleased: Annotated[
        Unreleased | None,
        typer.Option("--unreleased", help="For a contract: what becomes of models with your updates."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="For a contract: reason code.")] = "party.leaves",
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Ends taking part in a run, or in a contract for good: shows the effect in numbers, asks, does it."""
    from client import withdrawing

    if name is None:
        return withdrawing.overview(one.home, one.shelf, one.outbox)
    if name.startswith("run_"):
        confirm = ask(_STOPS, yes=yes, prompt="Stop it for this node?")
        return withdrawing.from_run(one.home, one.shelf, one.outbox, name, confirm=confirm, tell=tell)
    if unreleased is None:
        raise UsageError(
            need="--unreleased retrain, or --unreleased discard, for a contract",
            found="neither",
            remedy="say what becomes of models that are not released and hold your updates",
        )
    return withdrawing.from_contract(
        one.member,
        one.shelf,
        one.outbox,
        name,
        choice=unreleased.value,
        code=reason,
        confirm=ask(LEAVES, yes=yes, prompt="Leave it for good?"),
        tell=tell,
    )


@command(app, "doctor")
def doctor(home: Home) -> Answer:
    """Numbered checks, each with what to do; exit 3 if one failed."""
    from client.doctor import doctor as checks

    return checks(home.need(), clock=SystemClock(), entropy=SystemEntropy())


@command(app, "print-unit")
def print_unit(
    home: Home,
    *,
    user: Annotated[str, typer.Option("--user", help="Account that the node runs as.")] = "iriai-node",
) -> Answer:
    """Prints a systemd unit that keeps this node's worker running, shut in; nothing is installed."""
    from client.unit_file import print_unit as printed

    return printed(home, user=user)


def main() -> None:
    """Entry point of the script; what it writes is this account's alone."""
    os.umask(PRIVATE_UMASK)
    app(prog_name="iriai-node")
