# SPDX-License-Identifier: Apache-2.0
"""Section 4: caps, what members say that they spent, what this audit computed, and what is left.

What a member's ledger says (``epsilon_after``) is over its lineage and all that is planned; what is
recomputed is over the steps that were spent under one contract and the versions before it, from the plans
alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from policies.encoding import digest_of
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.privacy.accounting import epsilon_filter, epsilon_text, filter_order, rho_step_nano
from policies.privacy.caps import plan_facts
from policies.verify.page.content import newest, section
from policies.verify.page.markup import Html, digest, link, para, table, tag
from policies.verify.page.verdict import privacy_note
from policies.verify.shown import actor_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract
    from policies.verify.history import History
    from policies.verify.page.content import Page

__all__ = ["ledger", "recomputed"]

Json = Any
_NUMBERS = (IriaiError, KeyError, ValueError, TypeError, OverflowError, ZeroDivisionError)


def ledger(page: Page) -> Html:
    """Section 4."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 4, para(words["history_unread"]))
    spends, more = newest(history, (EntryType.EPSILON_SPENT,))
    if not spends:
        return section(words, 4, *(privacy_note(page) or [para(words[_unspent(history)])]))
    heads = [
        words[key]
        for key in (
            "time",
            "party",
            "round",
            "steps",
            "lineage_name",
            "cost",
            "epsilon_after",
            "epsilon_computed",
        )
    ]
    closed = words["not_opened"]
    computed = recomputed(history, {index for index, _ in spends})
    rows = []
    for index, entry in spends:
        told: Mapping[str, Json] = history.stated(index) or history.opened.get(index, {})
        rows.append(
            [
                entry.ts[:16].replace("T", " "),
                actor_of(history, entry),
                entry.round if "/eval/" not in entry.pub["mechanism"] else words["evaluation"],
                entry.pub["steps"],
                *(told.get(name, closed) for name in ("lineage", "rho_nano", "epsilon_after")),
                computed.get(index, words["nothing"]),
                link(index, page.detailed),
            ]
        )
    return section(
        words,
        4,
        *privacy_note(page),
        para(words["ledger_note"], class_="soft"),
        _accounts(page, history),
        tag("h3", words["spends"]),
        table(words, words["spends"], [*heads, words["at_entry"]], rows, more=more),
    )


def _unspent(history: History) -> str:
    """Why nothing was spent: no contract promises privacy, or nothing was trained yet."""
    modes = {contract.privacy.mode for contract in history.contracts.values()}
    return "ledger_not_private" if modes == {"none"} else "ledger_none"


def recomputed(history: History, wanted: set[int]) -> dict[int, str]:
    """Training's epsilon under the contract after each of these spends, from steps and plans alone."""
    plans = {
        digest_of(plan): plan for one in history.recipes.values() if isinstance(plan := one.get("plan"), dict)
    }
    taken: dict[tuple[str, str], Counter[tuple[float, float]]] = defaultdict(Counter)
    found: dict[int, str] = {}
    for index, entry in history.of(EntryType.EPSILON_SPENT):
        sender, plan = history.senders.get(index), plans.get(entry.pub["plan"])
        if sender is None or plan is None or "/eval/" in entry.pub["mechanism"]:
            continue
        first = history.versions(entry.scope)[-1:]
        try:
            q, sigma, _, _ = plan_facts(plan)
            steps = taken[("".join(first), sender.org)]
            steps[(q, sigma)] += entry.pub["steps"]
            if index in wanted and (shown := _epsilon(history, entry.scope, sender.org, steps)):
                found[index] = shown
        except _NUMBERS:  # AUD-062 and AUD-063 name them
            continue
    return found


def _epsilon(
    history: History, scope: str | None, org: str, steps: Mapping[tuple[float, float], int]
) -> str | None:
    contract, clause = history.contracts.get(scope or ""), history.party(scope, org)
    caps = None if contract is None or clause is None else contract.caps(clause.party)
    if caps is None:
        return None
    order = filter_order(
        epsilon_total=caps.epsilon_total, epsilon_per_release=caps.epsilon_per_release, delta=caps.delta
    )
    rho = sum(count * rho_step_nano(q=q, sigma=sigma, order=order) for (q, sigma), count in steps.items())
    return epsilon_text(epsilon_filter(rho_nano=rho, delta=float(caps.delta), order=order))


def _accounts(page: Page, history: History) -> Html:
    """Per party and contract: cap, spent, left. A party's last spend says what it holds for spent."""
    words = page.words
    logged: dict[tuple[str | None, str], str] = {}
    for index, entry in history.of(EntryType.EPSILON_SPENT):
        told = history.stated(index) or history.opened.get(index, {})
        if "/eval/" not in entry.pub["mechanism"] and "epsilon_after" in told:
            logged[(entry.scope, actor_of(history, entry))] = told["epsilon_after"]
    rows = [
        row
        for _, entry in history.of(EntryType.CONTRACT_FINALIZED)
        if (contract := history.contracts.get(entry.pub["contract"])) is not None
        for row in _rows(page, contract, logged)
    ]
    heads = [words[key] for key in ("party", "contract", "delta", "cap_release", "cap_total")]
    heads += [words[key] for key in ("spent_logged", "spent_recomputed", "remaining")]
    return table(words, words["s4"], heads, rows)


def _rows(page: Page, contract: Contract, logged: Mapping[tuple[str | None, str], str]) -> list[list[object]]:
    nothing, spent = page.words["nothing"], page.report.facts.get("spent", {})
    rows: list[list[object]] = []
    for one in contract.contributors:
        caps = contract.caps(one.party)
        if caps is None:
            continue
        computed = spent.get(one.party, {}).get("epsilon_after")
        rows.append(
            [
                one.party,
                digest(contract.digest, nothing),
                caps.delta,
                caps.epsilon_per_release,
                caps.epsilon_total,
                logged.get((contract.digest, one.party), nothing),
                nothing if computed is None else computed,
                _left(caps.epsilon_total, computed) or nothing,
            ]
        )
    return rows


def _left(cap: str, spent: str | None) -> str | None:
    try:
        return None if spent is None else format(Decimal(cap) - Decimal(spent), "f")
    except InvalidOperation:
        return None
