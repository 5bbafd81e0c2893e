# SPDX-License-Identifier: Apache-2.0
"""What the commands about offered contracts do: offer one, see who is waited for, end its round.

- A list tells of each open negotiation its round and every lane: party, state, text, deadline.
- A withdrawal ends the round for all. What is final stays final, and the command says so.
- A digest may be shortened to 12 hex digits where one contract begins so (`broker.commands.contract_names`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, short, table
from broker.commands.contract_files import check_language, read_text, word_lines
from broker.commands.contract_names import whole_digest
from broker.errors import UsageError
from policies.contract import parse
from policies.encoding import b64, canonical
from policies.limits import BODY_BYTES_JSON, OFFER_BODY_BYTES
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.commands import Where
    from broker.remote import OperatorClient

__all__ = ["contract_list", "contract_offer", "contract_show", "contract_withdraw"]

_FAILED: Final = 3
_OPEN: Final = "offered"
_ENDED: Final = "terminated"
_FINAL: Final = "finalized"
_NEGOTIATION: Final = re.compile(r"neg_[a-z2-7]{16}", re.ASCII)
_LANE_HEAD: Final = ("LANE", "STATE", "DIGEST", "UNTIL")


def contract_offer(
    where: Where,
    file: Path,
    recipes: Sequence[Path],
    *,
    annexes: Sequence[Path] = (),
    prose: Path | None = None,
) -> Result:
    """Offers a contract with its recipes, what they start from, and its text for people, to its parties.

    Raises:
        UsageError: A file cannot be read, or all together are too large to go along.
    """
    body: dict[str, Any] = {
        "contract": read_text(file),
        "recipes": [b64(_bytes(one)) for one in recipes],
        "annexes": [b64(_bytes(one)) for one in annexes],
    }
    if prose is not None:
        body["prose"] = b64(_bytes(prose))
        if len(body["prose"]) > BODY_BYTES_JSON:
            raise UsageError(
                need=f"a text for people of at most {BODY_BYTES_JSON} bytes, in base64",
                found=f"{len(body['prose'])}, {prose.name}",
                remedy="offer without --prose and hand the file over by another way: its hash is bound",
            )
    size = len(canonical(body))
    if size > OFFER_BODY_BYTES:
        raise UsageError(
            need=f"an offer of at most {OFFER_BODY_BYTES} bytes",
            found=f"{size}",
            remedy="take fewer episodes into the seed sets, or offer without --prose",
        )
    with where.client() as client:
        done = client.post("/operator/contracts", body)
    return Result(
        data=done,
        text=(
            f"offered      {plain(done['digest'])}",
            f"negotiation  {plain(done['negotiation'] or 'none')}",
            f"waiting for  {_names(done['waiting_for'])}",
            f"sign by      {plain(done['sign_by'])}",
            *_second_person(done),
        ),
        plain_output=str(done["digest"]),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            need=f"the file {path}", found=type(error).__name__, remedy="check its name"
        ) from error


def contract_list(where: Where) -> Result:
    """Lists contracts, and below them the lanes of each open negotiation."""
    with where.client() as client:
        listed = client.get("/contracts")["contracts"]
    rows = [
        (
            one["digest"],
            one["state"],
            one["standing"],
            one["round"] or "-",
            one["title"],
            one["version"],
            " ".join(one["waiting_for"]) or "-",
        )
        for one in listed
    ]
    head = ("DIGEST", "STATE", "STANDING", "ROUND", "TITLE", "VERSION", "WAITING FOR")
    empty = "none yet; iriai-broker contract offer FILE --recipe FILE --key FILE"
    lanes = [line for one in listed if one["state"] == _OPEN for line in ("", *_negotiation_lines(one))]
    return Result(data={"contracts": listed}, text=(*table(head, rows, empty=empty), *lanes))


def contract_show(where: Where, name: str, *, lang: str = "en") -> Result:
    """Shows a contract in plain words, where it stands, and every lane of its negotiation.

    Raises:
        UsageError: No such name, or the broker gave another contract.
    """
    check_language(lang)
    with where.client() as client:
        digest = whole_digest(client, name)
        data = client.get_bytes(f"/contracts/{digest}")
        row = _row(client, digest)
        ended = row is not None and row["state"] == _ENDED and row["negotiation"] is not None
        closed = client.get(f"/negotiations/{row['negotiation']}")["closed"] if row and ended else None
    contract = parse(data)
    if contract.digest != digest:
        raise UsageError(need=f"the contract {digest}", found=contract.digest, remedy="look at the broker")
    text = (*_head(digest, row), *_why(closed), "", *word_lines(contract, lang))
    return Result(data={**(row or {}), "closed": closed, "document": contract.document}, text=text)


def contract_withdraw(
    where: Where, name: str, *, reason: str, clause: str | None = None, text: str | None = None
) -> Result:
    """Ends the round of a negotiation for all; exit code 3 if it has become a contract.

    Raises:
        UsageError: Nobody negotiates what was named.
    """
    with where.client() as client:
        negotiation = name if _NEGOTIATION.fullmatch(name) else _negotiation_of(client, name)
        body = {"code": reason, "clause": clause, "text": text}
        done = client.post(f"/operator/negotiations/{negotiation}/terminate", body)
    final = done["state"] == _FINAL
    after = "it is final, nothing was withdrawn; next: iriai-broker contract halt, or a successor"
    return Result(
        data=done,
        text=(
            f"negotiation  {plain(done['id'])}, round {done['round']}: {plain(done['state'])}",
            f"text         {plain(done['digest'])}",
            *((after,) if final else _why(done["closed"])),
        ),
        exit_code=_FAILED if final else 0,
    )


# --- who is waited for ---


def _row(client: OperatorClient, digest: str) -> dict[str, Any] | None:
    listed: list[dict[str, Any]] = client.get("/contracts")["contracts"]
    return next((one for one in listed if one["digest"] == digest), None)


def _negotiation_of(client: OperatorClient, name: str) -> str:
    digest = whole_digest(client, name)
    row = _row(client, digest)
    if row is None or row["negotiation"] is None:
        raise UsageError(
            need=f"a negotiation whose text is {digest}",
            found="none: a counter-offer replaced it, or it was never offered",
            remedy="iriai-broker contract list shows the open text",
        )
    return str(row["negotiation"])


def _names(parties: Sequence[object]) -> str:
    return plain(", ".join(str(one) for one in parties)) or "nobody"


def _second_person(row: Mapping[str, Any]) -> tuple[str, ...]:
    """That the text becomes final only with the word of the broker's second person, and how that is said."""
    if row.get("approved") is not False or row["state"] != _OPEN:
        return ()
    name = row.get("proposal")
    if name is None:
        return ("approved     not by the broker's second person; next: offer it again, then approve it",)
    return (
        "approved     not yet by the broker's second person; it is not final without. Another operator:",
        f"             iriai-broker proposal approve {plain(name)} --key FILE",
    )


def _head(digest: str, row: Mapping[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (f"{digest}  replaced by a counter-offer",)
    return (
        f"{digest}  {plain(row['state'])}",
        f"standing     {plain(row['standing'])}",
        f"signed       {_names(row['signed'])}",
        f"waiting for  {_names(row['waiting_for'])}",
        f"sign by      {plain(row['sign_by'])}",
        *_second_person(row),
        *(() if row["negotiation"] is None else ("", *_negotiation_lines(row))),
    )


def _negotiation_lines(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One negotiation: its round, and its lanes."""
    lanes = [
        (
            one["party"],
            one["state"],
            short(one["digest"]),
            "-" if one["deadline_ms"] is None else iso_s(one["deadline_ms"]),
        )
        for one in row["every_lane"]
    ]
    return (
        f"{short(plain(row['digest']))}: round {row['round']} of {plain(row['negotiation'])}, waiting for "
        + _names(row["waiting_for"]),
        *_second_person(row),
        *table(_LANE_HEAD, lanes, empty="no lane"),
    )


def _why(closed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Why a round ended, and by whom."""
    if closed is None:
        return ()
    clause = f" [{plain(closed['clause'])}]" if closed["clause"] else ""
    text = f": {plain(closed['text'])}" if closed["text"] else ""
    who = plain(closed["party"] or "the broker")
    return (f"ended        by {who}, {plain(closed['code'])}{clause}{text}",)
