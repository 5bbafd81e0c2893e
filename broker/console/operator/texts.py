# SPDX-License-Identifier: Apache-2.0
"""Which contracts a person may see, where each stands, and who is waited for: for every screen about texts.

A person of a member sees the contracts that its organisation is a party of, by the same functions as its
node does by API; for everything else there is "no such contract". Operators and approvers see all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.console.values import Link, Name, State, T, Value
from broker.contracts.errors import NotPartyError
from broker.contracts.rows import row_of
from broker.contracts.service import COUNTERED
from broker.store.tables import contract_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from broker.console.viewing import View
    from policies.contract import Contract

__all__ = ["PARTIES", "contract_rows", "link_to", "names_of", "spoken_in", "stands", "whole_digest"]

PARTIES: Final = frozenset({"operator", "approver", "member"})
"""Who may see contracts at all; what of them, `Sees.OWN` says."""
_SHORTEST: Final = 12


def contract_rows(
    view: View, *, after: str = "", of: str | None = None
) -> Iterator[tuple[Contract, dict[str, Any]]]:
    """Contracts that the caller may see, the newest first, each with its line (`broker.contracts.rows`).

    Args:
        view: Whose.
        after: Digest of the one to go on after; empty from the start.
        of: Id of the contract whose texts are meant, or None for all.
    """
    table = contract_document
    query = select(table.c.digest).where(table.c.state != COUNTERED)
    if of is not None:
        query = query.where(table.c.contract_id == of)
    names = view.session.scalars(query.order_by(table.c.at_ms.desc(), table.c.digest)).all()
    begin = names.index(after) + 1 if after in names else 0
    for name in names[begin:]:
        contract = view.services.contracts.read_in(view.session, name)
        try:
            yield contract, row_of(view.session, view.services.contracts, contract, view.party)
        except NotPartyError:
            continue


def stands(row: Mapping[str, Any]) -> State:
    """Where a contract stands, as one word of `broker.console.states`."""
    if row["state"] == "void":
        return State("no-effect")
    if row["state"] == "finalized":
        return State(str(row["standing"]).lower())
    if row["state"] == "signed" or (row["state"] == "offered" and not row["approved"] and _held(row)):
        return State("signed")
    return State(str(row["state"]))


def _held(row: Mapping[str, Any]) -> bool:
    """Whether every lane is through, and only the broker's second person is missing."""
    return bool(row["lanes"]) and set(row["lanes"].values()) == {"VERIFIED"}


def link_to(contract: Contract) -> Link:
    """A contract by its title."""
    return Link(Name(contract.title), f"/console/contracts/{contract.digest}")


def names_of(parties: Iterable[str], view: View) -> Value:
    """Short names of parties, one's own told as such."""
    listed = list(parties)
    if not listed:
        return T("nobody")
    return Name(("、" if view.lang == "ja" and not view.query.get("format") else ", ").join(listed))


def spoken_in(view: View) -> str:
    """Language of sentences that exist in both: the reader's on a page, English for programs."""
    return view.lang if view.query.get("format", "html") == "html" else "en"


def whole_digest(view: View, name: str) -> str:
    """The digest that begins like this, among the contracts that the caller may see.

    Raises:
        NotPartyError: None, or several.
    """
    wanted = name if name.startswith("sha256:") else f"sha256:{name}"
    if len(wanted) >= len("sha256:") + _SHORTEST:
        pattern = contract_document.c.digest.startswith(wanted, autoescape=True)
        found = view.session.scalars(select(contract_document.c.digest).where(pattern).limit(2)).all()
        if len(found) == 1:
            return view.services.contracts.for_caller(found[0], view.party).digest
    raise NotPartyError(
        need="the digest of a contract that is yours, or its first 12 hex digits",
        found=ascii(name)[1:-1][:80],
        remedy="copy it from the list of contracts",
    )
