# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation of a candidate: each silo judges it on its own held-out episodes; only a vote leaves.

1. the candidate becomes a file and a row, and waits for votes;
2. every participant that is online is asked once; a silo may also answer later, by its owner's own vote;
3. what came back is logged: ``evaluation.received`` and ``vote.cast`` of each silo, then
``candidate.evaluated``, which refers to every evaluation of this candidate in the log and to the last
aggregate; its report names their senders and digests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert

from broker.federation.checkpoints import model_bytes
from broker.federation.engine import Reply
from broker.federation.envelopes import WAITING, EnvelopesRefusedError, add_envelopes, declare, store_votes
from broker.federation.participants import participants
from broker.federation.signed import ReplyRefusedError
from broker.log.rotations import Rotations
from broker.store.tables import candidate, log_entry, log_envelope, model, statement
from policies.encoding import canonical, digest
from policies.exchange import ExchangeType
from policies.identity import key_id
from policies.log.entries import EntryType, Event
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        session.execute(insert(model).on_conflict_do_nothing(), row)
        session.execute(
            insert(candidate).on_conflict_do_nothing(),
            {"digest": name, "run_id": run.run, "state": WAITING},
        )

    await run.tools.writer.run(work)
    return name


async def evaluate_candidate(run: RunSession, engine_run: EngineRun, name: str, weights: np.ndarray) -> None:
    """Asks the silos and logs what they say; see the module."""
    answers = await _ask(run, engine_run, name, model_bytes(weights))
    refused: list[EnvelopesRefusedError] = []
    while (error := await _write(run, name, answers, refused)) is not None:
        _refused(run, error.sender, error.reason)
        refused.append(error)
        answers = [one for one in answers if one.sender != error.sender]


async def _write(
    run: RunSession, name: str, answers: list[_Answer], refused: list[EnvelopesRefusedError]
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
        _record(session, tx, run, name, answers)

    try:
        await run.tools.writer.run(work)
    except EnvelopesRefusedError as error:
        return error
    return None


async def _ask(run: RunSession, engine_run: EngineRun, name: str, model: bytes) -> list[_Answer]:
    plan, deadline_ms = run.recipe.evaluation, run.asking.deadline_ms()
    body = {"candidate": name, "plan": plan.digest, "final": True}
    slot = run.progress.last_model_round, 1
    by_node = {one.node: one for one in await run.quorum() if one.node not in run.barred}
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


def _record(session: Session, tx: LogTx, run: RunSession, name: str, answers: list[_Answer]) -> None:
    contract = run.contract.digest
    seen = _logged(session, run, name)
    for answer in answers:
        sender, reply = answer.sender, answer.reply
        added = add_envelopes(
            session,
            tx,
            sender,
            reply,
            contract=contract,
            slot=(run.run, None, None),
            books=run.books,
        )
        store_votes(session, tx, sender, reply, contract=contract)
        for one, index in zip(reply.signed, added, strict=True):
            if _is_evaluation(one.payload, run.run, name):
                seen[index] = sender, one.payload["body"]["evaluation"]
    evaluations = {sender.alias(contract, run.run, None): said for sender, said in seen.values()}
    groups = {sender.group for sender, _ in seen.values()}
    enough = len(groups) >= run.contract.aggregation.min_parties
    report = _report(run, name, evaluations, enough=enough)
    session.execute(insert(statement).on_conflict_do_nothing(), {"digest": digest(report), "bytes": report})
    tx.add(
        Event(
            type=EntryType.CANDIDATE_EVALUATED,
            scope=contract,
            run=run.run,
            refs=tuple(sorted({*seen, *_last_aggregate(session, run.run)})),
            pub={
                "candidate": name,
                "checks": {EVALUATION: "pass" if enough else "fail"},
                "report": digest(report),
            },
        )
    )


def _is_evaluation(payload: Mapping[str, Any], run_id: str, name: str) -> bool:
    said = payload["kind"], payload["run"], payload["body"].get("candidate")
    return said == (EntryType.EVALUATION_RECEIVED, run_id, name)


def _logged(session: Session, run: RunSession, name: str) -> dict[int, tuple[Participant, str]]:
    """Evaluations of the candidate that are in the log already: index → sender, digest of what it signed."""
    everybody = participants(run.tools.contracts, run.contract, run.recipe, active=False)
    rotations = Rotations.read(session)
    senders = {kid: one for one in everybody for kid in rotations.line(key_id(one.node_key))}
    of = (log_entry.c.run == run.run) & (log_entry.c.type == EntryType.EVALUATION_RECEIVED.value)
    rows = session.execute(
        select(log_entry.c.idx, log_envelope.c.signer, log_envelope.c.dsse)
        .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
        .where(of)
    )
    found = {}
    for row in rows:
        payload = json.loads(Envelope.from_bytes(row.dsse).payload)
        if row.signer in senders and _is_evaluation(payload, run.run, name):
            found[row.idx] = senders[row.signer], payload["body"]["evaluation"]
    return found


def _last_aggregate(session: Session, run_id: str) -> list[int]:
    """Index of the aggregate that the candidate was taken after."""
    of = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.AGGREGATE_RELEASED.value)
    last = session.scalar(select(func.max(log_entry.c.idx)).where(of))
    return [] if last is None else [last]


def _report(run: RunSession, name: str, evaluations: Mapping[str, str], *, enough: bool) -> bytes:
    """What lies with the candidate as evidence: who evaluated it, and digests of what they signed."""
    return canonical(
        {
            "schema": "iriai-evaluation-report/1",
            "candidate": name,
            "run": run.run,
            "contract": run.contract.digest,
            "recipe": run.recipe.digest,
            "plan": run.recipe.evaluation.digest,
            "evaluations": dict(evaluations),
            "min_parties": run.contract.aggregation.min_parties,
            "passed": enough,
        }
    )
