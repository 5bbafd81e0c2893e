# SPDX-License-Identifier: Apache-2.0
"""What changes from one text of a contract to another, for this party: what touches it first, words last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer
from client.contract.reading import fetch, latest, resolve
from client.contract.words import word
from client.errors import NoSuchThingError
from policies.contract.amendment.changes import diff, for_party, no_looser_by_order

if TYPE_CHECKING:
    from client.contract.shelf import ContractShelf, Held
    from client.membership import Member
    from policies.contract import Contract
    from policies.contract.amendment.verdict import Verdict

__all__ = ["change_lines", "changes_for", "contract_diff"]


def changes_for(before: Contract, after: Contract, party: str) -> tuple[dict[str, Any], ...]:
    """Every difference of two texts, in the order in which this party should read them."""
    return tuple(one.to_json() for one in for_party(diff(before, after), party))


def change_lines(changes: tuple[dict[str, Any], ...], party: str, lang: str) -> tuple[str, ...]:
    """The differences as lines: what touches this party first, words only last."""
    topics: dict[str, list[str]] = {"touches-you": [], "touches-others": [], "text-changes": []}
    for one in changes:
        near = "touches-you" if party in one["touches"] else "touches-others"
        topic = "text-changes" if one["direction"] == "text" else near
        topics[topic].append(f"  {one['clause']} {word(lang, one['direction'])} {one['words']}")
    found = tuple(line for key, lines in topics.items() if lines for line in (word(lang, key), *lines))
    return found or (word(lang, "no-change"),)


def contract_diff(
    member: Member, shelf: ContractShelf, first: str | None, second: str | None, *, lang: str = "en"
) -> Answer:
    """What changes between two texts; what this party saw last against the open offer, where none is named.

    Args:
        member: Identity and the way to the broker, which may be away if both texts are held here.
        shelf: Contracts of this node.
        first: A digest or its first 12 hex digits.
        second: Another one.
        lang: ``en`` or ``ja``.

    Raises:
        NoSuchThingError: There is nothing to compare with.
    """
    new = fetch(member, shelf, resolve(member, shelf, second) if second else latest(member, shelf))
    old = fetch(member, shelf, resolve(member, shelf, first) if first else _seen_before(shelf, new))
    party = new.party.party
    changes = changes_for(old.contract, new.contract, party)
    verdict = _proof(old.contract, new.contract)
    witnesses = _witnesses(verdict)
    by_order = no_looser_by_order(old.contract, new.contract)
    no_looser = by_order if verdict is None else verdict.no_looser
    looser = [f"{one['clause']} {one['field']}".rstrip() for one in changes if one["direction"] == "looser"]
    proven = (word(lang, "proven", fields=", ".join(looser)),) if no_looser and looser else ()
    shelf.mark_shown(new.contract)
    head = word(lang, "diff", before=old.contract.digest, after=new.contract.digest)
    shown = tuple(f"  {clause} " + word(lang, "witness", words=words) for clause, words in witnesses)
    return Answer(
        data={
            "before": old.contract.digest,
            "after": new.contract.digest,
            "party": party,
            "no_looser": no_looser,
            "changes": list(changes),
            "witnesses": [{"clause": clause, "words": words} for clause, words in witnesses],
        },
        text=(head, *change_lines(changes, party, lang), *shown, *proven),
    )


def _proof(before: Contract, after: Contract) -> Verdict | None:
    """What the prover finds where the order of the terms does not tell; None without one, or without need."""
    from policies.contract.amendment import prove, proves

    return prove(before, after) if proves() and not no_looser_by_order(before, after) else None


def _witnesses(verdict: Verdict | None) -> tuple[tuple[str, str], ...]:
    """Clause and words of each request that only the second text allows; none without the prover."""
    objections = () if verdict is None else verdict.objections
    return tuple(
        (one.clause, one.words.removeprefix("witness: ")) for one in objections if one.why == "witness"
    )


def _seen_before(shelf: ContractShelf, new: Held) -> str:
    """The text that a person was shown last before this one, else the version that rules before it.

    Raises:
        NoSuchThingError: There is none.
    """
    contract = new.contract
    shown = [one for one in shelf.shown(contract.contract_id) if one != contract.digest]
    if shown:
        return shown[-1]
    ruling = shelf.in_force(contract.contract_id)
    if contract.supersedes is not None:
        return contract.supersedes
    if ruling is not None and ruling.contract.digest != contract.digest:
        return ruling.contract.digest
    raise NoSuchThingError(
        need="another text of this contract that was seen here",
        found="none: this is the first",
        remedy="iriai-node contract show, or name two digests",
    )
