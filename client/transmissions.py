# SPDX-License-Identifier: Apache-2.0
"""One transmission of this node in full, and all of them as a file for the owner's own tools.

What a transmission was is told by its digest, its size and the clause that allowed it; the bytes themselves
are kept only where this node signed them (envelopes). The export names every row, oldest first; cells that a
spreadsheet would run are made text.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, plain, short
from client.errors import FileTakenError, NoSuchThingError
from client.settings import write_durably
from policies.ports import iso_s
from policies.verify.tables import cell

if TYPE_CHECKING:
    from pathlib import Path

    from client.outbox import Outbox
    from client.outbox.rows import Sent, Stored

__all__ = ["export", "show"]

_LEAST_DIGITS: Final = 12
_COLUMNS: Final = (
    "at",
    "kind",
    "size_bytes",
    "digest",
    "clause",
    "contract",
    "run",
    "round",
    "attempt",
    "receipts",
)


def show(outbox: Outbox, entry: str) -> Answer:
    """What left under a digest, or with an entry of the log.

    Args:
        outbox: Of the node.
        entry: Index in the log, or a digest of a transmission or of what was signed in it; 12 digits do.

    Raises:
        NoSuchThingError: Nothing of this name left, or several things did.
    """
    stored = outbox.envelopes()
    named = [one for one in stored if _is_meant(one, entry)]
    rows = [one for one in outbox.left.sent(None) if _begins(one.digest, entry) or _holds(one, named)]
    if not rows or len({one.digest for one in rows}) > 1:
        raise NoSuchThingError(
            need=f"index in the log, or {_LEAST_DIGITS} digits of a digest, of one transmission",
            found=f"{plain(entry)[:80]}, of {len(rows) or 'none'}",
            remedy="iriai-node outbox list, or receipt list, shows them",
        )
    sent = rows[0]
    inside = [one for one in stored if _holds(sent, [one])]
    shown = [_envelope(one) for one in inside]
    return Answer(data={**_row(sent), "times": len(rows), "envelopes": shown}, text=_lines(sent, shown))


def _is_meant(one: Stored, entry: str) -> bool:
    return (entry.isdecimal() and one.log_index == int(entry)) or _begins(one.env, entry)


def _begins(digest: str, entry: str) -> bool:
    start = entry.removeprefix("sha256:")
    return len(start) >= _LEAST_DIGITS and digest.removeprefix("sha256:").startswith(start)


def _holds(sent: Sent, stored: list[Stored]) -> bool:
    if sent.first is None or sent.last is None:
        return False
    return any(sent.first <= one.seq <= sent.last for one in stored)


def _row(sent: Sent) -> dict[str, Any]:
    facts = asdict(sent)
    del facts["first"], facts["last"]
    return {"at": iso_s(facts.pop("at_ms")), **facts}


def _envelope(one: Stored) -> dict[str, Any]:
    payload = json.loads(one.envelope.payload)
    grade = "witnessed" if one.witnessed else "signed" if one.receipt else "waiting"
    return {
        "kind": one.kind,
        "digest": one.env,
        "chain": payload.get("chain"),
        "seq": payload.get("seq"),
        "entry": one.log_index,
        "grade": grade,
        "body": payload.get("body"),
    }


def _lines(sent: Sent, envelopes: list[dict[str, Any]]) -> tuple[str, ...]:
    where = " ".join(
        str(one)
        for one in (
            sent.run,
            sent.round and f"round {sent.round}",
            sent.attempt and f"attempt {sent.attempt}",
        )
        if one
    )
    lines = [
        f"left      {iso_s(sent.at_ms)}, {sent.size_bytes} bytes, {sent.kind}",
        f"digest    {sent.digest}",
        f"allowed   by clause {sent.clause or '-'} of {short(sent.contract or '') or 'no contract'}",
    ]
    lines += [f"for       {where}"] if where else []
    for one in envelopes:
        place = "waits for its receipt" if one["entry"] is None else f"entry {one['entry']}, {one['grade']}"
        lines.append(f"signed    {one['kind']}, number {one['seq']} of chain {one['chain']}: {place}")
        lines.append(f"          {json.dumps(one['body'], sort_keys=True, ensure_ascii=False)}")
    return (*lines, *(() if envelopes else ("signed    nothing in it is an entry of the log",)))


def export(outbox: Outbox, out: Path, *, run: str | None = None) -> Answer:
    """Writes every transmission, oldest first, as CSV or as JSON, by the name's ending.

    Raises:
        FileTakenError: The file is there.
        NoSuchThingError: Another ending, or a folder that cannot be written to.
    """
    if out.suffix not in {".csv", ".json"}:
        raise NoSuchThingError(
            need="a name that ends with .csv or .json", found=out.name[:80], remedy="name one"
        )
    if out.exists():
        raise FileTakenError(need=f"no file at {out}", found="one", remedy="name a new file")
    rows = [_row(one) for one in reversed(outbox.left.sent(None, run=run))]
    data = _csv(rows) if out.suffix == ".csv" else json.dumps(rows, indent=1, sort_keys=True) + "\n"
    try:
        write_durably(out, data.encode("utf-8"))
    except OSError as error:
        raise NoSuchThingError(
            need=f"a folder that can be written to: {out.parent}",
            found=error.strerror or type(error).__name__,
            remedy="name another file",
        ) from error
    size = sum(int(one["size_bytes"]) for one in rows)
    return Answer(
        data={"file": str(out), "rows": len(rows), "total_bytes": size},
        text=(f"wrote    {len(rows)} transmissions of {size} bytes in all to {out}",),
    )


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([cell(one[name]) for name in _COLUMNS] for one in rows)
    return text.getvalue()
