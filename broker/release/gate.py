# SPDX-License-Identifier: Apache-2.0
"""The gate: every tier of the recipe is judged under the contract, and the decision is what happens.

1. the case: votes, evidence, times and cohorts as they stand in this transaction (`broker.release.case`);
2. for each tier that is not decided: `Release` is evaluated at point ``gate``;
3. a tier that lacks only what may still come (`broker.contracts.waiting`) goes on waiting. The refusing
   decision is recorded once for each change of the clauses, so that everybody can read what it waits for;
4. otherwise the privacy statement is built and signed, and decisions and outcomes are logged. Allowed:
   ``model.released`` and a row, from which downloads are served. Refused: ``model.refused`` with the clause,
   and nothing can be downloaded.

The candidate is ``released`` once one tier is, ``refused`` once all are refused (``discarded`` if a leaver
whose updates are in it chose that), else it waits. The gate may
be asked again at any time, after each vote and at `Gate.opens_ms`; what was decided stays decided. The tight
figure of a plan is computed once and beside the event loop: it takes seconds. A plan too weak for one
(`policies.privacy.tight`) is stated without.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from broker.contracts.decisions import judge
from broker.contracts.waiting import opens_ms, recorded, waits
from broker.release.case import DISCARDED, REFUSED, RELEASED, read_case
from broker.release.judging import WAITING
from broker.store.tables import candidate, log_entry, release, statement
from broker.store.upserts import insert_or_ignore
from policies.contract.thresholds import smallest_sum
from policies.encoding import digest
from policies.log.entries import EntryType, Event
from policies.privacy.statement import (
    PAYLOAD_TYPE,
    Subject,
    Terms,
    build_statement,
    claim,
    statement_bytes,
)
from policies.privacy.tight import tight_text
from policies.robustness.plan import votes_plan
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.contracts.decisions import Judgement
    from broker.contracts.waiting import Recorded
    from broker.federation.participants import Participant
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.release.case import Case
    from broker.store import Session
    from policies.contract.clauses import TierClause
    from policies.privacy import DpPlan

__all__ = ["REFUSED", "RELEASED", "Gate"]

_Judged = tuple[tuple["TierClause", "Judgement"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What becomes of a candidate if it is decided now.

    Attributes:
        for_good: Tiers that are released or refused now.
        waiting: Tiers that lack only what may still come.
        news: Those of them that wait by other clauses than the last decision on record.
        empty: Whether there is no tier at all that it could go out in.
    """

    for_good: _Judged
    waiting: _Judged
    news: _Judged
    empty: bool

    @property
    def moves(self) -> bool:
        """Whether something is to be written."""
        return bool(self.for_good or self.news) or self.empty


class Gate:
    """Decides about candidates; see the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._tight: dict[str, str | None] = {}

    async def decide(self, name: str) -> str:
        """Judges a candidate; gives its state: ``waiting``, ``released`` or ``refused``.

        Raises:
            RunUnknownError: No such candidate.
        """
        with self._tools.store.read() as session:
            case, now = self._look(session, name)
        if not now.moves:
            return case.state
        if case.recipe.plan is not None:
            await self._compute(case.recipe.plan)
        state, _ = await self._tools.writer.run(lambda session, tx: self._write(session, tx, name))
        event = "candidate.waits" if state == WAITING else "candidate.decided"
        self._tools.journal.note(event, run=case.run, state=state)
        return state

    def opens_ms(self, name: str) -> int | None:
        """When the clock alone may open a tier of a candidate; None if nothing waits for it."""
        with self._tools.store.read() as session:
            case, now = self._look(session, name)
        times = [
            opens_ms(
                case.contract, tier, {found.check for found in one.decision.refusals}, made_ms=case.made_ms
            )
            for tier, one in now.waiting
        ]
        return min((one for one in times if one is not None), default=None)

    def undecided(self) -> tuple[str, ...]:
        """Candidates with a tier that is not decided."""
        with self._tools.store.read() as session:
            names = session.scalars(
                select(candidate.c.digest)
                .where(candidate.c.state.in_((WAITING, RELEASED)))
                .order_by(candidate.c.digest)
            ).all()
            return tuple(name for name in names if read_case(self._tools, session, name).open_tiers)

    async def _compute(self, plan: DpPlan) -> None:
        if plan.digest not in self._tight:
            loop = asyncio.get_running_loop()
            self._tight[plan.digest] = await loop.run_in_executor(None, tight_text, plan)

    # --- judging ---

    def _look(self, session: Session, name: str) -> tuple[Case, _Look]:
        """The case and what becomes of it now; nothing while silos are still asked.

        Raises:
            RunUnknownError: No such candidate.
        """
        case = read_case(self._tools, session, name)
        if case.judging:
            return case, _Look(for_good=(), waiting=(), news=(), empty=False)
        judged = [(tier, self._judge(session, case, tier)) for tier in case.open_tiers]
        waiting = tuple((tier, one) for tier, one in judged if waits(one.decision))
        known = recorded(session, case.run, name)
        return case, _Look(
            for_good=tuple(pair for pair in judged if pair not in waiting),
            waiting=waiting,
            news=tuple(pair for pair in waiting if not _is_known(pair, known)),
            empty=case.state == WAITING and not judged,
        )

    def _judge(self, session: Session, case: Case, tier: TierClause) -> Judgement:
        tools, request = self._tools, case.request(self._tools, tier)
        state = tools.contracts.state(case.contract, session)
        return judge(case.contract, point="gate", request=request, state=state, entropy=tools.entropy)

    # --- writing ---

    def _write(self, session: Session, tx: LogTx, name: str) -> str:
        case, now = self._look(session, name)
        for _, judgement in now.news:
            judgement.record(session, tx, run=case.run)
        if not now.for_good and not now.empty:
            return case.state
        signed = self._statement(case, masked=_masked(session, case.run))
        named = digest(signed)
        insert_or_ignore(session, statement, {"digest": named, "bytes": signed})
        for tier, judgement in now.for_good:
            ref = judgement.record(session, tx, run=case.run)
            self._write_tier(session, tx, case, tier, judgement=judgement, ref=ref, statement=named)
        outcomes = {*case.decided.values(), *(RELEASED if one.allow else REFUSED for _, one in now.for_good)}
        state = _state(outcomes, waiting=bool(now.waiting))
        if state == REFUSED and self._discarded(session, case):
            state = DISCARDED
        session.execute(update(candidate).where(candidate.c.digest == name).values(state=state))
        return state

    def _discarded(self, session: Session, case: Case) -> bool:
        """Whether somebody whose updates are in it has left and chose that such models are discarded."""
        exited = self._tools.contracts.life(case.contract, session).exited
        return any(exited[one.party].choice == "discard" for one in case.cohort if one.party in exited)

    def _statement(self, case: Case, *, masked: bool) -> bytes:
        document = statement_bytes(
            build_statement(
                subject=Subject(
                    run=case.run,
                    model=case.candidate,
                    contract=case.contract.digest,
                    recipe=case.recipe.digest,
                ),
                claims=[self._claim(one, case) for one in case.cohort],
                evaluation=case.recipe.evaluation.document,
                votes=votes_plan(case.contract.validation, case.recipe.evaluation.document),
                terms=_terms(case, masked=masked),
            )
        )
        return Envelope.seal(document, PAYLOAD_TYPE, self._tools.broker_key).to_bytes()

    def _claim(self, one: Participant, case: Case) -> dict[str, object]:
        shown, plan = one.alias(case.contract.digest, case.run, None), case.recipe.plan
        if plan is None:
            return claim(shown, None)
        audits = case.report.get("audits", {}).get(shown, {})
        recipe, honest = case.recipe.digest, plan.honest_min
        return claim(
            shown,
            plan.document,
            summed=None if honest is None else smallest_sum(case.contract, recipe, honest),
            epsilon_pld=self._tight[plan.digest],
            audit=audits.get("conformance"),
        )

    def _write_tier(
        self,
        session: Session,
        tx: LogTx,
        case: Case,
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


def _terms(case: Case, *, masked: bool) -> Terms:
    """What else the claims of a release depend on: what was done, where it is in the log."""
    start, tested = case.recipe.start, case.report.get("leaks") is not None
    return Terms(
        secure_aggregation="required" if masked else "off",
        reply_slot_ms=case.contract.privacy.reply_slot_ms or 0,
        seed_set=None if start is None else start.seed_set,
        leak_report=case.report["digest"] if tested else None,
        mia_auc=case.leaks.mia_auc,
    )


def _masked(session: Session, run_id: str) -> bool:
    """Whether each aggregate of a run is an opened sum, with its transcript: no single update was read."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.AGGREGATE_RELEASED.value)
    said = [json.loads(body)["pub"] for body in session.scalars(select(log_entry.c.body).where(of))]
    return bool(said) and all(one["transcript"] is not None for one in said)


def _is_known(pair: tuple[TierClause, Judgement], known: Mapping[str, Recorded]) -> bool:
    """Whether the last decision on record about a tier refuses by the same clauses."""
    tier, judgement = pair
    return tier.tier in known and known[tier.tier].clauses == judgement.decision.clauses


def _checks(judgement: Judgement) -> frozenset[str]:
    """Names of the checks that refuse."""
    return frozenset(one.check for one in judgement.decision.refusals)


def _state(outcomes: Collection[str], *, waiting: bool) -> str:
    """Of a candidate whose tiers came to these outcomes."""
    if RELEASED in outcomes:
        return RELEASED
    return WAITING if waiting else REFUSED
