# SPDX-License-Identifier: Apache-2.0
"""Lowering the cap of some data for the rest of their life, once its owner saw what that leaves.

In this order:
1. the ledger is here, verifies, and holds all that was told (`client.budgets.reckoning`): never an older
   copy;
2. the new cap is a number above 0 and below the one now, else ``budget.refused``;
3. the person sees cap, spent and runs left, before and after, and is warned where nothing could run again;
4. they say yes;
5. it is kept in the outbox (`client.budgets.told_caps`), so that an older copy of the ledger is noticed;
6. the entry is appended: nothing takes it back.

The order of the filter stays, so a cap below what that order costs by itself holds nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer, table
from client.budgets import Budgets
from client.budgets.reckoning import require_known
from client.budgets.showing import block_lines, lineage_facts, share
from client.budgets.told_caps import tell_cap
from client.errors import NoSuchThingError, NotConfirmedError
from policies.encoding import decimal_text
from policies.errors import EncodingError
from policies.privacy.accounting import epsilon_at, epsilon_text
from policies.privacy.blocks import TRAIN, split_of
from policies.privacy.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.settings import Home
    from policies.privacy.caps import Cap

__all__ = ["tighten"]

Json = dict[str, Any]


def tighten(
    home: Home,
    member: Member,
    outbox: Outbox,
    *,
    lineage: str,
    epsilon: str,
    confirm: Callable[[str], bool],
    tell: Callable[[Iterable[str]], None],
) -> Answer:
    """Lowers a lineage's cap for the rest of its life; see the module.

    Args:
        home: The node's folder.
        member: This node.
        outbox: Knows what the ledgers must hold, and keeps the tightening.
        lineage: Of the data.
        epsilon: The lower cap.
        confirm: Shows old and new cap to a person and gives their answer.
        tell: Shows lines to a person before they are asked.

    Raises:
        BudgetUnknownError: A ledger is lost, or does not verify.
        BudgetDivergedError: A ledger is an older copy than the log was told.
        NoSuchThingError: No data of this lineage were ever charged.
        BudgetError: The cap is not lower than the one now, or no number above 0.
        NotConfirmedError: Nobody said yes.
    """
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        require_known(budgets, outbox)  # 1.
        store = _ledger(budgets, lineage)
        before = lineage_facts(store, (), now_ms=member.clock.now_ms())
        after = _lower(store, epsilon)  # 2.
        effects = [_effect(one, after) for one in before["blocks"]]
        warnings = list(_warnings(effects, after))
        tell((*_lines(before, effects, after), *(f"warning: {one}" for one in warnings)))  # 3.
        shown = f"{lineage}: epsilon {before['epsilon_max']} now, {after.epsilon_total} from then on"
        if not confirm(shown):  # 4.
            raise NotConfirmedError(need="a person's word", found="no", remedy="nothing was changed")
        tell_cap(outbox, store, after.epsilon_total)  # 5.
        store.tighten(after.epsilon_total)  # 6.
        found = lineage_facts(store, (), now_ms=member.clock.now_ms())
    finally:
        budgets.close()
    facts = {
        "lineage": lineage,
        "epsilon_before": before["epsilon_max"],
        "epsilon_max": after.epsilon_total,
        "effects": effects,
        "warnings": warnings,
        "blocks": found["blocks"],
    }
    first = (
        f"{lineage}: at most epsilon {after.epsilon_total} from now on, for good; it was "
        f"{before['epsilon_max']}"
    )
    return Answer(data=facts, text=(first, *block_lines(found)))


def _ledger(budgets: Budgets, lineage: str) -> BudgetStore:
    """The ledger of a lineage; nothing that was told is missing, so a name without one is a wrong name."""
    if budgets.has(lineage):
        return budgets.ledger_of(lineage)
    known = [budgets.find(stem).state.lineage.scope for stem in budgets.lineages()]
    raise NoSuchThingError(
        need="a lineage that has a budget: " + (", ".join(sorted(known)) or "none has one yet"),
        found=f"no such lineage: {ascii(lineage)[1:-1][:80]}",
        remedy="iriai-node budget show names them",
    )


def _lower(store: BudgetStore, epsilon: str) -> Cap:
    """The cap of a ledger after it was tightened."""
    now = store.state.lineage
    try:
        return now.tightened(decimal_text(epsilon))
    except EncodingError as error:
        raise BudgetError(
            need=error.need, found=error.found, remedy=f"a number below {now.epsilon_total}"
        ) from error


def _effect(block: Json, after: Cap) -> Json:
    """What a block holds before and after."""
    left = max(0, after.rho_max_nano - block["rho_spent_nano"] - block["rho_held_nano"])
    run = block["rho_run_nano"]
    return {
        "block": block["block"],
        "rho_spent_nano": block["rho_spent_nano"],
        "rho_held_nano": block["rho_held_nano"],
        "rho_max_nano_before": block["rho_max_nano"],
        "rho_max_nano_after": max(0, after.rho_max_nano),
        "runs_left_before": block["runs_left"],
        "runs_left_after": None if run is None else left // run,
    }


def _lines(before: Json, effects: list[Json], after: Cap) -> Iterator[str]:
    yield f"cap now    epsilon {before['epsilon_max']}, counted at order {before['order']}"
    yield f"new cap    epsilon {after.epsilon_total}, at the same order"
    yield from table(
        ("block", "spent of the cap now", "of the new one", "runs left now", "then"),
        [
            (
                one["block"],
                share(one["rho_spent_nano"], one["rho_max_nano_before"]),
                share(one["rho_spent_nano"], one["rho_max_nano_after"]),
                "-" if one["runs_left_before"] is None else one["runs_left_before"],
                "-" if one["runs_left_after"] is None else one["runs_left_after"],
            )
            for one in effects
        ],
    )


def _warnings(effects: list[Json], after: Cap) -> Iterator[str]:
    if after.rho_max_nano <= 0:
        least = epsilon_text(epsilon_at(rho=0, order=after.order, delta=float(after.delta)))
        yield (
            f"epsilon {after.epsilon_total} holds nothing: counting at order {after.order} costs {least} by "
            "itself. No further run on these data, ever"
        )
        return
    for one in effects:
        over, whole = one["rho_spent_nano"], one["rho_max_nano_after"]
        if over >= whole:
            yield f"{one['block']}: all of the new cap is spent already. No further run on these units, ever"
        elif over + one["rho_held_nano"] > whole:
            yield f"{one['block']}: what runs now does not fit any more, and is stopped before its end"
        elif split_of(one["block"]) == TRAIN and one["runs_left_after"] == 0 != one["runs_left_before"]:
            yield f"{one['block']}: no further run like the last one fits"
