# SPDX-License-Identifier: Apache-2.0
"""What this node does when a broker asks: three duties, and no other. Holds no torch; a `Learner` works.

Each duty takes the news of the log first (`client.receipts`): a log with two histories is answered by its
error code and by nothing else.

``train.contribute``

1. the guard decides, before the tensor is pulled;
2. plan and base model are those of recipe and request;
3. where the contract asks for canaries, the run's are drawn and committed to, durably
   (`client.audits.canaries`);
4. budget is reserved once per run and touched, durably, before the first gradient;
5. training; a halt that was said meanwhile keeps the update here, and the spend is told;
6. one transaction seals ``decision.recorded``, ``epsilon.spent`` (before the first one ``budget.opened``) and
   ``submission.received``, and notes what leaves. Only then the reply exists.

``evaluate.judge``: one noised query of the recipe's evaluation plan on held-out units; only the vote leaves.
Training is over then: the run's canaries are revealed, and nothing more is trained in it. What the node's own
audits came to goes along (`client.audits.figures`).
A candidate is judged once: asked again, the same envelopes go out. A query that was paid for and whose figure
was never kept is made again under the same spend: the figure that is kept is the only one.

``query.ping``: the weights that training begins with: the recipe's start model, or what follows from its
seed.

A reply carries the envelopes that have no receipt yet before its own: a number is never skipped. What is
refused outside the guard is kept beside its decisions (`client.refusals`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.audits import canaries
from client.budgets import judging_mechanism, training_mechanism
from client.contract.starts import first_weights
from client.desktop import Desktop, Told, check_units, seal_spend
from client.errors import DigestMismatchError
from client.federation.handlers import HandlerReply, Refusal
from client.rows import Decided
from policies.encoding import digest_of
from policies.exchange import tensor_spec
from policies.privacy.blocks import HELD_OUT, TRAIN
from policies.privacy.errors import PlanMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from client.guard import Judged, Seat
    from client.outbox import Letters
    from client.privacy.store import Spend
    from policies.exchange import RequestHeader
    from policies.privacy.receipts import MadeWith
    from policies.signing import Envelope

__all__ = ["ContributeDuty", "JudgeDuty", "PingDuty"]

_SALT_BYTES = 16


def _told(header: RequestHeader, seat: Seat, spent: Spend, mechanism: str) -> Told:
    return Told(
        contract=header.contract,
        run=header.run,
        round=header.round,
        lineage=seat.lineage,
        blocks=spent.blocks,
        mechanism=mechanism,
        plan_digest=spent.plan_digest,
        steps=spent.steps,
        rho_nano=spent.rho_nano,
        epsilon_after=spent.epsilon_after,
        epsilon_max=spent.epsilon_max,
    )


class PingDuty:
    """``query.ping``."""

    def __init__(self, desktop: Desktop) -> None:
        self._top = desktop

    def decide(self, header: RequestHeader) -> Refusal | None:
        """Takes the news; everybody of the contract is answered."""
        with self._top.keeping(header):
            self._top.news(header)
            self._top.guard.seat(header.contract, header.recipe)
        return None

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:  # noqa: ARG002
        """The first weights; public, because they follow from the recipe or are open."""
        seat = self._top.guard.seat(header.contract, header.recipe)
        initial = self._top.learner.initial(seat.recipe) if seat.recipe.start is None else None
        reply = HandlerReply(tensor=first_weights(seat.recipe, seat.start, initial))
        with self._top.outbox.writing() as letters:
            return self._top.finish(letters, header, reply, [], clause=seat.clause.clause)


class ContributeDuty:
    """``train.contribute``."""

    def __init__(self, desktop: Desktop) -> None:
        self._top = desktop
        self._judged: dict[tuple[str, int, int], Judged] = {}

    def decide(self, header: RequestHeader) -> Refusal | None:
        """The guard's answer, before the tensor is pulled; a refusal by the contract is signed and logged."""
        with self._top.keeping(header):
            return self._decide(header)

    def _decide(self, header: RequestHeader) -> Refusal | None:
        top = self._top
        top.news(header)
        top.check_told(header)
        judged = top.guard.judge_round(header)
        if judged.allow:
            _check_body(header, judged.seat)
            backlog = top.backlog(header)
            if backlog is not None:
                return backlog
            self._judged = {_slot(header): judged}
            return None
        kept = judged.kept(header, top.clock.now_ms())
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
        judged = self._judged.pop(_slot(header))
        with self._top.keeping(header, judged):
            return self._train(header, judged, _tensor(tensor))

    def _train(self, header: RequestHeader, judged: Judged, weights: np.ndarray) -> HandlerReply:
        top, seat = self._top, judged.seat
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

        slot = header.round, header.attempt
        update = top.learner.update(seat, header.run, slot, weights, spend, canaries=planted)
        top.phase(header, "trained")
        body, code = {"decision": judged.disclosed}, top.guard.stopped(header.contract)
        reply = HandlerReply(body=body, tensor=update)
        if code is not None:
            reply = HandlerReply(status="refused", code=code, body=body)
        with top.telling(header) as letters:
            letters.decided(judged.kept(header, top.clock.now_ms()))
            sealed = [_seal_decision(letters, header, judged)]
            mechanism = training_mechanism(header.run, header.round, header.attempt)
            for one in spends:
                sealed += seal_spend(letters, top.outbox, top.budgets, _told(header, seat, one, mechanism))
            if code is None:
                receipt = _receipt(top.learner.made_with(seat) if spends else None, spends)
                sealed.append(_seal_submission(letters, header, seat, update, receipt))
            made = top.finish(letters, header, reply, sealed, clause=seat.clause.clause)
        top.phase(header, "sealed")
        return made


class JudgeDuty:
    """``evaluate.judge``."""

    def __init__(self, desktop: Desktop) -> None:
        self._top = desktop

    def decide(self, header: RequestHeader) -> Refusal | None:
        """Whether a candidate may be judged on held-out data of this site."""
        with self._top.keeping(header):
            return self._decide(header)

    def _decide(self, header: RequestHeader) -> Refusal | None:
        top = self._top
        top.news(header)
        top.check_told(header)
        seat = top.guard.judge_candidate(header)
        candidate, plan = header.body.get("candidate"), header.body.get("plan", seat.recipe.evaluation.digest)
        if plan != seat.recipe.evaluation.digest:
            raise PlanMismatchError(
                need=seat.recipe.evaluation.digest,
                found=str(plan)[:80],
                remedy="judge under the recipe's plan",
            )
        if header.tensor is None or header.tensor.digest != candidate:
            raise DigestMismatchError(
                need="the candidate that the request names", found="another tensor", remedy="ask again"
            )
        return top.backlog(header)

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        """Judges once; asked again, the same envelopes go out."""
        with self._top.keeping(header):
            return self._judge(header, tensor)

    def _judge(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        top = self._top
        seat, candidate = top.guard.seat(header.contract, header.recipe), str(header.body["candidate"])
        vote_slot, seen_slot = f"vote.cast {candidate}", f"evaluation.received {candidate}"
        clause = seat.held.contract.release.clause
        contract, revealed_slot = seat.held.contract, canaries.revealed_slot(header.run)
        known = [top.outbox.find(one) for one in (seen_slot, vote_slot, revealed_slot)]
        if known[0] is not None:
            old = [one.envelope for one in known if one is not None and one.receipt is not None]
            with top.outbox.writing() as letters:
                if known[-1] is None:
                    old += canaries.reveal(letters, top.outbox, contract, run=header.run)
                return top.finish(letters, header, HandlerReply(), old, clause=clause)
        told = self._spend(seat, header, candidate)
        top.phase(header, "judging")
        loss, accept = top.learner.judge(seat, _tensor(tensor))
        audits = top.audits.figures(seat)
        figures = {
            "candidate": candidate,
            "plan": seat.recipe.evaluation.digest,
            "noised_loss": f"{loss:.6f}",
            "accept": accept,
            "salt": top.entropy.token_bytes(_SALT_BYTES).hex(),
        }
        with top.telling(header) as letters:
            letters.decided(_kept_judgement(header, top.clock.now_ms(), figures))
            sealed: list[Envelope] = []
            if told is not None:
                sealed += seal_spend(letters, top.outbox, top.budgets, told)
            sealed += canaries.reveal(letters, top.outbox, contract, run=header.run)
            body = {"candidate": candidate, "evaluation": digest_of(figures)} | _audited(audits)
            sealed.append(_seal_own(letters, header, "evaluation.received", body, seen_slot))
            if top.rules().vote == "auto":
                vote = _vote(seat, candidate, accept=accept)
                sealed.append(_seal_own(letters, header, "vote.cast", vote, vote_slot))
            return top.finish(letters, header, HandlerReply(), sealed, clause=clause)

    def _spend(self, seat: Seat, header: RequestHeader, candidate: str) -> Told | None:
        """The spend of a query about a candidate, from before a crash if it was paid for already."""
        top, mechanism = self._top, judging_mechanism(header.run, candidate)
        manifest = top.learner.units(seat, HELD_OUT).manifest
        for one in top.budgets.touches():
            if one.mechanism == mechanism and one.lineage == seat.lineage:
                store = top.budgets.ledger_of(seat.lineage)
                check_units(header, store.reserved(header.run, split=HELD_OUT), manifest)
                return Told.of(one)
        spent = top.spend(
            seat, header, seat.recipe.evaluation, HELD_OUT, manifest=manifest, subject=candidate
        )
        return None if spent is None else _told(header, seat, spent, mechanism)


def _slot(header: RequestHeader) -> tuple[str, int, int]:
    return header.run, header.round, header.attempt


def _tensor(tensor: np.ndarray | None) -> np.ndarray:
    if tensor is None:
        raise DigestMismatchError(need="the model of the round", found="no tensor", remedy="ask again")
    return tensor


def _check_body(header: RequestHeader, seat: Seat) -> None:
    """Plan and base model of the request are the recipe's and the tensor's."""
    plan = None if seat.recipe.plan is None else seat.recipe.plan.digest
    if header.body.get("plan") != plan:
        raise PlanMismatchError(
            need=str(plan), found=str(header.body.get("plan"))[:80], remedy="ask under the plan of the recipe"
        )
    if header.tensor is None or header.body.get("base_model", header.tensor.digest) != header.tensor.digest:
        raise DigestMismatchError(
            need="the base model that the request names", found="another tensor", remedy="ask again"
        )


def _seal_decision(letters: Letters, header: RequestHeader, judged: Judged) -> Envelope:
    return letters.seal(
        "decision.recorded", body=judged.entry, scope=header.contract, run=header.run, round=header.round
    )


def _receipt(made_with: MadeWith | None, spends: list[Spend]) -> dict[str, Any]:
    """The step receipt as it stands in a submission; nothing without a private step."""
    if made_with is None:
        return {}
    last = spends[-1]
    return {"receipt": made_with.receipt(steps_total=last.steps_total, ledger_head=last.ledger_head)}


def _seal_submission(
    letters: Letters, header: RequestHeader, seat: Seat, update: np.ndarray, receipt: Mapping[str, Any]
) -> Envelope:
    plan = seat.recipe.plan
    return letters.seal(
        "submission.received",
        body={
            "update": tensor_spec(update).digest,
            "plan": None if plan is None else plan.digest,
            "steps": seat.recipe.local_steps,
            "attempt": header.attempt,
            **receipt,
        },
        scope=header.contract,
        run=header.run,
        round=header.round,
        slot=f"submission {header.run}/{header.round}/{header.attempt}",
    )


def _seal_own(
    letters: Letters, header: RequestHeader, kind: str, body: Mapping[str, Any], slot: str
) -> Envelope:
    """An envelope about a run, not about one of its rounds."""
    return letters.seal(kind, body=body, slot=slot, scope=header.contract, run=header.run)


def _audited(figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """The node's own audits as they stand in its evaluation; they are of synthetic data alone."""
    return {} if figures is None else {"figures": dict(figures)}


def _vote(seat: Seat, candidate: str, *, accept: bool) -> dict[str, Any]:
    clause = None if accept else seat.held.contract.release.clause
    return {"subject": candidate, "vote": "approve" if accept else "veto", "clause": clause}


def _kept_judgement(header: RequestHeader, at_ms: int, figures: Mapping[str, Any]) -> Decided:
    return Decided(
        at_ms=at_ms,
        contract=header.contract,
        recipe=header.recipe,
        run=header.run,
        round=header.round,
        attempt=header.attempt,
        kind=header.type.value,
        allow=True,
        clauses=(),
        document={"evaluation": dict(figures)},
    )
