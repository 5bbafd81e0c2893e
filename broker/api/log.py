# SPDX-License-Identifier: Apache-2.0
"""Routes of the log: its head, entries, proofs of both kinds, receipts for their owners, how the broker is.

Proofs are a convenience: whoever has the tiles below ``/log`` (`broker.api.log_static`) makes the same ones.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter
from fastapi import Query as QueryParam
from sqlalchemy import select
from starlette.requests import Request  # noqa: TC002  FastAPI reads the annotations
from starlette.responses import Response  # noqa: TC002  FastAPI reads the annotations

from broker.api.answers.log import (
    Checkpoint,
    Consistency,
    Entries,
    EntryShown,
    GradedReceipt,
    Inclusion,
    LogKeys,
    Prefix,
    Status,
)
from broker.api.answers.values import SHA256
from broker.api.declared import gives
from broker.api.signed import Call, OperatorCall, PartyCall, ReaderCall, json_response, services_of
from broker.auth.proposals import State
from broker.backup import record
from broker.contracts.queries import OWN_RECEIPTS
from broker.errors import NotFoundError, RequestInvalidError
from broker.log.errors import LogFrozenError
from broker.log.receipts import Head
from broker.log.rotations import log_rotations
from broker.membership.directory import Member, Operator
from broker.store.tables import log_checkpoint, log_entry
from broker.witnessing import SIGNED, WITNESSED
from policies.encoding import Json, b64, digest
from policies.identity import key_text
from policies.limits import INTEGER_MAX, LIST_ROWS, WITNESS_RECEIPT_S
from policies.log.entries import EntryType, alias
from policies.log.errors import ProofError

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["router"]

router = APIRouter()

_SCOPE: Final = SHA256
_RUN: Final = r"^run_[a-z2-7]{16}$"
_Size = Annotated[int, QueryParam(ge=0, le=INTEGER_MAX)]


@router.get("/log/checkpoint")
@gives(Checkpoint)
async def checkpoint(call: PartyCall) -> Response:
    """The newest signed head."""
    head = call.services.writer.head()
    return json_response({"note": head.note, "size": head.size, "root": b64(head.root)})


@router.get("/log/consistency")
@gives(Consistency)
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


@router.get("/log/entries")
@gives(Entries)
async def entries(  # noqa: PLR0917  one parameter for each filter
    call: ReaderCall,
    kind: Annotated[EntryType | None, QueryParam(alias="type")] = None,
    scope: Annotated[str | None, QueryParam(pattern=_SCOPE)] = None,
    run: Annotated[str | None, QueryParam(pattern=_RUN)] = None,
    after: Annotated[int, QueryParam(ge=-1, le=INTEGER_MAX)] = -1,
    limit: Annotated[int, QueryParam(ge=1, le=LIST_ROWS)] = LIST_ROWS,
) -> Response:
    """Entries as they were hashed, in their order, up to the newest signed head; all filters must fit.

    Their proofs are at ``/log/entries/{index}``, or made from the tiles below ``/log``.
    """
    size = call.services.writer.head().size
    asked = [(log_entry.c.type, kind), (log_entry.c.scope, scope), (log_entry.c.run, run)]
    query = select(log_entry.c.idx, log_entry.c.body).where(
        (log_entry.c.idx > after) & (log_entry.c.idx < size)
    )
    for column, value in asked:
        query = query if value is None else query.where(column == str(value))
    with call.services.store.read() as session:
        rows = session.execute(query.order_by(log_entry.c.idx).limit(limit)).all()
    found: list[Json] = [{"index": row.idx, "entry": row.body.decode("utf-8")} for row in rows]
    more = rows[-1].idx if len(rows) == limit else None
    return json_response({"size": size, "entries": found, "next": more})


@router.get("/log/entries/{index}")
@gives(EntryShown)
async def entry(call: ReaderCall, index: int) -> Response:
    """An entry as it was hashed, and its proof at the newest signed head."""
    if index < 0:
        raise _no_entry(str(index))
    return json_response({"index": index, **call.services.receipt_json(index)})


@router.get("/log/keys")
@gives(LogKeys)
async def keys(call: ReaderCall) -> Response:
    """Every change of the log's key, each proven under the key before it: how nodes learn the new one."""
    services = call.services
    known = {digest(key.public_key): key for key in services.writer.signer.known_vkeys}
    receipts = services.writer.receipts
    with services.store.read() as session:
        changes = [
            (one, _head_after(session, one.at, receipts.head()))
            for one in log_rotations(session)
            if one.new in known
        ]
    found: list[Json] = [
        {
            "vkey": known[one.new].text(),
            "entry": receipts.body(one.at).decode("utf-8"),
            "proof": receipts.receipt(one.at, head).to_text(),
        }
        for one, head in changes
        if one.at < head.size
    ]
    return json_response({"rotations": found})


def _head_after(session: Session, index: int, newest: Head) -> Head:
    """The first published head with an entry: the key that the entry gives up signed it, for certain."""
    query = (
        select(log_checkpoint).where(log_checkpoint.c.size > index).order_by(log_checkpoint.c.size).limit(1)
    )
    row = session.execute(query).first()
    return newest if row is None or row.size > newest.size else Head(row.size, row.root, row.note)


@router.get("/log/proofs/inclusion")
@gives(Inclusion, role="anyone")
async def inclusion(request: Request, index: _Size, size: _Size | None = None) -> Response:
    """That a leaf hash is in the tree of ``size`` entries (the newest signed one, without it)."""
    receipts = services_of(request).writer.receipts
    size = receipts.head().size if size is None else size
    try:
        if index >= size:
            raise _beyond("index", size - 1, index)
        proof, root = receipts.proof(index, size), receipts.root(size)
    except ProofError as error:
        raise _beyond("size", receipts.head().size, size) from error
    shown: dict[str, Json] = {"index": index, "size": size, "leaf_hash": b64(receipts.leaf(index))}
    return json_response(shown | {"root": b64(root), "proof": [b64(one) for one in proof]})


@router.get("/log/proofs/consistency")
@gives(Prefix, role="anyone")
async def prefix(request: Request, old: _Size, new: _Size | None = None) -> Response:
    """That the tree of ``old`` entries is a prefix of the one of ``new`` (the newest signed, without it)."""
    receipts = services_of(request).writer.receipts
    new = receipts.head().size if new is None else new
    try:
        roots = receipts.root(old), receipts.root(new)
        if old == 0 or old > new:
            raise _beyond("old size from 1", new, old)
        proof = receipts.consistency(old, new)
    except ProofError as error:
        raise _beyond("size", receipts.head().size, max(old, new)) from error
    shown: dict[str, Json] = {"old": old, "new": new, "old_root": b64(roots[0]), "new_root": b64(roots[1])}
    return json_response(shown | {"proof": [b64(one) for one in proof]})


def _beyond(what: str, most: int, found: int) -> RequestInvalidError:
    return RequestInvalidError(
        need=f"{what} of at most {most}", found=str(found), remedy="ask for a size that a checkpoint showed"
    )


def _no_entry(found: str) -> NotFoundError:
    return NotFoundError(
        need="the index of an entry", found=found, remedy="count from 0 up to the newest checkpoint's size"
    )


@router.get("/receipts/{event_id}")
@gives(GradedReceipt, status=(200, 202))
async def receipt(
    call: PartyCall, event_id: str, wait: Literal["signed", "witnessed"] = "signed"
) -> Response:
    """The receipt of an entry, for the organisation that the entry is about, and for operators.

    With ``wait=witnessed`` the one with a quorum of witnesses, if there is one within `WITNESS_RECEIPT_S`;
    else 202 with the grade ``signed``.

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
    shown: dict[str, Json] = {"index": row["idx"], **call.services.receipt_json(row["idx"])}
    if wait == SIGNED:
        return json_response(shown | {"grade": SIGNED})
    graded = await call.services.witnessing.receipt(row["idx"], wait_s=WITNESS_RECEIPT_S)
    shown |= {"proof": graded.receipt.to_text(), "grade": graded.grade}
    return json_response(shown, status=200 if graded.grade == WITNESSED else 202)


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


@router.get("/operator/status")
@gives(Status)
async def status(call: OperatorCall) -> Response:
    """How the broker is: its log, its members, its runs."""
    services = call.services
    head = services.writer.head()
    members: dict[str, int] = {}
    for one in services.directory.members():
        members[one.state] = members.get(one.state, 0) + 1
    with services.store.read() as session:
        runs = [
            one.body for one in services.runs.views.list_for(session, call.operator) if one.body is not None
        ]
        now_ms = services.clock.now_ms()
        proposed = sum(one.at(now_ms) is State.PROPOSED for one in services.acts.proposals.newest(session))
    frozen = services.writer.frozen
    shown: dict[str, Json] = {
        "url": services.settings.public_url,
        "origin": services.settings.origin,
        "broker_key": key_text(services.keys.broker.public),
        "nodes": services.nodes(),
        "log": {"size": head.size, "root": b64(head.root), "frozen": str(frozen) if frozen else None},
        "witnesses": services.witnessing.status(),
        "members": members,
        "runs": {"open": sum(one["outcome"] is None for one in runs), "all": len(runs)},
        "version": version("iriai"),
        "backup": _backup(services),
        "proposals": proposed,
    }
    return json_response(shown)


def _backup(services: Services) -> dict[str, Json]:
    """When the last backup was made, and when one was last restored on trial; null if never."""
    facts = record(services.settings)
    return {
        "last_ms": None if facts.last is None else facts.last.at_ms,
        "tested_ms": None if facts.tested is None else facts.tested.at_ms,
    }
