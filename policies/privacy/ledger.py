# SPDX-License-Identifier: Apache-2.0
"""The budget ledger as a pure machine: ``apply(state, entry) -> state``, or a refusal. Standard library only.

- An entry is a JSON object with ``seq, kind, prev, at_ms, body, digest``; ``digest`` is SHA-256 over the
  canonical bytes of the rest, ``prev`` the digest before. A hash chain; the node signs each digest.
- Order per lineage: ``genesis``, then ``block`` and ``tighten`` where needed, and per run and split
  ``reserve``, ``touch``…, ``commit`` (or ``cancel`` before the first touch). ``incident`` and ``waived`` at
  any time.
- ``block`` opens a block of units (`policies.privacy.blocks`) with nothing spent, or adds units to one that
  is open; they share what was spent of it. A unit is in one block for life: under another it is refused
  (``budget.lineage-unknown``).
- ``reserve`` holds all steps of a plan in every block that its run will read, if spent + held + cost fits
  under each filter: the lineage's cap in *each* of the blocks; the contract's cap, and the owner's tighter
  one where there is one, over everything of that contract in the split, whatever the blocks. Held counts as
  spent for everybody else. A plan of training covers training blocks only, one of evaluation held-out blocks
  only.
- What is kept is steps per (q, sigma), not a sum of costs: a cap is always compared with what all steps cost
  at its own order, also where it was tightened after they were taken.
- ``touch`` moves the steps of one round and attempt from held to spent, in all blocks of the reservation,
  before the data are read. Each (run, split, round, attempt) is touched at most once; nothing is ever
  refunded after the first touch.
- ``commit`` closes a run's reservation and releases the steps that never ran.
- ``tighten`` lowers the lineage's cap for good, at the order of the genesis; nothing loosens. Reservations
  stay, and their touches go on as long as what is spent fits under the lower cap.
- ``incident`` appends what an older copy of the ledger lacks (``budget.diverged``): spends that were told to
  the log. It is the truth, so no cap refuses it; it may charge more than was spent, never less.
- ``waived`` marks that the units are used without privacy under a contract: by the owner's word, or because
  they were before their ledger was opened. It costs nothing, because no epsilon holds for such a use; nothing
  takes it back, and every figure is shown with it.
- Costs are recomputed from the plan on every entry; a cheaper one is refused. Amounts are integers, so replay
  is exact.

Builders (`genesis_body`, `reserve_body`, …) make a body; `seal` makes the entry; `apply` checks and moves the
state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from policies.encoding import digest_of
from policies.limits import LEDGER_ENTRIES
from policies.privacy.accounting import epsilon_filter, rho_step_nano
from policies.privacy.blocks import HELD_OUT, TRAIN, blocks_of, split_charged, split_of
from policies.privacy.caps import Cap, plan_facts
from policies.privacy.errors import (
    BudgetError,
    BudgetExhaustedError,
    BudgetUnknownError,
    CancelAfterTouchError,
    LineageUnknownError,
    PlanMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "HELD_OUT",
    "OWNER",
    "TRAIN",
    "USE",
    "Cap",
    "Hold",
    "LedgerState",
    "Total",
    "apply",
    "block_body",
    "genesis_body",
    "incident_body",
    "plan_facts",
    "replay",
    "reserve_body",
    "seal",
    "waived_body",
]

Json = dict[str, Any]
START: Final = "sha256:" + "0" * 64
DIVERGED: Final = "budget.diverged"
OWNER: Final = "owner"  # said so
USE: Final = "use"  # they were used so before there was a ledger


@dataclass(frozen=True, slots=True)
class Total:
    """Spent and held: steps of one mechanism, or billionths of rho at one cap's order."""

    spent: int = 0
    held: int = 0

    def add(self, *, spent: int = 0, held: int = 0) -> Total:
        """The totals after a movement."""
        return Total(self.spent + spent, self.held + held)

    @property
    def both(self) -> int:
        """Spent and held."""
        return self.spent + self.held


Mechanism = tuple[float, float]  # sampling probability, noise multiplier
Steps = dict[Mechanism, Total]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A reservation: the steps that a run may still take in the blocks that it covers."""

    contract: Cap
    split: str
    blocks: tuple[str, ...]
    plan_digest: str
    manifest: str
    mechanism: Mechanism
    steps_left: int
    steps_spent: int = 0
    steps_per_touch: int
    lineage_step: int
    open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerState:
    """Everything that follows from a chain of entries.

    Attributes:
        seq: Of the next entry.
        head: Digest of the last one.
        at_ms: Its time.
        genesis: The cap that the lineage was opened with; None before.
        cap: The lineage's cap now; the genesis's, or a tighter one.
        unit: Of every plan.
        adjacency: Likewise.
        blocks: Steps of each mechanism, by block.
        contracts: The same by contract (its scope) and split.
        units: Block of each unit that was ever charged, by its fingerprint.
        holds: Reservations by run and split, closed ones too.
        touched: Run, split, round and attempt of every touch.
        incidents: How many times missing entries were appended.
        waived: Contracts under which the units are used without privacy, each `OWNER` or `USE`.
    """

    seq: int = 0
    head: str = START
    at_ms: int = 0
    genesis: Cap | None = None
    cap: Cap | None = None
    unit: str = ""
    adjacency: str = ""
    blocks: Mapping[str, Steps] = field(default_factory=dict)
    contracts: Mapping[tuple[str, str], Steps] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[tuple[str, str], Hold] = field(default_factory=dict)
    touched: frozenset[tuple[str, str, int, int]] = frozenset()
    incidents: int = 0
    waived: Mapping[str, str] = field(default_factory=dict)

    def in_block(self, block: str) -> Total:
        """Spent and held in a block, in billionths of rho at the lineage's order."""
        return _cost(self.blocks.get(block, {}), self.lineage.order)

    def under(self, cap: Cap, split: str) -> Total:
        """What a contract's scopes spent and hold in a split, in billionths of rho at this cap's order."""
        totals = [_cost(self.contracts.get((scope, split), {}), cap.order) for scope in cap.scopes]
        return Total(sum(one.spent for one in totals), sum(one.held for one in totals))

    @property
    def lineage(self) -> Cap:
        """The lineage's cap now.

        Raises:
            BudgetUnknownError: The ledger is empty.
        """
        if self.cap is None:
            raise _unknown("a genesis entry", "an empty ledger")
        return self.cap


def _cost(steps: Mapping[Mechanism, Total], order: int) -> Total:
    spent = held = 0
    for (q, sigma), one in steps.items():
        cost = rho_step_nano(q=q, sigma=sigma, order=order)
        spent, held = spent + one.spent * cost, held + one.held * cost
    return Total(spent, held)


def _unknown(need: str, found: str) -> BudgetUnknownError:
    return BudgetUnknownError(
        need=need,
        found=found,
        remedy="restore the ledger file of the latest moment; never start a new one for the same data",
    )


def seal(state: LedgerState, kind: str, body: Json, *, at_ms: int) -> Json:
    """The next entry after ``state``; `apply` decides whether it may be."""
    entry = {"seq": state.seq, "kind": kind, "prev": state.head, "at_ms": at_ms, "body": body}
    return entry | {"digest": digest_of(entry)}


def apply(state: LedgerState, entry: Json) -> LedgerState:
    """State after an entry.

    Raises:
        BudgetUnknownError: The chain is broken, or an entry has another shape.
        BudgetExhaustedError: A cap or a plan does not hold it.
        CancelAfterTouchError: A refund after data were read.
        PlanMismatchError: Another plan than the one reserved.
        EvalUnplannedError: Units of the other split.
        LineageUnknownError: A unit that belongs to another block.
        BudgetError: Any other entry that may not follow.
    """
    bare = {key: value for key, value in entry.items() if key != "digest"}
    if bare.keys() != {"seq", "kind", "prev", "at_ms", "body"} or entry.get("digest") != digest_of(bare):
        raise _unknown("entries with their own digest", f"another at {state.seq}")
    if entry["seq"] != state.seq or entry["prev"] != state.head:
        raise _unknown(f"entry {state.seq} after {state.head[:19]}", f"entry {entry['seq']}")
    move = _MOVES.get(entry["kind"])
    if move is None or state.seq >= LEDGER_ENTRIES or (state.genesis is None) != (entry["kind"] == "genesis"):
        raise _unknown("genesis first, and once, then known kinds", str(entry["kind"])[:40])
    try:
        moved = move(state, entry["body"])
    except (KeyError, TypeError) as error:  # a ledger of another version: closed, never guessed at
        raise _unknown(f"a {entry['kind']} of this version", f"another shape: {error}"[:200]) from error
    return replace(moved, seq=state.seq + 1, head=entry["digest"], at_ms=entry["at_ms"])


def replay(entries: Iterable[Json]) -> LedgerState:
    """State of a whole chain.

    Raises:
        BudgetUnknownError: No entry, or a broken chain.
        BudgetError: An entry that the rules refuse.
    """
    state = LedgerState()
    for entry in entries:
        state = apply(state, entry)
    if state.genesis is None:
        raise _unknown("a genesis entry", "an empty ledger")
    return state


def genesis_body(cap: Cap, *, unit: str, adjacency: str) -> Json:
    """Body of the first entry: the owner's cap over the data's life, immutable."""
    return {"cap": cap.as_dict(), "unit": unit, "adjacency": adjacency}


def block_body(block: str, units: Iterable[str] = ()) -> Json:
    """Body of a block's opening, or of units that belong to an open one; by their fingerprints."""
    return {"block": block, "units": sorted(units)}


def reserve_body(
    cap: Cap,
    *,
    run: str,
    recipe: str,
    blocks: Sequence[str],
    plan: Mapping[str, Any],
    manifest: str,
    own: Cap | None = None,
) -> Json:
    """Body of a reservation of all steps of a plan for one run; ``own`` is the owner's cap."""
    tighter = {} if own is None else {"own": own.as_dict()}
    return tighter | {
        "contract": cap.as_dict(),
        "run": run,
        "recipe": recipe,
        "blocks": list(blocks),
        "plan": dict(plan),
        "plan_digest": digest_of(dict(plan)),
        "manifest": manifest,
    }


def incident_body(missing: Sequence[Json]) -> Json:
    """Body of an incident: spends that an older copy of the ledger lacks; see `missing_spend`."""
    return {"code": DIVERGED, "missing": list(missing)}


def waived_body(contract: str, *, by: str) -> Json:
    """Body of a mark: the units are used without privacy under this contract, by `OWNER` or by `USE`."""
    return {"contract": contract, "by": by}


def missing_spend(
    cap: Cap,
    *,
    run: str,
    recipe: str,
    place: tuple[int, int],
    blocks: Sequence[str],
    plan: Mapping[str, Any],
    steps: int,
    subject: str | None = None,
) -> Json:
    """One spend of an incident: what it was for, and where; ``place`` is its round and attempt."""
    named = {} if subject is None else {"subject": subject}
    body = reserve_body(cap, run=run, recipe=recipe, blocks=blocks, plan=plan, manifest="")
    return named | body | {"round": place[0], "attempt": place[1], "steps": steps}


def _genesis(state: LedgerState, body: Json) -> LedgerState:
    cap = Cap.from_dict(body["cap"])
    return replace(state, genesis=cap, cap=cap, unit=body["unit"], adjacency=body["adjacency"])


def _block(state: LedgerState, body: Json) -> LedgerState:
    name, units = body["block"], body["units"]
    split_of(name)
    if name in state.blocks and not units:
        raise BudgetError(need="a new block", found=name, remedy="a block is opened once")
    known = [one for one in units if one in state.units]
    if known or len(set(units)) != len(units):
        raise LineageUnknownError(
            need="units that are in no block yet",
            found=f"one of {state.units[known[0]]}" if known else "a unit twice",
            remedy="a unit stays in its first block",
        )
    opened = state.blocks if name in state.blocks else {**state.blocks, name: {}}
    return replace(state, blocks=opened, units={**state.units, **{one: str(name) for one in units}})


def _tighten(state: LedgerState, body: Json) -> LedgerState:
    return replace(state, cap=state.lineage.tightened(body["epsilon_total"]))


def _new_hold(state: LedgerState, body: Json) -> Hold:
    """The reservation that an entry is about, once its plan and blocks are what they must be."""
    plan = body["plan"]
    split = split_charged(plan)
    blocks = blocks_of(split, body["blocks"])
    if not set(blocks) <= set(state.blocks):
        raise BudgetError(need="open blocks", found=" ".join(blocks)[:80], remedy="import the data first")
    if body["plan_digest"] != digest_of(plan):
        raise PlanMismatchError(need=body["plan_digest"], found=digest_of(plan), remedy="sync the recipe")
    if plan.get("unit") != state.unit or plan.get("adjacency") != state.adjacency:
        raise PlanMismatchError(
            need=f"unit {state.unit}, adjacency {state.adjacency}",
            found=f"unit {plan.get('unit')}, adjacency {plan.get('adjacency')}",
            remedy="a plan for the lineage's own unit",
        )
    q, sigma, steps, per_touch = plan_facts(plan)
    return Hold(
        contract=Cap.from_dict(body["contract"]),
        split=split,
        blocks=blocks,
        plan_digest=body["plan_digest"],
        manifest=body["manifest"],
        mechanism=(q, sigma),
        steps_left=steps,
        steps_per_touch=per_touch,
        lineage_step=rho_step_nano(q=q, sigma=sigma, order=state.lineage.order),
    )


def _reserve(state: LedgerState, body: Json) -> LedgerState:
    hold, run = _new_hold(state, body), body["run"]
    if (run, hold.split) in state.holds:
        raise BudgetError(need="one reservation per run and split", found=run, remedy="go on with it")
    own = Cap.from_dict(body["own"]) if "own" in body else None
    if own is not None and own.scope != hold.contract.scope:
        raise BudgetError(
            need=hold.contract.scope, found=own.scope, remedy="an owner's cap is one of the contract's"
        )
    for block in hold.blocks:
        _check_fits(state.lineage, state.in_block(block), hold, name=f"{state.lineage.scope[:19]} {block}")
    for cap in (hold.contract,) if own is None else (hold.contract, own):
        _check_fits(cap, state.under(cap, hold.split), hold, name=cap.scope[:19])
    moved = _moved(state, hold, held=hold.steps_left)
    return replace(moved, holds={**state.holds, (run, hold.split): hold})


def _check_fits(cap: Cap, before: Total, hold: Hold, *, name: str) -> None:
    q, sigma = hold.mechanism
    cost = hold.steps_left * rho_step_nano(q=q, sigma=sigma, order=cap.order)
    if before.both + cost > cap.rho_max_nano:
        left = max(0, cap.rho_max_nano - before.both)
        raise BudgetExhaustedError(
            need=f"{cost} of {cap.rho_max_nano} nano-rho at order {cap.order} under {name}",
            found=f"{left} left: this plan fits {left // cost} times",
            remedy="more noise or fewer steps; a budget does not come back. A run reads all blocks of a data "
            "set: new episodes help only as one of their own, under a contract with its own budget",
        )


def _open_hold(state: LedgerState, run: str, split: str) -> Hold:
    hold = state.holds.get((run, split))
    if hold is None or not hold.open:
        raise BudgetExhaustedError(
            need=f"an open reservation of {run} for {split} units",
            found="none" if hold is None else "a closed one",
            remedy="reserve before training",
        )
    return hold


def _touch(state: LedgerState, body: Json) -> LedgerState:
    run, split = body["run"], body["split"]
    mechanism = (run, split, body["round"], body["attempt"])
    hold = _open_hold(state, run, split)
    if mechanism in state.touched:
        raise BudgetExhaustedError(
            need="each round and attempt once",
            found=f"round {body['round']}, attempt {body['attempt']} again",
            remedy="resend the reply in the outbox, or train under a new attempt",
        )
    if body["steps"] != hold.steps_per_touch or hold.steps_left < hold.steps_per_touch:
        raise BudgetExhaustedError(
            need=f"{hold.steps_per_touch} steps of the plan",
            found=f"{hold.steps_left} left",
            remedy="the plan's steps are used up, retries included: commit and plan anew",
        )
    after = _taken(state, (run, split), hold, hold.steps_per_touch)
    for block in hold.blocks:  # a cap that was tightened after the reservation
        if after.in_block(block).spent > state.lineage.rho_max_nano:
            raise exhausted_total(state.lineage, f"{block} at its cap, which was tightened")
    return replace(after, touched=state.touched | {mechanism})


def _taken(state: LedgerState, key: tuple[str, str], hold: Hold, steps: int) -> LedgerState:
    """The state after steps of a reservation were spent; those that it does not hold any more cost anew."""
    held = min(steps, hold.steps_left)
    after = replace(hold, steps_left=hold.steps_left - held, steps_spent=hold.steps_spent + steps)
    moved = _moved(state, hold, spent=steps, held=-held)
    return replace(moved, holds={**state.holds, key: after})


def _moved(state: LedgerState, hold: Hold, *, spent: int = 0, held: int) -> LedgerState:
    """Steps of a hold's blocks, and of its contract, after a movement of the hold's own."""
    blocks = dict(state.blocks)
    for block in hold.blocks:
        blocks[block] = _added(blocks[block], hold.mechanism, spent, held)
    key = (hold.contract.scope, hold.split)
    mine = _added(state.contracts.get(key, {}), hold.mechanism, spent, held)
    return replace(state, blocks=blocks, contracts={**state.contracts, key: mine})


def _added(steps: Steps, mechanism: Mechanism, spent: int, held: int) -> Steps:
    return {**steps, mechanism: steps.get(mechanism, Total()).add(spent=spent, held=held)}


def _close(state: LedgerState, body: Json) -> LedgerState:
    key = (body["run"], body["split"])
    hold = _open_hold(state, *key)
    closed = replace(hold, steps_left=0, open=False)
    return replace(_moved(state, hold, held=-hold.steps_left), holds={**state.holds, key: closed})


def _cancel(state: LedgerState, body: Json) -> LedgerState:
    if _open_hold(state, body["run"], body["split"]).steps_spent:
        raise CancelAfterTouchError(
            need="a reservation whose data were never read",
            found="a touched one",
            remedy="commit it: what was spent stays spent, the rest is released",
        )
    return _close(state, body)


def _incident(state: LedgerState, body: Json) -> LedgerState:
    if body["code"] != DIVERGED or not body["missing"]:
        raise BudgetError(need=f"{DIVERGED} and what was missing", found="another", remedy="none")
    for one in body["missing"]:
        state = _append_missing(state, one)
    return replace(state, incidents=state.incidents + 1)


def _waived(state: LedgerState, body: Json) -> LedgerState:
    contract, by = str(body["contract"]), body["by"]
    if by not in {OWNER, USE} or state.waived.get(contract) in {by, OWNER}:
        raise BudgetError(need="a mark that is not there yet", found=contract, remedy="it is marked so")
    return replace(state, waived={**state.waived, contract: by})


def _append_missing(state: LedgerState, body: Json) -> LedgerState:
    told, steps = _new_hold(state, body), body["steps"]
    key, place = (body["run"], told.split), (body["round"], body["attempt"])
    if (*key, *place) in state.touched or steps < told.steps_per_touch:
        raise BudgetError(
            need="spends that the ledger lacks, at their full steps", found=str(place), remedy="leave it out"
        )
    hold = state.holds.get(key, replace(told, steps_left=0, open=False))
    if hold.plan_digest != told.plan_digest:
        raise PlanMismatchError(need=hold.plan_digest, found=told.plan_digest, remedy="sync the recipe")
    after = _taken(state, key, hold, steps)
    beyond = {block: after.blocks[block] for block in told.blocks if block not in hold.blocks}
    spent = {block: _added(known, hold.mechanism, steps, 0) for block, known in beyond.items()}
    return replace(after, blocks={**after.blocks, **spent}, touched=state.touched | {(*key, *place)})


_MOVES: Final = {
    "genesis": _genesis,
    "block": _block,
    "tighten": _tighten,
    "reserve": _reserve,
    "touch": _touch,
    "commit": _close,
    "cancel": _cancel,
    "incident": _incident,
    "waived": _waived,
}


def epsilon_after(
    state: LedgerState, cap: Cap, *, split: str, plan: Mapping[str, Any] | None = None
) -> float:
    """Epsilon that a contract's filter stands at, spent and held; with ``plan`` as if that were held too.

    It may be above the cap: then `apply` would refuse the reservation.
    """
    rho = state.under(cap, split).both
    if plan is not None:
        q, sigma, steps, _ = plan_facts(plan)
        rho += steps * rho_step_nano(q=q, sigma=sigma, order=cap.order)
    return epsilon_filter(rho_nano=rho, delta=float(cap.delta), order=cap.order)


def epsilon_in(state: LedgerState, blocks: Iterable[str]) -> float:
    """Epsilon that the lineage's filter stands at, spent and held, in the fullest of these blocks."""
    cap, rho = state.lineage, max(state.in_block(one).both for one in blocks)
    return epsilon_filter(rho_nano=rho, delta=float(cap.delta), order=cap.order)


def epsilon_of(cap: Cap, rho_nano: int) -> float:
    """Epsilon that an amount of a cap's budget stands for; 0 for nothing."""
    return epsilon_filter(rho_nano=rho_nano, delta=float(cap.delta), order=cap.order) if rho_nano else 0.0


def exhausted_total(cap: Cap, epsilon: str) -> BudgetExhaustedError:
    """Refusal where what is spent and held already is over a cap that was tightened afterwards."""
    return BudgetExhaustedError(
        need=f"at most epsilon {cap.epsilon_total} in all",
        found=epsilon,
        remedy="nothing more is trained under this cap; what was spent does not come back",
    )


def exhausted_release(cap: Cap, epsilon: str) -> BudgetExhaustedError:
    """Refusal of a plan whose own epsilon is over the cap per release."""
    return BudgetExhaustedError(
        need=f"at most epsilon {cap.epsilon_per_release} per release",
        found=epsilon,
        remedy="more noise or fewer steps; see the planner",
    )
