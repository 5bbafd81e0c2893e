# SPDX-License-Identifier: Apache-2.0
"""``iriai-node``: the owner's command line. Libraries are imported inside commands; torch never is.

Every command prints sentences to standard error, with ``--json`` one envelope to standard output, and ends
with 0, or: 1 our bug, 2 usage, 3 a check failed, 4 denied by policy, 5 peer unreachable, 6 identity, 7
needs a human, 75 try again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.answers import Answer
from client.cli.audit import audit as audit_group
from client.cli.catalogue import catalogue as catalogue_group
from client.cli.chain import chain as chain_group
from client.cli.life import contract as contract_group
from client.cli.models import models as models_group
from client.cli.options import (
    FOLDER,
    All,
    Dir,
    Every,
    Lang,
    Language,
    Open,
    Yes,
    ask,
    command,
    end,
    group,
    opened,
    retype,
    tell,
)
from client.cli.privacy import privacy as privacy_group
from client.cli.recipe import recipe as recipe_group
from client.cli.record import data as data_group
from client.cli.runs import runs as runs_group
from client.cli.seed import seed as seed_group
from client.cli.statement import statement as statement_group
from client.cli.witness import witness as witness_group
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.settings import PRIVATE_UMASK, Home, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["app", "main"]

_TIGHTEN = (
    "You are about to lower the cap of these data for the rest of their life; nothing loosens it again:"
)
_WAIVE = "You are about to give up the privacy of these data under this contract, for good:"

app = group("A manufacturer's node: its data, its contract, its budget, its models.")
guard = group("What this node's own gate decided.")
budget = group("How much privacy is spent.")
outbox = group("What left this site.")
receipts = group("Proofs that the log holds what this node sent.")
release = group("Candidates at the release gate, and your vote.")
for _name, _one in (
    ("data", data_group),
    ("catalogue", catalogue_group),
    ("contract", contract_group),
    ("guard", guard),
    ("budget", budget),
    ("privacy", privacy_group),
    ("recipe", recipe_group),
    ("runs", runs_group),
    ("seed", seed_group),
    ("outbox", outbox),
    ("chain", chain_group),
    ("receipts", receipts),
    ("witness", witness_group),
    ("audit", audit_group),
    ("release", release),
    ("models", models_group),
    ("statement", statement_group),
):
    app.add_typer(_one, name=_name)


@command(app, "init")
def init(
    home: Home,
    *,
    legal_name: Annotated[str, typer.Option(help="Of the organisation, as on the invitation.")] = "",
    country: Annotated[str, typer.Option(help="Two letters.")] = "",
) -> Answer:
    """Makes the node's keys, on this machine and nowhere else. Safe to repeat."""
    from client.membership import initialise

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


@app.command()  # no `command`: it says nothing as JSON
def run(folder: Dir = FOLDER) -> None:
    """Keeps a worker running that answers the broker, until it is stopped."""

    def work() -> Answer:
        from client.federation.supervise import supervise
        from client.settings import locked

        with opened(folder) as one:
            one.outbox.check_open()
            locked(one.home).close()  # a second one would start its worker for ever
        code = supervise([sys.executable, "-m", "client.node", "--dir", str(folder)], on_event=_worker_event)
        return Answer(data={}, exit_code=code)

    end(work, as_json=False)


def _worker_event(name: str, facts: Mapping[str, int]) -> None:
    import json

    line = {"event": f"worker-{name}", **facts}
    print(json.dumps(line, sort_keys=True), file=sys.stderr, flush=True)  # noqa: T201  the supervisor's log


def _set_paused(home: Home, *, paused: bool) -> Answer:
    from dataclasses import replace

    from client.settings import save_settings

    settings = load_settings(home.need(), {})
    save_settings(home, replace(settings, local=replace(settings.local, paused=paused)))
    words = "paused: nothing is trained or judged until `iriai-node resume`" if paused else "not paused"
    return Answer(data={"paused": paused}, text=(words,))


@command(app, "pause")
def pause(home: Home) -> Answer:
    """Trains and judges nothing from now on; works at once, also for a running worker."""
    return _set_paused(home, paused=True)


@command(app, "resume")
def resume(home: Home) -> Answer:
    """Ends a pause."""
    return _set_paused(home, paused=False)


@command(app, "doctor")
def doctor(home: Home) -> Answer:
    """Numbered checks, each with what to do; exit 3 if one failed."""
    from client.doctor import doctor as checks

    return checks(home.need(), clock=SystemClock(), entropy=SystemEntropy())


@command(guard, "log")
def guard_log(
    *,
    run_id: Annotated[str | None, typer.Option("--run", help="Only decisions of this run.")] = None,
    every: All = False,
    one: Open,
) -> Answer:
    """Every decision of this node's gate, newest first."""
    from client import ledgers

    return ledgers.guard_log(one.outbox, run_id, every=every)


@command(guard, "explain")
def guard_explain(
    run_id: str,
    *,
    every: Every = False,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """Why a run's rounds were refused, or that they were allowed: clause, need, found, remedy, by whom."""
    from client.contract import explaining

    return explaining.explain_run(one.outbox, one.shelf, run_id, every=every, lang=lang)


@command(budget, "show")
def budget_show(one: Open) -> Answer:
    """Spent, held and left, per block and contract; exit 7 if a ledger lacks what the log was told."""
    from client.budgets import showing as budgets

    return budgets.budget_show(one.home, one.member, one.shelf, one.outbox)


@command(budget, "tighten")
def budget_tighten(
    *,
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    epsilon: Annotated[str, typer.Option(help="The lower cap over the life of the data.")],
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Shows what is left before and after, asks, and lowers the cap of some data for good."""
    from client.budgets import tightening

    confirm = ask(_TIGHTEN, yes=yes, prompt="Lower it for good?")
    return tightening.tighten(
        one.home,
        one.member,
        one.outbox,
        lineage=lineage,
        epsilon=epsilon,
        confirm=confirm,
        tell=tell,
    )


@command(budget, "waive")
def budget_waive(
    *,
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    contract: Annotated[str, typer.Option("--contract", help="Digest of a contract without privacy.")],
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Lets data that have a budget be used under a contract without privacy; marked for good."""
    from client.budgets import waiving
    from client.contract.reading import resolve

    return waiving.waive(
        one.home,
        one.member,
        one.shelf,
        lineage=lineage,
        contract=resolve(one.member, one.shelf, contract),
        confirm=retype(_WAIVE, yes=yes),
        tell=tell,
    )


@command(budget, "reconcile")
def budget_reconcile(one: Open) -> Answer:
    """Appends to an old copy of a ledger the spends that the log was told of; the worker must not run."""
    from client.budgets import reckoning

    return reckoning.reconcile(one.home, one.member, one.shelf, one.outbox)


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


@command(receipts, "fetch")
def receipts_fetch(one: Open) -> Answer:
    """Fetches and checks the receipts that are missing."""
    from client import releases

    return releases.receipts_fetch(one.member, one.outbox)


@command(receipts, "list")
def receipts_list(*, every: All = False, one: Open) -> Answer:
    """Envelopes of this node: entries, grades of their receipts, checkpoints; equal rows in one line."""
    from client import releases

    return releases.receipts_list(one.outbox, every=every)


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


@command(receipts, "export")
def receipts_export(
    *, out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if missing.")], one: Open
) -> Answer:
    """Writes every receipt as a file `<index>.tlog-proof`, the form that an auditor's verifier reads."""
    from client import releases

    return releases.receipts_export(one.outbox, out)


@command(release, "list")
def release_list(one: Open) -> Answer:
    """Candidates at the release gate, and your own vote."""
    from client import releases

    return releases.release_list(one.member)


@command(release, "report")
def release_report(candidate: str, one: Open) -> Answer:
    """Who judged a candidate, and what the tests for leaks found, before you vote."""
    from client import candidate_report

    return candidate_report.release_report(one.member, candidate)


def _vote(one: Open, candidate: str, *, verdict: str, clause: str | None) -> Answer:
    from client import releases

    return releases.vote(one.member, one.shelf, one.outbox, candidate, verdict=verdict, clause=clause)


@command(release, "approve")
def release_approve(candidate: str, one: Open) -> Answer:
    """Votes for a candidate."""
    return _vote(one, candidate, verdict="approve", clause=None)


@command(release, "veto")
def release_veto(
    candidate: str,
    *,
    clause: Annotated[str | None, typer.Option(help="In the name of which clause.")] = None,
    one: Open,
) -> Answer:
    """Votes against a candidate; a vetoed one cannot be pulled by anybody."""
    return _vote(one, candidate, verdict="veto", clause=clause)


def main() -> None:
    """Entry point of the script; what it writes is this account's alone."""
    os.umask(PRIVATE_UMASK)
    app(prog_name="iriai-node")
