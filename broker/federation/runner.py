# SPDX-License-Identifier: Apache-2.0
"""Moves runs forward: one task for each run that is not closed, all in the broker's process.

- A run that meets a full disk, a log that does not answer or a full engine waits and goes on from its last
  settled attempt; other runs and all members go on meanwhile. So does the gate.
- A run whose contract is halted waits for everybody's resume, in nobody's way, and then goes on
  (`broker.federation.standing`).
- A run that members refused, so that too few are left, pauses before it asks again
  (`broker.federation.willing`).
- A run whose contract has a successor goes on under it from its next round (`broker.federation.moving`).
- A run that its contract or its nodes refuse, or whose contract has ended, is closed as ``failed`` or
  ``stopped``, with its entry. So is one that an operator stops, once its open round is closed. ``completed``
  has every round of its recipe; a run that stopped earlier may have a candidate all the same.
- At start every run that is not closed goes on, and every candidate with a tier that waits is looked at
  again; so it is after each vote, and when a delay of the contract is over.
- Masked vectors that the contract lets be kept for auditors are deleted when their time is over: looked at
  when a run ends and at start, and every hour while there are any.
- This is the one place of the runner where every exception is caught: a bug in a run must not end the broker.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from broker.federation.moving import move, ruling
from broker.federation.secure.vectors import sweep
from broker.federation.session import RunSession
from broker.federation.standing import Standing
from broker.federation.willing import waited_out
from broker.log import LogFrozenError, LogUnavailableError
from broker.release.gate import Gate
from broker.release.judging import WAITING, evaluate_candidate, open_candidate
from broker.store.errors import StoreBusyError
from broker.store.tables import candidate, run
from policies.errors import IriaiError
from policies.limits import MAX_ACTIVE_RUNS, RUN_RETRY_S
from policies.log.entries import EntryType, Event
from policies.server_step import released_weights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from broker.federation.checkpoints import Checkpoint
    from broker.federation.engine import EngineRun
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["RoundRunner"]

RUNNING, JUDGING, COMPLETED, STOPPED, FAILED = "running", "judging", "completed", "stopped", "failed"


_PASSING = (LogUnavailableError, LogFrozenError, StoreBusyError, DBAPIError, OSError)
_LONGEST_SLEEP_S = 3_600.0  # the wall clock may be set while a task sleeps
_SWEEP_S = 3_600.0
_COMES_BACK = 75  # exit code of errors behind which the same may be tried again


class RoundRunner:
    """Implements what `broker.services` asks of a runner."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._gate = Gate(tools)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looks = itertools.count(1)
        self._timed: set[str] = set()  # candidates that the clock will have looked at
        self._slots = asyncio.Semaphore(MAX_ACTIVE_RUNS)
        self._sweeper: asyncio.TimerHandle | None = None

    def opened(self, run_id: str) -> None:
        """Starts a run whose row and entries are durable."""
        if run_id not in self._tasks:
            self._start(run_id, self._drive(run_id))

    def voted(self, candidate: str) -> None:
        """Lets the gate look again."""
        self._start(f"gate {next(self._looks)} {candidate}", self._look_again(candidate))

    def resume(self) -> None:
        """Goes on with every run that is not closed, and with every candidate that waits."""
        self._sweep(starting=True)
        with self._tools.store.read() as session:
            rows = session.execute(
                select(run.c.run_id).where(run.c.state.in_((RUNNING, JUDGING))).order_by(run.c.run_id)
            )
            names = [row.run_id for row in rows]
        for name in names:
            self.opened(name)
        for name in self._gate.undecided():
            self.voted(name)

    async def stop(self) -> None:
        """Ends all tasks; the runs go on at the next start."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, name: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _look_again(self, candidate: str) -> None:
        async def decide() -> None:
            await self._gate.decide(candidate)

        error = await self._through(decide, "gate.waiting", candidate)
        if error is not None:
            self._report("gate.failed", candidate, error)
            return
        opens_ms = self._gate.opens_ms(candidate)
        if opens_ms is not None and candidate not in self._timed:
            self._timed.add(candidate)
            self._start(f"later {next(self._looks)} {candidate}", self._later(candidate, opens_ms))

    async def _later(self, candidate: str, opens_ms: int) -> None:
        """Looks at a candidate again when the clock may have opened a tier, or halfway there."""
        left_s = (opens_ms - self._tools.clock.now_ms()) / 1000
        await asyncio.sleep(min(max(left_s, 1.0), _LONGEST_SLEEP_S))
        self._timed.discard(candidate)
        self.voted(candidate)

    async def _drive(self, run_id: str) -> None:
        """Runs until closed; waits out what passes."""

        async def once() -> None:
            await self._resumed(run_id)
            async with self._slots:
                await self._once(run_id)

        async def give_up() -> None:
            await self._close(run_id, FAILED, error=error)

        error: Exception | None = await self._through(once, "run.waiting", run_id)
        if error is None:
            return
        if isinstance(error, IriaiError):
            self._report("run.failed", run_id, error)
            broken = await self._through(give_up, "run.waiting", run_id)
            if broken is None:
                return
            error = broken
        self._report("run.broken", run_id, error)

    async def _through(self, work: Callable[[], Awaitable[None]], event: str, name: str) -> Exception | None:
        """Does it, again and again while what stops it may pass; gives what stopped it for good."""
        while True:
            try:
                await work()
            except _PASSING as error:
                self._report(event, name, error)
            except IriaiError as error:
                if error.exit_code != _COMES_BACK:
                    return error
                self._report(event, name, error)
            except Exception as error:  # noqa: BLE001  boundary: see the module
                return error
            else:
                return None
            await asyncio.sleep(RUN_RETRY_S)

    async def _once(self, run_id: str) -> None:
        await move(self._tools, run_id)
        session = RunSession(self._tools, run_id)
        at = session.progress
        if at.state not in (RUNNING, JUDGING):
            await self._decide_waiting(run_id)
            return
        engine_run = await self._tools.engine.open_run(run=run_id, contract=at.contract, recipe=at.recipe)
        ok = False
        try:
            checkpoint = await self._train(session, engine_run)
            if checkpoint is None:
                await self._close(run_id, STOPPED)
                return
            weights = released_weights(checkpoint.weights, checkpoint.state, session.recipe.server)
            name = await open_candidate(session, weights)
            await self._state(run_id, JUDGING)
            session.require_running()
            await evaluate_candidate(session, engine_run, name, weights)
            session.require_running()  # silos that a halt kept from judging are asked again after it
            outcome = COMPLETED if session.whole else STOPPED
            await self._close(run_id, outcome, gives_candidate=True)
            ok = True
        finally:
            await self._tools.engine.close_run(engine_run, ok=ok)
            self._sweep()
        await self._decide_waiting(run_id)

    async def _train(self, session: RunSession, engine_run: EngineRun) -> Checkpoint | None:
        """The run's rounds; votes that came with replies are looked at, also where it pauses now."""
        try:
            checkpoint = await session.train(engine_run)
        except IriaiError:
            self._voted_all(session.voted)
            raise
        self._voted_all(session.voted)
        return checkpoint

    def _voted_all(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            self.voted(name)

    async def _resumed(self, run_id: str) -> None:
        """Returns once neither a halt of its contract nor a pause keeps a run that is not closed."""
        with self._tools.store.read() as session:
            row = session.execute(select(run.c.contract, run.c.outcome).where(run.c.run_id == run_id)).first()
        if row is not None and row.outcome is None:
            await Standing(self._tools, run_id).resumed(self._tools.contracts.get(row.contract))
            await waited_out(self._tools, run_id)

    async def _decide_waiting(self, run_id: str) -> None:
        """Lets the gate look at the candidate of a closed run, unless it was decided."""
        with self._tools.store.read() as session:
            of = (candidate.c.run_id == run_id) & (candidate.c.state == WAITING)
            names = session.scalars(select(candidate.c.digest).where(of).order_by(candidate.c.digest)).all()
        for name in names:
            await self._gate.decide(name)
            if self._gate.opens_ms(name) is not None:
                self.voted(name)

    def _sweep(self, *, starting: bool = False) -> None:
        """Deletes masked vectors whose time is over, and looks again later while there are others."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        kept = sweep(self._tools.settings.dir, self._tools.clock.now_ms(), starting=starting)
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if kept else None

    async def _state(self, run_id: str, state: str) -> None:
        await self._tools.writer.run(
            lambda session, _: (
                session.execute(update(run).where(run.c.run_id == run_id).values(state=state)) and None
            )
        )

    async def _close(
        self, run_id: str, outcome: str, *, gives_candidate: bool = False, error: Exception | None = None
    ) -> None:
        """Closes a run, with its entry.

        Args:
            run_id: The run.
            outcome: ``completed`` if every round of the recipe gave its model.
            gives_candidate: Its last model waits at the gate.
            error: What it failed of.
        """

        def work(session: Session, tx: LogTx) -> None:
            row = session.execute(
                select(run.c.contract, run.c.recipe_digest, run.c.round, run.c.outcome).where(
                    run.c.run_id == run_id
                )
            ).one()
            if row.outcome is not None:
                return
            now = {"state": outcome, "outcome": outcome}
            if isinstance(error, IriaiError):
                now["error"] = json.dumps(error.as_dict())
            if gives_candidate:  # it waits: what is released is released under what rules
                under = self._tools.contracts.get(row.contract)
                now["contract"] = ruling(self._tools, session, under, row.recipe_digest).digest
            session.execute(update(run).where(run.c.run_id == run_id).values(now))
            tx.add(
                Event(
                    type=EntryType.RUN_CLOSED,
                    scope=row.contract,
                    run=run_id,
                    pub={"final_round": row.round, "outcome": outcome},
                )
            )

        await self._tools.writer.run(work)
        self._tools.journal.note("run.closed", run=run_id, outcome=outcome)

    def _report(self, event: str, name: str, error: Exception) -> None:
        facts = error.as_dict() if isinstance(error, IriaiError) else {"code": type(error).__name__}
        self._tools.journal.note(event, run=name, **{key: value for key, value in facts.items() if value})
