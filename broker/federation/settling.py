# SPDX-License-Identifier: Apache-2.0
"""What an attempt comes to, once its exchanges have ended: who is in the model, and the model.

- Plain updates are averaged here; of masked ones the sum was opened already, over everybody whose vector
  was taken. If one of them does not count any more, there is no model: nobody can be left out of an opened
  sum.
- In a probe whoever is in no chosen team was refused before: the sum is over the others, and that t members
  opened it was seen to when it was opened.
- The contract decides before anything is averaged, and again in the transaction that writes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from broker.federation.aggregate import Fold
from broker.federation.checkpoints import Checkpoint, model_digest
from broker.federation.records import ACCEPTED, SILENT, Outcome
from policies.encoding import digest
from policies.rounds import Attempt, Closed
from policies.server_step import server_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.contracts.decisions import Judgement
    from broker.federation.collecting import Collected
    from broker.federation.engine import TensorHandle
    from broker.federation.permits import Permits
    from broker.federation.progress import Progress
    from broker.federation.records import Opening, Received
    from broker.federation.secure.attempt import SecureAttempt
    from broker.federation.secure.teams import Summed
    from broker.federation.standing import Standing
    from broker.federation.tools import Journal
    from broker.store import Session
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Settling"]


class Settling:
    """Settles the attempts of one run."""

    def __init__(
        self,
        run: str,
        contract: Contract,
        recipe: Recipe,
        *,
        permits: Permits,
        standing: Standing,
        journal: Journal,
    ) -> None:
        self._run = run
        self._contract = contract
        self._recipe = recipe
        self._permits = permits
        self._standing = standing
        self._journal = journal

    def steps_left(self, at: Progress) -> int | None:
        """Attempts that the privacy plan still has; None without one."""
        plan = self._recipe.plan
        return None if plan is None else plan.steps // plan.steps_per_round - at.attempts_used

    def plain(
        self, at: Progress, checkpoint: Checkpoint, opening: Opening, found: Collected
    ) -> tuple[Outcome, Checkpoint]:
        """The outcome of plain updates, and where the run goes on from."""
        lost = Outcome(opening=opening, received=dict(found.received))
        settled = self._verdicts(at, opening, found.received).settle()
        if not isinstance(settled, Closed):
            return lost, checkpoint
        judgement = self._judged(at, opening, settled.survivors)
        if not judgement.allow:
            return replace(lost, judgement=judgement), checkpoint
        mean = self._mean(settled.survivors, found.tensors)
        following = self._stepped(at, checkpoint, opening, mean)
        outcome = replace(
            lost,
            judgement=judgement,
            model=model_digest(following.weights),
            aggregate=digest(np.ascontiguousarray(mean, dtype="<f8").tobytes()),
            survivors=settled.survivors,
        )
        return outcome, following

    def masked(
        self,
        at: Progress,
        checkpoint: Checkpoint,
        opening: Opening,
        received: Mapping[str, Received],
        *,
        secret: SecureAttempt,
        summed: Summed | None,
    ) -> tuple[Outcome, Checkpoint]:
        """The outcome of masked updates: a model, if everybody whose vector is in the sum still counts."""
        lost = Outcome(opening=opening, received=dict(received), unmasked=secret.unmasked)
        if summed is not None and not summed.online:
            return replace(lost, choice=summed.choice), checkpoint
        if summed is not None:
            opening = replace(opening, members_needed=0)
        settled = self._verdicts(at, opening, received, burned=secret.unmasked).settle()
        if not isinstance(settled, Closed):
            return lost, checkpoint
        judgement = self._judged(at, opening, settled.survivors)
        if not judgement.allow:
            return replace(lost, judgement=judgement), checkpoint
        if summed is None or settled.survivors != summed.online:
            return lost, checkpoint
        following = self._stepped(at, checkpoint, opening, summed.mean)
        outcome = replace(
            lost,
            judgement=judgement,
            model=model_digest(following.weights),
            aggregate=summed.aggregate,
            survivors=summed.online,
            transcript=summed.transcript,
            choice=summed.choice,
        )
        return outcome, following

    def judged_again(self, session: Session, at: Progress, outcome: Outcome) -> Outcome:
        """The outcome under the contract as a transaction sees it: a notice may have come meanwhile."""
        if outcome.model is None:
            return outcome
        opening = outcome.opening
        lost = Outcome(opening=opening, received=outcome.received, unmasked=outcome.unmasked)
        if self._standing.may_not_count(self._contract, outcome.survivors, session):
            self._journal.note("aggregate.refused", run=self._run, round=opening.round, clauses=[])
            return lost
        judgement = self._judged(at, opening, outcome.survivors, session)
        return replace(outcome if judgement.allow else lost, judgement=judgement)

    def _judged(
        self, at: Progress, opening: Opening, survivors: tuple[str, ...], session: Session | None = None
    ) -> Judgement:
        """The contract's word about averaging; a refusal is noted."""
        judgement = self._permits.aggregate(at, opening.round, survivors, session)
        if not judgement.allow:
            clauses = list(judgement.decision.clauses)
            self._journal.note("aggregate.refused", run=self._run, round=opening.round, clauses=clauses)
        return judgement

    def _verdicts(
        self, at: Progress, opening: Opening, received: Mapping[str, Received], *, burned: bool = False
    ) -> Attempt:
        left = self.steps_left(at)
        attempt = Attempt(
            number=opening.attempt,
            cohort={one.party: one.group for one in opening.cohort},
            groups_needed=opening.groups_needed,
            members_needed=opening.members_needed,
            steps_left=None if left is None else left - 1,
            burned=burned,
        )
        for party, one in received.items():
            if one.verdict == ACCEPTED:
                attempt.accept(party)
            elif one.verdict != SILENT:
                attempt.refuse(party, one.reason or "refused")
        return attempt

    def _stepped(
        self, at: Progress, checkpoint: Checkpoint, opening: Opening, mean: np.ndarray
    ) -> Checkpoint:
        """The model that a mean update gives."""
        weights, state = server_step(
            checkpoint.weights, mean, checkpoint.state, self._recipe.server, at.aggregated
        )
        return Checkpoint(round=opening.round, weights=weights, state=state)

    def _mean(self, survivors: Sequence[str], tensors: Mapping[str, TensorHandle]) -> np.ndarray:
        """In the order of the parties' names, so that the same updates always give the same bits."""
        weights = self._contract.weights(survivors)
        fold = Fold(self._recipe.parameters)
        for party in sorted(survivors):
            fold.add(tensors[party], weight=float(weights[party]))
        return fold.mean()
