# SPDX-License-Identifier: Apache-2.0
"""The worker: the one process of a node that trains; `iriai-node run` supervises it.

Start, in this order: lock; keys and pinned broker; the outbox, which refuses if the log contradicted
itself; budget ledgers compared with what was told to the log; then online. torch is imported in the
background, so that online does not wait.

It writes one JSON object per line to standard error: ``{"at", "event", …}`` with ids, counts and codes,
never a value of data. A refusal that ends the node for good is said once more, in words.
``IRIAI_PHASES=1`` adds ``phase run=… round=… attempt=… training ms=…`` lines; a larger
number also holds each phase for so many milliseconds, so that a test can act in it.

``python -m client.node --dir D --personalise MODEL [--mode head] [--replace]`` trains an individual model at
home instead, and prints one JSON object; so does ``--package MODEL --out FILE [--individual]``, which makes
the package of a model. ``--fit-seed RECIPE SEED_SET OUT`` and ``--check-seed RECIPE SEED_SET
WEIGHTS`` fit a model to open episodes, ``--audit conformance|property`` audits the recipe that it reads from
standard input on made-up units; these need no node in D.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client.answers import print_error
from client.budgets import Budgets
from client.chains import require_known_chain
from client.clock import SystemClock
from client.contract.posting import keep_up
from client.contract.shelf import ContractShelf
from client.contract.tending import tend
from client.entropy import SystemEntropy
from client.errors import PeerUnreachableError
from client.federation.errors import KeyUnknownError
from client.federation.supervise import ENDS
from client.identity import read_secret
from client.lifesign import Lifesign
from client.membership import open_member
from client.outbox import Outbox
from client.receipts import LogView, collect, fetch_consistency, run_is_over
from client.settings import PRIVATE_UMASK, Home, locked, write_durably
from client.witnessing.running import watch_for_ever
from client.worker import Worker, say
from policies.errors import IriaiError
from policies.limits import KEY_UNKNOWN_RETRY_S, RECEIPT_POLL_S, RECIPE_BYTES, WORKER_BACKOFF_CAP_S
from policies.recipe import load as load_recipe
from policies.seeds import read_seed_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.membership import Member
    from policies.ports import Clock, Entropy
    from policies.recipe import Recipe

__all__ = ["main"]


def _prepare(worker: Worker) -> None:
    """Until there is a contract that everybody signed and data for it."""
    while not worker.prepare():
        time.sleep(RECEIPT_POLL_S)


class _Tidying:
    """What the worker does beside its rounds, with files and a connection of its own; `turn` does it once."""

    def __init__(self, home: Home, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._member = member = open_member(home, clock=clock, entropy=entropy)
        key, origin = member.identity.key, member.broker.origin
        self._outbox = Outbox.of(home, member.identity, origin=origin, clock=clock, entropy=entropy)
        self._budgets = Budgets(home, key=key, clock=clock)
        self._shelf = ContractShelf(home, own_key=key.public)
        self._view = LogView(self._outbox, member.log_keys.all, fetch=fetch_consistency(member.client))

    def close(self) -> None:
        self._budgets.close()
        self._outbox.close()
        self._member.client.close()

    def turn(self) -> None:
        """Notices first: a halt is heard whatever else goes wrong."""
        member, outbox = self._member, self._outbox
        _heed(member, self._shelf, outbox)
        try:
            since_ms = self._clock.now_ms() - RECEIPT_POLL_S * 1000
            receipted = collect(member.client, outbox, self._view, older_than_ms=since_ms)
            settled = self._budgets.settle(lambda run: run_is_over(member.client, run))
            for event, facts in tend(member, self._shelf, outbox):
                say(event, facts)
        except IriaiError as error:
            say("tidying-waits", {"code": error.code})
            return
        if receipted or settled:
            say("tidied", {"receipts": receipted, "reservations": settled})


def _heed(member: Member, shelf: ContractShelf, outbox: Outbox) -> None:
    """Hears what the parties of this node's contracts said, whatever else goes wrong."""
    try:
        for event, facts in keep_up(member, shelf, outbox):
            say(event, facts)
    except IriaiError as error:
        say("notices-wait", {"code": error.code})


def _tidy_for_ever(home: Home, clock: Clock, entropy: Entropy) -> None:
    """Asks for missing receipts, closes the budget of runs that are over, goes on with negotiations.

    Notices about contracts go out and come in: a halt of another party is known here after one turn. It never
    ends: an error that nobody foresaw is a line in the log, and everything is opened anew after a while.
    """
    tidying: _Tidying | None = None
    pause: float = RECEIPT_POLL_S
    while True:
        time.sleep(pause)
        try:
            tidying = tidying or _Tidying(home, clock, entropy)
            tidying.turn()
            pause = RECEIPT_POLL_S
        except Exception as error:  # noqa: BLE001  the edge of the process: whoever hears halts may not end
            code = error.code if isinstance(error, IriaiError) else None
            say("tidying-failed", {"error": type(error).__name__, "code": code})
            pause = min(2 * pause, WORKER_BACKOFF_CAP_S)
            if tidying is not None:
                with contextlib.suppress(Exception):
                    tidying.close()
                tidying = None


def serve(home: Home) -> None:
    """Answers until SIGTERM.

    Raises:
        IriaiError: With its exit code; the supervisor decides when to start again.
    """
    from client.federation.fleet import run_fleet

    clock, entropy = SystemClock(), SystemEntropy()
    Lifesign.of(os.environ).begin()
    lock = locked(home)
    worker = Worker(home, clock=clock, entropy=entropy)
    with contextlib.suppress(PeerUnreachableError):  # then nothing leaves either
        require_known_chain(worker.member, worker.outbox)
    write_durably(home.state, json.dumps({"pid": os.getpid(), "since_ms": clock.now_ms()}).encode())

    def on_event(name: str, facts: Mapping[str, str | int]) -> None:
        say(name, facts)
        if name == "online":
            threading.Thread(target=_prepare, args=(worker,), daemon=True).start()

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    beside = {"clock": clock, "entropy": entropy, "say": say, "stopped": stopped}
    threading.Thread(target=_tidy_for_ever, args=(home, clock, entropy), daemon=True).start()
    threading.Thread(target=watch_for_ever, args=(home,), kwargs=beside, daemon=True).start()
    try:
        run_fleet(
            url=worker.member.client.url,
            ca_pem=home.certificate.read_bytes(),
            fleet_key_pem=read_secret(home.keys / "fleet.key"),
            desk=worker.desk,
            state_dir=home.root,
            on_event=on_event,
        )
        worker.outbox.check_open()  # the witness may have stopped this process
    finally:
        worker.close()
        lock.close()


def fit_seed(recipe: Path, seed_set: Path, weights: Path, *, steps: int, write: bool) -> dict[str, Any]:
    """Fits a model to a seed set, here; keeps it in a file, or compares it with the one in the file.

    Raises:
        IriaiError: A file does not hold what it should.
    """
    from client.learning.seeding import compare, fit

    loaded, seeds = load_recipe(recipe.read_bytes()), read_seed_set(seed_set.read_bytes())
    own = fit(loaded, seeds, steps=steps)
    given = own if write else np.frombuffer(weights.read_bytes(), dtype="<f4")
    if write:
        write_durably(weights, np.ascontiguousarray(own, dtype="<f4").tobytes())
    found = compare(loaded, seeds, given, own)
    return {"loss": found.given, "loss_own": found.own, "loss_first": found.first, "holds": found.holds}


def package(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the package of a model; gives what is known of it.

    Raises:
        IriaiError: A file that it needs is not here, or the package is refused.
    """
    from client.deploy.site import Wish, package_model
    from client.learning.export import export_graph

    wish = Wish(
        model=options.package,
        out=options.out,
        individual=options.individual,
        aasx=options.aasx,
        measure=options.measure,
        force=options.force,
    )
    return package_model(home, wish, export=export_graph)


def audit(kind: str, recipe: Recipe) -> dict[str, Any]:
    """The report of one audit of a recipe, on made-up units."""
    clock, entropy = SystemClock(), SystemEntropy()
    if kind == "property":
        from client.learning.property_audit import audit_mix

        return audit_mix(recipe, entropy=entropy, clock=clock).document
    from client.learning.conformance import audit as conformance

    return conformance(recipe, entropy=entropy, clock=clock).document


def _not_let_in(home: Home) -> str:
    """What a person reads whose node the broker does not know yet: it ends by itself, or by a telephone."""
    return (
        "not approved yet, or revoked: the node tries again by itself every "
        f"{KEY_UNKNOWN_RETRY_S // 60} minutes; ask two operators of the broker to approve it by the "
        f"fingerprint that this prints: {home.command('key show')}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the worker; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m client.node")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--personalise", metavar="MODEL")
    parser.add_argument("--mode", choices=("full", "head"), default="full")
    parser.add_argument("--replace", action="store_true")
    parser.add_argument("--package", metavar="MODEL")
    parser.add_argument("--out", type=Path, default=Path("model.iriai"))
    parser.add_argument("--individual", action="store_true")
    parser.add_argument("--aasx", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--fit-seed", type=Path, nargs=3, metavar=("RECIPE", "SEED_SET", "OUT"))
    parser.add_argument("--check-seed", type=Path, nargs=3, metavar=("RECIPE", "SEED_SET", "WEIGHTS"))
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--audit", choices=("conformance", "property"))
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format='{"event":"log","message":"%(message)s"}'
    )
    os.umask(PRIVATE_UMASK)
    home = Home(options.dir, options.config)
    if home.root.is_dir() and not options.audit:  # which may name a folder that is no node's
        home.root.chmod(0o700)
    try:
        if options.personalise:
            from client.personalising import trained_on

            facts = trained_on(home, options.personalise, mode=options.mode, replace=options.replace)
            print(json.dumps(facts))  # noqa: T201  for the command
        elif options.package:
            print(json.dumps(package(home, options)))  # noqa: T201  likewise
        elif options.audit:
            recipe = load_recipe(sys.stdin.buffer.read(RECIPE_BYTES + 1))
            print(json.dumps(audit(options.audit, recipe)))  # noqa: T201  likewise
        elif options.fit_seed or options.check_seed:
            files, write = options.fit_seed or options.check_seed, bool(options.fit_seed)
            print(json.dumps(fit_seed(*files, steps=options.steps, write=write)))  # noqa: T201  likewise
        else:
            serve(home)
    except IriaiError as error:
        say("stopped", error.as_dict())
        if error.exit_code in ENDS:  # the supervisor starts no other: what is to be done is read here
            print_error(error, as_json=False)
        elif isinstance(error, KeyUnknownError):
            print(_not_let_in(home), file=sys.stderr, flush=True)  # noqa: T201  for whoever started it
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
