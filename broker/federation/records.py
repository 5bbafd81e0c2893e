# SPDX-License-Identifier: Apache-2.0
"""What a round leaves behind: rows and log entries, in one transaction each.

    open_attempt    decision.recorded for each party asked (refusals too), round.opened
    close_attempt   the nodes' envelopes; contribution.accepted or .refused; the broker's decision;
                    aggregate.released; round.closed; the rows of round, run and budget mirror

A member's envelope always gets its entry, whatever became of the update: its number would be missing from
the chain
otherwise. A contribution that comes after its attempt was settled is refused as ``round-closed``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert

from broker.contracts.decisions import keep
from broker.store.tables import ledger_mirror, log_entry, round_, run
from policies.log.entries import EntryType, Event, from_envelope
from policies.ports import iso_minute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.contracts.decisions import Judgement
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.log import LogTx
    from broker.store import Session
    from policies.recipe import Recipe

__all__ = ["Opening", "Outcome", "Received", "add_envelopes", "close_attempt", "open_attempt"]

ACCEPTED = "accepted"
REFUSED = "refused"
DECLINED = "declined"
SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What one party's exchange came to.

    Attributes:
        verdict: ``accepted``, ``refused`` (a check failed), ``declined`` (its guard refused) or ``silent``.
        reason: Code behind a refusal, in the log's vocabulary.
        need, found: Of the check that refused; confidential in the log.
        reply: The checked envelopes, None if there were none.
    """

    verdict: str
    reason: str | None = None
    need: str = ""
    found: str = ""
    reply: NodeReply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """An attempt that is about to be asked.

    Attributes:
        judged: The broker's decision for each participant that is online.
    """

    run: str
    contract: str
    recipe: Recipe
    round: int
    attempt: int
    base: str
    deadline_ms: int
    judged: tuple[tuple[Participant, Judgement], ...]

    @property
    def cohort(self) -> tuple[Participant, ...]:
        """Who may be asked."""
        return tuple(one for one, judgement in self.judged if judgement.allow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A settled attempt.

    Attributes:
        received: Party → what its exchange came to, for the whole cohort.
        judgement: The broker's decision to average; None if too few groups answered.
        model: Digest of the new model, None if there is none.
        aggregate: Digest of the mean update.
        survivors: Parties whose update is in the model.
    """

    opening: Opening
    received: Mapping[str, Received]
    judgement: Judgement | None = None
    model: str | None = None
    aggregate: str | None = None
    survivors: tuple[str, ...] = ()


@dataclass(slots=True)
class _Written:
    """Indexes that other entries refer to."""

    submissions: dict[str, int] = field(default_factory=dict)
    spends: dict[str, int] = field(default_factory=dict)
    envelopes: dict[str, list[int]] = field(default_factory=dict)


def open_attempt(session: Session, tx: LogTx, opening: Opening) -> None:
    """Logs who is asked and why. Asking again after a crash repeats the decisions, never the opening."""
    for _, judgement in opening.judged:
        judgement.record(session, tx, run=opening.run, round=opening.round)
    opened = session.scalar(
        select(func.count())
        .select_from(log_entry)
        .where(
            (log_entry.c.run == opening.run)
            & (log_entry.c.round == opening.round)
            & (log_entry.c.type == EntryType.ROUND_OPENED.value)
        )
    )
    if (opened or 0) >= opening.attempt:
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


def close_attempt(session: Session, tx: LogTx, outcome: Outcome) -> dict[str, list[int]]:
    """Writes everything about a settled attempt.

    Returns:
        Party → indexes of its envelopes' entries, for receipts.
    """
    opening, written = outcome.opening, _Written()
    by_party = {one.party: one for one in opening.cohort}
    for party, received in sorted(outcome.received.items()):
        if received.reply is not None:
            _add_reply(session, tx, outcome, by_party[party], received=received, written=written)
    if outcome.judgement is not None:
        outcome.judgement.record(session, tx, run=opening.run, round=opening.round)
    if outcome.model is not None:
        tx.add(_aggregate_event(outcome, written))
    tx.add(_closed_event(outcome, by_party))
    _write_rows(session, tx, outcome)
    return written.envelopes


def add_envelopes(
    session: Session, tx: LogTx, sender: Participant, reply: NodeReply, *, contract: str
) -> list[tuple[EntryType, int, bool]]:
    """Logs every envelope of a reply in the order of its chain; gives (type, index, is it new)."""
    found = []
    for one in reply.signed:
        payload = one.payload
        actor = sender.alias(payload["scope"], payload["run"], payload["round"])
        event = from_envelope(one.envelope, payload, actor=actor)
        known = tx.known(event)
        found.append((one.kind, tx.add(event) if known is None else known, known is None))
    if reply.decision is not None:
        keep(
            session,
            contract=contract,
            point="node",
            record=reply.decision.record,
            request=reply.decision.request,
            state=reply.decision.state,
            salt=reply.decision.salt,
        )
    return found


def _add_reply(
    session: Session,
    tx: LogTx,
    outcome: Outcome,
    sender: Participant,
    *,
    received: Received,
    written: _Written,
) -> None:
    reply, opening = received.reply, outcome.opening
    if reply is None:
        return
    added = add_envelopes(session, tx, sender, reply, contract=opening.contract)
    written.envelopes[sender.party] = [index for _, index, _ in added]
    for one, (kind, index, new) in zip(reply.signed, added, strict=True):
        if one is reply.spend:
            written.spends[sender.party] = index
            _mirror(session, sender.party, opening, one.payload["body"])
        if kind is not EntryType.SUBMISSION_RECEIVED or not new:
            continue
        if one is reply.submission:
            written.submissions[sender.party] = index
            tx.add(_verdict_event(outcome, sender.party, received, index))
        else:
            tx.add(_late_event(opening.contract, one.payload, index))


def _mirror(session: Session, party: str, opening: Opening, spent: Mapping[str, Any]) -> None:
    row = {
        "party": party,
        "run_id": opening.run,
        "round": opening.round,
        "attempt": opening.attempt,
        "plan_digest": spent["plan"],
        "steps": spent["steps"],
    }
    session.execute(insert(ledger_mirror).on_conflict_do_nothing(), row)


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
    return _refused(
        opening.contract,
        opening.run,
        opening.round,
        submission,
        reason=received.reason or "attempt-abandoned",
        need=received.need,
        found=received.found,
    )


def _late_event(contract: str, payload: Mapping[str, Any], submission: int) -> Event:
    return _refused(
        contract,
        payload["run"],
        payload["round"],
        submission,
        reason="round-closed",
        need="a reply before the attempt was settled",
        found="a later one",
    )


def _refused(
    contract: str, run_id: str, number: int, submission: int, *, reason: str, need: str, found: str
) -> Event:
    return Event(
        type=EntryType.CONTRIBUTION_REFUSED,
        scope=contract,
        run=run_id,
        round=number,
        refs=(submission,),
        pub={"reason": reason, "clause": None},
        private={"need": need, "got": found},
    )


def _aggregate_event(outcome: Outcome, written: _Written) -> Event:
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
            "transcript": None,
        },
    )


def final_verdicts(outcome: Outcome) -> dict[str, str]:
    """Party → verdict as log and row show it: an accepted update of a lost attempt is refused."""
    found = {}
    for party, received in outcome.received.items():
        lost = received.verdict == ACCEPTED and party not in outcome.survivors
        found[party] = REFUSED if lost else received.verdict
    return found


def _closed_event(outcome: Outcome, by_party: Mapping[str, Participant]) -> Event:
    opening, verdicts = outcome.opening, final_verdicts(outcome)
    parties = {}
    for party, verdict in verdicts.items():
        reply = outcome.received[party].reply
        came = reply is not None and reply.submission is not None
        name = by_party[party].alias(opening.contract, opening.run, opening.round)
        parties[name] = {"received": int(came), "verdict": verdict}
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


def _write_rows(session: Session, tx: LogTx, outcome: Outcome) -> None:
    opening, verdicts = outcome.opening, final_verdicts(outcome)
    counts = list(verdicts.values())
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
        },
    )
    values: dict[str, Any] = {"steps": run.c.steps + 1}
    if outcome.model is not None:
        values |= {"round": opening.round, "model_digest": outcome.model}
    session.execute(update(run).where(run.c.run_id == opening.run).values(values))
