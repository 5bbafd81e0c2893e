# SPDX-License-Identifier: Apache-2.0
"""The weights that a run begins with: derived by the nodes, not by the broker, which holds no torch.

1. every participant that is online is asked what it begins with; enough groups must agree, and on nothing but
   the start model where the recipe names one;
2. too few agree: asked again, `LOST_ROUNDS_MAX` times in all;
3. still too few, because members said no for what their owners can mend: the run pauses and asks again later,
   for up to `REFUSED_PATIENCE_S`. Nothing was trained, so nobody paid. Why it waits stands in its row;
4. any other reason ends the run, with the codes of those that said no.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import update

from broker.federation.engine import Reply
from broker.federation.errors import FAILURES, RunDeclinedError, RunNotAllowedError
from broker.runs.remedies import remedy_of
from broker.runs.verdicts import Pause, pause_of, who_said
from broker.store.tables import run
from policies.exchange import ExchangeType
from policies.limits import LOST_ROUNDS_MAX, RUN_RETRY_S
from policies.rounds import FOR_GOOD, pause_s, too_few

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.federation.asking import Asking
    from broker.federation.engine import EngineRun, Failure
    from broker.federation.participants import Participant
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Starting"]

_SAME = "bring all nodes to the same version; iriai-node contract show fetches a start model"


@dataclass(slots=True)
class _Derived:
    """Initial weights, and who derives these."""

    weights: np.ndarray
    nodes: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Said:
    """What one round of asking came to: who begins with what, and party → code of who said no."""

    asked: tuple[Participant, ...]
    begins: dict[str, _Derived] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)


class Starting:
    """Finds the initial weights of one run."""

    def __init__(self, tools: Tools, run_id: str, contract: Contract, recipe: Recipe, asking: Asking) -> None:
        self._tools = tools
        self._run = run_id
        self._contract = contract
        self._recipe = recipe
        self._asking = asking

    async def weights(
        self,
        engine_run: EngineRun,
        quorum: Callable[[], Awaitable[tuple[Participant, ...]]],
        *,
        ended: Callable[[], bool],
        before: str | None,
    ) -> np.ndarray | None:
        """The weights on which enough groups agree; None if the run was ended meanwhile.

        A recipe that starts from a model names it by digest: no other weights count, whoever agrees on them.

        Args:
            engine_run: Of the engine.
            quorum: Waits for enough participants.
            ended: Whether an operator ended the run.
            before: The pause before this try, as the run's row has it.

        Raises:
            RunDeclinedError: Members said no; the run asks again after a pause.
            RunNotAllowedError: Too few agree, asked again and again: some do not run this recipe.
        """
        needed, found = self._contract.aggregation.min_parties, 0
        said = _Said(())
        for again in range(LOST_ROUNDS_MAX):
            if again:
                await asyncio.sleep(RUN_RETRY_S)
            asked = await quorum()
            if ended():
                return None
            said = await self._ask(engine_run, asked)
            counted = self._counted(said)
            agreed = [one for one in counted.values() if len(one.groups) >= needed]
            found = max((len(one.groups) for one in counted.values()), default=0)
            if len(agreed) == 1:
                self._note_others(said, agreed[0])
                return agreed[0].weights
            self._tools.journal.note("run.waiting", run=self._run, groups=found, needed=needed, no=said.codes)
        await self._pause(said, pause_of(before))
        raise self._not_allowed(said, found)

    def _counted(self, said: _Said) -> dict[str, _Derived]:
        if self._recipe.start is None:
            return said.begins
        return {name: one for name, one in said.begins.items() if name == self._recipe.start.model}

    def _note_others(self, said: _Said, agreed: _Derived) -> None:
        others = [node for one in said.begins.values() if one is not agreed for node in one.nodes]
        if others:
            self._tools.journal.note("initial-weights.differ", run=self._run, nodes=sorted(others))

    async def _ask(self, engine_run: EngineRun, asked: tuple[Participant, ...]) -> _Said:
        deadline_ms = self._asking.deadline_ms()
        requests = [
            self._asking.request(one, ExchangeType.PING, (0, 1), body={}, model=None, deadline_ms=deadline_ms)
            for one in asked
        ]
        by_node = {one.node: one for one in asked}
        said = _Said(asked)
        async for outcome in self._asking.exchange(engine_run, requests, deadline_ms=deadline_ms):
            self._hear(said, by_node[outcome.node], outcome)
        return said

    @staticmethod
    def _hear(said: _Said, sender: Participant, outcome: Reply | Failure) -> None:
        if not isinstance(outcome, Reply):
            if outcome.code not in FAILURES:
                said.codes[sender.party] = outcome.code
            return
        if not outcome.ok or outcome.tensor is None:
            said.codes[sender.party] = outcome.header.code or ""
            return
        one = said.begins.setdefault(
            outcome.tensor.spec.digest, _Derived(outcome.tensor.array().astype(np.float64))
        )
        one.nodes.append(outcome.node)
        one.groups.add(sender.group)
        outcome.tensor.release()

    async def _pause(self, said: _Said, before: Pause | None) -> None:
        """Keeps that the run waits, and why; returns where waiting does not help.

        Raises:
            RunDeclinedError: Kept; the runner tries again after the pause.
        """
        needed = self._contract.aggregation.min_parties
        groups = {one.party: one.group for one in said.asked}
        for_good = {party for party, code in said.codes.items() if code in FOR_GOOD}
        now_ms, times = self._tools.clock.now_ms(), 0 if before is None else before.times
        if not too_few(groups, said.codes, needed) or too_few(groups, for_good, needed):
            return
        if before is not None and now_ms >= before.ends_ms:
            return
        pause = Pause(
            since_ms=now_ms if before is None else before.since_ms,
            until_ms=now_ms + pause_s(times) * 1000,
            times=times + 1,
            codes=said.codes,
        )

        def work(session: Session, _: LogTx) -> None:
            session.execute(update(run).where(run.c.run_id == self._run).values(start=pause.to_text()))

        await self._tools.writer.run(work)
        raise RunDeclinedError(
            need=f"{needed} groups that take part",
            found="too few without " + who_said(said.codes),
            remedy=f"{remedy_of(said.codes.values(), self._run)}; asked again in {pause_s(times)} s",
            clause=self._contract.aggregation.clause,
        )

    def _not_allowed(self, said: _Said, found: int) -> RunNotAllowedError:
        start = self._recipe.start
        what = "the same weights" if start is None else f"the model {start.model}"
        no = f"; {who_said(said.codes)} said no" if said.codes else ""
        return RunNotAllowedError(
            need=f"{self._contract.aggregation.min_parties} groups that begin with {what}",
            found=f"{found}{no}",
            remedy=remedy_of(said.codes.values(), self._run) if said.codes else _SAME,
        )
