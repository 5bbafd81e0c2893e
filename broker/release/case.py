# SPDX-License-Identifier: Apache-2.0
"""A candidate as the gate sees it in one transaction: whose updates, which votes, which evidence, how old.

Everything comes from the log and from rows that the log backs, so that an auditor finds the same facts:

- a vote counts if a contributor signed it and it is in the run's log; the last one of each;
- a silo accepted the candidate if it judged it on its held-out episodes and its last vote approves;
- `made_ms` is the time of the run's last aggregate; cohorts of earlier releases are those of every version of
  the contract under the same recipe;
- evidence and figures of leaks are those of the candidate's last evaluation (`policies.privacy.leakage`): a
  report that failed is no evidence, and what it did not measure is not known;
- witnesses are the organisations in the newest checkpoint with a quorum, as it stands now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.contracts.lineage import earlier_cohorts, made_ms, trained, versions
from broker.federation.errors import RunUnknownError
from broker.federation.mirror import epsilon_after
from broker.federation.participants import participants
from broker.store.tables import candidate, log_entry, run, statement
from policies.contract import EpsilonAfter, PlanFacts, Release
from policies.encoding import parse
from policies.identity import key_text
from policies.log.entries import EntryType, alias
from policies.ports import iso_s
from policies.privacy.leakage import leak_facts
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.federation.participants import Participant
    from broker.federation.tools import Tools
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import TierClause
    from policies.privacy import DpPlan
    from policies.privacy.leakage import LeakFacts
    from policies.recipe import Recipe

__all__ = ["DISCARDED", "REFUSED", "RELEASED", "Case", "read_case"]

RELEASED = "released"
REFUSED = "refused"
DISCARDED = "discarded"  # refused, because a party whose updates are in it left and chose so
_DECIDED = {EntryType.MODEL_RELEASED.value: RELEASED, EntryType.MODEL_REFUSED.value: REFUSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that is known about a candidate when it is judged.

    Attributes:
        state: As its row says.
        votes: Party → ``approve`` or ``veto``.
        report: Of the last evaluation, with its ``digest``; empty before the first.
        leaks: Figures of that report.
        accepted: Party → whether it accepted the candidate on its own held-out episodes.
        decided: Tier → ``released`` or ``refused``, as the log says.
        judging: Whether silos are still asked.
        made_ms: When the run's last aggregate was made.
        earlier: Cohorts of earlier releases.
    """

    candidate: str
    state: str
    run: str
    contract: Contract
    recipe: Recipe
    cohort: tuple[Participant, ...]
    votes: Mapping[str, str]
    accepted: Mapping[str, bool]
    evidence: tuple[str, ...]
    report: Mapping[str, Any]
    leaks: LeakFacts
    after: Mapping[str, EpsilonAfter]
    decided: Mapping[str, str]
    judging: bool
    made_ms: int | None
    earlier: tuple[tuple[str, ...], ...]

    @property
    def open_tiers(self) -> tuple[TierClause, ...]:
        """Tiers of the recipe that leave their owner and are not decided."""
        clause = self.contract.recipe(self.recipe.digest)
        return tuple(
            one
            for one in self.contract.tiers
            if clause is not None
            and one.recipe == clause.id
            and one.tier != "private"
            and one.tier not in self.decided
        )

    def request(self, tools: Tools, tier: TierClause) -> Release:
        """What the contract is asked about a tier."""
        parties = tuple(one.party for one in self.cohort)
        return Release(
            party=self.contract.broker.party,
            key=key_text(tools.broker_key.public),
            model=self.candidate,
            recipe_digest=self.recipe.digest,
            tier=tier.tier,
            cohort=parties,
            weights=self.contract.weights(parties),
            epsilon_after=self.after,
            evidence=self.evidence,
            approvals=tuple(sorted(party for party, verdict in self.votes.items() if verdict == "approve")),
            vetoes=tuple(sorted(party for party, verdict in self.votes.items() if verdict == "veto")),
            privacy=PlanFacts.of(self.recipe.plan_document),
            made_at=None if self.made_ms is None else iso_s(self.made_ms),
            validation=self.accepted,
            mia_auc=self.leaks.mia_auc,
            property_skill=self.leaks.property_skill,
            canaries_fired=self.leaks.canaries_fired,
            earlier_cohorts=self.earlier,
            log_origin=tools.writer.origin,
            witnesses=tools.witnesses(),
        )


def read_case(tools: Tools, session: Session, name: str) -> Case:
    """The case as it stands in this transaction.

    Raises:
        RunUnknownError: No such candidate.
    """
    row = session.execute(
        select(candidate.c.state, run.c.run_id, run.c.contract, run.c.recipe_digest, run.c.outcome)
        .join(run, run.c.run_id == candidate.c.run_id)
        .where(candidate.c.digest == name)
    ).one_or_none()
    if row is None:
        raise RunUnknownError(
            need="a candidate of this broker", found=name, remedy="iriai-broker release list"
        )
    contract = tools.contracts.get(row.contract)
    recipe = load_recipe(tools.contracts.annex(session, contract, row.recipe_digest))
    parties = trained(session, row.run_id)
    everybody = participants(tools.contracts, contract, recipe, active=False)
    cohort = tuple(one for one in everybody if one.party in parties)
    spoken = _Spoken(tools, session, contract, row.run_id)
    votes = spoken.votes(name)
    heard = spoken.heard(name)
    scopes = versions(session, contract.digest)
    evaluated = _evaluated(session, row.run_id, name)
    report = _report(session, evaluated)
    return Case(
        candidate=name,
        state=str(row.state),
        run=row.run_id,
        contract=contract,
        recipe=recipe,
        cohort=cohort,
        votes=votes,
        accepted={party: verdict == "approve" for party, verdict in votes.items() if party in heard},
        evidence=_evidence(evaluated, logged=tools.writer.head().size > 0),
        report=report if evaluated is None else report | {"digest": evaluated["report"]},
        leaks=_leaks(report, contract, recipe),
        after=_after(tools, session, contract, recipe.plan, cohort=cohort, run_id=row.run_id),
        decided=_decided(session, row.run_id, name),
        judging=row.outcome is None,
        made_ms=made_ms(session, row.run_id),
        earlier=earlier_cohorts(session, scopes, recipe.digest, but=name),
    )


class _Spoken:
    """What contributors signed about candidates of a run, whichever key they had then.

    In the transaction that decides, everything before the decision is there: an auditor counts the same.
    """

    def __init__(self, tools: Tools, session: Session, contract: Contract, run_id: str) -> None:
        self._session = session
        self._run = run_id
        self._keys = {
            one.party: tools.contracts.member_of(contract, one.party).alias_key
            for one in contract.contributors
        }

    def votes(self, name: str) -> dict[str, str]:
        """The last vote of each contributor."""
        said = self._said(EntryType.VOTE_CAST)
        return {party: pub["vote"] for party, pub in said if pub["subject"] == name}

    def heard(self, name: str) -> set[str]:
        """Contributors that judged the candidate on their own held-out episodes."""
        said = self._said(EntryType.EVALUATION_RECEIVED)
        return {party for party, pub in said if pub["candidate"] == name}

    def _said(self, kind: EntryType) -> list[tuple[str, Mapping[str, str]]]:
        of = (log_entry.c.type == kind.value) & (log_entry.c.run == self._run)
        rows = self._session.execute(
            select(log_entry.c.body, log_entry.c.scope, log_entry.c.actor).where(of).order_by(log_entry.c.idx)
        )
        found = []
        for row in rows:
            shown = {alias(key, row.scope, self._run, None): party for party, key in self._keys.items()}
            if row.actor in shown:
                found.append((shown[row.actor], json.loads(row.body)["pub"]))
        return found


def _after(
    tools: Tools,
    session: Session,
    contract: Contract,
    plan: DpPlan | None,
    *,
    cohort: tuple[Participant, ...],
    run_id: str,
) -> dict[str, EpsilonAfter]:
    if plan is None:
        return {one.party: EpsilonAfter(release=None, total=None) for one in cohort}
    return {
        one.party: epsilon_after(
            session, tools.contracts, contract, party=one.party, plan=plan, run_id=run_id
        )
        for one in cohort
    }


def _decided(session: Session, run_id: str, name: str) -> dict[str, str]:
    """Tiers in which the gate decided about a candidate for good."""
    of = (log_entry.c.run == run_id) & log_entry.c.type.in_(_DECIDED)
    found: dict[str, str] = {}
    for row in session.execute(select(log_entry.c.type, log_entry.c.body).where(of)):
        pub = json.loads(row.body)["pub"]
        if pub["model"] == name:
            found[str(pub["tier"])] = _DECIDED[row.type]
    return found


def _evaluated(session: Session, run_id: str, name: str) -> dict[str, Any] | None:
    """The last ``candidate.evaluated`` of a candidate; None before the first."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.CANDIDATE_EVALUATED.value)
    told = [
        pub
        for body in session.scalars(select(log_entry.c.body).where(of).order_by(log_entry.c.idx))
        if (pub := json.loads(body)["pub"])["candidate"] == name
    ]
    return told[-1] if told else None


def _evidence(evaluated: Mapping[str, Any] | None, *, logged: bool) -> tuple[str, ...]:
    """Names of the evidence that exists; the statement is built with every decision."""
    found = {"privacy-statement"} | ({"log-root"} if logged else set())
    checks = {} if evaluated is None else evaluated["checks"]
    return tuple(sorted(found | {check for check, outcome in checks.items() if outcome == "pass"}))


def _report(session: Session, evaluated: Mapping[str, Any] | None) -> dict[str, Any]:
    """The report of an evaluation; empty before there is one."""
    data = None
    if evaluated is not None:
        data = session.scalar(select(statement.c.bytes).where(statement.c.digest == evaluated["report"]))
    return {} if data is None else dict(parse(data))


def _leaks(report: Mapping[str, Any], contract: Contract, recipe: Recipe) -> LeakFacts:
    """What the report of an evaluation says of leaks; nothing is known before there is one."""
    return leak_facts(
        report,
        fields=recipe.observed,
        secrets=(field for one in contract.fields.trade_secret for field in one.fields),
    )
