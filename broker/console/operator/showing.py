# SPDX-License-Identifier: Apache-2.0
"""How runs, contracts, models and places in lists are written on the screens about training.

A link leads where its reader may go: a person of a member gets the name of a contract, not a link to the
operators' screen of it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.console.errors import FormError
from broker.console.screens import Field
from broker.console.values import Code, Digest, Link, Name, Nothing, T, Value
from broker.contracts.errors import NotPartyError
from broker.contracts.lineage import scopes_of
from broker.membership.directory import Operator
from broker.store.tables import run
from policies.log.entries import alias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View
    from policies.contract import Contract

__all__ = [
    "OPERATOR",
    "PAGE",
    "Aliases",
    "contract_choice",
    "contract_link",
    "event_link",
    "index_after",
    "model_link",
    "party_name",
    "place_after",
    "run_link",
]

PAGE: Final = 50
OPERATOR: Final = frozenset({"operator"})
_DIGITS: Final = 15


def run_link(run_id: str) -> Link:
    """A run, by its id."""
    return Link(Code(run_id), f"/console/runs/{run_id}")


def contract_link(view: View, contract: Contract) -> Value:
    """A contract by its title."""
    name = Name(contract.title)
    if isinstance(view.party, Operator):
        return Link(name, f"/console/contracts/{contract.digest}")
    return name


def model_link(digest: str | None) -> Value:
    """A model at the release gate; nothing for none."""
    return Nothing() if digest is None else Link(Digest(digest), f"/console/releases/{digest}")


def event_link(view: View, index: int) -> Value:
    """A decision of the log, for whoever has that screen."""
    if isinstance(view.party, Operator):
        return Link(Code(str(index)), f"/console/decisions/{index}")
    return Code(str(index))


def party_name(contract: Contract, party: str) -> Name:
    """The legal name of a party; its short name where the contract has no such party."""
    found = contract.party(party)
    return Name(party if found is None else found.legal_name)


def contract_choice(view: View, *, chosen: str | None = None) -> Field:
    """A filter: contracts that have runs which the reader may see; all of them, unless one is chosen."""
    services = view.services
    names = view.session.scalars(select(run.c.contract).distinct()).all()
    texts = [services.contracts.read_in(view.session, one) for one in names]
    if not isinstance(view.party, Operator):
        texts = [one for one in texts if _is_of(view, one)]
    titles = sorted((one.title, one.version, one.digest) for one in texts)
    choices = [
        (digest, T("{title}, version {n}", title=Name(title), n=Code(str(n)))) for title, n, digest in titles
    ]
    return Field(
        name="contract",
        label=T("Contract"),
        kind="select",
        value=chosen or view.query.get("contract", ""),
        choices=choices if chosen else [("", T("all")), *choices],
        required=False,
    )


def _is_of(view: View, contract: Contract) -> bool:
    try:
        view.services.contracts.for_caller(contract.digest, view.party)
    except NotPartyError:
        return False
    return True


def index_after(query: Mapping[str, str]) -> int | None:
    """The index in ``after``; None on the first page.

    Raises:
        FormError: Another text.
    """
    text = query.get("after", "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > _DIGITS:
        raise _no_place(text)
    return int(text)


def place_after(query: Mapping[str, str]) -> tuple[int, str] | None:
    """Time and name in ``after``, as ``1790000000000.run_…``; None on the first page.

    Raises:
        FormError: Another text.
    """
    text = query.get("after", "")
    if not text:
        return None
    number, _, name = text.partition(".")
    if not number.isdecimal() or not number.isascii() or len(number) > _DIGITS or not name:
        raise _no_place(text)
    return int(number), name


def _no_place(text: str) -> FormError:
    return FormError(
        need="after as the link to the next page has it", found=ascii(text)[1:-1][:40], remedy="begin again"
    )


@dataclass(frozen=True, slots=True)
class Aliases:
    """Who stands behind the names that the log has of a contract's contributors."""

    names: Mapping[str, str]

    @classmethod
    def of(cls, view: View, contract: Contract, run_id: str | None, number: int | None) -> Aliases:
        """Of a contract, run and round, under every version of the run: those that the reader may know."""
        scopes = (contract.digest,) if run_id is None else scopes_of(view.session, run_id)
        found: dict[str, str] = {}
        for one in contract.contributors:
            with suppress(NotPartyError):
                behind = view.services.contracts.member_of(contract, one.party)
                if isinstance(view.party, Operator) or behind.org == view.party.org:
                    names = [alias(behind.alias_key, scope, run_id, number) for scope in scopes]
                    found |= dict.fromkeys(names, one.party)
        return cls(found)

    def party(self, actor: str) -> str | None:
        """The party of a name of the log; None for somebody else's."""
        return self.names.get(actor)
