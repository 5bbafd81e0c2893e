# SPDX-License-Identifier: Apache-2.0
"""What the contract says about a round, before it is asked and before it is averaged (point ``broker``).

The nodes' guards decide again, each for itself; the broker asks nobody whom the contract lets it not ask.

Facts are what the broker itself knows: the key that a node is enrolled with, the origin of its own log, its
mirror of the budgets, the seed sets and consents that travelled with the contract. Secure aggregation and
group tag are what is done in this run. How many models in a row were rejected is counted in the log
(`broker.runs.course`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.contracts.decisions import judge
from broker.federation.checkpoints import model_digest
from broker.federation.mirror import epsilon_after
from broker.federation.records import Opening
from policies.contract import Aggregate, EpsilonAfter, PlanFacts, TrainRound
from policies.contract.checks.training import NO_SEED
from policies.contract.starts import consents_on_record, seed_clause_of
from policies.identity import key_text
from policies.rounds import need_of, sums_masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from broker.contracts.decisions import Judgement
    from broker.federation.participants import Participant
    from broker.federation.progress import Progress
    from broker.federation.tools import Tools
    from broker.store import Session
    from policies.contract import Contract, ContractState
    from policies.recipe import Recipe

__all__ = ["Permits"]


class Permits:
    """Decisions of one run."""

    def __init__(self, tools: Tools, run: str, contract: Contract, recipe: Recipe) -> None:
        self._tools = tools
        self._run = run
        self._contract = contract
        self._recipe = recipe
        self._need = need_of(contract, recipe.digest)
        self._summed = "required" if sums_masked(contract) else "off"
        self._tagged = "on" if sums_masked(contract) and contract.aggregation.group_mac == "on" else "off"
        self._consents: tuple[str, ...] | None = None

    def opening(
        self,
        session: Session,
        at: Progress,
        weights: np.ndarray,
        asked: Sequence[Participant],
        barred: frozenset[str],
    ) -> Opening:
        """The next attempt with a decision about each participant that would be asked; nothing is stored.

        Args:
            session: Of the transaction that logs the decisions.
            at: Where the run stands.
            weights: That the attempt starts from.
            asked: Participants that are online.
            barred: Nodes that are out of the run.
        """
        tools, recipe = self._tools, self._recipe
        state = tools.contracts.state(self._contract, session)
        cohort = tuple(one.party for one in asked)
        judged = tuple((one, self._train(session, one, at=at, cohort=cohort, state=state)) for one in asked)
        return Opening(
            run=self._run,
            contract=self._contract.digest,
            recipe=recipe,
            round=at.round,
            attempt=at.attempt,
            base=model_digest(weights),
            deadline_ms=tools.clock.now_ms() + recipe.deadline_s * 1000,
            judged=judged,
            groups_needed=self._need.groups,
            members_needed=self._need.members,
            barred=barred,
        )

    def _train(
        self,
        session: Session,
        one: Participant,
        *,
        at: Progress,
        cohort: tuple[str, ...],
        state: ContractState,
    ) -> Judgement:
        tools, recipe, plan = self._tools, self._recipe, self._recipe.plan
        after = EpsilonAfter(release=None, total=None)
        if plan is not None:
            after = epsilon_after(
                session, tools.contracts, self._contract, party=one.party, plan=plan, run_id=self._run
            )
        request = TrainRound(
            party=one.party,
            key=one.key,
            recipe_digest=recipe.digest,
            purpose=self.purpose,
            dataset=one.dataset,
            fields=recipe.fields,
            round=at.before + at.round,
            local_steps=recipe.local_steps,
            cohort=cohort,
            privacy=PlanFacts.of(recipe.plan_document),
            epsilon_after_release=after.release,
            epsilon_after_total=after.total,
            secure_aggregation=self._summed,
            group_mac=self._tagged,
            reply_slot_ms=self._contract.privacy.reply_slot_ms or 0,  # the nodes' desks keep it
            seed_set=NO_SEED if recipe.start is None else recipe.start.seed_set or NO_SEED,
            seed_consents=self._on_record(session),
        )
        return judge(self._contract, point="broker", request=request, state=state, entropy=tools.entropy)

    def _on_record(self, session: Session) -> tuple[str, ...]:
        """Consents that are here and hold, for what the recipe starts from; looked at once per run."""
        if self._consents is None:
            contract, recipe = self._contract, self._recipe.digest
            opens = {}
            if seed_clause_of(contract, recipe) is not None:
                opens = self._tools.contracts.opens(session, contract.digest)
            self._consents = consents_on_record(contract, recipe, opens)
        return self._consents

    def aggregate(
        self, at: Progress, number: int, survivors: tuple[str, ...], session: Session | None = None
    ) -> Judgement:
        """The decision to average the updates of these parties, all of which were inspected.

        It is made before the updates are averaged, and again with the session of the transaction that logs
        it: a notice may have come in between.
        """
        tools, contract = self._tools, self._contract
        request = Aggregate(
            party=contract.broker.party,
            key=key_text(tools.broker_key.public),
            recipe_digest=self._recipe.digest,
            purpose=self.purpose,
            round=at.before + number,
            survivors=survivors,
            weights=contract.weights(survivors),
            norm_bound=contract.aggregation.update_norm_max,
            norms_within=True,
            finite=True,
            privacy=PlanFacts.of(self._recipe.plan_document),
            secure_aggregation=self._summed,
            validation=None,
            rejected_rounds=at.rejections,
            log_origin=tools.writer.origin,
        )
        state = tools.contracts.state(contract, session)
        return judge(contract, point="broker", request=request, state=state, entropy=tools.entropy)

    @property
    def purpose(self) -> str | None:
        """What the run is for, by the recipe's clause; nodes are told it with each request."""
        clause = self._contract.recipe(self._recipe.digest)
        return clause.purpose if clause else None
