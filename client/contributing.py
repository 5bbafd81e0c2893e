# SPDX-License-Identifier: Apache-2.0
"""How this node makes an update and lets it leave: one path, whether the update leaves plain or masked.

1. the guard decides, before the tensor is pulled;
2. plan and base model are those of recipe and request; the `Way` opens a `Passage`, or refuses: under secure
   aggregation everything that could speak against masking is asked here, before anything is spent;
3. the tensor is pulled, and the passage takes the base model from it;
4. where the contract asks for canaries, the run's are drawn and committed to, durably
   (`client.audits.canaries`);
5. budget is reserved once per run and touched, durably, before the first gradient;
6. training; a halt that was said meanwhile keeps the update here, and the spend is told. So it is where the
   owner stopped the run: training ends between two steps;
7. the passage lets the update leave. One that does not fit is kept here with its reason, and the spend is
   told;
8. one transaction seals ``decision.recorded``, ``epsilon.spent`` (before the first one ``budget.opened``) and
   ``submission.received``, which names what leaves, and notes it. Only then the reply exists.

An update that the passage kept from an earlier attempt of the round is sent as it is: steps 4 and 5 and the
training are left out, and ``submission.received`` names the attempt that paid for it as ``trained``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from client.audits import canaries
from client.budgets import training_mechanism
from client.errors import DigestMismatchError, LocalRefusedError
from client.federation.handlers import HandlerReply, Refusal
from client.learning.errors import TrainingStoppedError
from client.refusals import keep_refusal
from client.telling import seal_spend, told_of
from policies.exchange import tensor_spec
from policies.privacy.blocks import TRAIN
from policies.privacy.errors import PlanMismatchError
from policies.secagg.errors import UpdateUnfitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from client.desktop import Desktop
    from client.judged import Judged
    from client.outbox import Letters
    from client.privacy.store import Spend
    from client.seat import Seat
    from policies.exchange import RequestHeader
    from policies.privacy.receipts import MadeWith
    from policies.signing import Envelope

__all__ = ["ContributeDuty", "Leaving", "Made", "Passage", "Plain", "Way", "needed_tensor"]

_EPSILON: Final = "epsilon.spent"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Made:
    """An update as it was trained; it is here, and has not left.

    Attributes:
        update: ``[P]``: float32, or int64 on the grid of a sum.
        attempt: Whose budget paid for it.
        spends: What it cost; nothing without caps.
        made_with: Names of the code, of a private update.
        stopped: Code of the refusal where the owner stopped the run meanwhile: there is no update then.
    """

    update: np.ndarray = field(repr=False)
    attempt: int
    spends: tuple[Spend, ...]
    made_with: MadeWith | None
    stopped: str | None = None

    @property
    def receipt(self) -> dict[str, Any]:
        """The step receipt as it stands in a submission; nothing without a private step."""
        if self.made_with is None:
            return {}
        last = self.spends[-1]
        return {"receipt": self.made_with.receipt(steps_total=last.steps_total, ledger_head=last.ledger_head)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaving:
    """What leaves: a vector, its digest, and what the reply's body and the submission say beside it."""

    vector: np.ndarray
    digest: str
    body: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)


class Passage(Protocol):
    """The way of one update out of this node; nothing was spent when it was opened."""

    @property
    def kept(self) -> Made | None:
        """The update of an earlier attempt of this round, which is to be sent again."""
        ...

    @property
    def grid_step(self) -> float | None:
        """With noise shares, one step of the sum's grid in units of the clipped sum."""
        ...

    def base(self, tensor: np.ndarray) -> np.ndarray:
        """The round's base model ``[P] float32`` of what was pulled; raises if it is not to be trained on."""
        ...

    def keep(self, made: Made) -> None:
        """Called once, right after training."""
        ...

    def leave(self, made: Made) -> Leaving:
        """What leaves of an update; raises `UpdateUnfitError` where it must not."""
        ...


class Way(Protocol):
    """How updates leave this node."""

    def open(self, header: RequestHeader, seat: Seat) -> Passage:
        """A passage for the update that is asked for; raises to refuse it, before the tensor is pulled."""
        ...


class Plain:
    """An update by itself: noise is all that protects it."""

    def open(self, header: RequestHeader, seat: Seat) -> Passage:  # noqa: ARG002  the way's interface
        """The passage, if the tensor is the base model that the request names."""
        named = None if header.tensor is None else header.body.get("base_model", header.tensor.digest)
        if header.tensor is None or named != header.tensor.digest:
            raise DigestMismatchError(
                need="the base model that the request names", found="another tensor", remedy="ask again"
            )
        return _Bare()


class _Bare:
    """`Passage` of `Plain`."""

    kept: None = None
    grid_step: None = None

    def base(self, tensor: np.ndarray) -> np.ndarray:
        return tensor

    def keep(self, made: Made) -> None:
        """A new attempt trains anew."""

    def leave(self, made: Made) -> Leaving:
        return Leaving(vector=made.update, digest=tensor_spec(made.update).digest)


class ContributeDuty:
    """``train.contribute`` and ``train.sa_contribute``: the same path, another way out."""

    def __init__(self, desktop: Desktop, way: Way) -> None:
        self._top = desktop
        self._way = way
        self._open: dict[tuple[str, int, int], tuple[Judged, Passage]] = {}

    def decide(self, header: RequestHeader) -> Refusal | None:
        """The guard's answer, before the tensor is pulled; a refusal by the contract is signed and logged."""
        with self._top.keeping(header):
            return self._decide(header)

    def _decide(self, header: RequestHeader) -> Refusal | None:
        top = self._top
        top.news(header)
        top.check_told(header)
        judged = top.guard.judge_round(header)
        if not judged.allow:
            return self._refused(header, judged)
        _check_plan(header, judged.seat)
        passage = self._way.open(header, judged.seat)
        backlog = top.backlog(header)
        if backlog is not None:
            return backlog
        self._open = {_slot(header): (judged, passage)}
        return None

    def _refused(self, header: RequestHeader, judged: Judged) -> Refusal:
        top, kept = self._top, judged.kept(header, self._top.clock.now_ms())
        with top.outbox.writing() as letters:
            letters.decided(kept)
            sealed, body = [], {}
            if not judged.decision.allow:
                sealed = [_seal_decision(letters, header, judged)]
                body = {"decision": judged.disclosed}
            reply = HandlerReply(status="refused", code=judged.code, body=body)
            made = top.finish(letters, header, reply, sealed, clause=(kept.clauses or (None,))[0])
        return Refusal(code=judged.code, body=made.body)

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        """Spends, trains, seals; see the module for the order."""
        judged, passage = self._open.pop(_slot(header))
        with self._top.keeping(header, judged):
            weights = passage.base(needed_tensor(tensor))
            made = passage.kept or self._train(header, judged.seat, passage, weights)
            self._top.phase(header, "trained")
            return self._send(header, judged, passage, made)

    def _train(self, header: RequestHeader, seat: Seat, passage: Passage, weights: np.ndarray) -> Made:
        top = self._top
        spends: list[Spend] = []
        top.audits.need(seat)
        planted = canaries.drawn(
            top.outbox,
            top.entropy,
            seat.held.contract,
            run=header.run,
            units=lambda: top.learner.units(seat, TRAIN).count,
        )

        def spend(manifest: str) -> None:
            spent = top.spend(seat, header, seat.recipe.plan, TRAIN, manifest=manifest, canaries=planted)
            spends.extend([] if spent is None else [spent])
            top.phase(header, "training")

        slot, step = (header.round, header.attempt), passage.grid_step
        try:
            update = top.learner.update(
                seat, header.run, slot, weights, spend, canaries=planted, grid_step=step
            )
        except TrainingStoppedError:
            return Made(
                update=weights[:0],
                attempt=header.attempt,
                spends=tuple(spends),
                made_with=None,
                stopped=LocalRefusedError.code,
            )
        made = Made(
            update=update,
            attempt=header.attempt,
            spends=tuple(spends),
            made_with=top.learner.made_with(seat) if spends else None,
        )
        passage.keep(made)
        return made

    def _send(self, header: RequestHeader, judged: Judged, passage: Passage, made: Made) -> HandlerReply:
        top, seat, body = self._top, judged.seat, {"decision": judged.disclosed}
        code = made.stopped or top.guard.stopped_here(header.run) or top.guard.stopped(header.contract)
        leaving, unfit = None, None
        if code is None:
            try:
                leaving = passage.leave(made)
            except UpdateUnfitError as error:
                code, unfit = error.code, error
        reply = HandlerReply(status="refused", code=code, body=body)
        if leaving is not None:
            reply = HandlerReply(body={**body, **leaving.body}, tensor=leaving.vector)
        with top.telling(header) as letters:
            now_ms = top.clock.now_ms()
            if unfit is None:
                letters.decided(judged.kept(header, now_ms))
            else:
                keep_refusal(letters, top.outbox, header, unfit, at_ms=now_ms, judged=judged)
            sealed = [_seal_decision(letters, header, judged), *self._tell(letters, header, seat, made)]
            if leaving is not None:
                sealed.append(_seal_submission(letters, header, seat, leaving, made))
            finished = top.finish(letters, header, reply, sealed, clause=seat.clause.clause)
        top.phase(header, "sealed")
        return finished

    def _tell(self, letters: Letters, header: RequestHeader, seat: Seat, made: Made) -> Iterator[Envelope]:
        """What the update cost, unless the log was told in an earlier attempt."""
        mechanism = training_mechanism(header.run, header.round, made.attempt)
        if self._top.outbox.find(f"{_EPSILON} {mechanism}") is None:
            for one in made.spends:
                told = told_of(header, seat, one, mechanism)
                yield from seal_spend(letters, self._top.outbox, self._top.budgets, told)


def needed_tensor(tensor: np.ndarray | None) -> np.ndarray:
    """The tensor of a request that has one; raises `DigestMismatchError`."""
    if tensor is None:
        raise DigestMismatchError(need="the model of the round", found="no tensor", remedy="ask again")
    return tensor


def _slot(header: RequestHeader) -> tuple[str, int, int]:
    return header.run, header.round, header.attempt


def _check_plan(header: RequestHeader, seat: Seat) -> None:
    plan = None if seat.recipe.plan is None else seat.recipe.plan.digest
    if header.body.get("plan") != plan:
        raise PlanMismatchError(
            need=str(plan), found=str(header.body.get("plan"))[:80], remedy="ask under the plan of the recipe"
        )


def _seal_decision(letters: Letters, header: RequestHeader, judged: Judged) -> Envelope:
    return letters.seal(
        "decision.recorded", body=judged.entry, scope=header.contract, run=header.run, round=header.round
    )


def _seal_submission(
    letters: Letters, header: RequestHeader, seat: Seat, leaving: Leaving, made: Made
) -> Envelope:
    plan = seat.recipe.plan
    again = {} if made.attempt == header.attempt else {"trained": made.attempt}
    return letters.seal(
        "submission.received",
        body={
            "update": leaving.digest,
            "plan": None if plan is None else plan.digest,
            "steps": seat.recipe.local_steps,
            "attempt": header.attempt,
            **again,
            **leaving.said,
            **made.receipt,
        },
        scope=header.contract,
        run=header.run,
        round=header.round,
        slot=f"submission {header.run}/{header.round}/{header.attempt}",
    )
