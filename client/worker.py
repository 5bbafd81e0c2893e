# SPDX-License-Identifier: Apache-2.0
"""What a running node is composed of. Its desk answers, whoever carries the requests."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from client.audits.figures import AuditShelf
from client.budgets import Budgets
from client.budgets.reckoning import require_known, told_spends
from client.chains import lost_runs
from client.clock import SystemClock
from client.contract.posting import hear
from client.contract.reading import fetch, fetch_envelope
from client.contract.shelf import ContractShelf
from client.contributing import ContributeDuty, Plain
from client.desktop import Desktop, mark_uses
from client.duties import JudgeDuty, PingDuty
from client.federation.errors import RunRefusedError
from client.federation.handlers import Admission, Desk
from client.federation.ledger import FleetLedger
from client.guard import Guard
from client.learner import HomeLearner
from client.membership import open_member
from client.outbox import Outbox
from client.private_parts import site_recipe
from client.receipts import LogView, fetch_consistency
from client.refusals import keep_unadmitted
from client.round_votes import RoundVoteDuty
from client.secagg.duties import sum_duties
from client.settings import Home, load_settings
from client.stopping_runs import StoppedRuns
from client.telling import Told, seal_spend
from client.witnessing.running import trust_of
from client.witnessing.vouching import Vouching
from policies.errors import IriaiError
from policies.exchange import ExchangeType
from policies.identity import parse_key
from policies.log.errors import MemberEnvelopeError
from policies.ports import iso_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from client.contract.shelf import Held
    from client.data.quality import DataAdmission
    from client.desktop import Learner
    from client.federation.handlers import RunConfig
    from client.membership import Member
    from client.seat import Seat
    from client.settings import LocalRules
    from policies.exchange import RequestHeader
    from policies.ports import Entropy, Timer

__all__ = ["Worker", "say"]


T = TypeVar("T")


_FLOAT_BYTES = 4


_NO_FACTS: dict[str, str | int] = {}


def say(event: str, facts: Mapping[str, object] = _NO_FACTS) -> None:
    """One structured line on standard error."""
    line = {"at": iso_ms(SystemClock().now_ms()), "event": event, **facts}
    print(json.dumps(line, sort_keys=True), file=sys.stderr, flush=True)  # noqa: T201  the worker's log


class Worker:
    """Everything that a running node is composed of; `desk` answers, whoever carries the requests."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Timer,
        entropy: Entropy,
        member: Member | None = None,
        learner: Learner | None = None,
    ) -> None:
        """Opens the files and checks them against each other.

        Args:
            home: The node's folder.
            clock: Of all decisions, envelopes and entries; replies wait on it for their slot.
            entropy: Of nonces, salts and noise.
            member: Identity and the way to the broker, opened from the folder if left out.
            learner: Trains and judges; this site's own if left out.

        Raises:
            EquivocationError: The log contradicted itself; a person has to act.
            RotationOpenError: A change of the node's key was begun and is not done.
            BudgetDivergedError: A ledger is older than what was told to the log.
            BudgetUnknownError: A ledger is lost, or does not verify.
            NotJoinedError: No broker is pinned.
        """
        self.home = home
        self.untold: set[str] = set()
        self._files: dict[Path, tuple[tuple[int, int, int], Any]] = {}
        self._admission: DataAdmission | None = None
        self.member = member if member is not None else open_member(home, clock=clock, entropy=entropy)
        identity, broker = self.member.identity, self.member.broker
        self.outbox = Outbox.of(home, identity, origin=broker.origin, clock=clock, entropy=entropy)
        self.outbox.check_open()
        self.outbox.check_settled()
        self.untold |= set(lost_runs(self.outbox))
        self.shelf = ContractShelf(home, own_key=identity.key.public)
        self.budgets = Budgets(home, key=identity.key, clock=clock)
        self.ledger = FleetLedger(home.fleet)
        self.home_learner = HomeLearner(
            home, entropy=entropy, rules=self.rules, threads=load_settings(home).threads
        )
        vouching = Vouching(self.outbox, trust_of(self.member, self.shelf), clock)
        self.guard = Guard(
            shelf=self.shelf,
            own_key=identity.key.public,
            budgets=self.budgets,
            outbox=self.outbox,
            rules=self.rules,
            lineage=self.lineage,
            clock=clock,
            entropy=entropy,
            ask=self._ask_notices,
            vouched=lambda held: vouching.require(held, clock.pause_ms),
            site=lambda recipe, dataset: site_recipe(home, recipe, dataset),
            is_stopped=StoppedRuns(home).is_stopped,
            certified=self._certified,
        )
        desktop = Desktop(
            guard=self.guard,
            outbox=self.outbox,
            view=LogView(self.outbox, self.member.log_keys.all, fetch=fetch_consistency(self.member.client)),
            budgets=self.budgets,
            learner=learner if learner is not None else self.home_learner,
            audits=AuditShelf(home, own=self.home_learner.audited),
            rules=self.rules,
            key=identity.key,
            clock=clock,
            entropy=entropy,
            phase=phase,
            untold=self.untold,
        )
        self.desk = Desk(
            node=identity.node,
            key=identity.key,
            handlers={
                ExchangeType.PING: PingDuty(desktop),
                ExchangeType.CONTRIBUTE: ContributeDuty(desktop, Plain()),
                ExchangeType.JUDGE: JudgeDuty(desktop),
                ExchangeType.SA_JUDGE: RoundVoteDuty(desktop),
                **sum_duties(desktop, say=say),
            },
            admit=self.admit,
            ledger=self.ledger,
            clock=clock,
            former=identity.former,
            stopped=self.guard.stopped_here,
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

    def _certified(self, seat: Seat) -> None:
        """Refuses a data set that is not as good as its recipe requires."""
        if seat.recipe.quality is None:
            return
        from client.data.quality import DataAdmission

        if self._admission is None:
            identity = self.member.identity
            self._admission = DataAdmission(
                root=self.home.data,
                node_key=identity.unit_key,
                keys=(identity.key.public, *identity.former),
                clock=self.member.clock,
            )
        self._admission.require(seat.dataset, seat.recipe, clause=seat.clause.clause)

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

        A contract that is not here may be a successor that took effect a moment ago: it is fetched, and used
        once it is proven here (`client.contract.succession`).

        Raises:
            RunRefusedError: It is not.
        """
        try:
            held = fetch(self.member, self.shelf, config.contract)
            if not held.is_executed:
                held = fetch_envelope(self.member, self.shelf, config.contract)
            recipe = self.shelf.recipe(config.contract, config.recipe)
            self.guard.hear(held)
        except IriaiError as error:
            keep_unadmitted(self.outbox, config, error, at_ms=self.outbox.clock.now_ms())
            raise RunRefusedError(
                need="a contract that everybody signed, and a recipe of it",
                found=error.code,
                remedy=f"iriai-node contract show {config.contract}",
            ) from error
        return Admission(
            broker_key=parse_key(held.contract.broker.key),
            tensor_bytes=recipe.parameters * _FLOAT_BYTES,
            reply_slot_ms=held.contract.privacy.reply_slot_ms or 0,
        )

    def _ask_notices(self, held: Held) -> None:
        failed = hear(self.member, self.shelf, held)
        if failed is not None:
            say(*failed)

    def reconcile(self) -> None:
        """Compares the ledgers with what was told to the log; what was spent and not told is sealed now.

        A spend that no entry can hold stays in its ledger and is reported; its run gets nothing more
        (``untold``), all others go on.

        Raises:
            BudgetDivergedError: Something was told that no ledger holds: a ledger is an old copy.
            BudgetUnknownError: A ledger is lost, or does not verify.
        """
        require_known(self.budgets, self.outbox)
        for stem in self.budgets.lineages():
            mark_uses(self.budgets.find(stem), self.outbox)
        told = told_spends(self.outbox)
        for one in self.budgets.touches():  # in the order of the ledger
            if (one.lineage, one.mechanism) in told:
                continue
            facts = {"run": one.run, "round": one.round, "attempt": one.attempt}
            try:
                with self.outbox.writing() as letters:
                    seal_spend(letters, self.outbox, self.budgets, Told.of(one))
            except MemberEnvelopeError as error:
                self.untold.add(one.run)
                say("spend-untold", {**facts, "code": error.code})
                continue
            say("spend-told", facts)

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


def phase(header: RequestHeader, name: str) -> None:
    wanted = os.environ.get("IRIAI_PHASES", "")
    if not wanted.isdecimal() or int(wanted) == 0:
        return
    print(  # noqa: T201  the worker's log
        f"phase run={header.run} round={header.round} attempt={header.attempt} {name} "
        f"ms={time.monotonic() * 1000:.1f}",
        file=sys.stderr,
        flush=True,
    )
    if int(wanted) > 1:
        time.sleep(int(wanted) / 1000)
