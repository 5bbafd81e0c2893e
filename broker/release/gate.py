# SPDX-License-Identifier: Apache-2.0
"""The gate: every tier of the recipe is judged under the contract, and the decision is what happens.

1. evidence: which of the contract's names really lie with the candidate, once all silos were asked;
2. for each tier: `Release` is evaluated at point ``gate``;
3. a candidate that only lacks approvals goes on waiting; nothing is stored;
4. otherwise the privacy statement is built and signed, and decisions and outcomes are logged. Allowed:
   ``model.released`` and a row, from which downloads are served. Refused: ``model.refused`` with the clause,
   and nothing can be downloaded.

Whether a candidate may be released is looked at again in the transaction that decides: a vote that came
meanwhile counts. The gate may be asked again at any time, after each vote; a candidate that was decided stays
decided. The tight figure of a plan is computed once and beside the event loop: it takes seconds.
"""

from __future__ import annotations

import asyncio
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
from broker.store.tables import candidate, log_entry, log_envelope, release, round_, run, statement
from policies.contract import EpsilonAfter, Release
from policies.encoding import digest
from policies.identity import key_id, key_text
from policies.log.entries import EntryType, Event
from policies.privacy.accounting import epsilon_text
from policies.privacy.statement import PAYLOAD_TYPE, build_statement, claim, statement_bytes
from policies.privacy.tight import epsilon_pld
from policies.recipe import load as load_recipe
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.contracts.decisions import Judgement
    from broker.federation.participants import Participant
    from broker.federation.tools import Tools
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
    votes: Mapping[str, str]
    evidence: tuple[str, ...]
    after: Mapping[str, EpsilonAfter]
    judging: bool


class Gate:
    """Decides about candidates; see the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._tight: dict[str, str] = {}

    async def decide(self, name: str) -> str:
        """Judges a candidate; gives its state: ``waiting``, ``released`` or ``refused``.

        Raises:
            RunUnknownError: No such candidate.
        """
        with self._tools.store.read() as session:
            state, case = self._case(session, name)
        if state != WAITING or self._decided(case) is None:
            return state
        if case.recipe.plan is not None:
            await self._compute(case.recipe.plan)
        state, _ = await self._tools.writer.run(lambda session, tx: self._write(session, tx, name))
        self._tools.journal.note("candidate.decided", run=case.run, state=state)
        return state

    async def _compute(self, plan: DpPlan) -> None:
        if plan.digest not in self._tight:
            loop = asyncio.get_running_loop()
            self._tight[plan.digest] = epsilon_text(await loop.run_in_executor(None, epsilon_pld, plan))

    def _case(self, session: Session, name: str) -> tuple[str, _Case]:
        """State of a candidate, and the case as it stands in this transaction."""
        row = session.execute(
            select(candidate.c.state, run.c.run_id, run.c.contract, run.c.recipe_digest, run.c.outcome)
            .join(run, run.c.run_id == candidate.c.run_id)
            .where(candidate.c.digest == name)
        ).one_or_none()
        if row is None:
            raise RunUnknownError(
                need="a candidate of this broker", found=name, remedy="iriai-broker release list"
            )
        tools = self._tools
        contract = tools.contracts.get(row.contract)
        recipe = load_recipe(tools.contracts.annex(session, contract, row.recipe_digest))
        trained = _trained(session, row.run_id)
        everybody = participants(tools.contracts, contract, recipe, active=False)
        cohort = tuple(one for one in everybody if one.party in trained)
        case = _Case(
            candidate=name,
            run=row.run_id,
            contract=contract,
            recipe=recipe,
            cohort=cohort,
            votes=self._votes(session, contract, row.run_id, name),
            evidence=_evidence(session, name, logged=tools.writer.head().size > 0),
            after=self._after(session, contract, recipe.plan, cohort, row.run_id),
            judging=row.outcome is None,
        )
        return str(row.state), case

    def _votes(self, session: Session, contract: Contract, run_id: str, name: str) -> dict[str, str]:
        """The last vote of each contributor in the run's log: an auditor counts the same ones.

        In the transaction that decides, every vote before the decision is there.
        """
        contracts = self._tools.contracts
        parties = {
            key_id(contracts.member_of(contract, one.party).key): one.party for one in contract.contributors
        }
        of = (log_entry.c.type == EntryType.VOTE_CAST.value) & (log_entry.c.run == run_id)
        rows = session.execute(
            select(log_entry.c.body, log_envelope.c.signer)
            .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
            .where(of)
            .order_by(log_entry.c.idx)
        )
        cast = [(parties.get(row.signer), json.loads(row.body)["pub"]) for row in rows]
        return {party: pub["vote"] for party, pub in cast if party is not None and pub["subject"] == name}

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

    def _decided(self, case: _Case) -> tuple[str, list[tuple[TierClause, Judgement]]] | None:
        """What becomes of a candidate and why; None if it goes on waiting, for silos or for votes."""
        if case.judging:
            return None
        judged = [(tier, self._judge(case, tier)) for tier in _tiers(case)]
        if any(judgement.allow for _, judgement in judged):
            return RELEASED, judged
        return (REFUSED, judged) if _refused_for_good(judged) else None

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

    def _statement(self, case: _Case) -> bytes:
        document = statement_bytes(
            build_statement(
                run=case.run,
                model=case.candidate,
                contract=case.contract.digest,
                recipe=case.recipe.digest,
                claims=[self._claim(one, case) for one in case.cohort],
                evaluation=case.recipe.evaluation.digest,
            )
        )
        return Envelope.seal(document, PAYLOAD_TYPE, self._tools.broker_key).to_bytes()

    def _claim(self, one: Participant, case: _Case) -> dict[str, object]:
        shown, plan = one.alias(case.contract.digest, case.run, None), case.recipe.plan
        if plan is None:
            return claim(shown, None)
        return claim(shown, plan.document, epsilon_pld=self._tight[plan.digest])

    def _write(self, session: Session, tx: LogTx, name: str) -> str:
        state, case = self._case(session, name)
        decided = self._decided(case) if state == WAITING else None
        if decided is None:
            return state
        state, judged = decided
        signed = self._statement(case)
        named = digest(signed)
        session.execute(insert(statement).on_conflict_do_nothing(), {"digest": named, "bytes": signed})
        for tier, judgement in judged:
            ref = judgement.record(session, tx, run=case.run)
            self._write_tier(session, tx, case, tier, judgement=judgement, ref=ref, statement=named)
        session.execute(update(candidate).where(candidate.c.digest == name).values(state=state))
        return state

    def _write_tier(
        self,
        session: Session,
        tx: LogTx,
        case: _Case,
        tier: TierClause,
        *,
        judgement: Judgement,
        ref: int,
        statement: str,
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
                    "statement": statement,
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
                    "statement_digest": statement,
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


def _refused_for_good(judged: list[tuple[TierClause, Judgement]]) -> bool:
    """Whether no tier lacks nothing but what may still come: approvals."""
    against = [
        {one.check for one in judgement.decision.refusals if one.check != "unknown"}
        for _, judgement in judged
    ]
    return not any(one <= _LACKS_VOTES for one in against)


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
