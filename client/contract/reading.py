# SPDX-License-Identifier: Apache-2.0
"""The contracts that this node knows: fetched, listed, and found by digest.

- Whatever is fetched is checked by digest and signature before it is stored; local files decide
  (`client.contract.shelf`).
- What the broker says about states and lanes is shown as its word, and left out while it is away.

Whether one may be signed is in `client.contract.signable`; how one is negotiated, in
`client.contract.negotiating`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer, short, table
from client.contract.notices import Notices
from client.contract.shelf import ContractShelf, Held, check_digest, check_prose
from client.contract.starts import fetch_missing
from client.contract.succession import check_effect, predecessor
from client.errors import (
    NoSuchThingError,
    NoticesUnknownError,
    PeerAnswerError,
    PeerUnreachableError,
    RemoteRefusalError,
)
from client.naming import is_abbreviation, whole
from policies.contract import parse
from policies.contract.errors import NotExecutedError, ProofMissingError, RefusedError
from policies.contract.lifecycle import OFFERED, standing
from policies.contract.negotiation.pool import LaneState
from policies.encoding import is_digest
from policies.errors import IriaiError
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.membership import Member
    from policies.contract import Contract, ContractState
    from policies.contract.lifecycle import Life

__all__ = [
    "NOT_YET",
    "broker_rows",
    "contract_list",
    "fetch",
    "fetch_envelope",
    "known_of",
    "latest",
    "latest_signed",
    "resolve",
    "signed",
    "standing_of",
]

# Why a contract is not executed yet; a broker that is away is asked again.
NOT_YET: Final = (RemoteRefusalError, RefusedError, ProofMissingError, PeerUnreachableError)
_BEFORE_ITS_TERM: Final = (None, OFFERED)
_LIST: Final = "iriai-node contract list"
# Lanes in which this node's signature is still to come.
_UNSIGNED: Final = frozenset(
    {LaneState.REQUESTED, LaneState.OFFERED, LaneState.ACCEPTED, LaneState.AGREED}
)  # a row holds their words, which compare as they do


def fetch(member: Member, shelf: ContractShelf, contract: str) -> Held:
    """The contract with its recipes and what they start from, its text for people and its signatures.

    What is missing here is fetched.

    Raises:
        RemoteRefusalError: The broker has no such contract of which this node is a party.
        DigestMismatchError: Bytes differ from a digest; nothing was stored.
    """
    try:
        held = shelf.get(contract)
    except NoSuchThingError:
        if not is_digest(contract):
            raise
        held = _fetch_new(member, shelf, contract)
    fetch_missing(member, shelf, held.contract)
    if not held.is_executed:
        with contextlib.suppress(*NOT_YET):
            held = fetch_envelope(member, shelf, contract)
    return held


def _fetch_new(member: Member, shelf: ContractShelf, contract: str) -> Held:
    """1. bytes of the digest; 2. a contract; 3. of this node; 4. each recipe; 5. the text, if there."""
    parsed = parse(check_digest(member.client.get_bytes(f"/contracts/{contract}"), contract))
    shelf.own_party(parsed)
    annexes = {
        one.recipe_digest: check_digest(
            member.client.get_bytes(f"/contracts/{contract}/annexes/{one.recipe_digest}"),
            one.recipe_digest,
        )
        for one in parsed.recipes
    }
    prose = _fetch_prose(member, parsed)
    held = shelf.put(parsed, annexes)
    if prose is not None:
        shelf.put_prose(parsed, prose)
    return held


def _fetch_prose(member: Member, contract: Contract) -> bytes | None:
    """The text for people; ``None`` if the broker was not given it, because it travels another way."""
    if contract.prose is None:
        return None
    try:
        return check_prose(contract.prose, member.client.get_bytes(f"/contracts/{contract.digest}/prose"))
    except RemoteRefusalError:
        return None


def fetch_envelope(member: Member, shelf: ContractShelf, contract: str) -> Held:
    """The contract with its signatures, fetched and verified under the keys pinned in the contract.

    A successor is taken only if the contract that it follows lets it take effect
    (`client.contract.succession`).

    Raises:
        NotExecutedError: Somebody has still to sign.
        RefusedError: The contract that rules does not let it in; the clause is named.
        ProofMissingError: It is a tightening that nobody can check here.
    """
    envelope = Envelope.from_bytes(member.client.get_bytes(f"/contracts/{contract}/envelope"))
    held = shelf.get(contract)
    ruling = predecessor(shelf, held.contract)
    if ruling is not None and not held.is_executed:
        state, life = known_of(member, shelf, ruling)
        check_effect(ruling.contract, held.contract, envelope, state, life)
    return shelf.put_envelope(contract, envelope)


def known_of(member: Member, shelf: ContractShelf, held: Held) -> tuple[ContractState, Life]:
    """State and life of an executed contract, by this node's own files."""
    notices, now = Notices(shelf), iso_s(member.clock.now_ms())
    return notices.state(held, now), notices.life(held, now)


def broker_rows(member: Member) -> list[dict[str, Any]]:
    """What the broker says about this node's contracts, oldest first.

    Raises:
        PeerAnswerError: Another form.
        PeerUnreachableError: Nothing answered.
    """
    answer = member.client.get("/contracts")
    rows = answer.get("contracts") if isinstance(answer, dict) else answer
    if not isinstance(rows, list) or not all(isinstance(one, dict) and "digest" in one for one in rows):
        raise PeerAnswerError(need="a list of contracts", found="another form", remedy="check both versions")
    return rows


def contract_list(member: Member, shelf: ContractShelf) -> Answer:
    """This node's contracts: state, standing, lane, deadline, and who is waited for.

    While the broker is away, what is held here is listed, and the broker's words are left out.
    """
    try:
        rows, away = broker_rows(member), False
    except PeerUnreachableError:
        rows, away = [_own_row(shelf, shelf.get(one), member.clock.now_ms()) for one in shelf.digests()], True
    rows = [_termed(shelf, one) for one in rows]
    lines = table(
        ("digest", "v", "state", "standing", "lane", "until", "waiting for", "title"),
        [_columns(one) for one in rows],
    )
    if not rows:
        lines = ("no contract yet: the operator offers one (iriai-broker contract offer)",)
    note = ("the broker is away: this is what is held here",) if away else ()
    return Answer(data={"contracts": rows, "broker_away": away}, text=(*lines, *_to_sign(rows), *note))


def _termed(shelf: ContractShelf, row: dict[str, Any]) -> dict[str, Any]:
    """A row with begin and end of the contract, where its text is here."""
    try:
        term = shelf.get(str(row["digest"])).contract.term
    except IriaiError:  # not fetched yet, or damaged: the row says what the broker said
        return row
    return {**row, "effective": term.effective, "expires": term.expires}


def _to_sign(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The whole digest of each text that this node has not signed yet, to be named and compared."""
    open_ones = [one for one in rows if _lane_of(one) in _UNSIGNED]
    if not open_ones:
        return ()
    return ("waits for your signature:", *(f"  {one['digest']}  {one.get('title', '')}" for one in open_ones))


def _lane_of(row: dict[str, Any]) -> str | None:
    lane = row.get("lane")
    return str(lane.get("state")) if isinstance(lane, dict) else None


def _columns(row: dict[str, Any]) -> tuple[object, ...]:
    lane = row.get("lane") or {}
    deadline = lane.get("deadline_ms") if isinstance(lane, dict) else None
    state = lane.get("state") if isinstance(lane, dict) else None
    until = iso_s(deadline) if isinstance(deadline, int) else row.get("sign_by", "-")
    if row.get("standing") not in _BEFORE_ITS_TERM:  # signing is over; what counts is when it ends
        until = row.get("expires", until)
    return (
        short(str(row["digest"])),
        row.get("version", "-"),
        row.get("state", "-"),
        row.get("standing") or "-",
        state or "-",
        until,
        _waited(row),
        row.get("title", ""),
    )


def _waited(row: dict[str, Any]) -> str:
    """Who has something to say; of the broker, that its second person has not approved the signed text."""
    names = ", ".join(row.get("waiting_for") or ()) or "nobody"
    lanes = row.get("lanes") or {}
    held = row.get("approved") is False and lanes and set(lanes.values()) == {"VERIFIED"}
    return f"{names}, whose second person has not approved" if held else names


def _own_row(shelf: ContractShelf, held: Held, now_ms: int) -> dict[str, Any]:
    """A row from local files alone."""
    return {
        "digest": held.contract.digest,
        "contract_id": held.contract.contract_id,
        "version": held.contract.version,
        "title": held.contract.title,
        "state": "finalized" if held.is_executed else "offered",
        "standing": standing_of(shelf, held, now_ms),
        "sign_by": held.contract.sign_by,
        "party": held.party.party,
        "waiting_for": [],
        "lane": None,
    }


def standing_of(shelf: ContractShelf, held: Held, now_ms: int) -> str:
    """Where a contract stands by what is on this node; ``UNKNOWN`` where its notices cannot be read."""
    now = iso_s(now_ms)
    try:
        return standing(held.contract, Notices(shelf).life(held, now), now)
    except NoticesUnknownError:
        return "UNKNOWN"


def latest(member: Member, shelf: ContractShelf) -> str:
    """Digest of the one contract to show where none is named; from local files while the broker is away.

    Raises:
        NoSuchThingError: There is none.
    """
    known = [shelf.get(one) for one in shelf.digests()]
    try:
        rows = broker_rows(member)
    except PeerUnreachableError:
        rows = []
    if rows:
        return str(rows[-1]["digest"])
    if not known:
        raise NoSuchThingError(need="a contract", found="none", remedy="wait until the operator offers one")
    return max(known, key=lambda one: (one.is_executed, one.contract.version)).contract.digest


def latest_signed(member: Member, shelf: ContractShelf) -> str:
    """Digest of the newest contract that everybody signed, this node too; a draft never counts.

    The broker's word on which are final only says where to look: signatures are verified here.

    Raises:
        NoSuchThingError: There is none.
    """
    here = [shelf.get(one) for one in shelf.digests()]
    final = [
        one.contract.digest for one in sorted(here, key=lambda one: one.contract.version) if one.is_executed
    ]
    with contextlib.suppress(PeerUnreachableError):
        rows = [str(one["digest"]) for one in broker_rows(member) if one.get("state") != "offered"]
        final = [*(one for one in final if one not in rows), *rows]
    for name in reversed(final):
        with contextlib.suppress(*NOT_YET, NoSuchThingError):
            if fetch(member, shelf, name).is_executed:
                return name
    raise NoSuchThingError(
        need="a contract that everybody signed, this node too",
        found="drafts alone, or none",
        remedy="iriai-node contract sign DIGEST; until it is final, data add stores with --no-contract",
    )


def signed(member: Member, shelf: ContractShelf, contract: str | None) -> Held:
    """The contract under which data are given or described: the named one, or the newest that is signed.

    Raises:
        NotExecutedError: The named one is a draft, by which nobody is bound.
        NoSuchThingError: None is named, and none is signed.
    """
    held = fetch(member, shelf, contract or latest_signed(member, shelf))
    if not held.is_executed:
        raise NotExecutedError(
            need="a contract that everybody signed, this node too",
            found=f"{short(held.contract.digest)}, a draft: nobody is bound by what it says about your data",
            remedy=f"iriai-node contract sign {short(held.contract.digest)}, then repeat this once it is"
            " final; until then, data add stores with --no-contract",
        )
    return held


def resolve(member: Member, shelf: ContractShelf, name: str) -> str:
    """The whole digest behind its first 12 or more hex digits.

    Raises:
        NoSuchThingError: No contract here or at the broker begins so, or several do.
    """
    if is_digest(name) or not is_abbreviation(name):
        return whole(name, (), what="contract", remedy=_LIST)
    known = set(shelf.digests())
    with contextlib.suppress(PeerUnreachableError):
        known |= {str(one["digest"]) for one in broker_rows(member)}
    return whole(name, known, what="contract", remedy=_LIST)
