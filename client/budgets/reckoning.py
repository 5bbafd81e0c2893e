# SPDX-License-Identifier: Apache-2.0
"""The ledgers against what this node told the log: nothing may have been told that no ledger holds.

- Every spend that left is in the outbox, signed, before it leaves. The ledger of its lineage has to hold it,
  and no other counts: one that lacks it is an older copy (``budget.diverged``), and one that is not there is
  lost (``budget.unknown``); nothing is trained then.
- An older copy is mended by its owner: `reconcile` appends what it lacks, as an incident. Each spend counts
  at its full cost, in the blocks that were told; where the node told of none, in all blocks of the split. So
  more may be counted than was spent, never less.
- A cap that its owner tightened is in the outbox, too (`client.budgets.told_caps`): a ledger with a
  looser one is an older copy, and `reconcile` tightens it again.
- A lost ledger is not made anew from what was told: steps that were paid for and never told would be free
  again, and nobody would know which units were charged. Restore a copy of any age first.

    lost(budgets, outbox)              # what the log knows and no ledger does
    require_known(budgets, outbox)     # raises where there is something
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.answers import Answer, table
from client.budgets import Budgets, cap_of, votes_run
from client.budgets.told_caps import loosened
from client.settings import locked
from policies.encoding import digest_of
from policies.errors import IriaiError
from policies.privacy.blocks import HELD_OUT, TRAIN, block_name, split_of
from policies.privacy.errors import BudgetDivergedError, BudgetUnknownError
from policies.privacy.ledger import missing_spend
from policies.robustness.plan import votes_plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.budgets.told_caps import ToldCap
    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from client.privacy.store import BudgetStore
    from client.settings import Home

__all__ = ["ToldSpend", "ToldSpends", "lost", "reconcile", "require_known", "told_spends"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSpend:
    """A spend as this node signed it for the log."""

    mechanism: str
    lineage: str
    contract: str
    run: str
    round: int
    plan_digest: str
    steps: int
    blocks: tuple[int, ...]
    at_ms: int
    in_log: bool

    @property
    def split(self) -> str:
        """Of the units that were read."""
        return HELD_OUT if "/eval/" in self.mechanism else TRAIN

    @property
    def attempt(self) -> int:
        """Of the round; queries about candidates have one."""
        return 1 if self.split == HELD_OUT else int(self.mechanism.rpartition("/")[2])

    @property
    def subject(self) -> str | None:
        """Digest of the candidate that was judged."""
        return f"sha256:{self.mechanism.rpartition('/')[2]}" if self.split == HELD_OUT else None


ToldSpends = dict[tuple[str, str], ToldSpend]


def told_spends(outbox: Outbox) -> ToldSpends:
    """Every ``epsilon.spent`` of this node, by its lineage and mechanism run."""
    found: ToldSpends = {}
    for one in outbox.envelopes(kind="epsilon.spent"):
        payload = json.loads(one.envelope.payload)
        body = payload["body"]
        found[body["lineage"], body["mechanism"]] = ToldSpend(
            mechanism=body["mechanism"],
            lineage=body["lineage"],
            contract=payload["scope"],
            run=payload["run"],
            round=payload["round"],
            plan_digest=body["plan"],
            steps=body["steps"],
            blocks=tuple(body.get("blocks", ())),
            at_ms=one.at_ms,
            in_log=one.receipt is not None,
        )
    return found


def lost(budgets: Budgets, outbox: Outbox, told: ToldSpends | None = None) -> tuple[ToldSpend, ...]:
    """Spends that were told to the log and that no ledger holds, in the order of their rounds.

    Args:
        budgets: The ledgers.
        outbox: What was told.
        told: From `told_spends`, where that was read already.

    Raises:
        BudgetUnknownError: A ledger that is there does not verify.
    """
    told = told_spends(outbox) if told is None else told
    touched = {(one.lineage, one.mechanism) for one in budgets.touches()}
    missing = [one for name, one in told.items() if name not in touched]
    return tuple(sorted(missing, key=lambda one: (one.run, one.round, one.mechanism)))


def require_known(budgets: Budgets, outbox: Outbox, told: ToldSpends | None = None) -> None:
    """Returns if every spend that was told, and every cap that was tightened, is in a ledger.

    Args:
        budgets: The ledgers.
        outbox: What was told.
        told: From `told_spends`, where that was read already.

    Raises:
        BudgetUnknownError: A ledger is not there.
        BudgetDivergedError: A ledger is an older copy.
    """
    missing, caps = lost(budgets, outbox, told), loosened(budgets, outbox)
    _check_there(budgets, missing, caps)
    if missing:
        need = f"the spend {missing[0].mechanism} in a ledger"
        found = f"{len(missing)} of {len(told_spends(outbox))} told spends in none: a ledger is an old copy"
    elif caps:
        need = f"the cap {caps[0].epsilon_total} to which {caps[0].lineage} was tightened"
        found = "a looser one: the ledger is an old copy"
    else:
        return
    raise BudgetDivergedError(
        need=need,
        found=found,
        remedy="restore the newest copy of the budget folder; then iriai-node budget reconcile",
    )


def _check_there(budgets: Budgets, missing: tuple[ToldSpend, ...], caps: tuple[ToldCap, ...]) -> None:
    named = {one.lineage for one in missing} | {one.lineage for one in caps}
    lineages = sorted(one for one in named if not budgets.has(one))
    if not lineages:
        return
    here = sum(one.lineage in lineages for one in missing)
    told = f"the log was told of {here} spends of it" if here else "its owner tightened it"
    raise BudgetUnknownError(
        need="the ledger of " + ", ".join(lineages),
        found=f"none, although {told}",
        remedy="restore the newest copy of the budget folder, then iriai-node budget reconcile; without one "
        "these data cannot be trained on again",
    )


def reconcile(
    home: Home, member: Member, shelf: ContractShelf, outbox: Outbox, *, dry_run: bool = False
) -> Answer:
    """Appends to the ledgers what was told to the log and is not in them; the worker must not run.

    A dry run says what would be appended.

    Raises:
        NodeBusyError: The worker runs.
        BudgetUnknownError: A ledger is not there, or does not verify; or the plan of a spend is not here.
    """
    lock = locked(home) if home.lock.exists() or not dry_run else None  # else nobody holds it
    budgets = Budgets(home, key=member.identity.key, clock=member.clock)
    try:
        missing, caps = lost(budgets, outbox), loosened(budgets, outbox)
        _check_there(budgets, missing, caps)
        for lineage in sorted({one.lineage for one in missing}):
            store = budgets.ledger_of(lineage)
            mine = [one for one in missing if one.lineage == lineage]
            lacking = [_entry(store, one, shelf) for one in mine]
            if not dry_run:
                store.append_missing(lacking)
        if dry_run:
            return _would_mend(missing, caps)
        for cap in caps:
            budgets.ledger_of(cap.lineage).tighten(cap.epsilon_total)
        require_known(budgets, outbox)
        held = budgets.held_runs()
    finally:
        budgets.close()
        if lock is not None:
            lock.close()
    return _mended(missing, caps, held)


def _would_mend(missing: tuple[ToldSpend, ...], caps: tuple[ToldCap, ...]) -> Answer:
    found = _mended(missing, caps, ())
    words = (
        f"dry run: {len(missing)} spends would be appended, {len(caps)} caps tightened; nothing was changed"
    )
    return Answer(data={**found.data, "dry_run": True}, text=(words, *found.text))


def _mended(missing: tuple[ToldSpend, ...], caps: tuple[ToldCap, ...], held: tuple[str, ...]) -> Answer:
    rows = [(one.lineage, one.mechanism, one.steps) for one in missing]
    lines = list(table(("lineage", "spend", "steps"), rows)) if rows else []
    lines += [f"{one.lineage}: tightened to epsilon {one.epsilon_total} again" for one in caps]
    lines = lines or ["nothing was missing"]
    if held:
        lines.append(
            f"budget is held for {', '.join(held)}; what a run that is over holds is free again soon after "
            "the worker starts (iriai-node run)"
        )
    return Answer(
        data={
            "appended": [
                {"lineage": name, "mechanism": spend, "steps": steps} for name, spend, steps in rows
            ],
            "tightened": [{"lineage": one.lineage, "epsilon_max": one.epsilon_total} for one in caps],
            "holding": list(held),
        },
        text=tuple(lines),
    )


def _entry(store: BudgetStore, told: ToldSpend, shelf: ContractShelf) -> dict[str, Any]:
    recipe, plan = _plan(shelf, told)
    held = shelf.get(told.contract)
    validation = held.contract.validation
    votes = validation is not None and plan == votes_plan(validation, plan)
    run = votes_run(told.run) if votes else told.run
    cap = cap_of(held.contract, held.party.party, shelf.earlier(told.contract))
    if cap is None:
        raise _no_plan(told)
    hold = store.state.holds.get((run, told.split))
    blocks = [block_name(told.split, one) for one in told.blocks]
    if not blocks:  # told before blocks were: all that may have been read
        blocks = (
            [*hold.blocks] if hold else [one for one in store.state.blocks if split_of(one) == told.split]
        )
    return missing_spend(
        cap,
        run=run,
        recipe=recipe,
        place=(told.round or 0, told.attempt),
        blocks=sorted(set(blocks)) or [block_name(told.split, 1)],
        plan=plan,
        steps=told.steps,
        subject=told.subject,
    )


def _plan(shelf: ContractShelf, told: ToldSpend) -> tuple[str, dict[str, Any]]:
    """Recipe and document of the plan that a spend names, from this node's own copies."""
    for named in _recipes(shelf, told.contract):
        try:
            recipe = shelf.recipe(told.contract, named)
        except IriaiError:
            continue
        for plan in (recipe.plan, recipe.evaluation):
            if plan is not None and plan.digest == told.plan_digest:
                return recipe.digest, plan.document
        votes = votes_plan(shelf.get(told.contract).contract.validation, recipe.evaluation.document)
        if votes is not None and digest_of(votes) == told.plan_digest:
            return recipe.digest, votes
    raise _no_plan(told)


def _recipes(shelf: ContractShelf, contract: str) -> Iterable[str]:
    return (one.recipe_digest for one in shelf.get(contract).contract.recipes)


def _no_plan(told: ToldSpend) -> BudgetUnknownError:
    return BudgetUnknownError(
        need=f"the plan of {told.mechanism} in a recipe of its contract",
        found="none here",
        remedy=f"iriai-node contract show {told.contract} fetches the contract and its recipes; then again",
    )
