# SPDX-License-Identifier: Apache-2.0
"""One run, from its first round to its last. Everything it knows is in the database or in a checkpoint.

1. start: the nodes derive the initial weights from the recipe's seed, or read its start model
   (`broker.federation.starting`);
2. each round: judge who may be asked, ask (`broker.federation.collecting`), judge the replies, average, step,
   checkpoint, close in one transaction. Where the contract requires it, updates are masked, and only their
   sum is opened (`broker.federation.secure`), in a probe the sums of teams, of which the silos choose
   (`broker.federation.probing`);
3. where the contract asks for it, the silos vote on the model of a round before the next one is opened
   (`broker.federation.voting`);
4. the last model goes to `broker.release.judging`; the release gate takes over.

A broker that is killed anywhere goes on at the last settled attempt: nodes that had answered the open one
answer it again from their own ledger.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from broker.federation.asking import Asking
from broker.federation.books import Books
from broker.federation.checkpoints import Checkpoint, Checkpoints, model_bytes
from broker.federation.collecting import Collecting, Errand
from broker.federation.envelopes import EnvelopesRefusedError, barred
from broker.federation.errors import RunHaltedError, RunSupersededError
from broker.federation.participants import participants
from broker.federation.permits import Permits
from broker.federation.probing import Probing
from broker.federation.progress import progress
from broker.federation.receiving import Receiving
from broker.federation.records import (
    REFUSED,
    Outcome,
    Received,
    close_attempt,
    open_attempt,
)
from broker.federation.secure.rounds import SecureRounds
from broker.federation.secure.shown import Base
from broker.federation.settling import Settling
from broker.federation.standing import Standing
from broker.federation.starting import Starting
from broker.federation.voting import Voting
from broker.federation.willing import Willing
from broker.federation.withdrawing import failed, withdraw
from broker.runs.verdicts import LEFT_OUT, UNUSED
from policies.limits import LOST_ROUNDS_MAX, REJOIN_S
from policies.recipe import load as load_recipe
from policies.rounds import need_of, sums_masked
from policies.secagg.errors import SecaggError
from policies.server_step import initial_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from broker.federation.collecting import Collected
    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.progress import Progress
    from broker.federation.records import Opening, Written
    from broker.federation.secure.attempt import SecureAttempt
    from broker.federation.secure.rounds import WrongSum
    from broker.federation.secure.teams import Summed, Sums
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["RunSession"]

_POLL_S = 0.2
_TELL_S = 5.0


class RunSession:
    """The loop of one run; its state is in the database and in checkpoints.

    Attributes:
        voted: Candidates, of this run or another, about which a vote came with a reply.
        books: What new envelopes of members must fit.
        barred: Nodes that are out of this run.
    """

    def __init__(self, tools: Tools, run_id: str) -> None:
        self.tools = tools
        self.run = run_id
        with tools.store.read() as session:
            self.progress: Progress = progress(session, run_id, tools.contracts)
            self.contract: Contract = tools.contracts.get(self.progress.contract)
            self.recipe: Recipe = load_recipe(
                tools.contracts.annex(session, self.contract, self.progress.recipe)
            )
            self.barred = frozenset(barred(session, run_id))
        self.books = Books(tools.contracts, tools.writer, tools.store)
        self.asking = Asking(tools, run_id, self.contract, self.recipe)
        self.voted: set[str] = set()
        self._receiving = Receiving(
            self.asking, self.contract, self.recipe, run=run_id, store=tools.store, journal=tools.journal
        )
        self._permits = Permits(tools, run_id, self.contract, self.recipe)
        self._standing = Standing(tools, run_id)
        self._collecting = Collecting(
            self.asking,
            self._receiving,
            self._standing,
            contract=self.contract,
            recipe=self.recipe,
            purpose=self._permits.purpose,
            clock=tools.clock,
        )
        self._secure: SecureRounds | None = None
        if sums_masked(self.contract):
            self._secure = SecureRounds(
                tools,
                run_id,
                self.contract,
                self.recipe,
                asking=self.asking,
                standing=self._standing,
                books=self.books,
            )
        self._need = need_of(self.contract, self.recipe.digest)
        self._settling = Settling(
            run_id,
            self.contract,
            self.recipe,
            permits=self._permits,
            standing=self._standing,
            journal=tools.journal,
        )
        self._willing = Willing(tools, run_id, self.contract, self.recipe)
        self._checkpoints = Checkpoints(tools.settings.dir / "runs" / run_id)
        self._voting = Voting(
            tools,
            run_id,
            self.contract,
            self.recipe,
            asking=self.asking,
            books=self.books,
            standing=self._standing,
            checkpoints=self._checkpoints,
        )
        self._probing = Probing(tools, run_id, self.contract, self.recipe, voting=self._voting)

    # --- training ---

    async def train(self, engine_run: EngineRun) -> Checkpoint | None:
        """Runs every round that is left; None if there never was a model, or it may not be a candidate.

        Raises:
            RunHaltedError: A party stopped the contract; the attempt is settled.
            RunSupersededError: A successor rules; the attempt is settled.
            RunDeclinedError: Members said no, and too few are left; the attempt is settled.
        """
        if self.progress.settled:
            await self._rejoined()
        checkpoint = await self._start(engine_run)
        if checkpoint is None:
            return None
        checkpoint = await self._judged(engine_run, checkpoint)
        opening = await self._open_next(checkpoint)
        while opening is not None:
            checkpoint, opening = await self._attempt(engine_run, checkpoint, opening)
        self._standing.require_current(self.contract, self.recipe.digest)
        return checkpoint if self.progress.aggregated and not self._standing.over(self.contract) else None

    def require_running(self) -> None:
        """Returns unless a halt is in force, or a successor rules.

        Raises:
            RunHaltedError, RunSupersededError: It is so.
        """
        self._standing.require_running(self.contract)
        self._standing.require_current(self.contract, self.recipe.digest)

    @property
    def whole(self) -> bool:
        """Whether every round of the recipe gave its model."""
        return self.progress.aggregated >= self.recipe.rounds

    async def _start(self, engine_run: EngineRun) -> Checkpoint | None:
        """Where the run goes on from; None if it was ended before it began."""
        done = self.progress.last_model_round
        if done:
            return self._checkpoints.load(done, size=self.recipe.parameters)
        starting = Starting(self.tools, self.run, self.contract, self.recipe, self.asking)
        weights = await starting.weights(
            engine_run, self._awaited, ended=self._stop_asked, before=self.progress.start
        )
        if weights is None:
            return None
        first = Checkpoint(round=0, weights=weights, state=initial_state(weights, self.recipe.server))
        self._checkpoints.save(first)  # what votes may go back to; a successor may ask for them
        return first

    async def _rejoined(self) -> None:
        """A moment for nodes that come back after a restart of the broker: they hold answers already."""
        loop = asyncio.get_running_loop()
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        until = loop.time() + REJOIN_S
        while True:
            if len(self.online()) >= len(everybody) or loop.time() >= until:
                return
            await asyncio.sleep(_POLL_S)

    def _stop_asked(self) -> bool:
        with self.tools.store.read() as session:
            return progress(session, self.run, self.tools.contracts).stop_asked

    async def _awaited(self) -> tuple[Participant, ...]:
        return await self.quorum(ended=self._stop_asked)

    async def quorum(self, *, ended: Callable[[], bool] = lambda: False) -> tuple[Participant, ...]:
        """Participants that are online, once their groups are enough; waits and says so.

        It does not wait for what cannot come: too few groups, because nodes are out of the run; nor once the
        run was ended.
        """
        loop, told = asyncio.get_running_loop(), 0.0
        since = loop.time()
        while True:
            found = self.online()
            if self._enough(found) or self._hopeless() or ended():
                return found
            waited = loop.time() - since
            if waited >= told:
                told = waited + _TELL_S
                groups, needed = len({one.group for one in found}), self._need.groups
                self.tools.journal.note("run.waiting", run=self.run, groups=groups, needed=needed)
            await asyncio.sleep(_POLL_S)

    def online(self) -> tuple[Participant, ...]:
        """Participants that are online now."""
        online = self.tools.engine.online()
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        return tuple(one for one in everybody if one.node in online)

    def _enough(self, found: Sequence[Participant]) -> bool:
        return self._need.met_by([one.group for one in found if one.node not in self.barred])

    def _hopeless(self) -> bool:
        """Whether too few groups are left, online or not, since nodes are out of the run."""
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        return bool(self.barred) and not self._enough(everybody)

    # --- one attempt ---

    def _finished(self, now: Progress) -> bool:
        left = self._settling.steps_left(now)
        return (
            now.stop_asked
            or now.state != "running"  # its candidate is judged already
            or now.aggregated >= self.recipe.rounds
            or now.lost_in_a_row >= LOST_ROUNDS_MAX
            or (left is not None and left <= 0)
            or self._willing.over(now, self.barred)
        )

    async def _open_next(self, checkpoint: Checkpoint) -> Opening | None:
        """Judges and logs the next attempt in a transaction of its own: at start, and after a pause.

        Raises:
            RunHaltedError: A halt is in force: nothing is judged or logged.
            RunSupersededError: A successor rules: likewise.
            RunDeclinedError: Members said no, and too few are left: likewise.
            SumWrongError: Members found sums wrong, one after the other: the run has failed.
        """
        self.require_running()
        self._standing.require_current(self.contract, self.recipe.digest)
        with self.tools.store.read() as session:
            self.progress = progress(session, self.run, self.tools.contracts)
        if (
            self._secure is not None
            and self.progress.wrong
            and self.progress.lost_in_a_row >= LOST_ROUNDS_MAX
        ):
            raise failed(self.progress, self._secure.setups.suspects)
        if self._finished(self.progress) or self._standing.over(self.contract):
            if self._willing.over(self.progress, self.barred):
                self.tools.journal.note("run.declined", run=self.run, parties=self.progress.declined[-1])
            return None
        self._voting.require_trusted(self.progress.rejections)
        self._willing.require(self.progress, self.barred)
        asked = await self._awaited()
        if self._stop_asked():
            return None
        if not self._enough(asked):
            self.tools.journal.note("run.too-few", run=self.run, out=sorted(self.barred))
            return None

        def work(session: Session, tx: LogTx) -> Opening:
            self._standing.require_running(self.contract, session)
            self._standing.require_current(self.contract, self.recipe.digest, session)
            opening = self._permits.opening(session, self.progress, checkpoint.weights, asked, self.barred)
            open_attempt(session, tx, opening)
            return opening

        opening, _ = await self.tools.writer.run(work)
        return self._permitted(opening)

    def _permitted(self, opening: Opening) -> Opening | None:
        if opening.permitted:
            return opening
        clauses = sorted({clause for _, one in opening.judged for clause in one.decision.clauses})
        self.tools.journal.note("run.refused", run=self.run, round=opening.round, clauses=clauses)
        return None

    async def _attempt(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening
    ) -> tuple[Checkpoint, Opening | None]:
        """Asks, settles and closes one attempt; opens the next one in the same transaction."""
        clock, sent = _Stopwatch(), self.asking.requests
        secret = await self._begin(engine_run, checkpoint, opening, clock)
        errand = Errand.plain(model_bytes(checkpoint.weights)) if secret is None else secret.errand
        found = await self._collect(engine_run, errand, opening)
        received, tensors = found.received, found.tensors
        clock.lap("contribute_ms")
        summed = wrong = None
        if secret is not None and self._secure is not None:
            wrong = self._secure.wrong_sum(secret, received)
            summed = await self._opened(engine_run, checkpoint, opening, secret, received, clock=clock)
        while True:
            outcome, following = self._settle(checkpoint, opening, found, secret, summed)
            clock.lap("aggregate_ms")
            if outcome.model is not None:
                self._checkpoints.save(following)
            clock.lap("checkpoint_ms")
            try:
                outcome, following, opened = await self._close(
                    engine_run, checkpoint, outcome, following, wrong=wrong
                )
                break
            except EnvelopesRefusedError as error:  # the log does not take what one node signed
                received[error.sender.party] = self._receiving.refused(
                    error.sender, error.reason, need=error.need, found=error.found, evidence=error.evidence
                )
        for handle in tensors.values():
            handle.release()
        if outcome.choice is not None:
            self._probing.tell()
        clock.lap("commit_ms")
        keep = {*self._voting.stands(), self.progress.before_model_round}
        self._checkpoints.prune(following.round, keep=keep)
        if self._secure is not None and secret is not None:
            self._secure.settled(secret, received)
        self.tools.journal.note(
            "round.closed",
            run=self.run,
            round=opening.round,
            attempt=opening.attempt,
            accepted=len(outcome.survivors),
            requests=self.asking.requests - sent,
            **clock.laps,
        )
        return following, opened

    async def _begin(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening, clock: _Stopwatch
    ) -> SecureAttempt | None:
        """The secure side of an attempt, with a setup; None where updates are plain."""
        if self._secure is None:
            return None
        base = Base(checkpoint=checkpoint, step=self.progress.aggregated)
        secret = await self._secure.begin(engine_run, opening, base, self.barred)
        clock.lap("setup_ms")
        return secret

    async def _opened(
        self,
        engine_run: EngineRun,
        checkpoint: Checkpoint,
        opening: Opening,
        secret: SecureAttempt,
        received: dict[str, Received],
        *,
        clock: _Stopwatch,
    ) -> Summed | None:
        """Opens the sum of what was accepted, if that is enough and the contract lets it be used.

        Who answered wrongly meanwhile is refused, unless its vector is in the sum that was opened.
        """
        groups = {one.party: one.group for one in opening.cohort}
        survivors = tuple(sorted(secret.vectors))
        if not opening.need.met_by([groups[party] for party in survivors]):
            return None
        if not self._permits.aggregate(self.progress, opening.round, survivors).allow:
            return None
        sums = await secret.open(engine_run, opening.cohort, clock.lap)
        clock.lap("aggregate_ms")
        if sums is None:
            out = {party: secret.offenders[party] for party in secret.offenders.keys() & received.keys()}
            _refuse(received, out, need="what the protocol asks of a member", found="another answer")
            return None
        try:
            summed = await self._chosen(engine_run, checkpoint, opening, sums) if sums.probe else sums.sole()
        except SecaggError as error:
            secret.not_used(error)
            return None
        clock.lap("judge_ms")
        if summed is not None:
            opened = {party for team in sums.teams for party in team.parties}
            closed = dict.fromkeys(secret.vectors.keys() - opened, UNUSED)
            _refuse(received, closed, need="a team with enough groups", found="too few answered")
            out = dict.fromkeys(opened - set(summed.online), LEFT_OUT)
            _refuse(received, out, need="a team whose sum is in the model", found="its team was left out")
        return summed

    async def _chosen(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening, sums: Sums
    ) -> Summed | None:
        """The sum of the teams that judges choose; None if the contract was stopped meanwhile."""
        asked = [one for one in self.online() if one.node not in self.barred]
        try:
            probed = await self._probing.choose(
                engine_run, opening, checkpoint, sums, step=self.progress.aggregated, asked=asked
            )
        except (RunHaltedError, RunSupersededError):
            return None  # the attempt is settled, and gives no model
        if probed.heard is not None:
            self.voted |= probed.heard.voted
            self.barred |= probed.heard.barred
        return probed.summed

    async def _close(
        self,
        engine_run: EngineRun,
        checkpoint: Checkpoint,
        outcome: Outcome,
        following: Checkpoint,
        *,
        wrong: WrongSum | None,
    ) -> tuple[Outcome, Checkpoint, Opening | None]:
        """Writes the outcome; where it can be, the next attempt is opened in the same transaction.

        Returns:
            What was written: a contract that was halted meanwhile gives no model; where the run goes on from;
            and the next attempt, if it may be asked.

        Raises:
            EnvelopesRefusedError: The log does not take one sender's envelopes; nothing was written.
        """
        by_party = {one.party: one.node for one in outcome.opening.cohort}
        out = {by_party[party] for party, one in outcome.received.items() if one.evidence is not None}

        def work(session: Session, tx: LogTx) -> tuple[Outcome, Written, Progress, Opening | None]:
            kept = self._settling.judged_again(session, self.progress, outcome)
            written = close_attempt(session, tx, kept, self.books)
            written.withdrawn = kept.model is None and withdraw(session, tx, outcome.opening, wrong)
            now = progress(session, self.run, self.tools.contracts)
            stopped = self._standing.stopped(self.contract, session)
            if out or stopped or self._standing.superseded(self.contract, session):
                return kept, written, now, None  # looked at afresh, once this is written
            asked = self.online()
            if self._voting.due(session, now.last_model_round):
                return kept, written, now, None
            if written.withdrawn or kept.rejected:
                return kept, written, now, None  # goes on from another model, if it may
            if not self._enough(asked) or self._finished(now) or self._willing.wait_ms(now, self.barred):
                return kept, written, now, None
            weights = (checkpoint if kept.model is None else following).weights
            opening = self._permits.opening(session, now, weights, asked, self.barred)
            open_attempt(session, tx, opening)
            return kept, written, now, opening

        (kept, written, self.progress, opened), _ = await self.tools.writer.run(work)
        self.barred |= out
        for one in outcome.opening.cohort:
            self.asking.owe_receipts(one.party, written.envelopes.get(one.party, []))
        self.voted |= written.voted
        at = checkpoint if kept.model is None else following
        if kept.rejected:
            at = self._voting.accepted()
        if wrong is not None:
            at = self._without(wrong, at)
        if opened is None:
            at = await self._judged(engine_run, at)
            return kept, at, await self._open_next(at)
        return kept, at, self._permitted(opened)

    def _without(self, wrong: WrongSum, at: Checkpoint) -> Checkpoint:
        """Where the run goes on from, once a sum is seen to be wrong: its model does not stand any more."""
        if self._secure is not None:
            self._secure.withdrawn(wrong)
        with self.tools.store.read() as session:  # the log's new entries are seen once they are written
            self.progress = progress(session, self.run, self.tools.contracts)
        stands = self.progress.last_model_round
        return at if at.round == stands else self._checkpoints.load(stands, size=self.recipe.parameters)

    async def _judged(self, engine_run: EngineRun, at: Checkpoint) -> Checkpoint:
        """Where the run goes on from, once the votes on its newest model are counted, where it has some.

        Raises:
            RunHaltedError, RunSupersededError: As `require_running`.
        """
        with self.tools.store.read() as session:
            due = (
                self._voting.due(session, at.round)
                and progress(session, self.run, self.tools.contracts).state == "running"
            )
        if not due or self._standing.over(self.contract):
            return at
        self.require_running()
        asked = [one for one in await self._awaited() if one.node not in self.barred]
        if self._stop_asked():
            return at
        verdict = await self._voting.judge(engine_run, at, asked)
        self.voted |= verdict.voted
        self.barred |= verdict.barred
        return verdict.at

    async def _collect(self, engine_run: EngineRun, errand: Errand, opening: Opening) -> Collected:
        return await self._collecting.collect(
            engine_run,
            errand,
            opening,
            declined=self.progress.declined,
            barred=self.barred,
        )

    # --- settling ---

    def _settle(
        self,
        checkpoint: Checkpoint,
        opening: Opening,
        found: Collected,
        secret: SecureAttempt | None,
        summed: Summed | None,
    ) -> tuple[Outcome, Checkpoint]:
        if secret is None:
            return self._settling.plain(self.progress, checkpoint, opening, found)
        return self._settling.masked(
            self.progress, checkpoint, opening, found.received, secret=secret, summed=summed
        )


def _refuse(received: dict[str, Received], reasons: Mapping[str, str], *, need: str, found: str) -> None:
    """Takes updates out of an attempt that were accepted before."""
    for party, reason in reasons.items():
        received[party] = replace(received[party], verdict=REFUSED, reason=reason, need=need, found=found)


class _Stopwatch:
    """Milliseconds between laps of one attempt."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + (now - self._last) * 1000, 1)
        self._last = now
