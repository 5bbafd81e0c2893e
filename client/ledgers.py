# SPDX-License-Identifier: Apache-2.0
"""What this node can show of itself: what left, what its gate decided and why, how much privacy is spent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from client.budgets import Budgets, cap_of, own_cap_of
from client.settings import load_settings
from policies.ports import iso_s
from policies.privacy.ledger import HELD_OUT, TRAIN

if TYPE_CHECKING:
    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.rows import Decided
    from client.settings import Home
    from client.shelf import ContractShelf

__all__ = ["budget_rows", "budget_show", "guard_log", "outbox_list"]


def outbox_list(outbox: Outbox) -> Answer:
    """Every transmission, newest first."""
    rows = outbox.sent()
    lines = table(
        ("when", "bytes", "kind", "run", "round", "digest", "clause", "receipts"),
        [
            (
                iso_s(one.at_ms),
                one.size_bytes,
                one.kind,
                one.run or "-",
                "-" if one.round is None else one.round,
                short(one.digest),
                one.clause or "-",
                one.receipts,
            )
            for one in rows
        ],
    )
    return Answer(
        data={
            "sent": [asdict(one) for one in rows],
            "total_bytes": outbox.sent_bytes(),
            "without_receipt": len(outbox.pending(limit=10_000)),
        },
        text=(*lines, f"sum  {outbox.sent_bytes()} bytes"),
    )


def _decided(one: Decided) -> dict[str, Any]:
    return {
        "at_ms": one.at_ms,
        "kind": one.kind,
        "run": one.run,
        "round": one.round,
        "attempt": one.attempt,
        "allow": one.allow,
        "clauses": list(one.clauses),
    }


def guard_log(outbox: Outbox, run: str | None) -> Answer:
    """Decisions of the gate, newest first."""
    rows = outbox.decisions(run=run)
    lines = table(
        ("when", "kind", "run", "round", "attempt", "", "clauses"),
        [
            (
                iso_s(one.at_ms),
                one.kind,
                one.run,
                one.round,
                one.attempt,
                "allowed" if one.allow else "REFUSED",
                " ".join(one.clauses) or "-",
            )
            for one in rows
        ],
    )
    return Answer(data={"decisions": [_decided(one) for one in rows]}, text=lines)


def _steps(store: BudgetStore, contracts: tuple[str, ...], block: str) -> int:
    """Noisy steps that were really taken under a contract, or the versions before it, in a block."""
    return sum(
        hold.steps_spent
        for (_, name), hold in store.state.holds.items()
        if name == block and hold.contract.scope in contracts
    )


def budget_rows(
    home: Home, member: Member, shelf: ContractShelf, *, contract: str | None = None
) -> list[dict[str, Any]]:
    """Where each cap that was charged stands, per contract and block; of one contract if asked."""
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    rules = load_settings(home).local
    rows: list[dict[str, Any]] = []
    try:
        for stem in budgets.lineages():
            store = budgets.find(stem)
            for digest in shelf.digests() if contract is None else (contract,):
                held = shelf.get(digest)
                party, before = held.party.party, shelf.earlier(digest)
                cap = own_cap_of(held.contract, party, rules, before) or cap_of(held.contract, party, before)
                if cap is None:
                    continue
                for block in (TRAIN, HELD_OUT):
                    figures = store.figures(cap, block=block)
                    if figures.rho_spent_nano or figures.rho_held_nano:
                        rows.append(
                            {
                                **asdict(figures),
                                "lineage": store.state.lineage.scope,
                                "steps_spent": _steps(store, cap.scopes, block),
                            }
                        )
    finally:
        budgets.close()
    return rows


def budget_show(home: Home, member: Member, shelf: ContractShelf) -> Answer:
    """Where each cap stands, per contract and block."""
    rows = budget_rows(home, member, shelf)
    lines = table(
        ("contract", "block", "epsilon spent", "with holds", "cap", "delta"),
        [
            (
                short(one["scope"]),
                one["block"],
                one["epsilon_spent"],
                one["epsilon_total"],
                one["epsilon_max"],
                one["delta"],
            )
            for one in rows
        ],
    )
    if not rows:
        lines = ("nothing is spent",)
    return Answer(data={"budgets": rows}, text=lines)
