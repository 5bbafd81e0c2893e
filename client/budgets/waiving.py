# SPDX-License-Identifier: Apache-2.0
"""Letting data that have a budget be used under a contract without privacy, by their owner's word.

In this order:
1. the ledger is here and verifies;
2. the contract is here, and has no privacy clause: under another one there is nothing to waive;
3. the person sees what was promised for the data and what will hold no more, and types the contract's digits;
4. the mark is appended: nothing takes it back. `budget show` and every own statement show it from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer, short
from client.budgets import Budgets, cap_of
from client.budgets.showing import block_lines, lineage_facts
from client.errors import NotConfirmedError
from policies.privacy.errors import BudgetError
from policies.privacy.ledger import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.settings import Home

__all__ = ["waive"]

Json = dict[str, Any]


def waive(
    home: Home,
    member: Member,
    shelf: ContractShelf,
    *,
    lineage: str,
    contract: str,
    confirm: Callable[[str], bool],
    tell: Callable[[Iterable[str]], None],
) -> Answer:
    """Marks a lineage as used without privacy under a contract; see the module.

    Args:
        home: The node's folder.
        member: This node.
        shelf: Its contracts.
        lineage: Of the data.
        contract: Digest of the contract.
        confirm: Shows the first digits of the contract's digest, and gives whether a person typed them.
        tell: Shows lines to a person before they are asked.

    Raises:
        BudgetUnknownError: There is no such ledger, or it does not verify.
        NoSuchThingError: The contract is not here.
        BudgetError: The contract has a privacy clause, or the mark is there.
        NotConfirmedError: Nobody said yes.
    """
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        store = budgets.ledger_of(lineage)  # 1.
        held = shelf.get(contract)  # 2.
        if cap_of(held.contract, held.party.party) is not None:
            raise BudgetError(
                need="a contract without a privacy clause",
                found=f"{short(contract)}, which has caps",
                remedy="nothing: what it uses is counted",
            )
        before = lineage_facts(store, (), now_ms=member.clock.now_ms())
        tell(_lines(before, contract))  # 3.
        if not confirm(short(contract)):
            raise NotConfirmedError(need="a person's word", found="no", remedy="nothing was changed")
        store.waive(contract, by=OWNER)  # 4.
    finally:
        budgets.close()
    return Answer(
        data={"lineage": lineage, "contract": contract, "waived": True},
        text=(f"{lineage}: used without privacy under {contract}, for good",),
    )


def _lines(before: Json, contract: str) -> tuple[str, ...]:
    return (
        f"lineage   {before['lineage']}: at most epsilon {before['epsilon_max']} over its life was promised",
        *block_lines(before),
        f"contract  {contract} takes updates without noise: whoever sees one may read units out of it",
        "for good  no epsilon holds for these data any more, those of other contracts' runs included; every",
        "          own statement says so, to whoever you give it",
    )
