# SPDX-License-Identifier: Apache-2.0
"""Candidates at the release gate, and this owner's word about them: approve, or veto by a clause."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from client.answers import Answer, ranges, short, table
from client.errors import NoSuchThingError, ReceiptFileError, RemoteRefusalError
from client.ledgers import ROWS
from client.receipts import LogView, fetch_consistency, fetch_receipt
from policies.encoding import digest
from policies.log.proofs import parse_receipt
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from client.outbox.rows import Stored
    from policies.log.vkeys import VerifierKey

_MANY = 10_000
__all__ = [
    "receipts_export",
    "receipts_fetch",
    "receipts_list",
    "receipts_missing",
    "receipts_verify",
    "release_list",
    "vote",
    "vote_preview",
]


def _candidates(member: Member) -> list[dict[str, Any]]:
    answer = member.client.get("/candidates")
    rows = answer.get("candidates", []) if isinstance(answer, dict) else answer
    return [one for one in rows if isinstance(one, dict)]


def release_list(member: Member) -> Answer:
    """What waits, or waited, at the release gate, and this node's own vote."""
    rows = _candidates(member)
    lines = table(
        ("candidate", "state", "own vote", "votes", "held back by", "run"),
        [
            (
                one["candidate"],
                one["state"],
                one.get("own_vote") or "none",
                one.get("voted", ""),
                _held_back(one),
                one["run"],
            )
            for one in rows
        ],
    )
    if not rows:
        lines = ("no candidate yet: a run makes one when its rounds are over",)
    return Answer(data={"candidates": rows}, text=lines)


def _held_back(one: dict[str, Any]) -> str:
    """Clauses that refused a candidate, or that it waits for, and when the clock may open the gate."""
    waits = sorted({str(found["clause"]) for found in one.get("waits_for") or ()})
    until = one.get("opens_ms")
    shown = " ".join(str(clause) for clause in one.get("refused_by") or waits) or "-"
    return f"{shown} until {iso_s(until)}" if isinstance(until, int) else shown


def _candidate(member: Member, candidate: str) -> dict[str, Any]:
    """What the broker says about a candidate.

    Raises:
        NoSuchThingError: It knows none of this digest.
    """
    row = next((one for one in _candidates(member) if one["candidate"] == candidate), None)
    if row is None:
        raise NoSuchThingError(
            need="a candidate", found=short(candidate), remedy="iriai-node release list shows them"
        )
    return row


def vote_preview(member: Member, candidate: str, *, verdict: str) -> Answer:
    """What a vote would be about; nothing is signed.

    Raises:
        NoSuchThingError: No such candidate.
    """
    row = _candidate(member, candidate)
    own = row.get("own_vote") or "none"
    return Answer(
        data={"dry_run": True, "candidate": row, "vote": verdict},
        text=(
            f"candidate  {candidate}, {row['state']}; votes {row.get('voted', '')}",
            f"vote       {verdict}, in the place of: {own}; nothing was signed",
        ),
    )


def vote(
    member: Member,
    shelf: ContractShelf,
    outbox: Outbox,
    candidate: str,
    *,
    verdict: str,
    clause: str | None = None,
) -> Answer:
    """Signs a vote and sends it; the last one of an organisation counts until the candidate is decided.

    Args:
        member: Identity and the way to the broker.
        shelf: Contracts of this node.
        outbox: Numbers and keeps the envelope.
        candidate: Digest.
        verdict: ``approve`` or ``veto``.
        clause: Clause in whose name a veto is made; it must be one of the contract's.

    Raises:
        NoSuchThingError: No such candidate, or no such clause.
        RemoteRefusalError: The candidate is decided already; the vote is on record and changes nothing.
    """
    row = _candidate(member, candidate)
    held = shelf.get(row["contract"])
    if clause is not None and held.contract.clause(clause) is None:
        raise NoSuchThingError(
            need="a clause of the contract", found=clause[:60], remedy="iriai-node contract show"
        )
    body = {"subject": candidate, "vote": verdict, "clause": clause}
    with outbox.writing() as letters:
        envelope = letters.seal("vote.cast", body=body, scope=row["contract"], run=row["run"])
        letters.note(
            kind="vote.cast",
            size_bytes=len(envelope.to_bytes()),
            digest=digest(envelope.payload),
            clause=clause or held.contract.release.clause,
            contract=row["contract"],
            run=row["run"],
        )
    answer = member.client.post(
        f"/candidates/{candidate}/votes",
        {"envelope": envelope.to_json()},
        idempotency_key=f"vote-{digest(envelope.payload)[7:47]}",
    )
    collected = receipts_fetch(member, outbox).data["receipted"]
    return Answer(
        data={**(answer if isinstance(answer, dict) else {}), "receipted": collected},
        text=(f"vote       {verdict} {candidate}", f"receipts   {collected} new"),
    )


def receipts_missing(outbox: Outbox) -> Answer:
    """Which receipts `receipts_fetch` would ask for; nobody is asked."""
    missing = [one.event_id for one in outbox.pending(limit=_MANY)]
    words = f"receipts   {len(missing)} would be asked for; nothing was changed"
    return Answer(data={"dry_run": True, "missing": missing}, text=(words,))


def receipts_fetch(member: Member, outbox: Outbox) -> Answer:
    """Fetches and checks the receipts that are missing.

    Raises:
        EquivocationError: The log shows two histories; the node is stopped.
    """
    view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
    found, missing = 0, []
    for one in outbox.pending(limit=_MANY):
        try:
            receipt = fetch_receipt(member.client, one.event_id)
        except RemoteRefusalError:
            missing.append(one.event_id)
            continue
        found += view.news(None, [receipt]).receipted
    return Answer(
        data={"receipted": found, "missing": missing, "seen": outbox.shown.seen().size},
        text=(
            f"receipts   {found} new, {len(missing)} missing",
            f"log        seen up to size {outbox.shown.seen().size}",
        ),
    )


def receipts_verify(
    member: Member | None, outbox: Outbox, log_keys: str | Callable[[], Sequence[VerifierKey]]
) -> Answer:
    """Checks every stored receipt again, and that the current head extends what was seen.

    Raises:
        EquivocationError: The log shows two histories; the evidence is in the answer's own error and in the
            outbox.
        ReceiptError: A stored receipt does not prove its entry.
    """
    evidence = [
        {"at_ms": at_ms, "reason": reason, **json.loads(text)} for at_ms, reason, text in outbox.evidence()
    ]
    if evidence:
        return Answer(
            data={"evidence": evidence},
            text=tuple(f"STOPPED    {one['reason']}" for one in evidence),
            exit_code=7,
        )
    fetch = fetch_consistency(member.client) if member is not None else None
    view = LogView(outbox, log_keys, fetch=fetch)
    stored = outbox.envelopes()
    proven = [json.loads(one.receipt) for one in stored if one.receipt is not None]
    vouched = [json.loads(one.witnessed) for one in stored if one.witnessed is not None]
    for one in (*proven, *vouched):
        view.news(None, [one])
    head = view.advance()
    return Answer(
        data={
            "envelopes": len(stored),
            "receipts": len(proven),
            "witnessed": len(vouched),
            "size": head.size,
            "root": head.root.hex(),
            "note": head.note,
            "asked_broker": member is not None,
        },
        text=(
            f"receipts   {len(proven)} of {len(stored)} envelopes, each proves its entry",
            f"witnessed  {len(vouched)} of them",
            f"log        complete up to size {head.size} for what this node sent",
        ),
    )


def receipts_list(outbox: Outbox, *, every: bool = False) -> Answer:
    """Envelopes with their entries, grades and checkpoints; those that differ only in round in one line.

    Args:
        outbox: Of the node.
        every: Also those that are older than the newest `ROWS`.
    """
    stored = outbox.envelopes()
    newest = stored if every else stored[-ROWS:]
    names = ("index", "kind", "run", "round", "grade", "checkpoint")
    rows = [
        (one.log_index, one.kind, one.run or "", one.round or "", _grade(one), _checkpoint_size(one))
        for one in newest
    ]
    groups: dict[tuple[str, str, str], list[Stored]] = {}
    for one in newest:
        groups.setdefault((one.kind, one.run or "-", _grade(one)), []).append(one)
    lines = table(
        ("newest entry", "times", "kind", "run", "rounds", "grade", "checkpoint"),
        [_folded(alike, *key) for key, alike in groups.items()],
    )
    cut = () if len(newest) == len(stored) else (f"{len(newest)} of {len(stored)} shown; --all for the rest",)
    return Answer(
        data={"receipts": [dict(zip(names, row, strict=True)) for row in rows], "total": len(stored)},
        text=(*lines, *cut),
    )


def _folded(alike: list[Stored], kind: str, run: str, grade: str) -> tuple[object, ...]:
    newest = alike[-1]
    rounds = ranges(sorted({one.round for one in alike if one.round is not None}))
    size, index = _checkpoint_size(newest), newest.log_index
    return (
        "-" if index is None else index,
        len(alike),
        kind,
        run,
        rounds or "-",
        grade,
        "-" if size is None else size,
    )


def _grade(one: Stored) -> str:
    if one.witnessed is not None:
        return "witnessed"
    return "waiting" if one.receipt is None else "signed"


def _best(one: Stored) -> str | None:
    """Text of the proof of the best grade that there is."""
    kept = one.witnessed or one.receipt
    return None if kept is None else str(json.loads(kept)["proof"])


def _checkpoint_size(one: Stored) -> int | None:
    text = _best(one)
    return None if text is None else parse_receipt(text).checkpoint.size


def receipts_export(outbox: Outbox, out: Path) -> Answer:
    """Writes every receipt of this node as a file of the form that an auditor's verifier reads.

    The one with witnesses, where there is one; it takes the place of a file of grade signed.

    Args:
        outbox: Holds the receipts.
        out: Folder, made if missing; each file is named after its entry, ``<index>.tlog-proof``.

    Raises:
        ReceiptFileError: The folder cannot be written to, or holds another receipt of the same entry.
    """
    stored = outbox.envelopes()
    found = {one.log_index: one for one in stored if one.receipt is not None}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for index, one in found.items():
            _keep_receipt(out / f"{index}.tlog-proof", one)
    except OSError as error:
        raise ReceiptFileError(
            need=f"a folder that can be written to: {out}",
            found=error.strerror or type(error).__name__,
            remedy="name another folder",
        ) from error
    without = len(stored) - len(found)
    lines = [f"receipts   {len(found)} in {out}"]
    if without:
        lines.append(
            f"next: iriai-node receipt fetch, then export again: {without} envelopes have no receipt yet"
        )
    vouched = sum(1 for one in found.values() if one.witnessed is not None)
    return Answer(
        data={"dir": str(out), "exported": len(found), "witnessed": vouched, "without_receipt": without},
        text=tuple(lines),
    )


def _keep_receipt(path: Path, one: Stored) -> None:
    data = (_best(one) or "").encode("utf-8")
    before = str(json.loads(one.receipt or "{}").get("proof", "")).encode("utf-8")
    if path.exists() and path.read_bytes() not in (data, before):
        raise ReceiptFileError(
            need="no file, or the same receipt", found=f"another one at {path}", remedy="name an empty folder"
        )
    path.write_bytes(data)
