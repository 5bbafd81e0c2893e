# SPDX-License-Identifier: Apache-2.0
"""One attempt's exchange: who is asked, in which order, and what the whole cohort's exchange came to.

1. Nodes that are out of the run are not asked; they count as refused.
2. Where the last attempt came to nothing because members said no, these are asked first, alone. Too few
   groups without those that do not train: nobody else is asked, and nobody else pays.
3. The others. The engine ends an exchange early once ``need`` replies are there. If too few of those hold,
   whoever was cut off is asked again in the same slot, until the deadline.

What is asked, plain or masked, is an `Errand`. Who has no part in a masked one is not asked, and has its
verdict already; each masked vector goes into the sum at once: none is kept here.

    found = await Collecting(...).collect(engine_run, Errand.plain(model), opening, declined=..., barred=...)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.federation.engine import Reply
from broker.federation.records import ACCEPTED, SILENT, Received
from broker.runs.verdicts import BARRED, NOT_ASKED
from policies.exchange import ExchangeType
from policies.rounds import doubtful, too_few

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from broker.federation.asking import Asking
    from broker.federation.engine import EngineRun, TensorHandle
    from broker.federation.participants import Participant
    from broker.federation.receiving import Masked, Receiving
    from broker.federation.records import Opening
    from broker.federation.standing import Standing
    from policies.contract import Contract
    from policies.encoding import Json
    from policies.ports import Clock
    from policies.recipe import Recipe

__all__ = ["Collected", "Collecting", "Errand"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What is asked in an attempt.

    Attributes:
        type: Of the exchange.
        tensor: Its bytes.
        dtype: Of its elements.
        body: What a request says beside plan, model and purpose.
        own: Party → tensor and body, of those that are asked with others.
        apart: Party → verdict, of those that are not asked.
        masked: Takes masked vectors; None where they are plain.
    """

    type: ExchangeType
    tensor: bytes
    dtype: str = "float32"
    body: Mapping[str, Json] = field(default_factory=dict)
    own: Mapping[str, tuple[bytes, Mapping[str, Json]]] = field(default_factory=dict)
    apart: Mapping[str, Received] = field(default_factory=dict)
    masked: Masked | None = None

    @classmethod
    def plain(cls, model: bytes) -> Errand:
        """One whose answers are seen singly."""
        return cls(type=ExchangeType.CONTRIBUTE, tensor=model)


@dataclass(slots=True)
class Collected:
    """What came so far: a verdict for each party, and the plain vectors of those that were accepted."""

    received: dict[str, Received] = field(default_factory=dict)
    tensors: dict[str, TensorHandle] = field(default_factory=dict)
    good: int = 0

    @property
    def accepted(self) -> frozenset[str]:
        """Parties whose vector counts so far."""
        return frozenset(party for party, one in self.received.items() if one.verdict == ACCEPTED)


class Collecting:
    """Asks and judges the attempts of one run."""

    def __init__(
        self,
        asking: Asking,
        receiving: Receiving,
        standing: Standing,
        *,
        contract: Contract,
        recipe: Recipe,
        purpose: str | None,
        clock: Clock,
    ) -> None:
        self._asking = asking
        self._receiving = receiving
        self._standing = standing
        self._contract = contract
        self._recipe = recipe
        self._purpose = purpose
        self._clock = clock

    async def collect(
        self,
        engine_run: EngineRun,
        errand: Errand,
        opening: Opening,
        *,
        declined: Sequence[Collection[str]],
        barred: frozenset[str],
    ) -> Collected:
        """What the whole cohort's exchange came to.

        Args:
            engine_run: Of the engine.
            errand: What is asked.
            opening: The attempt.
            declined: Parties that said no, for each attempt since the last model, oldest first.
            barred: Nodes that are out of the run.
        """
        found = Collected()
        asked = tuple(one for one in opening.cohort if one.node not in barred)
        for one in set(opening.cohort) - set(asked):
            found.received[one.party] = self._receiving.refused(
                one, BARRED, need="a node that takes part in the run", found="one that is out"
            )
        found.received |= {one.party: errand.apart[one.party] for one in asked if one.party in errand.apart}
        asked = tuple(one for one in asked if one.party not in errand.apart)
        deadline_ms = self._asking.deadline_ms()
        groups = {one.party: one.group for one in asked}
        first = doubtful(declined, groups, *opening.need)
        if first:
            ask = tuple(one for one in asked if one.party in first)
            await self._exchange(engine_run, ask, errand, opening, found, deadline_ms=deadline_ms, need=0)
            if too_few(groups, first - found.accepted, *opening.need):
                spared = Received(verdict=SILENT, reason=NOT_ASKED)
                found.received |= {one.party: spared for one in asked if one.party not in first}
        rest = tuple(one for one in asked if one.party not in found.received)
        await self._ask(engine_run, rest, errand, opening, found, deadline_ms=deadline_ms)
        return found

    async def _ask(
        self,
        engine_run: EngineRun,
        asked: tuple[Participant, ...],
        errand: Errand,
        opening: Opening,
        found: Collected,
        *,
        deadline_ms: int,
    ) -> None:
        """Asks, and asks whoever was cut off again, until enough groups are there or the deadline is over."""
        enough = max(self._recipe.need, opening.members_needed) if self._recipe.need else 0
        ask, need = asked, max(1, enough - found.good) if enough else 0
        begun = False
        while ask and (not begun or self._clock.now_ms() < deadline_ms):
            begun, wanted = True, need
            found.good = 0
            await self._exchange(
                engine_run, ask, errand, opening, found, deadline_ms=deadline_ms, need=wanted
            )
            accepted = found.accepted
            groups_left = opening.groups_needed - len(self._contract.groups(accepted))
            need = max(groups_left, opening.members_needed - len(accepted))
            cut_off = {party for party, one in found.received.items() if one.reason == "engine.late"}
            again = found.good >= wanted and need > 0 and not self._standing.halted(self._contract)
            ask = tuple(one for one in asked if again and one.party in cut_off)
        for one in asked:  # who was still at work when a halt came
            found.received.setdefault(one.party, Received(verdict=SILENT, reason="engine.late"))

    async def _exchange(
        self,
        engine_run: EngineRun,
        ask: Sequence[Participant],
        errand: Errand,
        opening: Opening,
        found: Collected,
        *,
        deadline_ms: int,
        need: int,
    ) -> None:
        by_node = {one.node: one for one in ask}
        slot, facts, requests = (opening.round, opening.attempt), self._body(opening), []
        for one in ask:
            tensor, body = errand.own.get(one.party, (errand.tensor, errand.body))
            requests.append(
                self._asking.request(
                    one,
                    errand.type,
                    slot,
                    body={**facts, **body},
                    model=tensor,
                    deadline_ms=deadline_ms,
                    dtype=errand.dtype,
                )
            )
        coming = self._asking.exchange(engine_run, requests, deadline_ms=deadline_ms, need=need)
        async for outcome in self._standing.until_halted(self._contract, coming):
            sender = by_node[outcome.node]
            verdict = await self._receiving.judge(sender, outcome, errand.masked)
            found.received[sender.party] = verdict
            if isinstance(outcome, Reply) and outcome.tensor is not None:
                found.good += outcome.ok
                if verdict.verdict == ACCEPTED and errand.masked is None:
                    found.tensors[sender.party] = outcome.tensor
                else:
                    outcome.tensor.release()

    def _body(self, opening: Opening) -> dict[str, Json]:
        plan = self._recipe.plan
        return {
            "plan": plan.digest if plan else None,
            "base_model": opening.base,
            "purpose": self._purpose,
        }
