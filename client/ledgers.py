# SPDX-License-Identifier: Apache-2.0
"""What this node can show of itself: what left, what its gate decided and why, how much privacy is spent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from client.budgets import Budgets, cap_of, own_cap_of
from client.errors import NoSuchThingError
from client.settings import load_settings
from policies.contract import evaluate, explain, request_from_json, state_from_json
from policies.ports import iso_s
from policies.privacy.ledger import HELD_OUT, TRAIN

if TYPE_CHECKING:
    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.rows import Decided
    from client.settings import Home
    from client.shelf import ContractShelf

__all__ = ["budget_show", "guard_explain", "guard_log", "outbox_list"]


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


def guard_explain(outbox: Outbox, shelf: ContractShelf, run: str) -> Answer:
    """Each decision of a run in words: the contract is evaluated on the kept facts once more.

    Raises:
        NoSuchThingError: The gate decided nothing about this run.
    """
    rows = outbox.decisions(run=run)
    if not rows:
        raise NoSuchThingError(
            need="a run that this node was asked about", found=run[:60], remedy="iriai-node guard log"
        )
    text: list[str] = []
    shown: list[dict[str, Any]] = []
    for one in rows:
        words = _words(one, shelf)
        shown.append({**_decided(one), "words": words})
        text += [f"round {one.round}, attempt {one.attempt}, {one.kind}", *(f"  {line}" for line in words)]
    return Answer(data={"run": run, "decisions": shown}, text=tuple(text))


def _words(one: Decided, shelf: ContractShelf) -> list[str]:
    document = one.document
    if "request" not in document:
        return ["judged on held-out episodes; only the vote left"]
    request, state = request_from_json(document["request"]), state_from_json(document["state"])
    words = explain(evaluate(shelf.get(one.contract).contract, state, request), request)
    local = [
        f"REFUSED by this site: {found['clause']}: needs {found['need']}, found {found['found']}."
        f" Change it: {found['remedy']}."
        for found in document["local"]
    ]
    return [*words, *local]


def _steps(store: BudgetStore, contract: str, block: str) -> int:
    """Noisy steps that were really taken under a contract in a block."""
    return sum(
        hold.steps_spent
        for (_, name), hold in store.state.holds.items()
        if name == block and hold.contract.scope == contract
    )


def budget_show(home: Home, member: Member, shelf: ContractShelf) -> Answer:
    """Where each cap stands, per contract and block."""
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    rules = load_settings(home).local
    rows: list[dict[str, Any]] = []
    try:
        for stem in budgets.lineages():
            store = budgets.find(stem)
            for contract in shelf.digests():
                held = shelf.get(contract)
                party = held.party.party
                cap = own_cap_of(held.contract, party, rules) or cap_of(held.contract, party)
                if cap is None:
                    continue
                for block in (TRAIN, HELD_OUT):
                    figures = store.figures(cap, block=block)
                    if figures.rho_spent_nano or figures.rho_held_nano:
                        rows.append(
                            {
                                **asdict(figures),
                                "lineage": store.state.lineage.scope,
                                "steps_spent": _steps(store, cap.scope, block),
                            }
                        )
    finally:
        budgets.close()
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
