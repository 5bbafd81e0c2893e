# SPDX-License-Identifier: Apache-2.0
"""Federated evaluation of a candidate: each silo judges it on its own held-out episodes; only a vote leaves.

1. the candidate becomes a file and a row, and waits for votes;
2. every participant that is online is asked once; a silo may also answer later, by its owner's own vote;
3. what came back is logged: ``evaluation.received`` and ``vote.cast`` of each silo, then
``candidate.evaluated``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.sqlite import insert

from broker.federation.checkpoints import model_bytes
from broker.federation.engine import Reply
from broker.federation.records import add_envelopes
from broker.federation.replies import ReplyRefusedError
from broker.store.tables import candidate, model, statement, vote
from policies.encoding import canonical, digest
from policies.exchange import ExchangeType
from policies.log.entries import EntryType, Event

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

WAITING = "waiting"
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
    plan = run.recipe.evaluation
    body = {"candidate": name, "plan": plan.digest, "final": True}
    cohort = await run.quorum()
    requests = [
        run.request(one, ExchangeType.JUDGE, run.progress.last_model_round, 1, body=body, weights=weights)
        for one in cohort
    ]
    by_node = {one.node: one for one in cohort}
    answers: list[_Answer] = []
    async for outcome in run.exchange(engine_run, requests):
        if not isinstance(outcome, Reply):
            run.tools.journal.note("judge.failed", run=run.run, node=outcome.node, code=outcome.code)
            continue
        try:
            reply = run.read(by_node[outcome.node], outcome)
        except ReplyRefusedError as error:
            run.tools.journal.note("judge.refused", run=run.run, node=outcome.node, code=error.reason)
            continue
        answers.append(_Answer(sender=by_node[outcome.node], reply=reply))
    answers.sort(key=lambda one: one.sender.party)
    await run.tools.writer.run(lambda session, tx: _record(session, tx, run, name, answers))


def _record(session: Session, tx: LogTx, run: RunSession, name: str, answers: list[_Answer]) -> None:
    evaluations: dict[str, str] = {}
    indexes: list[int] = []
    for answer in answers:
        added = add_envelopes(session, tx, answer.sender, answer.reply, contract=run.contract.digest)
        indexes += [index for kind, index, _ in added if kind is EntryType.EVALUATION_RECEIVED]
        for one in answer.reply.signed:
            body = one.payload["body"]
            if one.kind is EntryType.EVALUATION_RECEIVED and body["candidate"] == name:
                evaluations[answer.sender.alias(run.contract.digest, run.run, None)] = body["evaluation"]
            if one.kind is EntryType.VOTE_CAST and body["subject"] == name:
                _store_vote(session, tx, name, answer.sender.party, body)
    groups = {answer.sender.group for answer in answers}
    enough = len(groups) >= run.contract.aggregation.min_parties
    report = _report(run, name, evaluations, enough=enough)
    session.execute(insert(statement).on_conflict_do_nothing(), {"digest": digest(report), "bytes": report})
    tx.add(
        Event(
            type=EntryType.CANDIDATE_EVALUATED,
            scope=run.contract.digest,
            run=run.run,
            refs=tuple(indexes),
            pub={
                "candidate": name,
                "checks": {EVALUATION: "pass" if enough else "fail"},
                "report": digest(report),
            },
        )
    )


def _store_vote(session: Session, tx: LogTx, name: str, party: str, body: Mapping[str, Any]) -> None:
    row = {"candidate": name, "party": party, "verdict": body["vote"], "at_ms": tx.now_ms}
    session.execute(insert(vote).on_conflict_do_nothing(), row)  # an owner's own vote stands


def _report(run: RunSession, name: str, evaluations: Mapping[str, str], *, enough: bool) -> bytes:
    """What lies with the candidate as evidence: who evaluated it, by alias, and digests of what they
    signed.
    """
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
