# SPDX-License-Identifier: Apache-2.0
"""What a round leaves behind: rows and log entries, in one transaction each.

    open_attempt    decision.recorded for each party asked (refusals too), round.opened
    close_attempt   the nodes' envelopes; contribution.accepted or .refused; incidents; the broker's decision;
                    round.chosen; aggregate.released; round.closed; the rows of round, run, votes and mirror

`broker.federation.envelopes` says what becomes of envelopes that are late, or that the log does not take.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from broker.federation.envelopes import add_envelopes, declare, opened_attempt, refusal, store_votes
from broker.federation.signed import mechanism_run
from broker.federation.spends import logged_spend
from broker.runs.verdicts import DECLINED, UNTRAINED, UNUSED
from broker.store.tables import log_entry, round_, run
from policies.log.entries import EntryType, Event
from policies.ports import iso_minute
from policies.rounds import PASSING, Need, too_few

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.contracts.decisions import Judgement
    from broker.federation.books import Books
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.secure.teams import Choice
    from broker.log import LogTx
    from broker.store import Session
    from policies.recipe import Recipe

__all__ = [
    "DECLINED",
    "Opening",
    "Outcome",
    "Received",
    "Written",
    "close_attempt",
    "final_verdicts",
    "open_attempt",
]

ACCEPTED = "accepted"
REFUSED = "refused"
SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What one party's exchange came to.

    Attributes:
        verdict: ``accepted``, ``refused`` (a check failed), ``declined`` (its guard refused) or ``silent``.
        reason: Code behind a refusal, in the log's vocabulary.
        need, found: Of the check that refused; confidential in the log.
        reply: The checked envelopes, None if there were none.
        evidence: A reply that the log cannot take, behind an incident; or None.
    """

    verdict: str
    reason: str | None = None
    need: str = ""
    found: str = ""
    reply: NodeReply | None = None
    evidence: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An attempt that is about to be asked.

    Attributes:
        judged: The broker's decision for each participant that is online.
        groups_needed: Independent groups without which there is no aggregate.
        members_needed: Members without which there is none, whatever their groups.
        barred: Nodes that are out of the run: they are not asked, and count as refused.
        asked: Who was asked, where the decisions are on record already and the attempt is only to be ended.
    """

    run: str
    contract: str
    recipe: Recipe
    round: int
    attempt: int
    base: str
    deadline_ms: int
    judged: tuple[tuple[Participant, Judgement], ...]
    groups_needed: int
    members_needed: int = 0
    barred: frozenset[str] = frozenset()
    asked: tuple[Participant, ...] | None = None

    @property
    def cohort(self) -> tuple[Participant, ...]:
        """Who takes part in the attempt."""
        if self.asked is not None:
            return self.asked
        return tuple(one for one, judgement in self.judged if judgement.allow)

    @property
    def need(self) -> Need:
        """What a sum takes."""
        return Need(self.groups_needed, self.members_needed)

    @property
    def permitted(self) -> bool:
        """Whether enough may be asked; the attempt is opened only then."""
        return self.need.met_by([one.group for one in self.cohort if one.node not in self.barred])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A settled attempt.

    Attributes:
        received: Party → what its exchange came to, for the whole cohort.
        judgement: The broker's decision to average; None if too few groups answered.
        model: Digest of the new model, None if there is none.
        aggregate: Digest of the mean update; of the opened sum under secure aggregation.
        survivors: Parties whose update is in the model.
        transcript: Digest of what an auditor redoes the opened sum from, or None.
        unmasked: Members were asked to unmask: the round has no further attempt.
        choice: What became of a probe's teams, or None.
    """

    opening: Opening
    received: Mapping[str, Received]
    judgement: Judgement | None = None
    model: str | None = None
    aggregate: str | None = None
    survivors: tuple[str, ...] = ()
    transcript: str | None = None
    unmasked: bool = False
    choice: Choice | None = None

    @property
    def rejected(self) -> bool:
        """Whether judges chose no team of a probe."""
        return self.choice is not None and self.choice.rejected


@dataclass(slots=True)
class Written:
    """What `close_attempt` wrote.

    Attributes:
        envelopes: Party → indexes of its envelopes' entries, for receipts.
        voted: Candidates that wait and got a vote.
        submissions: Party → index of this attempt's entry.
        spends: Party → index of the budget entry behind it; an earlier attempt's where its update was sent
            again.
        withdrawn: The run goes back to an earlier model (`broker.federation.withdrawing`).
    """

    envelopes: dict[str, list[int]] = field(default_factory=dict)
    voted: set[str] = field(default_factory=set)
    submissions: dict[str, int] = field(default_factory=dict)
    spends: dict[str, int] = field(default_factory=dict)
    withdrawn: bool = False


def open_attempt(session: Session, tx: LogTx, opening: Opening) -> None:
    """Logs who is asked and why. Asking again after a crash repeats the decisions, never the opening."""
    for _, judgement in opening.judged:
        judgement.record(session, tx, run=opening.run, round=opening.round)
    if (
        not opening.permitted
        or opened_attempt(session, opening.run, opening.round, opening.attempt) is not None
    ):
        return
    plan = opening.recipe.plan
    tx.add(
        Event(
            type=EntryType.ROUND_OPENED,
            scope=opening.contract,
            run=opening.run,
            round=opening.round,
            pub={
                "recipe": opening.recipe.digest,
                "plan": plan.digest if plan else None,
                "base_model": opening.base,
                "deadline": iso_minute(opening.deadline_ms),
                "cohort": len(opening.cohort),
                "attempt": opening.attempt,
            },
        )
    )


def close_attempt(session: Session, tx: LogTx, outcome: Outcome, books: Books) -> Written:
    """Writes everything about a settled attempt.

    Raises:
        EnvelopesRefusedError: The log does not take one sender's envelopes.
    """
    opening, written = outcome.opening, Written()
    by_party = {one.party: one for one in opening.cohort}
    for party, received in sorted(outcome.received.items()):
        if received.reply is not None:
            _add_reply(session, tx, outcome, by_party[party], received=received, written=written, books=books)
        if received.evidence is not None:
            declare(
                session,
                tx,
                received.evidence,
                received.reason or "refused",
                contract=opening.contract,
                run_id=opening.run,
                number=opening.round,
            )
    outcome = _settle_early(session, tx, outcome, written)
    if outcome.judgement is not None:
        outcome.judgement.record(session, tx, run=opening.run, round=opening.round)
    if outcome.choice is not None:
        tx.add(_chosen_event(opening, outcome.choice))
    if outcome.model is not None:
        tx.add(_aggregate_event(outcome, written))
    tx.add(_closed_event(outcome, by_party, written))
    _write_rows(session, tx, outcome)
    return written


def _add_reply(
    session: Session,
    tx: LogTx,
    outcome: Outcome,
    sender: Participant,
    *,
    received: Received,
    written: Written,
    books: Books,
) -> None:
    reply, opening = received.reply, outcome.opening
    if reply is None:
        return
    slot = opening.run, opening.round, opening.attempt
    added = add_envelopes(session, tx, sender, reply, contract=opening.contract, slot=slot, books=books)
    written.envelopes[sender.party] = added
    written.voted |= store_votes(session, tx, sender, reply, contract=opening.contract)
    for one, index in zip(reply.signed, added, strict=True):
        if one is reply.spend:
            written.spends[sender.party] = index
        if one is reply.submission:
            written.submissions[sender.party] = index
            tx.add(_verdict_event(outcome, sender.party, received, index))
    if reply.trained is not None and reply.spend is None:
        mechanism = mechanism_run(opening.run, opening.round, reply.trained)
        spent = logged_spend(session, sender, mechanism)
        written.spends |= {} if spent is None else {sender.party: spent[0]}


def _settle_early(session: Session, tx: LogTx, outcome: Outcome, written: Written) -> Outcome:
    """Refuses submissions of this attempt that came with the reply of another run, and without their own."""
    opening, received = outcome.opening, dict(outcome.received)
    logged = _submissions(session, opening)
    for one in opening.cohort:
        index = logged.get(one.alias(opening.contract, opening.run, opening.round))
        if index is None or one.party in written.submissions or one.party not in received:
            continue
        written.submissions[one.party] = index
        received[one.party] = replace(received[one.party], verdict=REFUSED)
        tx.add(
            refusal(
                opening.contract,
                opening.run,
                opening.round,
                index,
                reason="round-closed",
                need="its own reply before the attempt was settled",
                found="none that counts",
            )
        )
    return replace(outcome, received=received)


def _submissions(session: Session, opening: Opening) -> dict[str, int]:
    """Submissions of an attempt that are in the log already: alias → index."""
    of = (log_entry.c.run == opening.run) & (log_entry.c.round == opening.round)
    kind = log_entry.c.type == EntryType.SUBMISSION_RECEIVED.value
    rows = session.execute(select(log_entry.c.idx, log_entry.c.actor, log_entry.c.body).where(of & kind))
    return {row.actor: row.idx for row in rows if json.loads(row.body)["pub"]["attempt"] == opening.attempt}


def _verdict_event(outcome: Outcome, party: str, received: Received, submission: int) -> Event:
    opening = outcome.opening
    if party in outcome.survivors:
        return Event(
            type=EntryType.CONTRIBUTION_ACCEPTED,
            scope=opening.contract,
            run=opening.run,
            round=opening.round,
            refs=(submission,),
        )
    return refusal(
        opening.contract,
        opening.run,
        opening.round,
        submission,
        reason=received.reason or "attempt-abandoned",
        need=received.need,
        found=received.found,
    )


def _aggregate_event(outcome: Outcome, written: Written) -> Event:
    opening = outcome.opening
    refs = [written.submissions[party] for party in outcome.survivors]
    refs += [written.spends[party] for party in outcome.survivors if party in written.spends]
    return Event(
        type=EntryType.AGGREGATE_RELEASED,
        scope=opening.contract,
        run=opening.run,
        round=opening.round,
        refs=tuple(sorted(refs)),
        pub={
            "aggregate": outcome.aggregate,
            "model": outcome.model,
            "attempt": opening.attempt,
            "count": len(outcome.survivors),
            "transcript": outcome.transcript,
        },
    )


def _chosen_event(opening: Opening, choice: Choice) -> Event:
    return Event(
        type=EntryType.ROUND_CHOSEN,
        scope=opening.contract,
        run=opening.run,
        round=opening.round,
        refs=choice.refs,
        pub={
            "attempt": opening.attempt,
            "base": choice.base,
            "against": choice.against,
            "transcript": choice.transcript,
            "opened": list(choice.opened),
            "failed": list(choice.failed),
            "chosen": list(choice.chosen),
            "judges": choice.judges,
            "rejected_rounds": choice.rejected_rounds,
        },
    )


def final_verdicts(outcome: Outcome) -> dict[str, str]:
    """Party → verdict as log and row show it: an accepted update of a lost attempt is refused."""
    found = {}
    for party, received in outcome.received.items():
        lost = received.verdict == ACCEPTED and party not in outcome.survivors
        found[party] = REFUSED if lost else received.verdict
    return found


def _closed_event(outcome: Outcome, by_party: Mapping[str, Participant], written: Written) -> Event:
    opening, verdicts = outcome.opening, final_verdicts(outcome)
    parties = {}
    for party, verdict in verdicts.items():
        name = by_party[party].alias(opening.contract, opening.run, opening.round)
        parties[name] = {"received": int(party in written.submissions), "verdict": verdict}
    counts = list(verdicts.values())
    return Event(
        type=EntryType.ROUND_CLOSED,
        scope=opening.contract,
        run=opening.run,
        round=opening.round,
        pub={
            "attempt": opening.attempt,
            "received": sum(one["received"] for one in parties.values() if isinstance(one["received"], int)),
            "accepted": counts.count(ACCEPTED),
            "refused": counts.count(REFUSED),
            "withdrawn": 0,
            "parties": parties,
            "outcome": "aggregated" if outcome.model is not None else "abandoned",
        },
    )


def _reasons(outcome: Outcome, verdicts: Mapping[str, str]) -> dict[str, str]:
    """Party → code, of everybody whose update is not in the model."""
    found = {}
    for party, received in outcome.received.items():
        if verdicts[party] != ACCEPTED:
            found[party] = UNUSED if received.verdict == ACCEPTED else received.reason or ""
    return found


def _held_up(outcome: Outcome) -> bool:
    """Whether members that said no left too few groups: the attempt came to nothing by them."""
    opening = outcome.opening
    said = {party: one.reason for party, one in outcome.received.items() if one.verdict == DECLINED}
    declined = [party for party, code in said.items() if code not in PASSING]
    groups = {one.party: one.group for one in opening.cohort if one.node not in opening.barred}
    return outcome.model is None and bool(declined) and too_few(groups, declined, *opening.need)


def _trained(outcome: Outcome) -> bool:
    """Whether somebody may have paid for the attempt.

    Not who said no before, nor who was not asked, nor who sent an update of an earlier attempt again.
    """
    for one in outcome.received.values():
        if one.reply is not None and one.reply.trained is not None:
            continue
        spent = one.reply is not None and one.reply.spend is not None
        if spent or (one.verdict != DECLINED and one.reason not in UNTRAINED):
            return True
    return False


def _write_rows(session: Session, tx: LogTx, outcome: Outcome) -> None:
    opening, verdicts = outcome.opening, final_verdicts(outcome)
    counts = list(verdicts.values())
    reasons = _reasons(outcome, verdicts)
    trained = int(_trained(outcome))
    session.execute(
        insert(round_),
        {
            "run_id": opening.run,
            "round": opening.round,
            "attempt": opening.attempt,
            "base": opening.base,
            "model": outcome.model,
            "accepted": counts.count(ACCEPTED),
            "refused": counts.count(REFUSED) + counts.count(DECLINED),
            "verdicts": json.dumps(verdicts, sort_keys=True),
            "at_ms": tx.now_ms,
            "reasons": json.dumps(reasons, sort_keys=True),
            "held_up": int(_held_up(outcome)),
            "trained": trained,
            "unmasked": int(outcome.unmasked),
        },
    )
    values: dict[str, Any] = {"steps": run.c.steps + trained}
    if outcome.model is not None:
        values |= {"round": opening.round, "model_digest": outcome.model}
    if outcome.choice is not None and outcome.choice.rejected:
        values |= {"model_digest": outcome.choice.back_to}
    session.execute(update(run).where(run.c.run_id == opening.run).values(values))
