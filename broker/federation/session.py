# SPDX-License-Identifier: Apache-2.0
"""One run, from its first round to its candidate. Everything it knows is in the database or in a checkpoint.

1. open: the nodes derive the initial weights from the recipe's seed; their digests must agree;
2. each round: judge who may be asked, ask, judge the replies, average, step, checkpoint, close in one
transaction;
3. judge: each silo votes on the candidate; the release gate takes over.

A broker that is killed anywhere goes on at the last settled attempt: nodes that had answered the open one
answer it again
from their own ledger.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from broker.contracts.decisions import judge
from broker.federation.aggregate import Fold, inspect
from broker.federation.checkpoints import Checkpoint, Checkpoints, model_bytes, model_digest
from broker.federation.engine import Expect, Failure, Reply, Request
from broker.federation.errors import RunNotAllowedError
from broker.federation.mirror import epsilon_after
from broker.federation.participants import Participant, participants, plan_facts
from broker.federation.progress import progress
from broker.federation.records import (
    ACCEPTED,
    DECLINED,
    REFUSED,
    SILENT,
    Opening,
    Outcome,
    Received,
    close_attempt,
    open_attempt,
)
from broker.federation.replies import NodeReply, ReplyRefusedError, read_reply
from policies.contract import Aggregate, EpsilonAfter, TrainRound
from policies.encoding import b64, digest
from policies.exchange import ExchangeType, TensorSpec, seal_request
from policies.identity import key_text
from policies.limits import LOST_ROUNDS_MAX, ROUND_GRACE_S
from policies.ports import from_ms
from policies.recipe import Recipe
from policies.recipe import load as load_recipe
from policies.rounds import Attempt, Closed
from policies.server_step import initial_state, server_step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from broker.contracts.decisions import Judgement
    from broker.contracts.service import Contracts
    from broker.federation.checkpoints import ModelFiles
    from broker.federation.engine import Engine, EngineRun, TensorHandle
    from broker.federation.progress import Progress
    from broker.log import LogTx, Writer
    from broker.settings import Settings
    from broker.store import Session, Store
    from policies.contract import Contract, ContractState
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["Journal", "RunSession", "Tools"]

Json = Any
_POLL_S = 0.2
_INLINE_BYTES = 1024 * 1024


class Journal:
    """What a run says about its progress; the default says nothing."""

    def note(self, event: str, **facts: object) -> None:
        """One line: an event and facts without values of data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a run is built from."""

    engine: Engine
    writer: Writer
    store: Store
    contracts: Contracts
    clock: Clock
    entropy: Entropy
    broker_key: SigningKey
    settings: Settings
    models: ModelFiles
    journal: Journal


class RunSession:
    """The loop of one run; its state is in the database and in checkpoints."""

    def __init__(self, tools: Tools, run_id: str) -> None:
        self.tools = tools
        self.run = run_id
        with tools.store.read() as session:
            self.progress: Progress = progress(session, run_id)
            self.contract: Contract = tools.contracts.get(self.progress.contract)
            self.recipe: Recipe = load_recipe(
                tools.contracts.annex(session, self.contract, self.progress.recipe)
            )
        self.checkpoints = Checkpoints(tools.settings.dir / "runs" / run_id)
        self._news: dict[str, int] = {}
        self._receipts: dict[str, list[int]] = {}

    # --- training ---

    async def train(self, engine_run: EngineRun) -> Checkpoint | None:
        """Runs every round that is left; None if there never was a model."""
        checkpoint = await self._start(engine_run)
        opening = await self._open_next(checkpoint)
        while opening is not None:
            checkpoint, opening = await self._attempt(engine_run, checkpoint, opening)
        return checkpoint if self.progress.aggregated else None

    async def _start(self, engine_run: EngineRun) -> Checkpoint:
        done = self.progress.last_model_round
        if done:
            return self.checkpoints.load(done, size=self.recipe.parameters)
        weights = await self._initial_weights(engine_run)
        return Checkpoint(round=0, weights=weights, state=initial_state(weights, self.recipe.server))

    async def _initial_weights(self, engine_run: EngineRun) -> np.ndarray:
        """The weights that every node derives from the recipe's seed.

        Raises:
            RunNotAllowedError: Two nodes derive different ones: one of them does not run this recipe.
        """
        cohort = await self.quorum()
        requests = [self.request(one, ExchangeType.PING, 0, 1, body={}, weights=None) for one in cohort]
        found: dict[str, np.ndarray] = {}
        async for outcome in self.exchange(engine_run, requests):
            if isinstance(outcome, Reply) and outcome.ok and outcome.tensor is not None:
                found[outcome.tensor.spec.digest] = outcome.tensor.array().astype(np.float64)
                outcome.tensor.release()
        if len(found) != 1:
            raise RunNotAllowedError(
                need="one set of initial weights, derived by every node from the recipe's seed",
                found=f"{len(found)} different ones",
                remedy="bring all nodes to the same version",
            )
        return found.popitem()[1]

    async def quorum(self) -> tuple[Participant, ...]:
        """Participants that are online, once their groups are enough; waits and says so."""
        since, told = time.monotonic(), 0.0
        while True:
            online = self.tools.engine.online()
            found = tuple(
                one
                for one in participants(self.tools.contracts, self.contract, self.recipe)
                if one.node in online
            )
            groups = len({one.group for one in found})
            if groups >= self.contract.aggregation.min_parties:
                return found
            waited = time.monotonic() - since
            if waited >= told:
                told = waited + 5
                self.tools.journal.note(
                    "run.waiting", run=self.run, groups=groups, needed=self.contract.aggregation.min_parties
                )
            await asyncio.sleep(_POLL_S)

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
        )

    async def _open_next(self, checkpoint: Checkpoint) -> Opening | None:
        """Judges and logs the next attempt in a transaction of its own: at start, and after a pause."""
        if self._finished(self.progress):
            return None
        opening = self._judge_opening(self.progress, checkpoint, await self.quorum())
        await self.tools.writer.run(lambda session, tx: open_attempt(session, tx, opening))
        return self._enough(opening)

    def _enough(self, opening: Opening) -> Opening | None:
        groups = self.contract.groups(one.party for one in opening.cohort)
        if len(groups) >= self.contract.aggregation.min_parties:
            return opening
        clauses = sorted({clause for _, one in opening.judged for clause in one.decision.clauses})
        self.tools.journal.note("run.refused", run=self.run, round=opening.round, clauses=clauses)
        return None

    def _judge_opening(self, at: Progress, checkpoint: Checkpoint, asked: Sequence[Participant]) -> Opening:
        tools, recipe = self.tools, self.recipe
        now_ms = tools.clock.now_ms()
        state = tools.contracts.state(self.contract)
        cohort = tuple(one.party for one in asked)
        with tools.store.read() as session:
            judged = tuple(
                (one, self._judge_train(session, one, at=at, cohort=cohort, state=state)) for one in asked
            )
        return Opening(
            run=self.run,
            contract=self.contract.digest,
            recipe=recipe,
            round=at.round,
            attempt=at.attempt,
            base=model_digest(checkpoint.weights),
            deadline_ms=now_ms + recipe.deadline_s * 1000,
            judged=judged,
        )

    def _judge_train(
        self,
        session: Session,
        one: Participant,
        *,
        at: Progress,
        cohort: tuple[str, ...],
        state: ContractState,
    ) -> Judgement:
        plan = self.recipe.plan
        after = EpsilonAfter(release=None, total=None)
        if plan is not None:
            after = epsilon_after(
                session, self.tools.contracts, self.contract, party=one.party, plan=plan, run_id=self.run
            )
        clause = self.contract.recipe(self.recipe.digest)
        request = TrainRound(
            party=one.party,
            key=one.key,
            recipe_digest=self.recipe.digest,
            purpose=clause.purpose if clause else None,
            dataset=one.dataset,
            fields=self.recipe.fields,
            round=at.before + at.round,
            local_steps=self.recipe.local_steps,
            cohort=cohort,
            privacy=plan_facts(self.recipe),
            epsilon_after_release=after.release,
            epsilon_after_total=after.total,
            secure_aggregation="off",
        )
        return judge(self.contract, point="broker", request=request, state=state, entropy=self.tools.entropy)

    async def _attempt(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening
    ) -> tuple[Checkpoint, Opening | None]:
        """Asks, settles and closes one attempt; opens the next one in the same transaction."""
        clock = _Stopwatch()
        received, tensors = await self._collect(engine_run, checkpoint, opening)
        clock.lap("exchange_ms")
        outcome, following = self._settle(checkpoint, opening, received, tensors)
        for handle in tensors.values():
            handle.release()
        clock.lap("aggregate_ms")
        if outcome.model is not None:
            self.checkpoints.save(following)
        clock.lap("checkpoint_ms")
        opened = await self._close(outcome, following)
        clock.lap("commit_ms")
        self.checkpoints.prune(following.round)
        self.tools.journal.note(
            "round.closed",
            run=self.run,
            round=opening.round,
            attempt=opening.attempt,
            accepted=len(outcome.survivors),
            **clock.laps,
        )
        return following, opened

    async def _close(self, outcome: Outcome, following: Checkpoint) -> Opening | None:
        """Writes the outcome; where it can be, the next attempt is opened in the same transaction."""
        tools = self.tools

        def work(session: Session, tx: LogTx) -> tuple[dict[str, list[int]], Progress, Opening | None]:
            written = close_attempt(session, tx, outcome)
            now = progress(session, self.run)
            online = tools.engine.online()
            asked = [one for one in outcome.opening.cohort if one.node in online]
            few = len({one.group for one in asked}) < self.contract.aggregation.min_parties
            if few or self._finished(now):
                return written, now, None
            opening = self._judge_opening(now, following, asked)
            open_attempt(session, tx, opening)
            return written, now, opening

        (written, self.progress, opened), _ = await tools.writer.run(work)
        for one in outcome.opening.cohort:
            self._receipts[one.party] = written.get(one.party, [])
        if opened is None:
            return await self._open_next(following)
        return self._enough(opened)

    # --- asking ---

    def request(
        self,
        to: Participant,
        kind: ExchangeType,
        number: int,
        attempt: int,
        *,
        body: Mapping[str, Json],
        weights: np.ndarray | None,
    ) -> Request:
        """A signed request to one node, with the news of the log and its receipts."""
        data = None if weights is None else model_bytes(weights)
        spec = None
        if data is not None:
            spec = TensorSpec(digest=digest(data), dtype="float32", shape=(len(data) // 4,))
        header = seal_request(
            self.tools.broker_key,
            contract=self.contract.digest,
            recipe=self.recipe.digest,
            run=self.run,
            round=number,
            attempt=attempt,
            type=kind,
            node=to.node,
            deadline_ms=self.tools.clock.now_ms() + self.recipe.deadline_s * 1000,
            tensor=spec,
            body={**body, "log": self._log_news(to), "receipts": self._receipt_news(to)},
        )
        expect = Expect(dtype="float32", shape=(self.recipe.parameters,))
        return Request(
            node=to.node,
            type=kind,
            round=number,
            attempt=attempt,
            header=header,
            tensor=data,
            expect=None if kind is ExchangeType.JUDGE else expect,
        )

    def _log_news(self, to: Participant) -> dict[str, Json] | None:
        """The newest checkpoint, with the proof that it extends the one that this node signed last."""
        head = self.tools.writer.head()
        if head.size == 0:
            return None
        old = min(self._news.get(to.party, 0), head.size)
        proof = self.tools.writer.consistency(old, head.size) if 0 < old < head.size else []
        return {"note": head.note, "proof": [b64(one) for one in proof], "old_size": old}

    def _receipt_news(self, to: Participant) -> list[dict[str, str]]:
        receipts = self.tools.writer.receipts
        return [
            {"entry": receipts.body(index).decode("utf-8"), "proof": receipts.receipt(index).to_text()}
            for index in self._receipts.get(to.party, [])
        ]

    async def exchange(
        self, engine_run: EngineRun, requests: Sequence[Request], need: int = 0
    ) -> AsyncIterator[Reply | Failure]:
        """Asks, and yields one outcome for each request; ends by the recipe's deadline."""
        deadline = from_ms(self.tools.clock.now_ms()) + dt.timedelta(seconds=self.recipe.deadline_s)
        async for outcome in self.tools.engine.exchange(
            engine_run, requests, deadline=deadline, need=need, grace_s=ROUND_GRACE_S
        ):
            yield outcome

    async def _collect(
        self, engine_run: EngineRun, checkpoint: Checkpoint, opening: Opening
    ) -> tuple[dict[str, Received], dict[str, TensorHandle]]:
        plan = self.recipe.plan
        body = {"plan": plan.digest if plan else None, "base_model": opening.base}
        by_node = {one.node: one for one in opening.cohort}
        requests = [
            self.request(
                one,
                ExchangeType.CONTRIBUTE,
                opening.round,
                opening.attempt,
                body=body,
                weights=checkpoint.weights,
            )
            for one in opening.cohort
        ]
        received: dict[str, Received] = {}
        tensors: dict[str, TensorHandle] = {}
        async for outcome in self.exchange(engine_run, requests, self.recipe.need):
            sender = by_node[outcome.node]
            received[sender.party] = await self._receive(sender, outcome)
            if isinstance(outcome, Failure) or outcome.tensor is None:
                continue
            if received[sender.party].verdict == ACCEPTED:
                tensors[sender.party] = outcome.tensor
            else:
                outcome.tensor.release()
        return received, tensors

    async def _receive(self, sender: Participant, outcome: Reply | Failure) -> Received:
        if isinstance(outcome, Failure):
            self.tools.journal.note("reply.failed", run=self.run, node=outcome.node, code=outcome.code)
            return Received(verdict=SILENT, reason=outcome.code)
        try:
            reply = self.read(sender, outcome)
        except ReplyRefusedError as error:
            self.tools.journal.note("reply.refused", run=self.run, node=outcome.node, code=error.reason)
            return Received(verdict=REFUSED, reason=error.reason, need=error.need, found=error.found)
        if not outcome.ok or outcome.tensor is None:
            self.tools.journal.note(
                "reply.declined", run=self.run, node=outcome.node, code=outcome.header.code or ""
            )
            return Received(verdict=DECLINED, reason=outcome.header.code, reply=reply)
        return await self._inspect(outcome.tensor, reply)

    async def _inspect(self, tensor: TensorHandle, reply: NodeReply) -> Received:
        large = tensor.spec.size_bytes > _INLINE_BYTES
        found = await asyncio.to_thread(inspect, tensor) if large else inspect(tensor)
        bound = self.contract.aggregation.update_norm_max
        if not found.finite:
            return Received(
                verdict=REFUSED,
                reason="update.not-finite",
                need="finite numbers",
                found="NaN or infinity",
                reply=reply,
            )
        if found.norm > float(bound):
            return Received(
                verdict=REFUSED,
                reason="update.norm",
                need=f"a norm of at most {bound}",
                found=f"{found.norm:.3g}",
                reply=reply,
            )
        return Received(verdict=ACCEPTED, reply=reply)

    def read(self, sender: Participant, reply: Reply) -> NodeReply:
        """The checked content of a reply; notes which checkpoint the node has verified.

        Raises:
            ReplyRefusedError: It does not say what it must.
        """
        found = read_reply(
            reply, sender=sender, contract=self.contract, recipe=self.recipe, origin=self.tools.writer.origin
        )
        for one in found.signed:
            seen = int(one.payload["seen"]["size"])
            self._news[sender.party] = max(self._news.get(sender.party, 0), seen)
        return found

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
            groups_needed=self.contract.aggregation.min_parties,
            steps_left=None if left is None else left - 1,
        )
        for party, one in received.items():
            if one.verdict == ACCEPTED:
                attempt.accept(party)
            elif one.verdict != SILENT:
                attempt.refuse(party, one.reason or "refused")
        settled = attempt.settle()
        if not isinstance(settled, Closed):
            return Outcome(opening=opening, received=received), checkpoint
        judgement = self._judge_aggregate(opening, settled.survivors)
        if not judgement.allow:
            self.tools.journal.note(
                "aggregate.refused",
                run=self.run,
                round=opening.round,
                clauses=list(judgement.decision.clauses),
            )
            return Outcome(opening=opening, received=received, judgement=judgement), checkpoint
        mean = self._mean(settled.survivors, tensors)
        weights, state = server_step(
            checkpoint.weights, mean, checkpoint.state, self.recipe.server, self.progress.aggregated
        )
        following = Checkpoint(round=opening.round, weights=weights, state=state)
        outcome = Outcome(
            opening=opening,
            received=received,
            judgement=judgement,
            model=model_digest(weights),
            aggregate=digest(np.ascontiguousarray(mean, dtype="<f8").tobytes()),
            survivors=settled.survivors,
        )
        return outcome, following

    def _mean(self, survivors: Sequence[str], tensors: Mapping[str, TensorHandle]) -> np.ndarray:
        """In the order of the parties' names, so that the same updates always give the same bits."""
        weights = self.contract.weights(survivors)
        fold = Fold(self.recipe.parameters)
        for party in sorted(survivors):
            fold.add(tensors[party], weight=float(weights[party]))
        return fold.mean()

    def _judge_aggregate(self, opening: Opening, survivors: tuple[str, ...]) -> Judgement:
        broker = self.contract.broker
        clause = self.contract.recipe(self.recipe.digest)
        request = Aggregate(
            party=broker.party,
            key=key_text(self.tools.broker_key.public),
            recipe_digest=self.recipe.digest,
            purpose=clause.purpose if clause else None,
            round=self.progress.before + opening.round,
            survivors=survivors,
            weights=self.contract.weights(survivors),
            norm_bound=self.contract.aggregation.update_norm_max,
            norms_within=True,
            finite=True,
            privacy=plan_facts(self.recipe),
            secure_aggregation="off",
        )
        state = self.tools.contracts.state(self.contract)
        return judge(self.contract, point="broker", request=request, state=state, entropy=self.tools.entropy)


class _Stopwatch:
    """Milliseconds between laps of one attempt."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round((now - self._last) * 1000, 1)
        self._last = now
