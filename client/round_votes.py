# SPDX-License-Identifier: Apache-2.0
"""``evaluate.sa_judge``: whether this silo accepts the model of a round, or what it gains by which teams.

1. the guard says whether held-out data may be read under the contract (`Guard.judge_candidate`);
2. the contract's validation clause asks for votes on rounds, and the request names its plan
   (`policies.robustness.plan`), which the node computes itself;
3. the tensor is what the request names, by digest: the round's model and the last accepted one; or the models
   of a probe's teams, which this node makes itself (`client.probe_votes`);
4. one query of that plan is charged to the held-out units, durably, before they are read; the first one
   reserves all of them;
5. of a vote one signed bit leaves, a threshold of the noised gain: ``round.voted``. Of a probe the noised
   gains themselves leave: ``round.scored``. One transaction seals it and ``epsilon.spent``.

Asked again about the round, the same envelopes go out. A query that was paid for and whose figures were never
kept is made again under the same spend. Salt, and the gain of a vote, stay here, behind the digest that is
signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from client.budgets import votes_run
from client.contributing import needed_tensor
from client.errors import DigestMismatchError
from client.federation.handlers import HandlerReply, Refusal
from client.outbox.rows import Decided
from client.probe_votes import Probe, asks_about_teams
from client.telling import seal_spend, spend_on_query
from policies.contract.errors import RefusedError
from policies.encoding import digest, digest_of
from policies.exchange import tensor_bytes
from policies.privacy.errors import PlanMismatchError
from policies.privacy.plan import EvalPlan
from policies.robustness.plan import votes_plan, votes_subject
from policies.robustness.votes import accepts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from client.desktop import Desktop
    from client.seat import Seat
    from policies.exchange import RequestHeader
    from policies.signing import Envelope

__all__ = ["RoundVoteDuty"]

_SALT_BYTES = 16


class _Question(Protocol):
    """What is asked about: a round's model, or a probe's teams."""

    @property
    def kind(self) -> str:
        """Type of the entry that answers it."""
        ...

    @property
    def named(self) -> Mapping[str, Any]:
        """What it is about, as the answer names it."""
        ...

    @property
    def subject(self) -> str:
        """Its name in budget entries."""
        ...

    def models(self, tensor: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        """The models that are judged, and the one beside them."""
        ...

    def said(self, gains: Sequence[int], plan: EvalPlan) -> Mapping[str, Any]:
        """What leaves of the figures."""
        ...


class RoundVoteDuty:
    """The duty; see the module."""

    def __init__(self, desktop: Desktop) -> None:
        self._top = desktop

    def decide(self, header: RequestHeader) -> Refusal | None:
        """Steps 1 and 2, before the tensor is pulled."""
        with self._top.keeping(header):
            self._top.news(header)
            self._top.check_told(header)
            _check_plan(header, self._top.guard.judge_candidate(header))
            return self._top.backlog(header)

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        """Steps 3 to 5."""
        with self._top.keeping(header):
            return self._vote(header, needed_tensor(tensor))

    def _vote(self, header: RequestHeader, tensor: np.ndarray) -> HandlerReply:
        top = self._top
        seat = top.guard.seat(header.contract, header.recipe, header.run)
        plan = _check_plan(header, seat)
        question: _Question = Probe(header, seat) if asks_about_teams(header) else _Vote(header, seat)
        models, against = question.models(tensor)
        clause = seat.held.contract.release.clause
        slot = f"{question.kind} {header.run}/{header.round}"
        known = top.outbox.find(slot)
        if known is not None:
            old = [known.envelope] if known.receipt is not None else []
            with top.outbox.writing() as letters:
                return top.finish(letters, header, HandlerReply(), old, clause=clause)
        held_as = votes_run(header.run)
        told = spend_on_query(top, seat, header, plan, subject=question.subject, held_as=held_as)
        top.phase(header, "judging")
        gains = top.learner.gains(seat, plan, models, against)
        figures = {
            **question.named,
            "plan": plan.digest,
            "gains_nano": list(gains),
            "salt": top.entropy.token_bytes(_SALT_BYTES).hex(),
        }
        body = {**question.named, **question.said(gains, plan), "evaluation": digest_of(figures)}
        with top.telling(header) as letters:
            letters.decided(
                Decided.of(header, top.clock.now_ms(), allow=True, document={"evaluation": figures})
            )
            sealed: list[Envelope] = []
            if told is not None:
                sealed += seal_spend(letters, top.outbox, top.budgets, told)
            sealed.append(
                letters.seal(
                    question.kind,
                    body=body,
                    scope=header.contract,
                    run=header.run,
                    round=header.round,
                    slot=slot,
                )
            )
            return top.finish(letters, header, HandlerReply(), sealed, clause=clause)


class _Vote:
    """The model of a round beside the last accepted one."""

    kind = "round.voted"

    def __init__(self, header: RequestHeader, seat: Seat) -> None:
        self.named = {name: str(header.body.get(name)) for name in ("model", "against")}
        self.subject = votes_subject(run=header.run, number=header.round, **self.named)
        self._size = seat.recipe.parameters

    def models(self, tensor: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        size = self._size
        halves = tensor[:size], tensor[size:]
        fits = tensor.dtype.name == "float32" and tensor.shape == (2 * size,)
        wanted = [self.named["model"], self.named["against"]]
        if not fits or [digest(tensor_bytes(one)) for one in halves] != wanted:
            raise DigestMismatchError(
                need="the round's model and the accepted one that the request names",
                found="another tensor",
                remedy="ask again",
            )
        return halves[:1], halves[1]

    def said(self, gains: Sequence[int], plan: EvalPlan) -> Mapping[str, Any]:
        return {"vote": "accept" if accepts(gains[0], plan.loss_bound) else "reject"}


def _check_plan(header: RequestHeader, seat: Seat) -> EvalPlan:
    """The plan of votes under this node's own contract, which the request names."""
    clause = seat.held.contract.validation
    document = votes_plan(clause, seat.recipe.evaluation.document)
    if document is None:
        raise RefusedError(
            need="a validation clause with judge_episodes, gain_clip, max_judgings and epsilon",
            found="none",
            remedy="nothing: under this contract no round is voted on",
            clause=None if clause is None else clause.clause,
        )
    plan = EvalPlan.load(document)
    if header.body.get("plan") != plan.digest:
        raise PlanMismatchError(
            need=plan.digest,
            found=str(header.body.get("plan"))[:80],
            remedy="vote under the plan of the contract's validation clause",
            clause=None if clause is None else clause.clause,
        )
    return plan
