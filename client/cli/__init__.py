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
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from client.answers import Answer
from client.cli.life import contract as contract_group
from client.cli.options import FOLDER, Dir, Json, Lang, Language, Yes, ask, end, group, opened, retype, tell
from client.cli.privacy import privacy as privacy_group
from client.cli.seed import seed as seed_group
from client.cli.statement import statement as statement_group
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
data = group("Recordings: import, describe, publish the description.")
guard = group("What this node's own gate decided.")
budget = group("How much privacy is spent.")
outbox = group("What left this site.")
receipts = group("Proofs that the log holds what this node sent.")
release = group("Candidates at the release gate, and your vote.")
models = group("Released models: fetch them, train them on at home.")
for _name, _one in (
    ("data", data),
    ("contract", contract_group),
    ("guard", guard),
    ("budget", budget),
    ("privacy", privacy_group),
    ("seed", seed_group),
    ("outbox", outbox),
    ("receipts", receipts),
    ("release", release),
    ("models", models),
    ("statement", statement_group),
):
    app.add_typer(_one, name=_name)


@app.command()
def init(
    folder: Dir = FOLDER,
    legal_name: Annotated[str, typer.Option(help="Of the organisation, as on the invitation.")] = "",
    country: Annotated[str, typer.Option(help="Two letters.")] = "",
    json: Json = False,  # noqa: FBT002
) -> None:
    """Makes the node's keys, on this machine and nowhere else. Safe to repeat."""
    from client.membership import initialise

    end(
        lambda: initialise(Home(folder), entropy=SystemEntropy(), legal_name=legal_name, country=country),
        json,
    )


@app.command()
def join(
    url: str,
    invite: str,
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Checks who answers at URL against the invitation and asks to be let in."""
    from client import membership

    confirm = ask("Compare the broker's fingerprint with the operator, by telephone:", yes=yes)
    end(
        lambda: membership.join(
            Home(folder), url, invite, clock=SystemClock(), entropy=SystemEntropy(), confirm=confirm
        ),
        json,
    )


@app.command()
def status(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Who this node is, whether it was approved, what its worker does."""

    def work() -> Answer:
        from client import membership

        with opened(folder) as one:
            return membership.status(one.member)

    end(work, json)


@app.command()
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


def _set_paused(folder: Path, *, paused: bool) -> Answer:
    from dataclasses import replace

    from client.settings import save_settings

    home = Home(folder).need()
    settings = load_settings(home, {})
    save_settings(home, replace(settings, local=replace(settings.local, paused=paused)))
    words = "paused: nothing is trained or judged until `iriai-node resume`" if paused else "not paused"
    return Answer(data={"paused": paused}, text=(words,))


@app.command()
def pause(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Trains and judges nothing from now on; works at once, also for a running worker."""
    end(lambda: _set_paused(folder, paused=True), json)


@app.command()
def resume(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Ends a pause."""
    end(lambda: _set_paused(folder, paused=False), json)


@app.command()
def doctor(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Numbered checks, each with what to do; exit 3 if one failed."""

    def work() -> Answer:
        from client.doctor import doctor as checks

        return checks(Home(folder).need(), clock=SystemClock(), entropy=SystemEntropy())

    end(work, json)


@data.command("add")
def data_add(  # noqa: PLR0917  a command line
    path: Path,
    dataset: Annotated[str, typer.Option(help="Name, as the contract lists it.")],
    signal_map: Annotated[
        Path | None, typer.Option("--map", help="TOML: which channel is which field.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--contract", help="Digest, 12 hex digits do; the newest if left out.")
    ] = None,
    reader: Annotated[str | None, typer.Option("--format", help="Reader, where two claim the path.")] = None,
    no_publish: Annotated[bool, typer.Option("--no-publish", help="Keep the descriptor here.")] = False,  # noqa: FBT002
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Imports a recording under the contract's field list; only a coarse, signed descriptor leaves."""

    def work() -> Answer:
        from client import catalogue
        from client.contract.reading import resolve

        with opened(folder) as one:
            return catalogue.data_add(
                one.member,
                one.shelf,
                one.outbox,
                path,
                dataset=dataset,
                signal_map=signal_map,
                contract=None if digest is None else resolve(one.member, one.shelf, digest),
                rules=load_settings(one.home).local,
                publish=not no_publish,
                source_format=reader,
            )

    end(work, json)


@data.command("list")
def data_list(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Data sets of this site; nothing of this leaves."""

    def work() -> Answer:
        from client import catalogue

        return catalogue.data_list(Home(folder).need())

    end(work, json)


@guard.command("log")
def guard_log(
    run_id: Annotated[str | None, typer.Option("--run", help="Only decisions of this run.")] = None,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Every decision of this node's gate, newest first."""

    def work() -> Answer:
        from client import ledgers

        with opened(folder) as one:
            return ledgers.guard_log(one.outbox, run_id)

    end(work, json)


@guard.command("explain")
def guard_explain(
    run_id: str,
    every: Annotated[bool, typer.Option("--all", help="Satisfied findings too.")] = False,  # noqa: FBT002
    lang: Lang = Language.EN,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Why a run's rounds were refused, or that they were allowed: clause, need, found, remedy, by whom."""

    def work() -> Answer:
        from client.contract import explaining

        with opened(folder) as one:
            return explaining.explain_run(one.outbox, one.shelf, run_id, every=every, lang=lang)

    end(work, json)


@budget.command("show")
def budget_show(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Spent, held and left, per block and contract; exit 7 if a ledger lacks what the log was told."""

    def work() -> Answer:
        from client.budgets import showing as budgets

        with opened(folder) as one:
            return budgets.budget_show(one.home, one.member, one.shelf, one.outbox)

    end(work, json)


@budget.command("tighten")
def budget_tighten(
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    epsilon: Annotated[str, typer.Option(help="The lower cap over the life of the data.")],
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Shows what is left before and after, asks, and lowers the cap of some data for good."""

    def work() -> Answer:
        from client.budgets import tightening

        confirm = ask(_TIGHTEN, yes=yes, prompt="Lower it for good?")
        with opened(folder) as one:
            return tightening.tighten(
                one.home,
                one.member,
                one.outbox,
                lineage=lineage,
                epsilon=epsilon,
                confirm=confirm,
                tell=tell,
            )

    end(work, json)


@budget.command("waive")
def budget_waive(
    lineage: Annotated[str, typer.Option(help="Of the data, as budget show names it.")],
    contract: Annotated[str, typer.Option("--contract", help="Digest of a contract without privacy.")],
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Lets data that have a budget be used under a contract without privacy; marked for good."""

    def work() -> Answer:
        from client.budgets import waiving
        from client.contract.reading import resolve

        with opened(folder) as one:
            return waiving.waive(
                one.home,
                one.member,
                one.shelf,
                lineage=lineage,
                contract=resolve(one.member, one.shelf, contract),
                confirm=retype(_WAIVE, yes=yes),
                tell=tell,
            )

    end(work, json)


@budget.command("reconcile")
def budget_reconcile(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Appends to an old copy of a ledger the spends that the log was told of; the worker must not run."""

    def work() -> Answer:
        from client.budgets import reckoning

        with opened(folder) as one:
            return reckoning.reconcile(one.home, one.member, one.shelf, one.outbox)

    end(work, json)


@outbox.command("list")
def outbox_list(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """What left this site: when, bytes, kind, digest, clause, receipts."""

    def work() -> Answer:
        from client import ledgers

        with opened(folder) as one:
            return ledgers.outbox_list(one.outbox)

    end(work, json)


@receipts.command("fetch")
def receipts_fetch(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Fetches and checks the receipts that are missing."""

    def work() -> Answer:
        from client import releases

        with opened(folder) as one:
            return releases.receipts_fetch(one.member, one.outbox)

    end(work, json)


@receipts.command("verify")
def receipts_verify(
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody for the current head.")] = False,  # noqa: FBT002
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Checks every receipt again, and that the log extends what this node saw; exit 7 shows the evidence."""

    def work() -> Answer:
        from client import releases

        with opened(folder) as one:
            asked = None if offline else one.member
            return releases.receipts_verify(asked, one.outbox, one.member.broker.log_vkey)

    end(work, json)


@receipts.command("export")
def receipts_export(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if missing.")],
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Writes every receipt as a file `<index>.tlog-proof`, the form that an auditor's verifier reads."""

    def work() -> Answer:
        from client import releases

        with opened(folder) as one:
            return releases.receipts_export(one.outbox, out)

    end(work, json)


@release.command("list")
def release_list(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Candidates at the release gate, and your own vote."""

    def work() -> Answer:
        from client import releases

        with opened(folder) as one:
            return releases.release_list(one.member)

    end(work, json)


@release.command("report")
def release_report(candidate: str, folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Who judged a candidate, and what the tests for leaks found, before you vote."""

    def work() -> Answer:
        from client import candidate_report

        with opened(folder) as one:
            return candidate_report.release_report(one.member, candidate)

    end(work, json)


def _vote(folder: Path, candidate: str, *, verdict: str, clause: str | None, as_json: bool) -> NoReturn:
    def work() -> Answer:
        from client import releases

        with opened(folder) as one:
            return releases.vote(one.member, one.shelf, one.outbox, candidate, verdict=verdict, clause=clause)

    end(work, as_json)


@release.command("approve")
def release_approve(candidate: str, folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Votes for a candidate."""
    _vote(folder, candidate, verdict="approve", clause=None, as_json=json)


@release.command("veto")
def release_veto(
    candidate: str,
    clause: Annotated[str | None, typer.Option(help="In the name of which clause.")] = None,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Votes against a candidate; a vetoed one cannot be pulled by anybody."""
    _vote(folder, candidate, verdict="veto", clause=clause, as_json=json)


@models.command("list")
def models_list(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Released models, and which of them are here."""

    def work() -> Answer:
        from client import models as shelf

        with opened(folder) as one:
            return shelf.models_list(one.member)

    end(work, json)


@models.command("pull")
def models_pull(model: str, folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Fetches a released model that the contract lets you have, and checks bytes and statement."""

    def work() -> Answer:
        from client import models as shelf

        with opened(folder) as one:
            return shelf.pull(one.member, one.shelf, model)

    end(work, json)


@models.command("personalise")
def models_personalise(model: str, folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """Trains a pulled model on at home and keeps the better of the two."""

    def work() -> Answer:
        from client import models as shelf

        return shelf.personalise(Home(folder).need(), model)

    end(work, json)


def main() -> None:
    """Entry point of the script; what it writes is this account's alone."""
    os.umask(PRIVATE_UMASK)
    app(prog_name="iriai-node")
