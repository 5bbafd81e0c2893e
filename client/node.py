# SPDX-License-Identifier: Apache-2.0
"""The worker: the one process of a node that trains; `iriai-node run` supervises it.

Start, in this order: lock; keys and pinned broker; the outbox, which refuses if the log contradicted
itself; budget ledgers compared with what was told to the log; then online. torch is imported in the
background, so that online does not wait.

It writes one JSON object per line to standard error: ``{"at", "event", …}`` with ids, counts and codes,
never a value of data. ``IRIAI_PHASES=1`` adds ``phase run=… round=… attempt=… training`` lines; a larger
number also holds each phase for so many milliseconds, so that a test can act in it.

``python -m client.node --dir D --personalise MODEL`` trains an individual model at home instead, and prints
one JSON object.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from client.budgets import Budgets
from client.clock import SystemClock
from client.contracts import ContractShelf, fetch_envelope
from client.duties import (
    ContributeDuty,
    Desktop,
    JudgeDuty,
    PingDuty,
    Told,
    seal_spend,
    training_mechanism,
)
from client.entropy import SystemEntropy
from client.errors import NodeBusyError
from client.federation.errors import RunRefusedError
from client.federation.handlers import Admission, Desk
from client.federation.ledger import FleetLedger
from client.guard import Guard
from client.identity import read_secret
from client.learning.evaluate import judge
from client.learning.tensors import EpisodeArrays
from client.learning.weights import initial_weights
from client.membership import open_member
from client.outbox import Outbox
from client.receipts import LogView, collect, fetch_consistency, run_is_over
from client.settings import Home, load_settings, write_durably
from policies.errors import IriaiError
from policies.exchange import ExchangeType
from policies.identity import parse_key
from policies.limits import RECEIPT_POLL_S
from policies.ports import iso_ms
from policies.privacy.errors import BudgetUnknownError
from policies.privacy.ledger import TRAIN
from policies.privacy.sampling import unit_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from client.budgets import Touched
    from client.data.series import Split
    from client.duties import Learner
    from client.federation.handlers import RunConfig
    from client.guard import Seat
    from client.learning.train import Trainer
    from client.membership import Member
    from client.settings import LocalRules
    from policies.exchange import RequestHeader
    from policies.ports import Clock, Entropy
    from policies.recipe import Recipe

__all__ = ["Worker", "episodes_of", "main"]

T = TypeVar("T")
_FLOAT_BYTES = 4
_NO_FACTS: dict[str, str | int] = {}


def say(event: str, facts: Mapping[str, object] = _NO_FACTS) -> None:
    """One structured line on standard error."""
    line = {"at": iso_ms(SystemClock().now_ms()), "event": event, **facts}
    print(json.dumps(line, sort_keys=True), file=sys.stderr, flush=True)  # noqa: T201  the worker's log


def episodes_of(home: Home, seat: Seat, split: Split, rules: LocalRules) -> list[EpisodeArrays]:
    """Episodes of a seat's data set, opened through contract, recipe and local list.

    Raises:
        DataError: A field may not be opened, is not there, or the data set was not imported under the
            contract.
    """
    from client.data import open_view

    fields = seat.held.contract.fields
    view = open_view(
        home.data,
        seat.dataset,
        contract_fields=fields.allow,
        fields_clause=fields.clause,
        recipe_inputs=seat.recipe.fields,
        local_allow=rules.fields if rules.fields is not None else fields.allow,
        contract=seat.held.contract.digest,
    )
    return [
        EpisodeArrays(observation=one.fields, action=one.actions, unit_id=one.unit_id)
        for one in view.episodes(split)
    ]


class HomeLearner:
    """`client.duties.Learner` on this site's store; torch is loaded when a trainer is made."""

    def __init__(
        self, home: Home, *, entropy: Entropy, rules: Callable[[], LocalRules], threads: int
    ) -> None:
        self._home = home
        self._entropy = entropy
        self._rules = rules
        self._threads = threads
        self._lock = threading.Lock()
        self._trainers: dict[tuple[str, str], Trainer] = {}
        self._spare: dict[str, Trainer] = {}
        self._initial: dict[str, np.ndarray] = {}
        self._held_out: dict[str, list[EpisodeArrays]] = {}

    def initial(self, recipe: Recipe) -> np.ndarray:
        """The weights that follow from the recipe's seed."""
        if recipe.digest not in self._initial:
            self._initial[recipe.digest] = initial_weights(recipe)
        return self._initial[recipe.digest]

    def units(self, seat: Seat, block: str) -> tuple[str, int]:
        """Manifest and number of the units of a block."""
        with self._lock:
            episodes = self._train(seat) if block == TRAIN else self._judging(seat)
        ids = [one.unit_id for one in episodes]
        return unit_manifest(ids), len(ids)

    def update(
        self, seat: Seat, run: str, slot: tuple[int, int], weights: np.ndarray, spend: Callable[[], None]
    ) -> np.ndarray:
        """The update of a round and attempt; ``spend`` is called before the first gradient."""
        with self._lock:
            key = (run, seat.recipe.digest)
            trainer = self._trainers.get(key) or self._spare.pop(seat.recipe.digest, None)
            if trainer is None:
                trainer = self._make(seat)
            self._trainers = {key: trainer}  # one run at a time; a new run freezes its units anew
        spend()
        return trainer.update(weights, *slot)

    def judge(self, seat: Seat, weights: np.ndarray) -> tuple[float, bool]:
        """One noised query on the held-out units."""
        with self._lock:
            held_out = self._judging(seat)
        verdict = judge(seat.recipe, weights, held_out, seat.recipe.evaluation, self._entropy)
        return verdict.noised_loss, verdict.accept

    def warm(self, seats: Sequence[Seat]) -> None:
        """Loads torch and prepares a trainer for each seat; the probe inside runs on made-up frames only."""
        for seat in seats:
            with self._lock:
                if seat.recipe.digest not in self._spare and not self._trainers:
                    self._spare[seat.recipe.digest] = self._make(seat)

    def _make(self, seat: Seat) -> Trainer:
        import torch

        from client.learning.train import Trainer

        torch.set_num_threads(self._threads)
        return Trainer(seat.recipe, self._train(seat), self._entropy)

    def _train(self, seat: Seat) -> list[EpisodeArrays]:
        return episodes_of(self._home, seat, "train", self._rules())

    def _judging(self, seat: Seat) -> list[EpisodeArrays]:
        if seat.recipe.digest not in self._held_out:
            self._held_out = {seat.recipe.digest: episodes_of(self._home, seat, "held-out", self._rules())}
        return self._held_out[seat.recipe.digest]


class Worker:
    """Everything that a running node is composed of; `desk` answers, whoever carries the requests."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Clock,
        entropy: Entropy,
        member: Member | None = None,
        learner: Learner | None = None,
    ) -> None:
        """Opens the files and checks them against each other.

        Args:
            home: The node's folder.
            clock: Of all decisions, envelopes and entries.
            entropy: Of nonces, salts and noise.
            member: Identity and the way to the broker, opened from the folder if left out.
            learner: Trains and judges; this site's own if left out.

        Raises:
            EquivocationError: The log contradicted itself; a person has to act.
            BudgetUnknownError: A ledger is older than what was told to the log.
            NotJoinedError: No broker is pinned.
        """
        self.home = home
        self._files: dict[Path, tuple[tuple[int, int, int], Any]] = {}
        self.member = member if member is not None else open_member(home, clock=clock, entropy=entropy)
        identity, broker = self.member.identity, self.member.broker
        self.outbox = Outbox(
            home.outbox, key=identity.key, origin=broker.origin, clock=clock, entropy=entropy
        )
        self.outbox.check_open()
        self.shelf = ContractShelf(home, own_key=identity.key.public)
        self.budgets = Budgets(home, key=identity.key, clock=clock)
        self.ledger = FleetLedger(home.fleet)
        self.home_learner = HomeLearner(
            home, entropy=entropy, rules=self.rules, threads=load_settings(home).threads
        )
        self.guard = Guard(
            shelf=self.shelf,
            own_key=identity.key.public,
            budgets=self.budgets,
            outbox=self.outbox,
            rules=self.rules,
            lineage=self.lineage,
            clock=clock,
            entropy=entropy,
        )
        desktop = Desktop(
            guard=self.guard,
            outbox=self.outbox,
            view=LogView(self.outbox, broker.log_vkey, fetch=fetch_consistency(self.member.client)),
            budgets=self.budgets,
            learner=learner if learner is not None else self.home_learner,
            rules=self.rules,
            key=identity.key,
            clock=clock,
            entropy=entropy,
            phase=_phase,
        )
        self.desk = Desk(
            node=identity.node,
            key=identity.key,
            handlers={
                ExchangeType.PING: PingDuty(desktop),
                ExchangeType.CONTRIBUTE: ContributeDuty(desktop),
                ExchangeType.JUDGE: JudgeDuty(desktop),
            },
            admit=self.admit,
            ledger=self.ledger,
            clock=clock,
        )
        self.reconcile()

    def close(self) -> None:
        """Closes the files."""
        self.budgets.close()
        self.ledger.close()
        self.outbox.close()
        self.member.client.close()

    def rules(self) -> LocalRules:
        """The site's own rules as they are in the file now: ``pause`` works at once."""
        return self._fresh(self.home.settings, lambda: load_settings(self.home)).local

    def lineage(self, dataset: str) -> str:
        """Lineage of a data set of this site's store."""
        from client.data import Store

        path = self.home.data / "catalogue.json"
        return self._fresh(path, Store(self.home.data).catalogue).dataset(dataset).lineage

    def _fresh(self, path: Path, read: Callable[[], T]) -> T:
        """What a file says, read again only when the file was replaced."""
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        known = self._files.get(path)
        if known is None or known[0] != stamp:
            known = self._files[path] = (stamp, read())
        value: T = known[1]
        return value

    def admit(self, config: RunConfig) -> Admission:
        """Consent to a run: its contract is signed by everybody, and the recipe is one of the contract.

        Raises:
            RunRefusedError: It is not.
        """
        try:
            held = self.shelf.get(config.contract)
            if not held.is_executed:
                held = fetch_envelope(self.member, self.shelf, config.contract)
            recipe = self.shelf.recipe(config.contract, config.recipe)
        except IriaiError as error:
            raise RunRefusedError(
                need="a contract that everybody signed, and a recipe of it",
                found=error.code,
                remedy=f"iriai-node contract show {config.contract}",
            ) from error
        return Admission(
            broker_key=parse_key(held.contract.broker.key), tensor_bytes=recipe.parameters * _FLOAT_BYTES
        )

    def reconcile(self) -> None:
        """Compares the ledgers with what was told to the log; what was spent and not told is sealed now.

        Raises:
            BudgetUnknownError: Something was told that no ledger holds: a ledger is an old copy.
        """
        touched = {_mechanism(one): one for one in self.budgets.touches() if one.block == TRAIN}
        told = {
            one.slot.removeprefix("epsilon.spent ")
            for one in self.outbox.envelopes(kind="epsilon.spent")
            if one.slot is not None and "/eval/" not in one.slot
        }
        lost = sorted(told - set(touched))
        if lost:
            raise BudgetUnknownError(
                need=f"the spend {lost[0]} in a ledger",
                found="none: the ledger is an old copy",
                remedy="restore the newest copy of the budget folder; nothing can be trained without it",
            )
        for mechanism in sorted(set(touched) - told):
            one = touched[mechanism]
            with self.outbox.writing() as letters:
                seal_spend(letters, self.outbox, self.budgets, _told(one, mechanism))
            say("spend-told", {"run": one.run, "round": one.round, "attempt": one.attempt})

    def seats(self) -> list[Seat]:
        """Places in executed contracts for which there are data here."""
        found = []
        for contract in self.shelf.digests():
            try:
                held = self.shelf.get(contract)
                if not held.is_executed:
                    held = fetch_envelope(self.member, self.shelf, contract)
                found += [self.guard.seat(contract, one.recipe_digest) for one in held.contract.recipes]
            except IriaiError as error:
                say("not-prepared", {"contract": contract, "code": error.code})
        return found

    def prepare(self) -> bool:
        """Loads torch and warms up; what fails here fails again, with its own code, when it is asked for."""
        import torch

        torch.set_num_threads(load_settings(self.home).threads)
        try:
            seats = self.seats()
            self.home_learner.warm(seats)
        except IriaiError as error:
            say("not-prepared", {"code": error.code})
            return False
        if seats:
            say("ready", {"recipes": len(seats)})
        return bool(seats)


def _mechanism(one: Touched) -> str:
    return training_mechanism(one.run, one.round, one.attempt)


def _told(one: Touched, mechanism: str) -> Told:
    return Told(
        contract=one.contract,
        run=one.run,
        round=one.round,
        lineage=one.lineage,
        mechanism=mechanism,
        plan_digest=one.plan_digest,
        steps=one.steps,
        rho_nano=one.rho_nano,
        epsilon_after=one.epsilon_after,
    )


def _phase(header: RequestHeader, name: str) -> None:
    wanted = os.environ.get("IRIAI_PHASES", "")
    if not wanted.isdecimal() or int(wanted) == 0:
        return
    print(  # noqa: T201  the worker's log
        f"phase run={header.run} round={header.round} attempt={header.attempt} {name}",
        file=sys.stderr,
        flush=True,
    )
    if int(wanted) > 1:
        time.sleep(int(wanted) / 1000)


def _prepare(worker: Worker) -> None:
    """Until there is a contract that everybody signed and data for it."""
    while not worker.prepare():
        time.sleep(RECEIPT_POLL_S)


def _tidy_for_ever(home: Home, clock: Clock, entropy: Entropy) -> None:
    """Asks for receipts that no later request brought, and closes the budget of runs that are over."""
    member = open_member(home, clock=clock, entropy=entropy)
    key, origin = member.identity.key, member.broker.origin
    outbox = Outbox(home.outbox, key=key, origin=origin, clock=clock, entropy=entropy)
    budgets = Budgets(home, key=key, clock=clock)
    view = LogView(outbox, member.broker.log_vkey, fetch=fetch_consistency(member.client))
    while True:
        time.sleep(RECEIPT_POLL_S)
        try:
            since_ms = clock.now_ms() - RECEIPT_POLL_S * 1000
            receipted = collect(member.client, outbox, view, older_than_ms=since_ms)
            settled = budgets.settle(lambda run: run_is_over(member.client, run))
        except IriaiError as error:
            say("tidying-waits", {"code": error.code})
            continue
        if receipted or settled:
            say("tidied", {"receipts": receipted, "reservations": settled})


def _locked(home: Home) -> Any:  # noqa: ANN401  an open file, kept for its lock
    lock = home.lock.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise NodeBusyError(
            need="no other worker of this node",
            found="one that runs",
            remedy="stop it first, or look at its log",
        ) from error
    return lock


def serve(home: Home) -> None:
    """Answers until SIGTERM.

    Raises:
        IriaiError: With its exit code; the supervisor decides when to start again.
    """
    from client.federation.fleet import run_fleet

    clock, entropy = SystemClock(), SystemEntropy()
    lock = _locked(home)
    worker = Worker(home, clock=clock, entropy=entropy)
    write_durably(home.state, json.dumps({"pid": os.getpid(), "since_ms": clock.now_ms()}).encode())

    def on_event(name: str, facts: Mapping[str, str | int]) -> None:
        say(name, facts)
        if name == "online":
            threading.Thread(target=_prepare, args=(worker,), daemon=True).start()

    threading.Thread(target=_tidy_for_ever, args=(home, clock, entropy), daemon=True).start()
    try:
        run_fleet(
            url=worker.member.client.url,
            ca_pem=home.certificate.read_bytes(),
            fleet_key_pem=read_secret(home.keys / "fleet.key"),
            desk=worker.desk,
            state_dir=home.root,
            on_event=on_event,
        )
    finally:
        worker.close()
        lock.close()


def personalise(home: Home, model: str) -> dict[str, Any]:
    """Trains a released model on at home and keeps the better of the two, by loss on own held-out units.

    Raises:
        NoSuchThingError: The model was not pulled.
        DataError: The data set cannot be opened.
    """
    from client.learning.evaluate import mean_loss
    from client.learning.train import fine_tune
    from client.models import keep_individual, read_model

    clock, entropy = SystemClock(), SystemEntropy()
    member = open_member(home, clock=clock, entropy=entropy)
    pulled, weights = read_model(home, model)
    shelf = ContractShelf(home, own_key=member.identity.key.public)
    budgets = Budgets(home, key=member.identity.key, clock=clock)
    outbox = Outbox(
        home.outbox, key=member.identity.key, origin=member.broker.origin, clock=clock, entropy=entropy
    )
    guard = Guard(
        shelf=shelf,
        own_key=member.identity.key.public,
        budgets=budgets,
        outbox=outbox,
        rules=lambda: load_settings(home).local,
        lineage=lambda _name: "",
        clock=clock,
        entropy=entropy,
    )
    seat = guard.seat(pulled["contract"], pulled["recipe"])
    rules = load_settings(home).local
    train, held_out = (episodes_of(home, seat, split, rules) for split in ("train", "held-out"))
    common = np.asarray(weights, dtype=np.float32)
    best = fine_tune(seat.recipe, common, train, held_out)
    return keep_individual(
        home,
        pulled,
        best,
        improved=bool(np.any(best != common)),
        losses=(mean_loss(seat.recipe, common, held_out), mean_loss(seat.recipe, best, held_out)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the worker; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m client.node")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--personalise", metavar="MODEL")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.ERROR, stream=sys.stderr, format='{"event":"log","message":"%(message)s"}'
    )
    home = Home(options.dir)
    try:
        if options.personalise:
            print(json.dumps(personalise(home, options.personalise)))  # noqa: T201  the answer for the command
        else:
            serve(home)
    except IriaiError as error:
        say("stopped", error.as_dict())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
