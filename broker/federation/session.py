# SPDX-License-Identifier: Apache-2.0
"""One run, from its first round to its last. Everything it knows is in the database or in a checkpoint.

1. start: the nodes derive the initial weights from the recipe's seed, or read its start model; enough of
   them must agree, and on nothing but the start model where the recipe names one;
2. each round: judge who may be asked, ask, judge the replies, average, step, checkpoint, close in one
transaction;
3. the last model goes to `broker.release.judging`; the release gate takes over.

A broker that is killed anywhere goes on at the last settled attempt: nodes that had answered the open one
answer it again from their own ledger.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from broker.federation.aggregate import Fold
from broker.federation.asking import Asking
from broker.federation.books import Books
from broker.federation.checkpoints import Checkpoint, Checkpoints, model_bytes, model_digest
from broker.federation.engine import Reply
from broker.federation.envelopes import EnvelopesRefusedError, barred
from broker.federation.errors import RunNotAllowedError
from broker.federation.participants import participants
from broker.federation.permits import Permits
from broker.federation.progress import progress
from broker.federation.receiving import Receiving
from broker.federation.records import ACCEPTED, SILENT, Outcome, Received, close_attempt, open_attempt
from broker.federation.standing import Standing
from broker.federation.willing import Willing
from policies.encoding import digest
from policies.exchange import ExchangeType
from policies.limits import LOST_ROUNDS_MAX, REJOIN_S, RUN_RETRY_S
from policies.recipe import load as load_recipe
from policies.rounds import Attempt, Closed
from policies.server_step import initial_state, server_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.federation.engine import EngineRun, TensorHandle
    from broker.federation.participants import Participant
    from broker.federation.progress import Progress
    from broker.federation.records import Opening, Written
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
            self.progress: Progress = progress(session, run_id)
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
        self._willing = Willing(tools, run_id, self.contract, self.recipe)
        self._checkpoints = Checkpoints(tools.settings.dir / "runs" / run_id)

    # --- training ---

    async def train(self, engine_run: EngineRun) -> Checkpoint | None:
        """Runs every round that is left; None if there never was a model, or it may not be a candidate.

        Raises:
            RunHaltedError: A party stopped the contract; the attempt is settled.
            RunSupersededError: A successor rules; the attempt is settled.
            RunDeclinedError: Members said no, and too few are left; the attempt is settled.
        """
        if self.progress.attempts_used:
            await self._rejoined()
        checkpoint = await self._start(engine_run)
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

    async def _start(self, engine_run: EngineRun) -> Checkpoint:
        done = self.progress.last_model_round
        if done:
            return self._checkpoints.load(done, size=self.recipe.parameters)
        weights = await self._initial_weights(engine_run)
        return Checkpoint(round=0, weights=weights, state=initial_state(weights, self.recipe.server))

    async def _initial_weights(self, engine_run: EngineRun) -> np.ndarray:
        """The weights that every node derives from the recipe: those on which enough groups agree.

        A recipe that starts from a model names it by digest: no other weights count, whoever agrees on them.

        Raises:
            RunNotAllowedError: Too few agree, asked again and again: some do not run this recipe.
        """
        needed, found = self.contract.aggregation.min_parties, 0
        for again in range(LOST_ROUNDS_MAX):
            if again:
                await asyncio.sleep(RUN_RETRY_S)
            said = await self._derived(engine_run, await self.quorum())
            counted = said
            if self.recipe.start is not None:
                counted = {name: one for name, one in said.items() if name == self.recipe.start.model}
            agreed = [one for one in counted.values() if len(one.groups) >= needed]
            found = max((len(one.groups) for one in counted.values()), default=0)
            if len(agreed) == 1:
                others = [node for one in said.values() if one is not agreed[0] for node in one.nodes]
                if others:
                    self.tools.journal.note("initial-weights.differ", run=self.run, nodes=sorted(others))
                return agreed[0].weights
            self.tools.journal.note("run.waiting", run=self.run, groups=found, needed=needed)
        raise RunNotAllowedError(
            need=f"{needed} groups that begin with "
            + ("the same weights" if self.recipe.start is None else f"the model {self.recipe.start.model}"),
            found=f"{found}",
            remedy="bring all nodes to the same version; iriai-node contract show fetches a start model",
        )

    async def _derived(self, engine_run: EngineRun, cohort: Sequence[Participant]) -> dict[str, _Derived]:
        deadline_ms = self.asking.deadline_ms()
        requests = [
            self.asking.request(one, ExchangeType.PING, (0, 1), body={}, model=None, deadline_ms=deadline_ms)
            for one in cohort
        ]
        by_node = {one.node: one for one in cohort}
        said: dict[str, _Derived] = {}
        async for outcome in self.asking.exchange(engine_run, requests, deadline_ms=deadline_ms):
            if not isinstance(outcome, Reply) or not outcome.ok or outcome.tensor is None:
                continue
            one = said.setdefault(
                outcome.tensor.spec.digest, _Derived(outcome.tensor.array().astype(np.float64))
            )
            one.nodes.append(outcome.node)
            one.groups.add(by_node[outcome.node].group)
            outcome.tensor.release()
        return said

    async def _rejoined(self) -> None:
        """A moment for nodes that come back after a restart of the broker: they hold answers already."""
        loop = asyncio.get_running_loop()
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        until = loop.time() + REJOIN_S
        while True:
            if len(self.online()) >= len(everybody) or loop.time() >= until:
                return
            await asyncio.sleep(_POLL_S)

    async def quorum(self) -> tuple[Participant, ...]:
        """Participants that are online, once their groups are enough; waits and says so.

        It does not wait for what cannot come: too few groups, because nodes are out of the run.
        """
        loop, told = asyncio.get_running_loop(), 0.0
        since = loop.time()
        while True:
            found = self.online()
            if self._enough(found) or self._hopeless():
                return found
            waited = loop.time() - since
            if waited >= told:
                told = waited + _TELL_S
                groups, needed = len({one.group for one in found}), self.contract.aggregation.min_parties
                self.tools.journal.note("run.waiting", run=self.run, groups=groups, needed=needed)
            await asyncio.sleep(_POLL_S)

    def online(self) -> tuple[Participant, ...]:
        """Participants that are online now."""
        online = self.tools.engine.online()
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        return tuple(one for one in everybody if one.node in online)

    def _enough(self, found: Sequence[Participant]) -> bool:
        groups = {one.group for one in found if one.node not in self.barred}
        return len(groups) >= self.contract.aggregation.min_parties

    def _hopeless(self) -> bool:
        """Whether too few groups are left, online or not, since nodes are out of the run."""
        everybody = participants(self.tools.contracts, self.contract, self.recipe)
        return bool(self.barred) and not self._enough(everybody)

    # --- one attempt ---

    def _steps_left(self, now: Progress) -> int | None:
        plan = self.recipe.plan
        return None if plan is None else plan.steps // plan.steps_per_round - now.attempts_used

    def _finished(self, now: Progress) -> bool:
        left = self._steps_left(now)
        return (
            now.aggregated >= self.recipe.rounds
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
        """
        self.require_running()
        self._standing.require_current(self.contract, self.recipe.digest)
        if self._finished(self.progress) or self._standing.over(self.contract):
            if self._willing.over(self.progress, self.barred):
                self.tools.journal.note(
                    "run.declined", run=self.run, parties=sorted(self.progress.declined[-1])
                )
            return None
        self._willing.require(self.progress, self.barred)
        asked = await self.quorum()
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
        clock = _Stopwatch()
        received, tensors = await self._collect(engine_run, checkpoint, opening)
        clock.lap("exchange_ms")
        while True:
            outcome, following = self._settle(checkpoint, opening, received, tensors)
            clock.lap("aggregate_ms")
            if outcome.model is not None:
                self._checkpoints.save(following)
            clock.lap("checkpoint_ms")
            try:
                outcome, following, opened = await self._close(checkpoint, outcome, following)
                break
            except EnvelopesRefusedError as error:  # the log does not take what one node signed
                received[error.sender.party] = self._receiving.refused(
                    error.sender, error.reason, need=error.need, found=error.found, evidence=error.evidence
                )
        for handle in tensors.values():
            handle.release()
        clock.lap("commit_ms")
        self._checkpoints.prune(following.round)
        self.tools.journal.note(
            "round.closed",
            run=self.run,
            round=opening.round,
            attempt=opening.attempt,
            accepted=len(outcome.survivors),
            **clock.laps,
        )
        return following, opened

    async def _close(
        self, checkpoint: Checkpoint, outcome: Outcome, following: Checkpoint
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
            kept = self._judged_again(session, outcome)
            written = close_attempt(session, tx, kept, self.books)
            now = progress(session, self.run)
            stopped = self._standing.stopped(self.contract, session)
            if out or stopped or self._standing.superseded(self.contract, session):
                return kept, written, now, None  # looked at afresh, once this is written
            asked = self.online()
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
        if opened is None:
            return kept, at, await self._open_next(at)
        return kept, at, self._permitted(opened)

    def _judged_again(self, session: Session, outcome: Outcome) -> Outcome:
        """The outcome under the contract as this transaction sees it: a notice may have come meanwhile."""
        if outcome.model is None:
            return outcome
        opening = outcome.opening
        if self._standing.may_not_count(self.contract, outcome.survivors, session):
            self.tools.journal.note("aggregate.refused", run=self.run, round=opening.round, clauses=[])
            return Outcome(opening=opening, received=outcome.received)
        judgement = self._permits.aggregate(self.progress, opening.round, outcome.survivors, session)
        if judgement.allow:
            return replace(outcome, judgement=judgement)
        clauses = list(judgement.decision.clauses)
        self.tools.journal.note("aggregate.refused", run=self.run, round=opening.round, clauses=clauses)
        return Outcome(opening=opening, received=outcome.received, judgement=judgement)

    async def _collect(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening
    ) -> tuple[dict[str, Received], dict[str, TensorHandle]]:
        """What the whole cohort's exchange came to.

        The engine ends it early once ``need`` replies are there. If too few of those hold, whoever was cut
        off is asked again in the same slot, until the deadline.
        """
        plan, model = self.recipe.plan, model_bytes(checkpoint.weights)
        purpose = self._permits.purpose
        body = {"plan": plan.digest if plan else None, "base_model": opening.base, "purpose": purpose}
        slot = opening.round, opening.attempt
        deadline_ms, clock = self.asking.deadline_ms(), self.tools.clock
        received: dict[str, Received] = {}
        tensors: dict[str, TensorHandle] = {}
        asked = tuple(one for one in opening.cohort if one.node not in self.barred)
        for one in set(opening.cohort) - set(asked):
            received[one.party] = self._receiving.refused(
                one, "incident-declared", need="a node that takes part in the run", found="one that is out"
            )
        ask, need = asked, self.recipe.need
        while ask and (len(received) < len(opening.cohort) or clock.now_ms() < deadline_ms):
            by_node, good = {one.node: one for one in ask}, 0
            requests = [
                self.asking.request(
                    one, ExchangeType.CONTRIBUTE, slot, body=body, model=model, deadline_ms=deadline_ms
                )
                for one in ask
            ]
            coming = self.asking.exchange(engine_run, requests, deadline_ms=deadline_ms, need=need)
            async for outcome in self._standing.until_halted(self.contract, coming):
                sender = by_node[outcome.node]
                verdict = received[sender.party] = await self._receiving.judge(sender, outcome)
                if isinstance(outcome, Reply) and outcome.tensor is not None:
                    good += outcome.ok
                    if verdict.verdict == ACCEPTED:
                        tensors[sender.party] = outcome.tensor
                    else:
                        outcome.tensor.release()
            missing = opening.groups_needed - len(self.contract.groups(tensors))
            cut_off = {party for party, one in received.items() if one.reason == "engine.late"}
            again = good >= need and missing > 0 and not self._standing.halted(self.contract)
            ask, need = tuple(one for one in asked if again and one.party in cut_off), missing
        for one in asked:  # who was still at work when a halt came
            received.setdefault(one.party, Received(verdict=SILENT, reason="engine.late"))
        return received, tensors

    # --- settling ---

    def _settle(
        self,
        checkpoint: Checkpoint,
        opening: Opening,
        received: Mapping[str, Received],
        tensors: Mapping[str, TensorHandle],
    ) -> tuple[Outcome, Checkpoint]:
        left = self._steps_left(self.progress)
        attempt = Attempt(
            number=opening.attempt,
            cohort={one.party: one.group for one in opening.cohort},
            groups_needed=opening.groups_needed,
            steps_left=None if left is None else left - 1,
        )
        for party, one in received.items():
            if one.verdict == ACCEPTED:
                attempt.accept(party)
            elif one.verdict != SILENT:
                attempt.refuse(party, one.reason or "refused")
        settled = attempt.settle()
        if not isinstance(settled, Closed):
            return Outcome(opening=opening, received=dict(received)), checkpoint
        judgement = self._permits.aggregate(self.progress, opening.round, settled.survivors)
        if not judgement.allow:
            clauses = list(judgement.decision.clauses)
            self.tools.journal.note("aggregate.refused", run=self.run, round=opening.round, clauses=clauses)
            return Outcome(opening=opening, received=dict(received), judgement=judgement), checkpoint
        mean = self._mean(settled.survivors, tensors)
        weights, state = server_step(
            checkpoint.weights, mean, checkpoint.state, self.recipe.server, self.progress.aggregated
        )
        outcome = Outcome(
            opening=opening,
            received=dict(received),
            judgement=judgement,
            model=model_digest(weights),
            aggregate=digest(np.ascontiguousarray(mean, dtype="<f8").tobytes()),
            survivors=settled.survivors,
        )
        return outcome, Checkpoint(round=opening.round, weights=weights, state=state)

    def _mean(self, survivors: Sequence[str], tensors: Mapping[str, TensorHandle]) -> np.ndarray:
        """In the order of the parties' names, so that the same updates always give the same bits."""
        weights = self.contract.weights(survivors)
        fold = Fold(self.recipe.parameters)
        for party in sorted(survivors):
            fold.add(tensors[party], weight=float(weights[party]))
        return fold.mean()


@dataclass(slots=True)
class _Derived:
    """Initial weights, and who derives these."""

    weights: np.ndarray
    nodes: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)


class _Stopwatch:
    """Milliseconds between laps of one attempt."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + (now - self._last) * 1000, 1)
        self._last = now
