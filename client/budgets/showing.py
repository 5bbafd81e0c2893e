# SPDX-License-Identifier: Apache-2.0
"""What is spent, held and left of each lineage's budget, in figures and in words.

- A share of rho leads: it is what adds up. The filter's epsilon starts high by construction, and says so.
- Each block is counted by itself: its units are no other block's.
- What this node told the log and no ledger holds is said before all else, as ``budget.unknown`` or
  ``budget.diverged`` (`client.budgets.reckoning`): an empty folder is no unspent budget.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from client.answers import Answer, short, table
from client.budgets import Budgets, cap_of, own_cap_of
from client.budgets.reckoning import require_known, told_spends
from client.planning.caps import opening_source
from client.planning.words import opening_words
from client.settings import load_settings
from policies.ports import iso_s
from policies.privacy.accounting import epsilon_at, epsilon_text, rho_step_nano
from policies.privacy.blocks import HELD_OUT, TRAIN, split_charged, split_of
from policies.privacy.caps import plan_facts
from policies.privacy.ledger import OWNER, USE
from policies.privacy.plan import DpPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from client.budgets.reckoning import ToldSpend, ToldSpends
    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetFigures, BudgetStore
    from client.settings import Home, LocalRules
    from policies.privacy.caps import Cap

__all__ = ["block_lines", "budget_rows", "budget_show", "lineage_facts", "share"]

Json = dict[str, Any]
_MINUTE_MS = 60_000
_BY = {OWNER: "by its owner's word", USE: "before its budget was opened"}


def budget_rows(
    home: Home, member: Member, shelf: ContractShelf, *, contract: str | None = None
) -> list[Json]:
    """Where each contract's cap that was charged stands, per split; of one contract if asked."""
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        return [
            row for stem in budgets.lineages() for row in _rows(home, budgets.find(stem), shelf, contract)
        ]
    finally:
        budgets.close()


def _rows(home: Home, store: BudgetStore, shelf: ContractShelf, contract: str | None) -> Iterator[Json]:
    rules = load_settings(home).local
    for digest in shelf.digests() if contract is None else (contract,):
        held = shelf.get(digest)
        party, before = held.party.party, shelf.earlier(digest)
        cap = own_cap_of(held.contract, party, rules, before) or cap_of(held.contract, party, before)
        for split in (TRAIN, HELD_OUT) if cap is not None else ():
            figures = store.figures(cap, split=split)
            if cap is not None and (figures.rho_spent_nano or figures.rho_held_nano):
                lineage, steps = store.state.lineage.scope, _steps(store, cap, split)
                yield {**asdict(figures), "lineage": lineage, "steps_spent": steps}


def _steps(store: BudgetStore, cap: Cap, split: str) -> int:
    """Noisy steps that were really taken under a contract, or the versions before it, in a split."""
    return sum(
        hold.steps_spent
        for (_, name), hold in store.state.holds.items()
        if name == split and hold.contract.scope in cap.scopes
    )


def budget_show(
    home: Home, member: Member, shelf: ContractShelf, outbox: Outbox, *, told: ToldSpends | None = None
) -> Answer:
    """Where each lineage stands, block by block, and each contract.

    Args:
        home: Of the node.
        member: Whose ledgers.
        shelf: Of contracts.
        outbox: Of the node.
        told: From `told_spends`, where that was read already.

    Raises:
        BudgetUnknownError: A ledger is lost, or does not verify.
        BudgetDivergedError: A ledger is an older copy than the log was told.
    """
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        told = told_spends(outbox) if told is None else told
        require_known(budgets, outbox, told)
        stores = [budgets.find(stem) for stem in budgets.lineages()]
        lineages = [lineage_facts(one, told.values(), now_ms=member.clock.now_ms()) for one in stores]
        rows = [row for one in stores for row in _rows(home, one, shelf, None)]
    finally:
        budgets.close()
    opening = _opening(load_settings(home).local)
    data, note = {"budgets": rows, "lineages": lineages, "opening": opening}, opening_words(opening)
    if not lineages:
        return Answer(data=data, text=("nothing is spent", note))
    lines = [line for one in lineages for line in (*_lineage_lines(one), "")]
    return Answer(data=data, text=(*lines, *_contract_lines(rows), note))


def _opening(rules: LocalRules) -> Json:
    """With which cap the ledger of new data will be opened, as far as this site decides."""
    return {
        "is_open": False,
        "from": opening_source(rules, None, by_contract=False),
        "epsilon": rules.epsilon_lifetime or rules.epsilon_total,
    }


# --- one lineage ---


def lineage_facts(store: BudgetStore, told: Iterable[ToldSpend], *, now_ms: int) -> Json:
    """Where a lineage stands: its cap, each block, the figures of its last plan, chain and mirror."""
    store.figures()  # what other processes appended is read first
    cap, genesis, plans = store.state.lineage, store.state.genesis, _last_plans(store)
    blocks = [_block(store, block, plans.get(split_of(block))) for block in sorted(store.state.blocks)]
    mine = [one for one in told if one.lineage == cap.scope]
    return {
        "lineage": cap.scope,
        "unit": store.state.unit,
        "adjacency": store.state.adjacency,
        "epsilon_max": cap.epsilon_total,
        "epsilon_at_genesis": genesis.epsilon_total if genesis is not None else cap.epsilon_total,
        "delta": cap.delta,
        "order": cap.order,
        "blocks": blocks,
        "figures": _figures(store, cap, plans.get(TRAIN)),
        "chain": {
            "verified": True,  # opening it checked every digest and signature
            "entries": store.state.seq,
            "head": store.state.head,
            "at_ms": store.state.at_ms,
            "age_ms": max(0, now_ms - store.state.at_ms),
            "incidents": store.state.incidents,
        },
        "waived": [{"contract": one, "by": by} for one, by in sorted(store.state.waived.items())],
        "mirror": _mirror(mine, len(store.state.touched), now_ms),
    }


def _last_plans(store: BudgetStore) -> dict[str, Json]:
    """The plan that was reserved last, by split."""
    found = {}
    for entry in store.entries():
        if entry["kind"] == "reserve":
            found[split_charged(entry["body"]["plan"])] = entry["body"]["plan"]
    return found


def _block(store: BudgetStore, block: str, plan: Mapping[str, Any] | None) -> Json:
    figures = store.figures_of(block)
    left = max(0, figures.rho_max_nano - figures.rho_spent_nano - figures.rho_held_nano)
    return {
        "block": block,
        "units": sum(one == block for one in store.state.units.values()),
        "rho_spent_nano": figures.rho_spent_nano,
        "rho_held_nano": figures.rho_held_nano,
        "rho_left_nano": left,
        "rho_max_nano": figures.rho_max_nano,
        "epsilon_spent": figures.epsilon_spent,
        "epsilon_total": figures.epsilon_total,
        "rho_run_nano": None if plan is None else _run_cost(plan, figures),
        "runs_left": None if plan is None else left // _run_cost(plan, figures),
    } | _queries(block, plan, left, figures)


def _queries(block: str, plan: Mapping[str, Any] | None, left: int, figures: BudgetFigures) -> Json:
    """Held-out units are asked by queries, of which a run may ask as many as its plan has steps."""
    if plan is None or split_of(block) == TRAIN:
        return {}
    steps = int(plan["steps"])
    return {"queries_run": steps, "queries_left": left * steps // _run_cost(plan, figures)}


def _run_cost(plan: Mapping[str, Any], figures: BudgetFigures) -> int:
    q, sigma, steps, _ = plan_facts(plan)
    return steps * rho_step_nano(q=q, sigma=sigma, order=figures.order)


def _figures(store: BudgetStore, cap: Cap, plan: Mapping[str, Any] | None) -> Json | None:
    """The three figures of the last plan that trained, which are never mixed."""
    if plan is None:
        return None
    read, conversion = DpPlan.load(dict(plan)), epsilon_at(rho=0, order=cap.order, delta=float(cap.delta))
    q, sigma, steps, _ = plan_facts(plan)
    return {
        "epsilon_rdp": epsilon_text(read.epsilon_rdp),
        "epsilon_pld": _tight(read),
        "epsilon_filter": store.figures().epsilon_spent,
        "epsilon_conversion": epsilon_text(conversion),
        "q": q,
        "sigma": sigma,
        "steps": steps,
        "clip_norm": read.clip_norm,
        "frames_per_unit": read.frames_per_unit,
    }


def _tight(plan: DpPlan) -> str | None:
    """None where the accountant is not installed."""
    if importlib.util.find_spec("dp_accounting") is None:
        return None
    from policies.privacy.tight import epsilon_pld

    return epsilon_text(epsilon_pld(plan))


def _mirror(told: list[ToldSpend], touched: int, now_ms: int) -> Json:
    """How far the log is known to hold what was spent: the broker's mirror is counted from it."""
    logged = [one for one in told if one.in_log]
    newest = max((one.at_ms for one in logged), default=None)
    return {
        "agrees": len(logged) == len(told) == touched,
        "touched": touched,
        "told": len(told),
        "in_log": len(logged),
        "newest_ms": newest,
        "age_ms": None if newest is None else max(0, now_ms - newest),
    }


# --- words ---


def share(part: int, whole: int) -> str:
    """Part of a whole in percent, for the eye."""
    return f"{100 * part / whole:.1f} %" if whole > 0 else "-"


def _age(age_ms: int | None) -> str:
    return "never" if age_ms is None else f"{age_ms // _MINUTE_MS} min ago"


def _lineage_lines(one: Json) -> Iterator[str]:
    yield (
        f"lineage {one['lineage']}: at most epsilon {one['epsilon_max']} at delta {one['delta']} over its "
        f"life, per {one['unit']}, {one['adjacency']}, counted at order {one['order']}"
    )
    opened = f"opened with epsilon {one['epsilon_at_genesis']}, which nothing loosens"
    tightened = one["epsilon_max"] != one["epsilon_at_genesis"]
    yield f"  {opened}; tightened to {one['epsilon_max']}" if tightened else f"  {opened}"
    for mark in one["waived"]:
        yield (
            f"  NOT PRIVATE: used without privacy under contract {mark['contract']}, {_BY[mark['by']]}; no "
            "epsilon below holds against who saw those updates"
        )
    yield from (f"  {line}" for line in block_lines(one))
    yield from (f"  {line}" for line in _figure_lines(one))
    chain, mirror = one["chain"], one["mirror"]
    appended = f", {chain['incidents']} times mended" if chain["incidents"] else ""
    yield (
        f"  chain   verified: {chain['entries']} entries, the newest {iso_s(chain['at_ms'])}, "
        f"{_age(chain['age_ms'])}{appended}"
    )
    state = "agrees" if mirror["agrees"] else "waits"
    yield (
        f"  mirror  {state}: {mirror['touched']} spends, {mirror['told']} of them told, "
        f"{mirror['in_log']} in the log for certain, the newest {_age(mirror['age_ms'])}"
    )


def _left(block: Json) -> str:
    """What is left is enough for: runs like the last one; of held-out units, queries."""
    runs = block["runs_left"]
    if runs is None:
        return "-"
    if split_of(block["block"]) == TRAIN:
        return f"{runs} runs"
    return f"{block['queries_left']} queries, {block['queries_run']} a run"


def block_lines(one: Json) -> tuple[str, ...]:
    """A table of a lineage's blocks."""
    return table(
        ("block", "units", "spent", "held", "left", "enough for", "epsilon spent"),
        [
            (
                block["block"],
                block["units"],
                share(block["rho_spent_nano"], block["rho_max_nano"]),
                share(block["rho_held_nano"], block["rho_max_nano"]),
                share(block["rho_left_nano"], block["rho_max_nano"]),
                _left(block),
                block["epsilon_spent"],
            )
            for block in one["blocks"]
        ],
    )


def _figure_lines(one: Json) -> Iterator[str]:
    found = one["figures"]
    if found is None:
        return
    start = found["epsilon_conversion"][:4]
    rows = (
        ("epsilon_rdp", found["epsilon_rdp"], "one run by its plan; decides the cap per release"),
        ("epsilon_pld", found["epsilon_pld"] or "-", "the same run, tight; for statements, never added up"),
        ("epsilon_filter", found["epsilon_filter"], "all runs so far; decides the cap over the data's life"),
        ("", "", f"it starts above {start} with the first step, by construction: go by the shares above"),
    )
    yield from table(("figure", "", ""), rows)
    yield (
        f"last plan: q {found['q']}, sigma {found['sigma']}, steps {found['steps']}, "
        f"clip {found['clip_norm']}, frames {found['frames_per_unit']}"
    )


def _contract_lines(rows: list[Json]) -> tuple[str, ...]:
    return table(
        ("contract", "units", "epsilon spent", "with holds", "cap", "delta"),
        [
            (
                short(one["scope"]),
                one["part"],
                one["epsilon_spent"],
                one["epsilon_total"],
                one["epsilon_max"],
                one["delta"],
            )
            for one in rows
        ],
    )
