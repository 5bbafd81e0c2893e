# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation of a candidate: each silo judges it on its own held-out episodes; only a vote leaves.

1. the candidate becomes a file and a row, and waits for votes;
2. every participant that is online is asked once; a silo may also answer later, by its owner's own vote;
3. what came back is logged: ``canary.revealed``, ``evaluation.received`` and ``vote.cast`` of each silo;
4. where the contract asks for canaries, silos that owe a reveal are asked again until all have come, or their
time is up (`broker.release.leaks`);
5. ``candidate.evaluated`` refers to every evaluation of this candidate in the log and to the last aggregate;
its report names their senders and digests, and has the leak report and the silos' own audits in it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from broker.federation.checkpoints import model_bytes
from broker.federation.engine import Reply
from broker.federation.envelopes import (
    WAITING,
    EnvelopesRefusedError,
    add_envelopes,
    barred,
    declare,
    store_votes,
)
from broker.federation.participants import participants
from broker.federation.signed import ReplyRefusedError
from broker.log.rotations import Rotations
from broker.release.leaks import leaks, owing, trained_participants
from broker.runs.course import course_of
from broker.store.tables import candidate, log_entry, log_envelope, model, statement
from broker.store.upserts import insert_or_ignore
from policies.encoding import canonical, digest
from policies.exchange import ExchangeType
from policies.identity import key_id
from policies.limits import REVEAL_RETRY_MAX_S, REVEAL_RETRY_S
from policies.log.entries import EntryType, Event
from policies.privacy.leakage import CODE_MISSING, PROPERTY, audits_hold, leak_checks
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from broker.federation.engine import EngineRun
    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.federation.session import RunSession
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["EVALUATION", "WAITING", "evaluate_candidate", "open_candidate"]

EVALUATION = "federated-evaluation"
CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    sender: Participant
    reply: NodeReply


async def open_candidate(run: RunSession, weights: np.ndarray) -> str:
    """Makes the final weights a candidate; gives its digest. Doing it again after a crash changes nothing."""
    data = model_bytes(weights)
    name = run.tools.models.save(data)
    row = {
        "digest": name,
        "run_id": run.run,
        "round": run.progress.last_model_round,
        "kind": CANDIDATE,
        "path": str(run.tools.models.path(name)),
    }

    def work(session: Session, _tx: LogTx) -> None:
        insert_or_ignore(session, model, row)
        insert_or_ignore(session, candidate, {"digest": name, "run_id": run.run, "state": WAITING})

    await run.tools.writer.run(work)
    return name


async def evaluate_candidate(run: RunSession, engine_run: EngineRun, name: str, weights: np.ndarray) -> None:
    """Asks the silos and logs what they say; see the module."""
    model, asked, pause_s = model_bytes(weights), await run.quorum(), REVEAL_RETRY_S
    while True:
        answers = await _ask(run, engine_run, name, model, asked)
        refused: list[EnvelopesRefusedError] = []
        while (error := await _write(run, answers, refused)) is not None:
            _refused(run, error.sender, error.reason)
            refused.append(error)
            answers = [one for one in answers if one.sender != error.sender]
        owed, _ = await run.tools.writer.run(lambda session, tx: _conclude(session, tx, run, name, weights))
        if not owed:
            return
        run.tools.journal.note("candidate.owed", run=run.run, code=CODE_MISSING, parties=len(owed))
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, REVEAL_RETRY_MAX_S)
        run.require_running()
        there = {one.party for one in run.online()}
        asked = tuple(one for one in owed if one.party in there)


async def _write(
    run: RunSession, answers: list[_Answer], refused: list[EnvelopesRefusedError]
) -> EnvelopesRefusedError | None:
    """Logs the answers; gives the refusal of the one that the log does not take, and then wrote nothing."""

    def work(session: Session, tx: LogTx) -> None:
        for one in refused:
            if one.evidence is not None:
                declare(
                    session,
                    tx,
                    one.evidence,
                    one.reason,
                    contract=run.contract.digest,
                    run_id=run.run,
                    number=run.progress.last_model_round,
                )
        _record(session, tx, run, answers)

    try:
        await run.tools.writer.run(work)
    except EnvelopesRefusedError as error:
        return error
    return None


async def _ask(
    run: RunSession, engine_run: EngineRun, name: str, model: bytes, asked: Sequence[Participant]
) -> list[_Answer]:
    plan, deadline_ms = run.recipe.evaluation, run.asking.deadline_ms()
    body = {"candidate": name, "plan": plan.digest, "final": True}
    slot = run.progress.last_model_round, 1
    by_node = {one.node: one for one in asked if one.node not in run.barred}
    requests = [
        run.asking.request(one, ExchangeType.JUDGE, slot, body=body, model=model, deadline_ms=deadline_ms)
        for one in by_node.values()
    ]
    answers: list[_Answer] = []
    async for outcome in run.asking.exchange(engine_run, requests, deadline_ms=deadline_ms):
        if not isinstance(outcome, Reply):
            run.tools.journal.note("judge.failed", run=run.run, node=outcome.node, code=outcome.code)
            continue
        sender = by_node[outcome.node]
        if not outcome.ok:
            code = outcome.header.code or ""
            run.tools.journal.note("judge.declined", run=run.run, node=outcome.node, code=code)
        try:
            answers.append(_Answer(sender=sender, reply=run.asking.read(sender, outcome)))
        except ReplyRefusedError as error:
            _refused(run, sender, error.reason)
    return sorted(answers, key=lambda one: one.sender.party)


def _refused(run: RunSession, sender: Participant, reason: str) -> None:
    run.tools.journal.note("judge.refused", run=run.run, node=sender.node, code=reason)


def _record(session: Session, tx: LogTx, run: RunSession, answers: list[_Answer]) -> None:
    contract, slot = run.contract.digest, (run.run, None, None)
    for answer in answers:
        sender, reply = answer.sender, answer.reply
        add_envelopes(session, tx, sender, reply, contract=contract, slot=slot, books=run.books)
        store_votes(session, tx, sender, reply, contract=contract)


def _conclude(
    session: Session, tx: LogTx, run: RunSession, name: str, weights: np.ndarray
) -> tuple[Participant, ...]:
    """``candidate.evaluated``, with its report; or who still owes a reveal, and then nothing is written.

    It is a transaction of its own: what another one adds to the log is seen once that is written.
    """
    out = barred(session, run.run)  # nothing comes from them any more
    owed = owing(run, session, now_ms=run.tools.clock.now_ms())
    if waiting := tuple(one for one in owed if one.node not in out):
        return waiting
    contract = run.contract.digest
    seen = _logged(session, run, name)
    report = _report(session, run, name, weights, seen)
    data = canonical(report)
    insert_or_ignore(session, statement, {"digest": digest(data), "bytes": data})
    checks = {EVALUATION: "pass" if report["passed"] else "fail"}
    tx.add(
        Event(
            type=EntryType.CANDIDATE_EVALUATED,
            scope=contract,
            run=run.run,
            refs=tuple(sorted({*seen, *_last_aggregate(session, run.run)})),
            pub={
                "candidate": name,
                "checks": checks | leak_checks(report, run.contract.release.evidence),
                "report": digest(data),
            },
        )
    )
    return ()


def _is_evaluation(payload: Mapping[str, Any], run_id: str, name: str) -> bool:
    said = payload["kind"], payload["run"], payload["body"].get("candidate")
    return said == (EntryType.EVALUATION_RECEIVED, run_id, name)


def _logged(session: Session, run: RunSession, name: str) -> dict[int, tuple[Participant, dict[str, Any]]]:
    """Evaluations of the candidate that are in the log: index → sender, what it signed."""
    everybody = participants(run.tools.contracts, run.contract, run.recipe, active=False)
    rotations = Rotations.read(session)
    senders = {kid: one for one in everybody for kid in rotations.line(key_id(one.node_key))}
    of = (log_entry.c.run == run.run) & (log_entry.c.type == EntryType.EVALUATION_RECEIVED.value)
    rows = session.execute(
        select(log_entry.c.idx, log_envelope.c.signer, log_envelope.c.dsse)
        .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
        .where(of)
        .order_by(log_entry.c.idx)
    )
    found = {}
    for row in rows:
        payload = json.loads(Envelope.from_bytes(row.dsse).payload)
        if row.signer in senders and _is_evaluation(payload, run.run, name):
            found[row.idx] = senders[row.signer], payload["body"]
    return found


def _last_aggregate(session: Session, run_id: str) -> list[int]:
    """Index of the aggregate that the candidate was taken after: the last one that votes let stand."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.AGGREGATE_RELEASED.value)
    if back := course_of(session, run_id).back:
        of &= log_entry.c.round.not_in(back)
    last = session.scalar(select(func.max(log_entry.c.idx)).where(of))
    return [] if last is None else [last]


def _report(
    session: Session,
    run: RunSession,
    name: str,
    weights: np.ndarray,
    seen: Mapping[int, tuple[Participant, Mapping[str, Any]]],
) -> dict[str, Any]:
    """What lies with the candidate as evidence: who evaluated it, what they signed, the tests for leaks."""
    contract, least = run.contract, run.contract.aggregation.min_parties
    told = {sender.alias(contract.digest, run.run, None): body for sender, body in seen.values()}
    report = {
        "schema": "iriai-evaluation-report/1",
        "candidate": name,
        "run": run.run,
        "contract": contract.digest,
        "recipe": run.recipe.digest,
        "plan": run.recipe.evaluation.digest,
        "evaluations": {shown: body["evaluation"] for shown, body in told.items()},
        "min_parties": least,
        "passed": len({sender.group for sender, _ in seen.values()}) >= least,
    }
    tested = leaks(run, session, name, weights)
    audits = {shown: body["figures"] for shown, body in told.items() if audits_hold(body.get("figures"))}
    there = {one.alias(contract.digest, run.run, None) for one in trained_participants(run, session)}
    report |= {} if tested is None else {"leaks": tested}
    report |= {"audits": audits} if audits else {}
    if PROPERTY in contract.release.evidence:
        report |= {"trained": sorted(there), "property_max": contract.release.max_property_skill}
    return report
