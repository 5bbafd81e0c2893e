# SPDX-License-Identifier: Apache-2.0
"""Contracts: what was agreed, and where each stands.

A person of a member sees the contracts that its organisation is a party of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.console.operator.texts import PARTIES, contract_rows, link_to, names_of, stands
from broker.console.screens import Column, Field, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Code,
    Count,
    Digest,
    T,
    Value,
    When,
)
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.viewing import View
    from policies.contract import Contract

__all__ = ["room"]

room = Room("contracts")
PAGE: Final = 50


@room.screen(
    "/console/contracts",
    name="contracts",
    title=T("Contracts"),
    roles=PARTIES,
    sees=Sees.OWN,
    command="iriai-broker contract list --dir DIR --key FILE",
    nav=True,
)
def contracts(view: View) -> Screen:
    """What was agreed."""
    sought = view.query.get("title", "").casefold()
    rows: list[Mapping[str, Value]] = []
    last, more = "", False
    for contract, row in contract_rows(view, after=view.query.get("after", "")):
        if sought not in contract.title.casefold():
            continue
        if len(rows) == PAGE:
            more = True
            break
        rows.append(_line(view, contract, row))
        last = contract.digest
    table = Table(
        name="contracts",
        caption=T("Contracts, the newest first"),
        columns=(
            Column("title", T("Contract"), sort=True),
            Column("version", T("Version")),
            Column("state", T("State"), sort=True),
            Column("waiting", T("Waits for")),
            Column("signed", T("Signed")),
            Column("expires", T("Ends")),
            Column("digest", T("Digest")),
        ),
        rows=rows,
        empty=T("No contract of this title. Leave the filter empty to see all.")
        if sought
        else _no_contract(view),
        more={"after": last} if more else None,
    ).sorted_by(view.query)
    field = Field(name="title", label=T("Title contains"), value=view.query.get("title", ""), required=False)
    search = Form(action="/console/contracts", button=T("Show"), method="get", fields=(field,))
    return Screen(
        panels=(
            Panel(
                name="list",
                title=T("What was agreed"),
                table=table,
                forms=(search,) if rows or sought else (),
            ),
        )
    )


def _no_contract(view: View) -> T:
    if view.role == "member":
        return T("Your organisation is no party of a contract yet. The operators offer one to your node.")
    return T(
        "No contract was offered yet. Write one and offer it: {new}, then {offer}",
        new=Code("iriai-broker contract new --template NAME --dir DIR --key FILE"),
        offer=Code("iriai-broker contract offer FILE --dir DIR --key FILE"),
    )


def _line(view: View, contract: Contract, row: Mapping[str, Any]) -> dict[str, Value]:
    return {
        "title": link_to(contract),
        "version": Count(contract.version),
        "state": stands(row),
        "waiting": names_of(row["waiting_for"], view),
        "signed": T("{n} of {of}", n=Count(len(row["signed"])), of=Count(len(contract.contributors) + 1)),
        "expires": When(to_ms(contract.term.expires)),
        "digest": Digest(contract.digest),
    }
