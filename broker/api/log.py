# SPDX-License-Identifier: Apache-2.0
"""Routes of the log: its head, proofs that it grew, receipts for their owners, the auditor's bundle."""

from __future__ import annotations

import contextlib
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread
from fastapi import APIRouter
from sqlalchemy import select
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from broker.api.signed import Call, OperatorCall, PartyCall, json_response
from broker.contracts.queries import OWN_RECEIPTS
from broker.errors import NotFoundError, RequestInvalidError
from broker.federation.secure.files import Transcripts
from broker.log.bundle import Exported, export
from broker.log.errors import LogFrozenError
from broker.membership.directory import Member, Operator
from broker.membership.records import console_action
from broker.store.tables import log_entry
from policies.encoding import Json, b64
from policies.identity import key_text
from policies.log.entries import EntryType, Event, alias
from policies.log.errors import ProofError

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.log import LogTx
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()


@router.get("/log/checkpoint")
async def checkpoint(call: PartyCall) -> Response:
    """The newest signed head."""
    head = call.services.writer.head()
    return json_response({"note": head.note, "size": head.size, "root": b64(head.root)})


@router.get("/log/consistency")
async def consistency(call: PartyCall, old: int = 0) -> Response:
    """The newest signed head and the proof that the tree of ``old`` entries is a prefix of its tree."""
    writer = call.services.writer
    head = writer.head()
    try:
        proof = [] if old in {0, head.size} else writer.consistency(old, head.size)
    except ProofError as error:
        raise RequestInvalidError(
            need=f"a size from 0 to {head.size}",
            found=str(old),
            remedy="give a size that a checkpoint showed",
        ) from error
    shown = {"note": head.note, "size": head.size, "old_size": old, "proof": [b64(one) for one in proof]}
    return json_response(shown)


@router.get("/receipts/{event_id}")
async def receipt(call: PartyCall, event_id: str) -> Response:
    """The receipt of an entry, for the organisation that the entry is about, and for operators.

    Of what a member did in a run it is a view of its contract (`broker.contracts.queries`).
    """
    try:
        key = bytes.fromhex(event_id)
    except ValueError as error:
        raise _no_receipt(event_id) from error
    with call.services.store.read() as session:
        row = session.execute(select(log_entry).where(log_entry.c.event_id == key)).mappings().first()
    if row is None or not _owns(call, row["scope"], row["run"], row["round"], row["actor"]):
        raise _no_receipt(event_id)
    if isinstance(call.caller, Member) and row["scope"] is not None and row["run"] is not None:
        await _own_receipts(call, row)
    return json_response({"index": row["idx"], **call.services.receipt_json(row["idx"])})


async def _own_receipts(call: Call, row: RowMapping) -> None:
    """Returns if the contract lets its party see its own receipts.

    Raises:
        RefusedError: With the clause.
    """
    services, contract = call.services, call.services.contracts.get(row["scope"])
    with services.store.read() as session:
        asked = services.queries.own(
            session, contract, call.member, run_id=row["run"], view=OWN_RECEIPTS, made_ms=row["ts_ms"]
        )
        news = asked is not None and services.queries.is_news(session, asked)
    if asked is None:
        return
    if news:

        def work(session: Session, tx: LogTx) -> None:
            services.queries.record(session, tx, asked)

        with contextlib.suppress(LogFrozenError):
            await services.writer.run(work)
    asked.judgement.decision.require()


def _owns(call: Call, scope: str | None, run: str | None, round: int | None, actor: str) -> bool:  # noqa: A002
    if isinstance(call.caller, Operator):
        return True
    return actor == alias(call.member.alias_key, scope, run, round)


def _no_receipt(event_id: str) -> NotFoundError:
    return NotFoundError(
        need="an entry of your own", found=ascii(event_id)[1:-1][:60], remedy="send the envelope again"
    )


@router.get("/operator/audit/policy")
async def policy(call: OperatorCall) -> Response:
    """The text of a policy file as this broker sees itself; an auditor compares it by another way."""
    return json_response({"policy": call.services.policy})


@router.get("/operator/audit/bundle")
async def bundle(call: OperatorCall) -> Response:
    """Everything that an offline audit needs, as one file; that it was taken is logged afterwards.

    A frozen log is handed out as well, up to its newest signed head; that it was taken cannot be logged then,
    and the header ``Iriai-Log: frozen`` says so.
    """
    services = call.services
    contracts = services.contracts.documents()
    with tempfile.NamedTemporaryFile(dir=services.settings.dir, prefix=".bundle-", delete=False) as file:
        path = Path(file.name)

    def take() -> Exported:
        return export(
            services.store,
            services.writer,
            path,
            policy=services.policy,
            software=version("iriai"),
            contracts=contracts,
            transcript=Transcripts(services.settings.dir).read,
        )

    taken = await to_thread.run_sync(take)

    def work(_session: Session, tx: LogTx) -> None:
        tx.add(console_action(call.operator, "audit.bundle", subject=taken.digest, request=call.digest))
        tx.add(
            Event(
                type=EntryType.EXPORT_AUDIT_BUNDLE,
                pub={
                    "from_size": 0,
                    "to_size": taken.entries,
                    "grade": "auditor",
                    "bundle": taken.digest,
                },
            )
        )

    headers = {"Cache-Control": "no-store"}
    try:
        await services.writer.run(work)
    except LogFrozenError:
        headers["Iriai-Log"] = "frozen"
    return FileResponse(
        path,
        media_type="application/zip",
        headers=headers,
        background=BackgroundTask(path.unlink),
    )


@router.get("/operator/status")
async def status(call: OperatorCall) -> Response:
    """How the broker is: its log, its members, its runs."""
    services = call.services
    head = services.writer.head()
    members: dict[str, int] = {}
    for one in services.directory.members():
        members[one.state] = members.get(one.state, 0) + 1
    with services.store.read() as session:
        runs = [one.body for one in services.runs.list_for(session, call.operator) if one.body is not None]
    frozen = services.writer.frozen
    shown: dict[str, Json] = {
        "url": services.settings.public_url,
        "origin": services.settings.origin,
        "broker_key": key_text(services.keys.broker.public),
        "nodes": services.nodes(),
        "log": {"size": head.size, "root": b64(head.root), "frozen": str(frozen) if frozen else None},
        "members": members,
        "runs": {"open": sum(one["outcome"] is None for one in runs), "all": len(runs)},
    }
    return json_response(shown)
