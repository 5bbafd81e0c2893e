# SPDX-License-Identifier: Apache-2.0
"""The secure side of one run: setups, files and exchanges, and one `SecureAttempt` for each attempt.

attempt = await rounds.begin(engine_run, opening, weights, barred)
found = await collecting.collect(engine_run, attempt.errand, opening, ...)     # `SecureAttempt.take` adds
summed = await attempt.open(engine_run, opening.cohort, lap)
rounds.settled(attempt, found.received)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.federation.checkpoints import Checkpoints
from broker.federation.envelopes import add_envelopes
from broker.federation.receiving import verdict_of
from broker.federation.records import REFUSED, SILENT, Received
from broker.federation.secure.attempt import SecureAttempt
from broker.federation.secure.files import Files, Transcripts
from broker.federation.secure.setups import Ready, Setups
from broker.federation.secure.shown import Shown
from broker.federation.secure.talk import Talk
from broker.federation.secure.vectors import Vectors, sweep
from broker.runs.verdicts import NOT_ASKED
from policies.secagg.agreed import agreed_terms
from policies.secagg.errors import BehindError, SecaggError, SetupGoneError, SumWrongError
from policies.secagg.noise_room import check_noise_room
from policies.secagg.probes import probes_of, release_guard

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.federation.asking import Asking
    from broker.federation.books import Books
    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.records import Opening
    from broker.federation.replies import NodeReply
    from broker.federation.secure.shown import Base
    from broker.federation.standing import Standing
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe
    from policies.secagg.collector import Setup
    from policies.secagg.contexts import Teams

__all__ = ["SecureRounds", "WrongSum"]


class _TriedError(Exception):
    """Takes a transaction back that was only tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongSum:
    """An opened sum of a round and attempt, how many members find it wrong, and whose vectors are in it."""

    round: int
    attempt: int
    saying: int
    parties: tuple[str, ...]


class SecureRounds:
    """What all attempts of a run share.

    Attributes:
        terms: Of the run, by contract and recipe alone.
        files: What a restart finds.
        shown: Opened sums, as members are shown them.
        setups: Of the run.
        talk: Its exchanges.
        vectors: Masked vectors that are kept for auditors.
        transcripts: Of opened sums, of all runs.
        guard: The rank rule (`policies.secagg.probes.release_guard`).
    """

    def __init__(
        self,
        tools: Tools,
        run: str,
        contract: Contract,
        recipe: Recipe,
        *,
        asking: Asking,
        standing: Standing,
        books: Books,
    ) -> None:
        self.run = run
        self.journal = tools.journal
        self.terms = agreed_terms(contract, recipe.canonical, run=run)
        check_noise_room(recipe.plan, self.terms)
        self.files = Files(tools.settings.dir, run)
        checkpoints = Checkpoints(tools.settings.dir / "runs" / run)
        self.shown = Shown(self.files, checkpoints, size=self.terms.dimension)
        hours = 0 if contract.retention is None else contract.retention.updates_hours
        self.vectors = Vectors(tools.settings.dir, run, hours=hours, clock=tools.clock)
        self.transcripts = Transcripts(tools.settings.dir)
        self.talk = Talk(tools, run, contract, asking=asking, standing=standing)
        self.setups = Setups(run, self.terms, talk=self.talk, files=self.files, journal=tools.journal)
        self.guard = release_guard(self.terms)
        self._probes = probes_of(contract, recipe.canonical, self.terms)
        self._plan = recipe.plan
        self._tools = tools
        self._contract = contract
        self._standing = standing
        self._books = books

    @property
    def halted(self) -> bool:
        """Whether a halt of the contract is in force."""
        return self._standing.halted(self._contract)

    def may_probe(self, number: int) -> bool:
        """Whether a round may be a probe, by its number alone."""
        return self._probes is not None and number in self._probes.rounds

    def teams(self, setup: Setup, number: int) -> Teams | None:
        """Teams of a round, from what its members revealed; None: one, everybody."""
        if self._probes is None:
            return None
        return self._probes.teams(number, dict(zip(setup.members, setup.reveals(number), strict=True)))

    def noise_std(self, members: int) -> float:
        """Per value of the mean, of noise that members add behind their clip: noise shares; else 0."""
        if self._plan is None or self._plan.honest_min is None:
            return 0.0
        return self._plan.added_std / float(self._plan.normalizer) / math.sqrt(members)

    async def begin(
        self,
        engine_run: EngineRun,
        opening: Opening,
        base: Base,
        barred: Collection[str],
    ) -> SecureAttempt:
        """The attempt, under a setup that covers it if there can be one.

        An attempt whose members were asked to unmask before a restart goes on under its setup, or not.
        """
        slot = opening.round, opening.attempt
        asked = tuple(one for one in opening.cohort if one.node not in barred)
        before = self.files.unmasking(slot)
        if before is None:
            ready = await self.setups.ready(engine_run, opening.round, asked)
        else:
            ready = self.setups.kept(before.setup)
        apart = {one.party: self._apart(one.party, ready) for one in asked if not _holds(ready, one.party)}
        try:
            return SecureAttempt(self, slot, ready.setup, apart=apart, before=before, base=base)
        except SecaggError as error:  # the attempt comes to nothing, and is settled: a run never stays on it
            self.journal.note("secagg.setup-failed", run=self.run, code=error.code, found=error.found)
            apart = {one.party: self._apart(one.party, Ready(setup=None)) for one in asked}
            return SecureAttempt(self, slot, None, apart=apart, before=before, base=base)

    def wrong_sum(self, attempt: SecureAttempt, received: Mapping[str, Received]) -> WrongSum | None:
        """The sum that members were shown, if more of them find it wrong than may collude."""
        shown = attempt.shown
        saying = sum(one.reason == SumWrongError.code for one in received.values())
        if shown is None or saying <= max(1, self.terms.max_colluders):
            return None
        return WrongSum(round=shown.round, attempt=shown.attempt, saying=saying, parties=shown.online)

    def withdrawn(self, wrong: WrongSum) -> None:
        """Ends the setup of a sum that members find wrong, and shows that sum no more."""
        self.shown.drop((wrong.round, wrong.attempt))
        self.setups.failed(wrong.parties)

    def settled(self, attempt: SecureAttempt, received: Mapping[str, Received]) -> None:
        """Learns from an attempt who has no keys, who was away, and whether a sum holds.

        Deletes vectors whose time is over.
        """
        checked = attempt.shown is not None and len(attempt.vectors) >= self.terms.t
        if checked if self.terms.group_mac else attempt.holds:  # where no tags are, counter and norm say it
            self.setups.held()
        gone = [party for party, one in received.items() if one.reason == SetupGoneError.code]
        behind = [party for party, one in received.items() if one.reason == BehindError.code]
        self.shown.followed(attempt.followed)
        self.shown.lost([*gone, *behind])
        if attempt.setup is not None:
            self.setups.heard(attempt.slot[0], there=attempt.vectors, gone=gone)
        sweep(self._tools.settings.dir, self._tools.clock.now_ms())

    async def check_log(self, sender: Participant, reply: NodeReply, slot: tuple[int, int]) -> None:
        """Returns if the log would take a reply's envelopes now; nothing is written.

        Raises:
            EnvelopesRefusedError: It would not.
        """

        def work(session: Session, tx: LogTx) -> None:
            of, whole = self._contract.digest, (self.run, *slot)
            add_envelopes(session, tx, sender, reply, contract=of, slot=whole, books=self._books)
            raise _TriedError

        try:
            await self._tools.writer.run(work)
        except _TriedError:
            return

    def _apart(self, party: str, ready: Ready) -> Received:
        """The verdict about a party that has no keys in the setup."""
        if party in self.setups.liars:
            code = self.setups.liars[party]
            need, found = "what the protocol asks of a member", "another answer"
            return Received(verdict=REFUSED, reason=code, need=need, found=found)
        code = ready.declined.get(party, NOT_ASKED)
        return Received(verdict=SILENT if code == NOT_ASKED else verdict_of(code), reason=code)


def _holds(ready: Ready, party: str) -> bool:
    return ready.setup is not None and party in ready.setup.opened_by
