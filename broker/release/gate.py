# SPDX-License-Identifier: Apache-2.0
"""The gate: every tier of the recipe is judged under the contract, and the decision is what happens.

1. evidence: which of the contract's names really lie with the candidate; the privacy statement is built and
signed here;
2. for each tier: `Release` is evaluated at point ``gate``, kept and logged;
3. allowed: ``model.released`` and a row, from which downloads are served. Refused: ``model.refused`` with
the clause, and
   nothing can be downloaded. A candidate that only lacks approvals goes on waiting.

The gate may be asked again at any time, after each vote; a candidate that was decided stays decided.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.dialects.sqlite import insert

from broker.contracts.decisions import judge
from broker.federation.errors import RunUnknownError
from broker.federation.mirror import epsilon_after
from broker.federation.participants import participants, plan_facts
from broker.release.judging import EVALUATION, WAITING
from broker.store.tables import candidate, log_entry, release, round_, run, statement, vote
from policies.contract import EpsilonAfter, Release
from policies.encoding import digest
from policies.identity import key_text
from policies.log.entries import EntryType, Event
from policies.privacy.accounting import epsilon_text
from policies.privacy.statement import PAYLOAD_TYPE, build_statement, claim, statement_bytes
from policies.privacy.tight import epsilon_pld
from policies.recipe import load as load_recipe
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.contracts.decisions import Judgement
    from broker.federation.participants import Participant
    from broker.federation.session import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import TierClause
    from policies.privacy import DpPlan
    from policies.recipe import Recipe

__all__ = ["REFUSED", "RELEASED", "Gate"]

RELEASED = "released"
REFUSED = "refused"
_LACKS_VOTES = frozenset({"approvals"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """Everything that is known about a candidate when it is judged."""

    candidate: str
    run: str
    contract: Contract
    recipe: Recipe
    cohort: tuple[Participant, ...]
    votes: dict[str, str]
    evidence: tuple[str, ...]
    statement: bytes
    after: dict[str, EpsilonAfter]


class Gate:
    """Decides about candidates; see the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def decide(self, name: str) -> str:
        """Judges a candidate; gives its state: ``waiting``, ``released`` or ``refused``.

        Raises:
            RunUnknownError: No such candidate.
        """
        with self._tools.store.read() as session:
            row = session.execute(
                select(candidate.c.state, run.c.run_id, run.c.contract, run.c.recipe_digest)
                .join(run, run.c.run_id == candidate.c.run_id)
                .where(candidate.c.digest == name)
            ).one_or_none()
            if row is None:
                raise RunUnknownError(
                    need="a candidate of this broker", found=name, remedy="iriai-broker release list"
                )
            if row.state != WAITING:
                return str(row.state)
            case = self._case(session, name, row.run_id, row.contract, row.recipe_digest)
        judged = [(tier, self._judge(case, tier)) for tier in _tiers(case)]
        state, _ = await self._tools.writer.run(lambda session, tx: self._write(session, tx, case, judged))
        self._tools.journal.note("candidate.decided", run=case.run, state=state)
        return state

    def _case(
        self, session: Session, name: str, run_id: str, contract_digest: str, recipe_digest: str
    ) -> _Case:
        tools = self._tools
        contract = tools.contracts.get(contract_digest)
        recipe = load_recipe(tools.contracts.annex(session, contract, recipe_digest))
        trained = _trained(session, run_id)
        cohort = tuple(one for one in participants(tools.contracts, contract, recipe) if one.party in trained)
        after = self._after(session, contract, recipe.plan, cohort, run_id)
        document = statement_bytes(
            build_statement(
                run=run_id,
                model=name,
                contract=contract.digest,
                recipe=recipe.digest,
                claims=[_claim(one, contract, run_id, recipe.plan) for one in cohort],
                evaluation=recipe.evaluation.digest,
            )
        )
        return _Case(
            candidate=name,
            run=run_id,
            contract=contract,
            recipe=recipe,
            cohort=cohort,
            votes={
                row.party: row.verdict
                for row in session.execute(select(vote).where(vote.c.candidate == name))
            },
            evidence=_evidence(session, name, logged=tools.writer.head().size > 0),
            statement=Envelope.seal(document, PAYLOAD_TYPE, tools.broker_key).to_bytes(),
            after=after,
        )

    def _after(
        self,
        session: Session,
        contract: Contract,
        plan: DpPlan | None,
        cohort: tuple[Participant, ...],
        run_id: str,
    ) -> dict[str, EpsilonAfter]:
        if plan is None:
            return {one.party: EpsilonAfter(release=None, total=None) for one in cohort}
        return {
            one.party: epsilon_after(
                session, self._tools.contracts, contract, party=one.party, plan=plan, run_id=run_id
            )
            for one in cohort
        }

    def _judge(self, case: _Case, tier: TierClause) -> Judgement:
        tools, parties = self._tools, tuple(one.party for one in case.cohort)
        request = Release(
            party=case.contract.broker.party,
            key=key_text(tools.broker_key.public),
            model=case.candidate,
            recipe_digest=case.recipe.digest,
            tier=tier.tier,
            cohort=parties,
            weights=case.contract.weights(parties),
            epsilon_after=case.after,
            evidence=case.evidence,
            approvals=tuple(sorted(party for party, verdict in case.votes.items() if verdict == "approve")),
            vetoes=tuple(sorted(party for party, verdict in case.votes.items() if verdict == "veto")),
            privacy=plan_facts(case.recipe),
        )
        state = tools.contracts.state(case.contract)
        return judge(case.contract, point="gate", request=request, state=state, entropy=tools.entropy)

    def _write(
        self, session: Session, tx: LogTx, case: _Case, judged: list[tuple[TierClause, Judgement]]
    ) -> str:
        state = session.scalar(select(candidate.c.state).where(candidate.c.digest == case.candidate))
        if state != WAITING:
            return str(state)
        allowed = [tier for tier, judgement in judged if judgement.allow]
        decided = RELEASED if allowed else _refused_for_good(judged)
        if decided is None:
            return WAITING
        session.execute(
            insert(statement).on_conflict_do_nothing(),
            {"digest": digest(case.statement), "bytes": case.statement},
        )
        for tier, judgement in judged:
            ref = judgement.record(session, tx, run=case.run)
            self._write_tier(session, tx, case, tier, judgement=judgement, ref=ref)
        session.execute(update(candidate).where(candidate.c.digest == case.candidate).values(state=decided))
        return decided

    def _write_tier(
        self, session: Session, tx: LogTx, case: _Case, tier: TierClause, *, judgement: Judgement, ref: int
    ) -> None:
        clauses = judgement.decision.clauses
        tx.add(
            Event(
                type=EntryType.MODEL_RELEASED if judgement.allow else EntryType.MODEL_REFUSED,
                scope=case.contract.digest,
                run=case.run,
                refs=(ref,),
                pub={
                    "model": case.candidate,
                    "tier": tier.tier,
                    "clause": tier.clause if judgement.allow else clauses[0],
                    "statement": digest(case.statement),
                },
            )
        )
        if judgement.allow:
            session.execute(
                insert(release),
                {
                    "model": case.candidate,
                    "tier": tier.tier,
                    "contract": case.contract.digest,
                    "statement_digest": digest(case.statement),
                    "at_ms": tx.now_ms,
                },
            )


def _tiers(case: _Case) -> tuple[TierClause, ...]:
    clause = case.contract.recipe(case.recipe.digest)
    return tuple(
        one
        for one in case.contract.tiers
        if clause is not None and one.recipe == clause.id and one.tier != "private"
    )


def _refused_for_good(judged: list[tuple[TierClause, Judgement]]) -> str | None:
    """``refused``, unless everything that is missing may still come: approvals."""
    for _, judgement in judged:
        against = {one.check for one in judgement.decision.refusals if one.check != "unknown"}
        if against <= _LACKS_VOTES:
            return None
    return REFUSED


def _trained(session: Session, run_id: str) -> frozenset[str]:
    """Parties whose update is in the model."""
    found: set[str] = set()
    rows = session.scalars(
        select(round_.c.verdicts).where((round_.c.run_id == run_id) & round_.c.model.is_not(None))
    )
    for text in rows:
        found |= {party for party, verdict in json.loads(text).items() if verdict == "accepted"}
    return frozenset(found)


def _evidence(session: Session, name: str, *, logged: bool) -> tuple[str, ...]:
    """Names of the evidence that exists; the statement is built with every decision."""
    found = ["privacy-statement"]
    if logged:
        found.append("log-root")
    bodies = session.scalars(
        select(log_entry.c.body).where(log_entry.c.type == EntryType.CANDIDATE_EVALUATED.value)
    )
    for body in bodies:
        pub = json.loads(body)["pub"]
        if pub["candidate"] == name and pub["checks"].get(EVALUATION) == "pass":
            found.append(EVALUATION)
            break
    return tuple(sorted(found))


def _claim(one: Participant, contract: Contract, run_id: str, plan: DpPlan | None) -> dict[str, object]:
    alias = one.alias(contract.digest, run_id, None)
    if plan is None:
        return claim(alias, None)
    return claim(alias, plan.document, epsilon_pld=epsilon_text(epsilon_pld(plan)))
