# SPDX-License-Identifier: Apache-2.0
"""What this node does when a broker asks, beside training and sums. Holds no torch; a `Learner` works.

Updates have one path, whatever their way out (`client.contributing`); the messages of secure aggregation have
their own (`client.secagg.duties`). There is no other duty.

Each duty takes the news of the log first (`client.receipts`): a log with two histories is answered by its
error code and by nothing else.

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
from client.contract.starts import first_weights
from client.contributing import needed_tensor
from client.errors import DigestMismatchError
from client.federation.handlers import HandlerReply, Refusal
from client.outbox.rows import Decided
from client.telling import seal_spend, spend_on_query
from policies.encoding import digest_of
from policies.privacy.errors import PlanMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from client.desktop import Desktop
    from client.outbox import Letters
    from client.seat import Seat
    from policies.exchange import RequestHeader
    from policies.signing import Envelope

__all__ = ["JudgeDuty", "PingDuty"]

_SALT_BYTES = 16


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
        seat = top.guard.seat(header.contract, header.recipe, header.run)
        candidate = str(header.body["candidate"])
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
        told = spend_on_query(top, seat, header, seat.recipe.evaluation, subject=candidate)
        top.phase(header, "judging")
        loss, accept = top.learner.judge(seat, needed_tensor(tensor))
        audits = top.audits.figures(seat)
        figures = {
            "candidate": candidate,
            "plan": seat.recipe.evaluation.digest,
            "noised_loss": f"{loss:.6f}",
            "accept": accept,
            "salt": top.entropy.token_bytes(_SALT_BYTES).hex(),
        }
        with top.telling(header) as letters:
            letters.decided(
                Decided.of(header, top.clock.now_ms(), allow=True, document={"evaluation": figures})
            )
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
